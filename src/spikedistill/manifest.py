"""The manifest of a folder: the versions that wrote it, and size and SHA-256 of each file, so that damage is noticed."""

import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import UserError
from .files import parse_json, sha256, write_atomically

MANIFEST = "manifest.json"
SCHEMA = 1
Kind = Literal["run", "comparison"]


class Entry(BaseModel):
    """A file: its size in bytes and its SHA-256 in hexadecimal."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> Self:
        return cls(size=len(content), sha256=sha256(content))

    def fits(self, content: bytes) -> bool:
        """Whether this content is the one that was listed."""
        return self == self.of(content)


class Manifest(BaseModel):
    """The content of `manifest.json`, which has its own checksum and is replaced as a whole.

    Before a file is written, its entry is removed; when the file is complete, a new entry is added. So a file with an entry is
    complete, and a file without one was being written when a process was killed.

    Attributes:
        schema_version: of this file.
        kind: what the folder is.
        made_with: versions of the package, and of everything that decides numbers: `{"augmentation": 1, "slicing": 1}`.
        files: size and checksum by file name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: int = SCHEMA
    kind: Kind
    made_with: dict[str, str | int]
    files: dict[str, Entry] = {}

    @classmethod
    def new(cls, kind: Kind, **versions: int) -> Self:
        """The manifest of an empty folder."""
        return cls(kind=kind, made_with={"spikedistill": version("spikedistill"), **versions})

    @classmethod
    def read(cls, folder: Path, kind: Kind) -> Self | None:
        """The manifest of a folder; None if there is none, as in version 0.1.0.

        Raises:
            UserError: if it is damaged, written by a newer version, or of another kind of folder.
        """
        path = folder / MANIFEST
        if not path.is_file():
            return None
        content = parse_json(path.read_bytes(), path)
        if content.pop("sha256", None) != _digest(content):
            raise UserError(
                f"{path} is damaged, or no manifest of spikedistill: its checksum does not fit. Without this file the folder is "
                "read unverified"
            )
        if isinstance(newer := content.get("schema_version"), int) and newer > SCHEMA:
            raise UserError(
                f"{path} is of schema {newer}, and this version of spikedistill reads up to {SCHEMA}: use a newer one"
            )
        try:
            manifest = cls.model_validate(content)
        except ValidationError as error:
            raise UserError(f"{path} is no manifest of spikedistill: {error.errors()[0]['msg']}") from None
        if manifest.kind != kind:
            raise UserError(f"{folder} is the folder of a {manifest.kind}, expected that of a {kind}")
        return manifest

    def write(self, folder: Path) -> None:
        """Write the manifest into a folder."""
        content = self.model_dump(mode="json")
        write_atomically(folder / MANIFEST, json.dumps({**content, "sha256": _digest(content)}, indent=1) + "\n")

    def without(self, names: Iterable[str]) -> Self:
        """The manifest without these files."""
        dropped = set(names)
        return self.model_copy(update={"files": {n: entry for n, entry in self.files.items() if n not in dropped}})

    def with_files(self, folder: Path, names: Iterable[str]) -> Self:
        """The manifest with new entries for these files, and without entries for those that are missing in the folder."""
        names = list(names)
        found = {n: Entry.of((folder / n).read_bytes()) for n in names if (folder / n).is_file()}
        return self.model_copy(update={"files": dict(sorted((self.without(names).files | found).items()))})


def _digest(content: dict[str, object]) -> str:
    """The checksum of a manifest, independent of the order and spacing of its text."""
    return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
