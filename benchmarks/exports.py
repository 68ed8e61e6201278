"""Every network of the registry, and every kind of neurons, in every format: exported and checked, or what it would lose.

Networks have random weights and batch-norm statistics of a few training passes, and fire. They are narrow: what can be said in a
format does not depend on the width.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spikedistill import UserError, create_model, list_models
from spikedistill.data import Preprocess
from spikedistill.exporting import Description, Exit, FlatStep, archive, executorch, nir, nir_reading, onnx, verify
from spikedistill.models import TimestepBatchNorm
from spikedistill.neurons import SpikingNeuron
from spikedistill.through_time import Temporal

from .results import commit, machine, versions

FORMATS = ("onnx", "torch", "executorch", "nir")
_T, _SAMPLES = 3, 500


class Case(NamedTuple):
    """A network.

    Attributes:
        name: what it shows.
        options: of `create_model`, besides those of every case.
        size: of its images.
    """

    name: str
    options: dict[str, Any]
    size: int


def cases() -> Iterator[Case]:
    """Every network, in NIR with hard reset, and every option of neurons and norms on the smallest."""
    for name in list_models():
        yield Case(name, {"name": name}, 48 if name == "vggsnn" else 32)
    small: dict[str, dict[str, Any]] = {
        "ANN": {"neuron": "relu"},
        "no leak, hard reset": {"decay": 1.0, "v_reset": 0.0},
        "learned decay": {"decay": "learned"},
        "learned decay per channel, hard reset": {"decay": "learned_per_channel", "v_reset": 0.0},
        "learned threshold": {"threshold": "learned_per_channel"},
        "learned start": {"v_init": "learned"},
        "start at half the threshold": {"v_init": "half"},
        "leak per timestep": {"neuron": "timestep-leak"},
        "batch-norm per timestep": {"norm": "timestep_batch", "norm_timesteps": _T},
        "threshold-dependent batch-norm": {"norm": "tdbn"},
        "other surrogate": {"surrogate": "triangular"},
    }
    for words, options in small.items():
        yield Case(f"convnet, {words}", {"name": "convnet", **options}, 16)


def measure_exports(out: Path, command: str) -> list[dict[str, Any]]:
    """Write what came of every network in every format; it goes on where it was stopped."""
    about = {"machine": machine("cpu"), "versions": versions(), **commit(), "command": command}
    rows: list[dict[str, Any]] = json.loads(out.read_text())["rows"] if out.is_file() else []
    done = {row["network"] for row in rows}
    out.parent.mkdir(parents=True, exist_ok=True)
    for case in cases():
        if case.name in done:
            continue
        torch.manual_seed(0)
        x = _images(case.size)
        network = _live(create_model(**_arguments(case)), x)
        hard = _live(create_model(**_arguments(case) | {"v_reset": 0.0}), x) if case.name in list_models() else network
        row: dict[str, Any] = {"network": case.name, "fires": _fires(network, x)}
        for format in FORMATS:
            try:
                row[format] = _exported(format, hard if format == "nir" else network, x)
            except UserError as error:
                row[format] = f"refused: {_short(str(error))}"
        rows.append(row)
        print(json.dumps(row), flush=True)
        written = {"written": datetime.now(UTC).isoformat(timespec="seconds"), "samples": _SAMPLES, "timesteps": _T}
        out.write_text(json.dumps(about | written | {"rows": rows}, indent=1) + "\n")
    return rows


def _arguments(case: Case) -> dict[str, Any]:
    given = {"num_classes": 10, "in_channels": 3, "image_size": case.size, "width": 0.125}
    return given | {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]} | case.options


def _images(size: int) -> Tensor:
    """Smooth random images in [0, 1], whose pixels depend on each other as those of photographs."""
    coarse = torch.rand(_SAMPLES, 3, 6, 6)
    return nn.functional.interpolate(coarse, size=(size, size), mode="bilinear").clamp(0, 1)


@torch.no_grad()
def _live(network: Temporal, x: Tensor) -> Temporal:
    """A network whose last layers fire: with statistics of these images, and larger scales and shifts behind every batch-norm."""
    for shift in (0.3, 0.6, 1.0):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | TimestepBatchNorm):
                module.weight.fill_(2.0)
                module.bias.fill_(shift)
        network.train()
        for start in range(0, 300, 50):
            network(x[start : start + 50], _T)
        if _fires(network.eval(), x):
            break
    return network


@torch.no_grad()
def _fires(network: Temporal, x: Tensor) -> bool:
    return bool((network(x[:50], _T).std(1) > 0).any()) or not any(
        isinstance(module, SpikingNeuron) for module in network.modules()
    )


def _exported(format: str, network: Temporal, x: Tensor) -> str:
    step = FlatStep(network, x[:4])
    taken = Preprocess("image", x.shape[1], (x.shape[2], x.shape[3]))
    about = Description(
        "step", _T, [str(c) for c in range(step.classes)], taken, step.state, Exit("confidence", 0.5, "given")
    )
    rows = 1 if format == "executorch" else 4
    inputs = [x[:rows], *step.initial(rows)]
    if format == "onnx":
        run = onnx.runner(onnx.onnx_of(step, inputs, about), about)
    elif format == "torch":
        run = archive.runner(archive.archive_of(step, inputs, about))
    elif format == "executorch":
        run = executorch.runner(executorch.program_of(step, inputs, about))
    else:
        content = nir.nir_of(step.network, x[:1], about)
        run = nir_reading.runner(content, [each.key for each in step.state])
    found = verify(step, run, [x] * _T, about.exit)
    return (
        f"checked: {found.different} of {found.samples} samples differ, {found.flips} spikes flipped at their threshold"
    )


def _short(text: str) -> str:
    """Without the long lists of layers."""
    text = text.removeprefix("NIR cannot hold this network; it would lose ")
    text = re.sub(r", of [\w.#, ]+", "", text)
    return re.sub(r" \(train with [^)]*\)", "", text)


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """A row for each network, and how many of the samples differed, or what would be lost."""
    lines = ["| network | " + " | ".join(FORMATS) + " |", "|---" * (1 + len(FORMATS)) + "|"]
    for row in rows:
        cells = []
        for format in FORMATS:
            match = re.match(r"checked: (\d+) of", row[format])
            cells.append(match[1] if match else row[format].removeprefix("refused: "))
        lines.append(f"| {row['network']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
