"""What fewer spikes cost and save: accuracy, density and milliseconds of trained runs with penalties of different strength."""

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from spikedistill import load
from spikedistill.data import as_network_input
from spikedistill.evaluation.results import read_results
from spikedistill.run_folder import RunFolder, dataset_of
from spikedistill.sparse import SparseMode, sparse_layers

from .results import commit, machine, versions
from .timing import seconds
from .workloads import Step


def measure_sparsity(runs: Sequence[Path], out: Path, rounds: int, batch: int, threads: int, command: str) -> None:
    """Write a line of JSON for each run: penalty, accuracy at k=1 and T, density of its spikes, and milliseconds of a batch.

    The runs take turns, and each is timed with layers on spikes as they are chosen, and dense.
    """
    torch.set_num_threads(threads)
    steps: dict[tuple[Path, SparseMode], Step] = {
        (run, mode): _step(run, batch, mode) for run in runs for mode in ("auto", "never")
    }
    taken: dict[tuple[Path, SparseMode], list[float]] = defaultdict(list)
    order = random.Random(0)
    for _ in range(rounds + 1):
        for key in order.sample(list(steps), len(steps)):
            taken[key].append(seconds(steps[key], "cpu", at_least=0.02))
    out.parent.mkdir(parents=True, exist_ok=True)
    about = {"machine": machine("cpu"), "versions": versions(), **commit(), "command": command, "threads": threads}
    lines = [about | {"batch": batch, "rounds": rounds, "started": datetime.now(UTC).isoformat(timespec="seconds")}]
    for run in runs:
        # the first round warms up
        ms = {mode: 1e3 * sorted(taken[run, mode][1:])[rounds // 2] for mode in ("auto", "never")}
        lines.append(_row(run) | {"ms": round(ms["auto"], 3), "dense_ms": round(ms["never"], 3)})
    out.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _step(run: Path, batch: int, mode: SparseMode) -> Step:
    folder = RunFolder(run)
    config = folder.config()
    model = load(run)
    images = as_network_input(dataset_of(config).test.inputs(torch.arange(batch)), "image")

    def go() -> None:
        with torch.no_grad(), sparse_layers(mode):
            model(images, timesteps=config.timesteps)

    return Step(go)


def _row(run: Path) -> dict[str, Any]:
    folder = RunFolder(run)
    config, results = folder.config(), read_results(folder)
    accuracies = [row.accuracy for row in results.last.ensemble]
    layers = results.last.firing_rates
    return {
        "run": "/".join(run.parts[-2:]),
        "recipe": config.recipe,
        "firing_weight": config.objective.firing_weight,
        "firing_target": config.objective.firing_target,
        "seed": config.seed,
        "accuracy_1": round(100 * accuracies[0], 2),
        "accuracy_T": round(100 * accuracies[-1], 2),
        "density": round(mean(mean(layer.rates) for layer in layers), 4),
    }


def table_of(file: Path) -> list[dict[str, Any]]:
    """Means and standard deviations over the seeds of each strength."""
    rows = [row for row in map(json.loads, file.read_text().splitlines()) if "run" in row]
    groups: dict[tuple[float, float], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["firing_weight"], row["firing_target"]].append(row)
    found = []
    for (weight, target), group in sorted(groups.items()):
        line: dict[str, Any] = {"firing_weight": weight, "firing_target": target, "seeds": len(group)}
        for name in ("accuracy_1", "accuracy_T", "density", "ms", "dense_ms"):
            values = [row[name] for row in group]
            line[name] = mean(values)
            line[f"{name}_std"] = stdev(values) if len(values) > 1 else 0.0
        found.append(line)
    return found


def draw(files: Sequence[Path], out: Path) -> None:
    """Accuracy at k=1 and at T against milliseconds, a panel for each file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"svg.hashsalt": "spikedistill", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(1, len(files), figsize=(5 * len(files), 4), layout="constrained", squeeze=False)
        for file, panel in zip(files, axes[0], strict=True):
            rows = table_of(file)
            for name, label, color in (
                ("accuracy_T", "all timesteps", "C0"),
                ("accuracy_1", "the first timestep", "C1"),
            ):
                x, y, spread = ([row[key] for row in rows] for key in ("ms", name, f"{name}_std"))
                panel.errorbar(x, y, yerr=spread, marker="o", capsize=2, color=color, label=label)
                for row in rows:
                    words = f"{row['firing_weight']:g} ({row['density']:.2f})"
                    panel.annotate(words, (row["ms"], row[name]), textcoords="offset points", xytext=(4, 4), fontsize=7)
            panel.set(title=file.stem, xlabel="ms of a batch at T", ylabel="accuracy, %")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)
        plt.close(figure)
