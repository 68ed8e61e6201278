"""The records of a comparison: one small file with all that is needed to compare its runs again without their folders."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from ...config import Config
from ...errors import UserError
from ...files import parse_json, sha256, write_atomically
from ...objectives.submodels import prefix_means, right_submodels
from ...run_folder import RunFolder
from ..results import Agreement, Scores, read_results
from .record_format import LARGEST_LINE, Answers, Line, Numbers, parse_line, parts, sealed, why

# Settings that belong to the machine and not to the run.
_ELSEWHERE = ("out", "resume", "overwrite")
RECORDS = "records.jsonl"


@dataclass(frozen=True)
class RunRecord:
    """One finished run.

    Attributes:
        config: its settings.
        results: its scores, from `results.json`.
        cost: `{training_s, images_per_s, peak_mib}`; empty if training measured none; earlier versions have no `training_s`. Also
            `teacher_s`, the seconds that its teacher and the network that it starts from were trained for, if their runs know them.
        metrics: the rows of its `metrics.csv`, one per epoch.
        right: `[K, N]`, whether the first k timesteps together are right on each test sample. K is the largest k that the run
            was evaluated at; for static images it is larger than the T of training. For runs with several teachers, a share.
        heldout_area: accuracy in percent on held-out training samples, the mean over the first k timesteps, k = 1..T; None if
            there are none.
        teacher: how often it predicts the same class as its teacher, if it had one.
    """

    config: Config
    results: Scores
    cost: dict[str, Any]
    metrics: list[dict[str, str]]
    right: npt.NDArray[Any]
    heldout_area: float | None = None
    teacher: Agreement = field(default_factory=Agreement)

    @classmethod
    def of(cls, run: Path) -> "RunRecord":
        """The record of a finished run's folder.

        Raises:
            FileNotFoundError: if the run has not been evaluated.
            UserError: if one of its files is damaged.
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
                    "cost": (folder.read_cost() or results.cost.model_dump(exclude_unset=True))
                    | _teacher_seconds(config),
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

    @property
    def numbers(self) -> Numbers:
        """Its numbers as one value."""
        return Numbers.model_construct(**{name: getattr(self, name) for name in Numbers.model_fields})

    def to_json(self, run: str, folder: Path) -> str:
        """One line of JSON. Paths below the comparison's folder are relative to it; the folder of the data is not kept."""
        numbers = {name: _plain(getattr(self, name)) for name in Numbers.model_fields}
        answers = Answers.packed(self.right).model_dump()
        return _line(run, self.config, folder, **numbers, right=answers)


@dataclass(frozen=True)
class LostRun:
    """A run without numbers.

    Attributes:
        config: its settings.
        status: "diverged", or "not trained" if its teacher diverged.
        reason: what happened, in words.
    """

    config: Config
    status: Literal["diverged", "not trained"]
    reason: str

    @classmethod
    def of(cls, run: Path) -> "LostRun":
        """A run that diverged.

        Raises:
            FileNotFoundError: if it did not diverge.
            UserError: if one of its files is damaged.
        """
        folder = RunFolder(run)
        where = parse_json(folder.read(folder.diverged), folder.diverged)
        if not isinstance(message := where.get("message"), str):
            raise UserError(f"{folder.diverged} is damaged: it has no message; delete it to go on with the run")
        return cls(folder.config(), "diverged", message)

    def to_json(self, run: str, folder: Path) -> str:
        """One line of JSON, as for a `RunRecord`."""
        return _line(run, self.config, folder, diverged=self.reason)


def _teacher_seconds(config: Config) -> dict[str, float]:
    given = [path for path in (config.teacher, config.init_from) if path is not None]
    runs = {(path if path.is_dir() else path.parent).resolve() for path in given}
    seconds = [RunFolder(run).read_cost().get("training_s") for run in runs]
    known = [each for each in seconds if each is not None]
    return {"teacher_s": sum(known)} if runs and len(known) == len(runs) else {}


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
    """Read a line of `to_json`: the run's path below the comparison's folder, and its record.

    Raises:
        UserError: if the line is not such a record.
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
        raise UserError(f"its predictions are of {len(right)} timesteps, expected {config.timesteps} or more")
    return found.run, RunRecord(config, right=right, **parts(found))


def with_present_teacher(config: Config, folder: Path) -> Config:
    """The settings of a run of a comparison that was moved or copied to `folder`, with the present path of its teacher there."""
    teacher = config.teacher
    if teacher is None or teacher.is_relative_to(folder):
        return config
    own = folder.joinpath(*teacher.parts[-2:])
    is_own = own.exists() and (not teacher.exists() or is_same_network(own, teacher))
    return config.model_copy(update={"teacher": own}) if is_own else config


def is_same_network(one: Path, other: Path) -> bool:
    """Whether the weights of two runs, or two files, are equal."""
    files = [RunFolder(path).model if path.is_dir() else path for path in (one, other)]
    return all(file.is_file() for file in files) and len({sha256(file.read_bytes()) for file in files}) == 1


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
    """The runs of a comparison that have ended: those with a folder, and those in its `records.jsonl`.

    Args:
        folder: the comparison's folder.

    Raises:
        UserError: if a line cannot be read; the message names the file and the line.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / RECORDS
        self._lines = self._written()

    def runs(self) -> list[str]:
        """The runs in the file, by their path below the folder."""
        return sorted(self._lines)

    def find(self, run: Path) -> RunRecord | LostRun | None:
        """The record of the run in that folder; None if it has not ended.

        Raises:
            UserError: if one of its files is damaged.
        """
        folder = RunFolder(run)
        if (ended := self._ended(run)) is not None:
            return ended
        line = self._lines.get(self._name(run))
        found = None if line is None else from_json(line, self.folder)[1]
        # the folder of a run that diverged and was begun again has a config file: the run is not lost
        return None if isinstance(found, LostRun) and folder.config_file.is_file() else found

    def find_in(self, other: "Records", run: Path) -> RunRecord | LostRun | None:
        """The record of a run of this name in another comparison, as a record of this one; None if there is none."""
        name = self._name(run)
        record = other.find(other.folder / name)
        return None if record is None else from_json(record.to_json(name, other.folder), self.folder)[1]

    def add(self, run: Path, record: RunRecord | LostRun) -> None:
        """Add a run that was trained elsewhere; `keep` writes it to the file."""
        name = self._name(run)
        self._lines[name] = record.to_json(name, self.folder)

    def keep(self, runs: Iterable[Path]) -> None:
        """Write the added runs, and those of the given folders that have ended, to the file."""
        for run in runs:
            if (ended := self._ended(run)) is not None:
                self.add(run, ended)
        text = "".join(f"{line}\n" for _, line in sorted(self._lines.items()))
        if text.encode() != (self.file.read_bytes() if self.file.is_file() else b""):
            write_atomically(self.file, text)

    def _ended(self, run: Path) -> RunRecord | LostRun | None:
        """How the run in that folder has ended, with the present path of its teacher; None if it has not."""
        folder = RunFolder(run)
        found: RunRecord | LostRun | None = None
        if folder.is_complete:
            found = RunRecord.of(run)
        elif folder.diverged.is_file():
            found = LostRun.of(run)
        return None if found is None else replace(found, config=with_present_teacher(found.config, self.folder))

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
    """The lines of a file, none if it is missing; a line that is too long is cut and is the last."""
    if not file.is_file():
        return
    with file.open("rb") as opened:
        while line := opened.readline(LARGEST_LINE + 1):
            yield line.removesuffix(b"\n")
            if len(line) > LARGEST_LINE:
                return
