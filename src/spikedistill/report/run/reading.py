"""Reads a run folder and checks that its files are there, whole, and belong together.

Shapes: T timesteps, N test samples, C classes, n stored sample images.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ...errors import UserError
from ...evaluation.calibration import as_arrays
from ...evaluation.results import GradientRow, Results, first_fault, read_results
from ...files import parse_json, parse_yaml
from ...robustness.results import Robustness
from ...run_folder import RunFolder

Epochs = dict[str, list[float | None]]  # columns of metrics.csv; None if a cell is empty or not finite


@dataclass(frozen=True)
class Run:
    """The content of a run folder; the value of a missing optional file is None or empty."""

    config: dict[str, Any]
    config_text: str
    results: Results
    epochs: Epochs
    gradients: list[GradientRow]  # empty if no gradients were compared
    logits: Tensor | None  # float32 [T, N, C]
    targets: Tensor | None  # int64 [N]
    images: Tensor | None  # uint8 [n, channels, H, W]
    indices: Tensor | None  # int64 [n], which of the N samples the images are
    robustness: Robustness | None = None  # if the run was attacked
    lengths: Tensor | None = None  # int64 [N], the timesteps of each sample, if they differ

    @property
    def is_trained(self) -> bool:
        """Whether this is a training run, and not logits of any library."""
        return bool(self.config_text)

    @property
    def scored_on(self) -> str:
        """The scored samples and the weights, in words for the page."""
        count = "" if self.samples is None else f"{self.samples:,} samples"
        if not self.is_trained:
            return count
        return f"last epoch, test set{count and f' of {count}'}"

    @property
    def samples(self) -> int | None:
        """The number of test samples, if it is known."""
        return self.results.samples if self.targets is None else len(self.targets)

    @property
    def classes(self) -> list[str]:
        """Names of the classes; their numbers if the run has no names."""
        count = 0 if self.logits is None else self.logits.shape[-1]
        return self.results.classes or [str(index) for index in range(count)]


def read_run(path: Path | str) -> Run:
    """Read a run folder.

    Raises:
        FileNotFoundError: if the folder, its `config.yaml` or its `results.json` is missing.
        UserError: if a file is broken, or does not belong to the others.
    """
    folder = RunFolder(path)
    check_present(folder)
    run = Run(
        *_read_config(folder),
        read_results(folder),
        _read_epochs(folder),
        _read_gradients(folder),
        *_read_tensors(folder, folder.logits, "logits", "targets"),
        *_read_tensors(folder, folder.samples, "images", "indices"),  # type: ignore[call-arg]
        _read_robustness(folder),
        folder.read_tensors(folder.logits).get("lengths") if folder.logits.is_file() else None,
    )
    _check_logits(run, folder.logits)
    _check_samples(run, folder.samples)
    return run


def check_present(folder: RunFolder) -> None:
    """Refuse a folder without the files that every report needs.

    Raises:
        FileNotFoundError: if the folder, its `config.yaml` or its `results.json` is missing.
    """
    first = f"train first with `spikedistill train RECIPE --out {folder.path}`"
    if not folder.path.is_dir():
        raise FileNotFoundError(f"no run folder {folder.path}: {first}")
    for file in (folder.config_file, folder.results):
        if not file.is_file():
            raise FileNotFoundError(f"no {file.name} in {folder.path}: {first} and let it finish")


def _again(file: Path) -> str:
    return f"evaluate the run again with `spikedistill evaluate {file.parent}`"


def _read_config(folder: RunFolder) -> tuple[dict[str, Any], str]:
    content = folder.read(folder.config_file)
    try:
        return parse_yaml(content, folder.config_file), content.decode()
    except UserError as error:
        raise UserError(f"{error}: train the run again") from None


def _read_epochs(folder: RunFolder) -> Epochs:
    columns: Epochs = {}
    for number, row in enumerate(folder.read_rows(folder.metrics), 2):
        try:
            cells = {name: math.nan if cell == "" else float(cell) for name, cell in row.items()}
        except (TypeError, ValueError):
            raise UserError(
                f"{folder.metrics} is broken (line {number} is not a row of numbers): train the run again"
            ) from None
        for name, value in cells.items():
            columns.setdefault(name, []).append(value if math.isfinite(value) else None)
    return columns


def _read_gradients(folder: RunFolder) -> list[GradientRow]:
    rows = []
    for number, row in enumerate(folder.read_rows(folder.gradients), 2):
        try:
            rows.append(GradientRow.model_validate(row))
        except ValidationError as error:
            again = f"write it anew with `spikedistill gradients {folder.path}`"
            raise UserError(f"{folder.gradients} is broken (line {number}, {first_fault(error)}): {again}") from None
    return rows


def _read_robustness(folder: RunFolder) -> Robustness | None:
    if not folder.robustness.is_file():
        return None
    values = parse_json(folder.read(folder.robustness), folder.robustness)
    try:
        return Robustness.model_validate(values)
    except ValidationError as error:
        again = f"write it anew with `spikedistill robustness {folder.path}`"
        raise UserError(f"{folder.robustness} is broken ({first_fault(error)}): {again}") from None


def _read_tensors(folder: RunFolder, path: Path, *names: str) -> list[Tensor] | list[None]:
    if not path.is_file():
        return [None] * len(names)
    tensors = folder.read_tensors(path, *names)
    return [tensors[name] for name in names]


def _check_logits(run: Run, path: Path) -> None:
    if run.logits is None or run.targets is None:
        return
    try:
        steps, labels = as_arrays(run.logits, run.targets, "[T, N, C]")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    expected, found = (run.results.timesteps, len(run.classes)), (len(steps), steps.shape[-1])
    if found != expected:
        raise UserError(
            f"{path}: expected (timesteps, classes) {expected} as in results.json, got {found}: {_again(path)}"
        )
    accuracy, recorded = (steps.mean(0).argmax(-1) == labels).mean(), run.results.last.ensemble[-1].accuracy
    if abs(accuracy - recorded) > 1.5 / len(labels):  # rounding may change the prediction of one sample
        raise UserError(
            f"{path} does not belong to results.json (accuracy at k = {len(steps)}: {accuracy:.4f} and {recorded:.4f}): "
            f"{_again(path)}"
        )


def _check_samples(run: Run, path: Path) -> None:
    if run.images is None or run.indices is None:
        return
    images, indices = run.images, run.indices
    if images.ndim != 4 or images.dtype != torch.uint8 or list(indices.shape) != [len(images)]:
        raise UserError(
            f"{path}: expected uint8 images [n, C, H, W] and indices [n], "
            f"got {images.dtype} {list(images.shape)} and {list(indices.shape)}: {_again(path)}"
        )
    if run.targets is None or not len(indices):
        return
    first, last = int(indices.min()), int(indices.max())
    if first < 0 or last >= len(run.targets):
        raise UserError(
            f"{path}: expected indices into {len(run.targets)} test samples, got {first} to {last}: {_again(path)}"
        )
