"""The time of a layer on spikes beside the dense layer, over the density of the spikes: sparse always, and where it is chosen.

A layer is measured as it stands in a network: neurons fire, the convolution runs on their spikes, then batch-norm and neurons. So
whatever turns spikes into bits, or bits into numbers for a dense layer, counts.
"""

import itertools
import json
import math
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikedistill import LIF, temporal
from spikedistill.sparse import SparseMode, sparse_layers

from .against import mean_ratio
from .results import commit, machine, versions
from .timing import seconds
from .workloads import Step

DENSITIES = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0)
MODES: tuple[SparseMode, ...] = ("never", "always", "auto")
Pass = Literal["inference", "training"]


@dataclass(frozen=True)
class Layer:
    """A convolution of 3x3 between neurons."""

    channels: int = 64
    size: int = 32
    timesteps: int = 4
    batch: int = 16

    def __str__(self) -> str:
        return f"{self.channels} channels, {self.size}x{self.size}, T={self.timesteps}, batch {self.batch}"


# The layers of resnet18 on 32x32, then other channels, image sizes, T and batches.
LAYERS = (
    Layer(),
    Layer(128, 16),
    Layer(256, 8),
    Layer(512, 4),
    Layer(timesteps=1),
    Layer(timesteps=8),
    Layer(channels=32),
    Layer(size=56, batch=4),
    Layer(256, 14, batch=4),
    Layer(batch=1),
)


def measure_layers(out: Path, rounds: int, threads: int, command: str, layers: tuple[Layer, ...] = LAYERS) -> None:
    """Write the milliseconds of every layer, pass and density in each mode, a line of JSON each; goes on where it was stopped."""
    torch.set_num_threads(threads)
    done = {(row["pass"], json.dumps(row["layer"]), row["density"]) for row in rows_of(out)} if out.exists() else set()
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a") as file:
        if not done:
            about = {
                "machine": machine("cpu"),
                "versions": versions(),
                **commit(),
                "command": command,
                "threads": threads,
            }
            file.write(json.dumps(about | {"started": datetime.now(UTC).isoformat(timespec="seconds")}) + "\n")
        for layer in layers:
            for kind in ("inference", "training"):
                for density in DENSITIES:
                    if (kind, json.dumps(asdict(layer)), density) in done:
                        continue
                    found = _measured(layer, kind, density, rounds)
                    row = {"layer": asdict(layer), "pass": kind, "density": density, "rounds": rounds, **found}
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                    print(f"{layer}, {kind}, density {density:g}: {_in_words(found)}", flush=True)


def rows_of(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of `measure_layers`, without the line about the machine."""
    return (row for row in map(json.loads, file.read_text().splitlines()) if "layer" in row)


def _in_words(found: dict[str, Any]) -> str:
    ratio, least, most = found["auto_to_dense"]
    return (
        f"dense {found['never_ms']:.2f} ms, sparse {found['always_ms']:.2f} ms, chosen {found['auto_ms']:.2f} ms, "
        f"{ratio:.3f} [{least:.3f}, {most:.3f}] of dense"
    )


def _measured(layer: Layer, kind: Pass, density: float, rounds: int) -> dict[str, Any]:
    order = random.Random(0)
    taken: dict[str, list[float]] = {mode: [] for mode in MODES}
    steps = {mode: _step(layer, kind, density, mode) for mode in MODES}
    for step in steps.values():
        for _ in range(2):
            seconds(step, "cpu")
    for _ in range(rounds):
        for mode in order.sample(MODES, len(MODES)):
            taken[mode].append(seconds(steps[mode], "cpu", at_least=0.01))
    found: dict[str, Any] = {f"{mode}_ms": 1e3 * sorted(times)[rounds // 2] for mode, times in taken.items()}
    for mode in ("always", "auto"):
        ratios = [math.log(mine / dense) for mine, dense in zip(taken[mode], taken["never"], strict=True)]
        found[f"{mode}_to_dense"] = [round(value, 4) for value in mean_ratio(ratios)]
    return found


def _step(layer: Layer, kind: Pass, density: float, mode: SparseMode) -> Step:
    torch.manual_seed(0)
    channels = layer.channels
    network = nn.Sequential(
        LIF(), nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), LIF()
    )
    currents = _currents(layer, density)
    model = temporal(network.train(kind == "training"))
    if kind == "training":
        currents.requires_grad_()

    def run() -> None:
        with sparse_layers(mode), torch.set_grad_enabled(kind == "training"):
            out = model(currents)
            if kind == "training":
                out.backward(torch.ones_like(out))

    return Step(run, [currents, *network.parameters()])


def _currents(layer: Layer, density: float) -> Tensor:
    """Currents `[T, B, C, H, W]`, channels last; that share of them reaches the threshold of 1, half of it at all timesteps."""
    shape = layer.batch, layer.channels, layer.size, layer.size
    steady = torch.rand(shape) < density / 2
    rest = (density / 2) / (1 - density / 2)
    fires = steady | (torch.rand(layer.timesteps, *shape) < rest)
    # so far below the threshold that no membrane adds up to it
    values = torch.where(fires, 1.0, -1.0).flatten(0, 1)
    return values.contiguous(memory_format=torch.channels_last).unflatten(0, (layer.timesteps, layer.batch))


def draw(file: Path, out: Path) -> None:
    """A panel for every layer and pass: milliseconds over density, dense, sparse and as chosen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = list(rows_of(file))
    layers = [Layer(**json.loads(text)) for text in dict.fromkeys(json.dumps(row["layer"]) for row in rows)]
    styles = {"never": ("dense", "C7", "--"), "always": ("sparse", "C0", "-"), "auto": ("as chosen", "C1", ":")}
    with plt.rc_context({"svg.hashsalt": "spikedistill", "svg.fonttype": "none", "font.size": 8}):
        figure, axes = plt.subplots(len(layers), 2, figsize=(8, 2.2 * len(layers)), layout="constrained", squeeze=False)
        for layer, line in zip(layers, axes, strict=True):
            for kind, panel in zip(("inference", "training"), line, strict=True):
                mine = [row for row in rows if row["layer"] == asdict(layer) and row["pass"] == kind]
                for mode, (label, color, dash) in styles.items():
                    x, y = [row["density"] for row in mine], [row[f"{mode}_ms"] for row in mine]
                    panel.plot(x, y, label=label, color=color, linestyle=dash, marker=".")
                if (crossing := crossing_of(mine)) is not None:
                    panel.axvline(crossing, color="black", linewidth=0.5)
                panel.set(
                    title=f"{kind}: {layer}", xlabel="density of spikes", ylabel="ms", ylim=(0, None), xlim=(0, 1)
                )
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)
        plt.close(figure)


def crossing_of(rows: list[dict[str, Any]]) -> float | None:
    """The density at which the sparse layer takes as long as the dense one; None if one of them is always faster."""
    ordered = sorted(rows, key=lambda row: row["density"])
    for before, after in itertools.pairwise(ordered):
        one, other = (row["always_ms"] - row["never_ms"] for row in (before, after))
        if one <= 0 < other:
            share = one / (one - other)
            return float(before["density"] + share * (after["density"] - before["density"]))
    return None
