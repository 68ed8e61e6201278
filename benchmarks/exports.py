"""Every network of the registry, and every kind of neurons, in every format: exported and checked, or what it would lose.

Networks have random weights and batch-norm statistics of a few training passes, and fire. They are narrow: what can be said in a
format does not depend on the width.
"""

import base64
import json
import re
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spikedistill import UserError, create_model, list_models
from spikedistill.data import Preprocess
from spikedistill.exporting import (
    Description,
    Exit,
    FlatStep,
    WholeSequence,
    archive,
    executorch,
    nir,
    nir_reading,
    onnx,
    verify,
    web,
)
from spikedistill.exporting.verify import Runner
from spikedistill.models import TimestepBatchNorm, load_model, save_model
from spikedistill.neurons import SpikingNeuron
from spikedistill.objectives.submodels import prefix_means
from spikedistill.through_time import Temporal

from .results import commit, machine, versions

FORMATS = ("onnx", "torch", "executorch", "nir", "web", "bundle", "onnx, sequence", "onnx, 8 bits")
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
    """Write what came of every network in every format, in the order of the cases; it goes on where it was stopped."""
    about = {"machine": machine("cpu"), "versions": versions(), **commit(), "command": command}
    rows: list[dict[str, Any]] = json.loads(out.read_text())["rows"] if out.is_file() else []
    done = {row["network"] for row in rows}
    order = [case.name for case in cases()]
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
                row[format] = _exported(format, hard if format == "nir" else network, x, _arguments(case))
            except UserError as error:
                row[format] = f"refused: {_short(str(error))}"
        rows = sorted([*rows, row], key=lambda row: order.index(row["network"]))
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
    """A network whose last layers fire: with statistics of these images, and larger scales and shifts behind every batch-norm.

    If that is not enough, linear layers have weights of N(0, 2 / inputs).
    """
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    for scale, shift, larger in (
        *((2.0, 0.3, False), (2.0, 0.6, False), (2.0, 1.0, False), (4.0, 0.0, False)),
        (2.0, 0.3, True),
    ):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | TimestepBatchNorm):
                module.weight.fill_(scale)
                module.bias.fill_(shift)
        for layer in linear if larger else []:
            nn.init.kaiming_normal_(layer.weight)
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


def _otherwise(format: str, step: FlatStep, x: Tensor, about: Description) -> str:
    """A whole sequence or a step in 8 bits, which differ from the network by rounding at every layer: its answers are compared."""
    own = _logits(step.run, step, x)
    if format == "onnx, sequence":
        about = about._replace(form="sequence", state=())
        run = onnx.runner(onnx.onnx_of(WholeSequence(step.network, _T), [x[:4]], about), about)
        found = torch.cat([run(part, [])[0] for part in x.split(100)], 1)
    else:
        content = onnx.onnx_of(step, [x[:4], *step.initial(4)], about)
        content = onnx.in_eight_bits(content, about, step, [x[:200]] * _T)
        found = _logits(onnx.runner(content, about), step, x)
    differs = prefix_means(own.double()).argmax(-1) != prefix_means(found.double()).argmax(-1)
    if format == "onnx, sequence":
        count = int(differs.any(0).sum())
        return f"checked: {count} of {len(x)} samples differ" if count <= 0.005 * len(x) else f"refused: {count} differ"
    most = 100 * float(differs.double().mean(1).max())
    return f"{most:.1f} % of predictions change"


@torch.no_grad()
def _logits(run: Runner, step: FlatStep, x: Tensor) -> Tensor:
    """Logits `[T, N, C]` of a step."""
    state, logits = step.initial(len(x)), []
    for _ in range(_T):
        out, state = run(x, state)
        logits.append(out)
    return torch.stack(logits)


def _in_page(content: bytes, about: Description, x: Tensor) -> bytes:
    """The step as the page's script holds it; what runs it there is tested in a browser."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder)
        (package / "dist").mkdir()
        for name in ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
            (package / "dist" / name).touch()
        (package / "README.md").touch()
        made = web.page_of(content, about, x, torch.zeros(len(x), dtype=torch.long), package)
    model = json.loads(made["model.js"].decode().removeprefix("window.MODEL = ").removesuffix(";\n"))
    return base64.b64decode(model["onnx"])


def _written_and_read(network: Temporal, spec: dict[str, Any]) -> Temporal:
    """The network of a bundle's model file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_model(network, spec, path)
        return load_model(path)


def _exported(format: str, network: Temporal, x: Tensor, spec: dict[str, Any]) -> str:
    step = FlatStep(network, x[:4])
    taken = Preprocess("image", x.shape[1], (x.shape[2], x.shape[3]))
    about = Description(
        "step", _T, [str(c) for c in range(step.classes)], taken, step.state, Exit("confidence", 0.5, "given")
    )
    rows = 1 if format == "executorch" else 4
    inputs = [x[:rows], *step.initial(rows)]
    if format in ("onnx, sequence", "onnx, 8 bits"):
        return _otherwise(format, step, x, about)
    if format == "onnx":
        run = onnx.runner(onnx.onnx_of(step, inputs, about), about)
    elif format == "web":
        run = onnx.runner(_in_page(onnx.onnx_of(step, inputs, about), about, x), about)
    elif format == "bundle":
        run = FlatStep(_written_and_read(network, spec), x[:4]).run
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
    text = re.sub(r"the exported network .* on (\d+ of \d+ samples).*", r"\1 differ, more than 0.5 percent", text)
    text = re.sub(r", of [\w.#, ]+", "", text)
    return re.sub(r" \(train with [^)]*\)", "", text)


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """A row for each network, and how many of the samples differed, or what would be lost."""
    formats = [format for format in FORMATS if all(format in row for row in rows)]
    lines = ["| network | " + " | ".join(formats) + " |", "|---" * (1 + len(formats)) + "|"]
    for row in rows:
        cells = []
        for format in formats:
            match = re.match(r"checked: (\d+) of", row[format])
            cells.append(match[1] if match else row[format].removeprefix("refused: "))
        lines.append(f"| {row['network']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
