"""A folder's manifest: what wrote it, and each of its files with size and SHA-256, so that readers notice damage."""

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
        """Whether this is what the file held when it was listed."""
        return self == self.of(content)


class Manifest(BaseModel):
    """What `manifest.json` holds; it carries its own checksum, and is replaced as a whole.

    A file is taken out before it is written anew, and put back once it is whole. So a file that is listed has not been touched
    since, and one that is not listed was being written when a process was killed.

    Attributes:
        schema_version: of this file.
        kind: what the folder is.
        made_with: versions of the package, and of what decides numbers: `{"augmentation": 1, "slicing": 1}`.
        files: by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: int = SCHEMA
    kind: Kind
    made_with: dict[str, str | int]
    files: dict[str, Entry] = {}

    @classmethod
    def new(cls, kind: Kind, **versions: int) -> Self:
        """That of a folder with nothing in it yet."""
        return cls(kind=kind, made_with={"spikedistill": version("spikedistill"), **versions})

    @classmethod
    def read(cls, folder: Path, kind: Kind) -> Self | None:
        """The manifest of a folder; None where there is none, as in version 0.1.0.

        Raises:
            UserError: where it is damaged, of a newer version, or of another kind of folder.
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
        """Replace the folder's manifest."""
        content = self.model_dump(mode="json")
        write_atomically(folder / MANIFEST, json.dumps({**content, "sha256": _digest(content)}, indent=1) + "\n")

    def without(self, names: Iterable[str]) -> Self:
        """The manifest with these files taken out."""
        dropped = set(names)
        return self.model_copy(update={"files": {n: entry for n, entry in self.files.items() if n not in dropped}})

    def with_files(self, folder: Path, names: Iterable[str]) -> Self:
        """The manifest with these files as they lie in the folder; those that are not there are taken out."""
        names = list(names)
        found = {n: Entry.of((folder / n).read_bytes()) for n in names if (folder / n).is_file()}
        return self.model_copy(update={"files": dict(sorted((self.without(names).files | found).items()))})


def _digest(content: dict[str, object]) -> str:
    """The checksum of a manifest, whatever the order and spacing of its text."""
    return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
