"""What a folder of prepared samples holds: its manifest, written last."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import UserError
from ...files import parse_json, write_atomically

MANIFEST = "manifest.json"
SCHEMA: Literal[1] = 1
Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


class Part(BaseModel):
    """A file of samples.

    Attributes:
        name: of the file.
        rows: how many samples it holds.
        bytes, sha256: of the file.
        targets: class of each sample.
        events: how many events each sample has.
        lengths: how many frames of each sample lie before its end, if frames have a fixed duration.
        bad: recordings that could not be read, which are left out, with what is wrong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rows: int
    bytes: int
    sha256: str
    targets: tuple[int, ...]
    events: tuple[int, ...]
    lengths: tuple[int, ...] | None = None
    bad: tuple[str, ...] = ()


class PreparedManifest(BaseModel):
    """The contents of `manifest.json`.

    Attributes:
        schema_version: 1.
        dataset: name of the data set.
        made_with: versions of the package and of the slicing.
        options: what decided about the frames, by name.
        source: how many recordings there were, and a digest of their names and sizes.
        shape: of a sample, `[T, 2, H, W]`.
        classes: names of the classes.
        parts: files of training and of test samples, in order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1]
    dataset: str
    made_with: dict[str, str | int]
    options: dict[str, str | int | float | list[int] | None]
    source: dict[str, str | int]
    shape: tuple[int, int, int, int]
    classes: tuple[str, ...]
    parts: dict[Split, tuple[Part, ...]]

    def write(self, folder: Path) -> None:
        write_atomically(folder / MANIFEST, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "PreparedManifest":
        """That of a prepared folder.

        Raises:
            FileNotFoundError: there is none.
            UserError: if it is damaged, or of a newer version.
        """
        path = folder / MANIFEST
        values: dict[str, Any] = parse_json(path.read_bytes(), path)
        if values.get("schema_version") != SCHEMA:
            raise UserError(f"{path} has schema {values.get('schema_version')!r}, expected {SCHEMA}: prepare it again")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(
                f"{path} is damaged ({where}: {first['msg']}): remove {folder} and prepare it again"
            ) from None

    def bad(self) -> list[str]:
        """What is wrong with each recording that was left out."""
        return [fault for split in SPLITS for part in self.parts[split] for fault in part.bad]
