"""What a comparison keeps of every run, in one small file: enough to compare them again where their folders are gone."""

import base64
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..config import Config
from ..files import write_atomically
from ..objectives.submodels import prefix_means, right_submodels
from ..run_folder import RunFolder

# Settings of a place rather than of a run.
_ELSEWHERE = ("out", "resume", "overwrite")


@dataclass(frozen=True)
class RunRecord:
    """One finished run.

    Attributes:
        config: what it was trained with.
        results: of `results.json`, what it scored over time: `{single, ensemble, firing_rates}`, and its agreement with a teacher,
            `{agreement, agreement_where_wrong}`, where there was one.
        cost: `{training_s, images_per_s, peak_mib}`; empty where training measured none, without `training_s` of earlier versions.
        metrics: the rows of its `metrics.csv`, one per epoch.
        right: `[K, N]` bool, whether the first k timesteps together are right on each test sample. K is the largest k that the run
            was evaluated at, which for static images is above the T that it was trained with.
        heldout_area: accuracy in percent on held-out training samples, the mean over the first k timesteps, k = 1..T; None without
            any.
    """

    config: Config
    results: dict[str, Any]
    cost: dict[str, Any]
    metrics: list[dict[str, str]]
    right: npt.NDArray[np.bool_]
    heldout_area: float | None = None
    teacher: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Path) -> "RunRecord":
        """The record of a finished run's folder.

        Raises:
            FileNotFoundError: where the run has not been evaluated.
            ValueError: where a file of it is damaged.
        """
        folder = RunFolder(run)
        results = folder.read_results()
        saved = folder.read_tensors(folder.logits, "logits", "targets")
        right = [right_submodels(prefix_means(saved["logits"].double()), saved["targets"])]
        if "beyond_right" in saved:
            right.append(saved["beyond_right"].bool())
        heldout = None
        if "holdout_logits" in saved:
            answers = right_submodels(prefix_means(saved["holdout_logits"].double()), saved["holdout_targets"])
            heldout = 100 * float(answers.double().mean())
        kept = ("single", "ensemble", "firing_rates")
        return cls(
            config=folder.config(),
            results={key: value for key, value in results["last"].items() if key in kept},
            cost=folder.read_cost() or results.get("cost", {}),
            metrics=folder.read_rows(folder.metrics),
            right=torch.cat(right).numpy(),
            heldout_area=heldout,
            teacher=results.get("teacher", {}),
        )

    def to_json(self, run: str, folder: Path) -> str:
        """One line; paths below the comparison's folder are kept relative to it, and where data lay is left out."""
        config = self.config.model_dump(mode="json", exclude={*_ELSEWHERE, "data"})
        config["data"] = self.config.data.model_dump(mode="json", exclude={"root"})
        teacher = self.config.teacher
        inside = teacher is not None and teacher.is_relative_to(folder)
        if teacher is not None and inside:
            config["teacher"] = teacher.relative_to(folder).as_posix()
        bits = base64.b64encode(zlib.compress(np.packbits(self.right).tobytes(), 9)).decode()
        row = {
            "run": run,
            "config": config,
            "results": self.results,
            "cost": self.cost,
            "metrics": self.metrics,
            "right": {"shape": list(self.right.shape), "bits": bits},
            "heldout_area": self.heldout_area,
            "teacher": self.teacher,
            "teacher_inside": inside,
        }
        return json.dumps(row, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str, folder: Path) -> tuple[str, "RunRecord"]:
        """What `to_json` wrote: the run's path below the comparison's folder, and its record."""
        row = json.loads(line)
        row["results"]["single"]  # what every comparison reads
        shape = row["right"]["shape"]
        bits = np.frombuffer(zlib.decompress(base64.b64decode(row["right"]["bits"], validate=True)), np.uint8)
        config = Config(**row["config"])
        if config.teacher is not None and row["teacher_inside"]:
            config = config.model_copy(update={"teacher": folder / config.teacher})
        right = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)
        parts = {key: row[key] for key in ("results", "cost", "metrics", "heldout_area", "teacher")}
        return row["run"], cls(config=config, right=right, **parts)


class Records:
    """The finished runs of a comparison: those whose folders are there, and those that its `records.jsonl` remembers.

    Args:
        folder: of the comparison.

    Raises:
        ValueError: naming the file and its line, where it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "records.jsonl"
        self._lines = self._written()

    def find(self, run: Path) -> RunRecord | None:
        """The record of the run of that folder; None where it is not finished."""
        if RunFolder(run).is_complete:
            return RunRecord.of(run)
        line = self._lines.get(self._name(run))
        return None if line is None else RunRecord.from_json(line, self.folder)[1]

    def find_in(self, other: "Records", run: Path) -> RunRecord | None:
        """What another comparison has under the name of this run, as a record of this one; None where it has none."""
        name = self._name(run)
        record = other.find(other.folder / name)
        return None if record is None else RunRecord.from_json(record.to_json(name, other.folder), self.folder)[1]

    def add(self, run: Path, record: RunRecord) -> None:
        """Remember a run that was trained elsewhere; `keep` writes it down."""
        name = self._name(run)
        self._lines[name] = record.to_json(name, self.folder)

    def keep(self, runs: Iterable[Path]) -> None:
        """Write down what was added, and the runs whose folders are there and complete."""
        for run in runs:
            if RunFolder(run).is_complete:
                self.add(run, RunRecord.of(run))
        text = "".join(f"{line}\n" for _, line in sorted(self._lines.items()))
        if text != (self.file.read_text() if self.file.is_file() else ""):
            write_atomically(self.file, text)

    def _written(self) -> dict[str, str]:
        """The lines of the file by run."""
        lines: dict[str, str] = {}
        for number, line in enumerate(self.file.read_text().splitlines() if self.file.is_file() else [], 1):
            try:
                run, _ = RunRecord.from_json(line, self.folder)
            except (ValueError, KeyError, TypeError, zlib.error) as error:
                raise ValueError(
                    f"{self.file}, line {number}, is no record of a run ({error}): delete the line to train that run again"
                ) from None
            lines[run] = line
        return lines

    def _name(self, run: Path) -> str:
        return run.relative_to(self.folder).as_posix()
