"""What a comparison keeps of every run, in one small file: enough to compare them again where their folders are gone."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from ...config import Config
from ...errors import UserError
from ...files import parse_json, write_atomically
from ...objectives.submodels import prefix_means, right_submodels
from ...run_folder import RunFolder
from ..results import Agreement, Scores, read_results
from .record_format import LARGEST_LINE, Answers, Line, Numbers, parse_line, parts, sealed, why

# Settings of a place rather than of a run.
_ELSEWHERE = ("out", "resume", "overwrite")
RECORDS = "records.jsonl"


@dataclass(frozen=True)
class RunRecord:
    """One finished run.

    Attributes:
        config: what it was trained with.
        results: of `results.json`, what it scored over time.
        cost: `{training_s, images_per_s, peak_mib}`; empty where training measured none, without `training_s` of earlier versions.
        metrics: the rows of its `metrics.csv`, one per epoch.
        right: `[K, N]` bool, whether the first k timesteps together are right on each test sample. K is the largest k that the run
            was evaluated at, which for static images is above the T that it was trained with.
        heldout_area: accuracy in percent on held-out training samples, the mean over the first k timesteps, k = 1..T; None without
            any.
        teacher: how often it answers as the run that taught it, where there was one.
    """

    config: Config
    results: Scores
    cost: dict[str, Any]
    metrics: list[dict[str, str]]
    right: npt.NDArray[np.bool_]
    heldout_area: float | None = None
    teacher: Agreement = field(default_factory=Agreement)

    @classmethod
    def of(cls, run: Path) -> "RunRecord":
        """The record of a finished run's folder.

        Raises:
            FileNotFoundError: where the run has not been evaluated.
            UserError: where a file of it is damaged.
        """
        folder = RunFolder(run)
        results = read_results(folder)
        saved = folder.read_tensors(folder.logits, "logits", "targets")
        right = [_right(folder, saved, "logits", "targets")]
        if "beyond_right" in saved:
            right.append(saved["beyond_right"].bool())
        heldout = None
        if "holdout_logits" in saved:
            heldout = 100 * float(_right(folder, saved, "holdout_logits", "holdout_targets").double().mean())
        config = folder.config()
        try:
            numbers = Numbers.model_validate(
                {
                    "results": results.last.scores(),
                    "cost": folder.read_cost() or results.cost.model_dump(exclude_unset=True),
                    "metrics": folder.read_rows(folder.metrics),
                    "heldout_area": heldout,
                    "teacher": results.teacher,
                },
                strict=True,
            )
            numbers.check_fits(config)
        except (ValidationError, UserError) as error:
            raise UserError(f"{run}: its results do not belong together: {why(error)}") from None
        return cls(config, right=torch.cat(right).numpy(), **parts(numbers))

    def to_json(self, run: str, folder: Path) -> str:
        """One line; paths below the comparison's folder are kept relative to it, and where data lay is left out."""
        numbers = {name: _plain(getattr(self, name)) for name in Numbers.model_fields}
        answers = Answers.packed(self.right).model_dump()
        return _line(run, self.config, folder, **numbers, right=answers)


@dataclass(frozen=True)
class LostRun:
    """A run without numbers.

    Attributes:
        config: what it was to be trained with.
        status: "diverged", or "not trained" where it was to learn from one that diverged.
        reason: what happened, in words.
    """

    config: Config
    status: Literal["diverged", "not trained"]
    reason: str

    @classmethod
    def of(cls, run: Path) -> "LostRun":
        """A run that diverged.

        Raises:
            FileNotFoundError: where it did not.
            UserError: where a file of it is damaged.
        """
        folder = RunFolder(run)
        where = parse_json(folder.read(folder.diverged), folder.diverged)
        if not isinstance(message := where.get("message"), str):
            raise UserError(f"{folder.diverged} is damaged: it has no message; delete it to go on with the run")
        return cls(folder.config(), "diverged", message)

    def to_json(self, run: str, folder: Path) -> str:
        """One line, as of a `RunRecord`."""
        return _line(run, self.config, folder, diverged=self.reason)


def _plain(part: Any) -> Any:
    return part.model_dump(exclude_unset=True) if isinstance(part, BaseModel) else part


def _line(run: str, config: Config, folder: Path, **parts: Any) -> str:
    written = {key: value for key, value in config.written().items() if key not in _ELSEWHERE}
    written["data"].pop("root")
    teacher = config.teacher
    inside = teacher is not None and teacher.is_relative_to(folder)
    if teacher is not None and inside:
        written["teacher"] = teacher.relative_to(folder).as_posix()
    row = {"run": run, "config": written, **parts, "teacher_inside": inside}
    return sealed(json.dumps(row, allow_nan=False, separators=(",", ":")))


