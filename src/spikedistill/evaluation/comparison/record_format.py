"""The format of a line of `records.jsonl`."""

import base64
import re
import zlib
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, ValidationError

from ...config import Config
from ...errors import UserError
from ...files import sha256
from ..results import Agreement, Scores, first_fault

# A run of 300 epochs on 10,000 test samples has about 400 kB.
LARGEST_LINE = 16 * 2**20
MOST_ANSWERS = 2**28  # timesteps times test samples

Figure = FiniteFloat | int


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Numbers(_Part):
    """The numbers of a record, without its settings and the results on each sample."""

    results: Scores
    cost: dict[str, Figure]
    metrics: list[dict[str, str]]
    heldout_area: Figure | None = None
    teacher: Agreement = Agreement()

    def check_fits(self, config: Config) -> None:
        """Refuse numbers that do not fit the settings of the run.

        Raises:
            UserError: naming them.
        """
        places = [entry.k for entry in self.results.single]
        if places != list(range(1, config.timesteps + 1)):
            raise UserError(f"it has scores of the timesteps {places}, expected 1 to {config.timesteps}")
        if len(self.metrics) != config.epochs:
            raise UserError(f"it has metrics of {len(self.metrics)} epochs, expected {config.epochs}")


class Answers(_Part):
    """Whether the first k timesteps are right on each of N test samples, as packed bits."""

    shape: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]
    bits: str

    @classmethod
    def packed(cls, right: npt.NDArray[np.bool_]) -> "Answers":
        bits = base64.b64encode(zlib.compress(np.packbits(right).tobytes(), 9)).decode()
        return cls(shape=list(right.shape), bits=bits)

    def unpacked(self) -> npt.NDArray[np.bool_]:
        """Whether each sample is right after k timesteps, `[K, N]` bool.

        Raises:
            UserError: if the bits are damaged, or their number does not fit the shape.
        """
        K, N = self.shape
        if K * N > MOST_ANSWERS:
            raise UserError(f"its predictions have the shape {self.shape}, expected at most {MOST_ANSWERS} in all")
        size, unpacking = -(-K * N // 8), zlib.decompressobj()
        try:  # reads no more bytes than the shape needs, even if the bits unpack to more
            raw = unpacking.decompress(base64.b64decode(self.bits, validate=True), size + 1)
        except (zlib.error, ValueError) as error:  # of base64
            raise UserError(f"its predictions are damaged: {error}") from None
        if len(raw) != size or not unpacking.eof or unpacking.unused_data:
            raise UserError(f"its predictions are not those of {K} timesteps and {N} samples")
        return np.unpackbits(np.frombuffer(raw, np.uint8), count=K * N).reshape(K, N).astype(bool)


class Line(Numbers):
    """A run with numbers."""

    run: str
    config: dict[str, Any]
    right: Answers
    teacher_inside: bool = False  # absent in lines of version 0.1.0 that name no teacher


class DivergedLine(_Part):
    """A run without numbers."""

    run: str
    config: dict[str, Any]
    diverged: str
    teacher_inside: bool


def parse_line(line: bytes) -> Line | DivergedLine:
    """Read a line and verify its checksum, if it has one; version 0.1.0 wrote none.

    Raises:
        UserError: naming the fault.
    """
    content = _unsealed(line)
    kind = DivergedLine if b'"diverged":' in content else Line
    try:
        return kind.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise UserError(why(error)) from None


def parts(numbers: Numbers) -> dict[str, Any]:
    """The numbers by name."""
    return {name: getattr(numbers, name) for name in Numbers.model_fields}


def why(error: ValidationError | UserError) -> str:
    """The first fault, in one line."""
    return first_fault(error) if isinstance(error, ValidationError) else str(error)


def sealed(content: str) -> str:
    """A JSON object with its checksum as its last value."""
    return f'{content[:-1]},"sha256":"{sha256(content.encode())}"}}'


_SEAL = re.compile(rb',"sha256":"([0-9a-f]{64})"}\Z')


def _unsealed(line: bytes) -> bytes:
    """The object without its checksum.

    Raises:
        UserError: if the two do not fit.
    """
    if (seal := _SEAL.search(line)) is None:
        return line
    content = line[: seal.start()] + b"}"
    if sha256(content).encode() != seal[1]:
        raise UserError("its checksum does not fit")
    return content
