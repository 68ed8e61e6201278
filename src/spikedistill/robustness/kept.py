"""What came of each batch under attack, kept in a file as it is done, so that a measurement goes on where it was stopped."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor, uint8

from ..errors import UserError
from ..files import parse_json, sha256, write_atomically


class Kept:
    """Results of batches, in a file of JSON lines; those of other networks or samples stay there too.

    Args:
        file: the file; None keeps them in memory alone.
        subject: what the results are of, in short: `digest` of the network and the samples, and how they are attacked.

    Raises:
        UserError: if the file is damaged.
    """

    def __init__(self, file: Path | None, subject: str) -> None:
        self._file, self._subject = file, subject
        self._found: dict[tuple[str, int], Any] = {}
        self._lines: list[str] = []
        if file is None or not file.is_file():
            return
        self._lines = file.read_bytes().decode(errors="replace").splitlines()
        for line in self._lines:
            entry = parse_json(line, file)
            if set(entry) != {"of", "row", "batch", "found"} or type(entry["batch"]) is not int:
                self.refuse(f"a line has {', '.join(sorted(entry))[:60]}")
            if entry["of"] == subject:
                self._found[str(entry["row"]), entry["batch"]] = entry["found"]

    def __contains__(self, place: tuple[str, int]) -> bool:
        return place in self._found

    def __getitem__(self, place: tuple[str, int]) -> Any:
        """What came of a row, by its key, on the batch of that number."""
        return self._found[place]

    def add(self, row: str, batch: int, found: Any) -> None:
        """Keep what came of a batch; it is on the disk when this returns."""
        self._found[row, batch] = found
        self._lines.append(json.dumps({"of": self._subject, "row": row, "batch": batch, "found": found}))
        if self._file is not None:
            write_atomically(self._file, "\n".join(self._lines) + "\n")

    def refuse(self, why: str) -> NoReturn:
        """Raise `UserError` for content that no measurement wrote."""
        raise UserError(f"{self._file} is damaged: {why}; delete it, and the attacks are measured anew")


def digest(tensors: Iterable[Tensor]) -> str:
    """Of the tensors' bytes."""
    raw = b"".join(tensor.detach().cpu().contiguous().flatten().view(uint8).numpy().tobytes() for tensor in tensors)
    return sha256(raw)