def from_json(line: bytes | str, folder: Path) -> tuple[str, RunRecord | LostRun]:
    """What `to_json` wrote: the run's path below the comparison's folder, and its record.

    Raises:
        UserError: where the line holds anything else.
    """
    found = parse_line(line.encode() if isinstance(line, str) else line)
    config = Config.from_written(found.config)
    if config.teacher is not None and found.teacher_inside:
        config = config.model_copy(update={"teacher": folder / config.teacher})
    if not isinstance(found, Line):
        return found.run, LostRun(config, "diverged", found.diverged)
    found.check_fits(config)
    right = found.right.unpacked()
    if len(right) < config.timesteps:
        raise UserError(f"its answers are of {len(right)} timesteps, expected {config.timesteps} or more")
    return found.run, RunRecord(config, right=right, **parts(found))


def _right(folder: RunFolder, saved: Mapping[str, Tensor], of: str, truth: str) -> Tensor:
    """Whether the first t timesteps together are right on each sample, `[T, N]`, from logits `[T, N, C]`."""
    logits, targets = saved[of], saved.get(truth, torch.empty(0))
    if logits.ndim != 3 or targets.shape != logits.shape[1:2] or not logits.isfinite().all():
        raise UserError(
            f"{folder.logits} is damaged: expected finite {of} [T, N, C] and {truth} [N], got {list(logits.shape)} and "
            f"{list(targets.shape)}; spikedistill evaluate {folder.path} writes it anew"
        )
    return right_submodels(prefix_means(logits.double()), targets)


class Records:
    """The runs of a comparison that have ended: those whose folders are there, and those that its `records.jsonl` remembers.

    Args:
        folder: of the comparison.

    Raises:
        UserError: naming the file and its line, where it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / RECORDS
        self._lines = self._written()

    def runs(self) -> list[str]:
        """The runs that the file remembers, by their path below the folder."""
        return sorted(self._lines)

    def find(self, run: Path) -> RunRecord | LostRun | None:
        """The record of the run of that folder; None where it has not ended.

        Raises:
            UserError: where a file of it is damaged.
        """
        folder = RunFolder(run)
        if folder.is_complete:
            return RunRecord.of(run)
        if folder.diverged.is_file():
            return LostRun.of(run)
        line = self._lines.get(self._name(run))
        found = None if line is None else from_json(line, self.folder)[1]
        # one that diverged and was begun again goes on
        return None if isinstance(found, LostRun) and folder.config_file.is_file() else found

    def find_in(self, other: "Records", run: Path) -> RunRecord | LostRun | None:
        """What another comparison has under the name of this run, as a record of this one; None where it has none."""
        name = self._name(run)
        record = other.find(other.folder / name)
        return None if record is None else from_json(record.to_json(name, other.folder), self.folder)[1]

    def add(self, run: Path, record: RunRecord | LostRun) -> None:
        """Remember a run that was trained elsewhere; `keep` writes it down."""
        name = self._name(run)
        self._lines[name] = record.to_json(name, self.folder)

    def keep(self, runs: Iterable[Path]) -> None:
        """Write down what was added, and the runs whose folders are there and have ended."""
        for run in runs:
            folder = RunFolder(run)
            if folder.is_complete or folder.diverged.is_file():
                self.add(run, RunRecord.of(run) if folder.is_complete else LostRun.of(run))
        text = "".join(f"{line}\n" for _, line in sorted(self._lines.items()))
        if text.encode() != (self.file.read_bytes() if self.file.is_file() else b""):
            write_atomically(self.file, text)

    def _written(self) -> dict[str, str]:
        """The lines of the file by run."""
        lines: dict[str, str] = {}
        for number, line in enumerate(_lines(self.file), 1):
            try:
                if len(line) > LARGEST_LINE:
                    raise UserError(f"it is longer than {LARGEST_LINE} bytes")
                run, _ = from_json(line, self.folder)
                text = line.decode()
                if lines.setdefault(run, text) != text:
                    raise UserError(f"another line has other numbers for {run}")
            except UserError as error:
                raise UserError(
                    f"{self.file}, line {number}, is no record of a run ({error}): delete the line to train that run again"
                ) from None
        return lines

    def _name(self, run: Path) -> str:
        return run.relative_to(self.folder).as_posix()


def _lines(file: Path) -> Iterator[bytes]:
    """The lines of a file, none where it is missing; of one that is too long only the beginning, and nothing after it."""
    if not file.is_file():
        return
    with file.open("rb") as opened:
        while line := opened.readline(LARGEST_LINE + 1):
            yield line.removesuffix(b"\n")
            if len(line) > LARGEST_LINE:
                return
