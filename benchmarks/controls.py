"""Is it distillation? Methods over timesteps beside controls that train nothing for them.

Two reasons for a poor first timestep have nothing to do with the objective: batch-norm shares its statistics between timesteps that
differ, and membranes begin empty. The controls are statistics computed anew (every run, as trained and recalibrated), batch-norm
with statistics of its own for every timestep, and membranes that begin at half the threshold.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from spikedistill.comparisons import compare
from spikedistill.comparisons.folder import rewriting
from spikedistill.comparisons.side_by_side import fresh_processes
from spikedistill.evaluation.comparison.differences import paired_difference
from spikedistill.evaluation.comparison.record_format import Answers
from spikedistill.evaluation.comparison.records import RECORDS, Records, RunRecord
from spikedistill.evaluation.recalibrated_runs import Recalibration
from spikedistill.evaluation.runs import parts_of_run
from spikedistill.files import write_atomically
from spikedistill.run_folder import RunFolder

from . import study_file
from .detectable import detectable
from .plans import Plan, step_seconds, teacher_seeds
from .study_file import StudyFile

BASE, TARGET = "sce", "twce"
METHODS = (
    BASE,
    TARGET,
    "tks",
    "s2w",
    "w2s",
    "twkd",
    "sce,model.lif.v_init=half",
    "twce,model.lif.v_init=half",
    "sce,model.norm=timestep_batch",
)
SAMPLES = 2000  # that statistics are computed from
_TESTED = 10_000  # test images, for the budget alone
RECALIBRATED = "recalibrated.jsonl"
FORMS = {"trained": "as trained", "each_k": "statistics of this k", "mixture": "statistics of each timestep"}
Right = npt.NDArray[np.float64]


def runs_of(plan: Plan) -> Iterator[tuple[str, int, Path]]:
    """Method, seed and folder of every run."""
    for config, method in zip(plan.configs(METHODS), METHODS, strict=True):
        for seed in plan.seeds:
            yield method, seed, plan.out / config.recipe / f"seed{seed}"


def budget(plan: Plan) -> str:
    """About how many hours of one core the whole will take, by the time of a training step of the base here."""
    (base,) = plan.configs([BASE])
    each, runs = step_seconds(base), len(METHODS) * len(plan.seeds)
    training = 1.1 * runs * plan.epochs * plan.samples * each / 3600  # with the objectives and a last evaluation
    passes = runs * ((base.timesteps + 1) * (_TESTED + SAMPLES)) * each / 3 / 3600
    return f"about {training + passes:.1f} CPU hours: training {training:.1f}, recalibration {passes:.1f}"


def study(plan: Plan, command: str) -> Path:
    """Train and recalibrate every run, seed by seed; goes on where it was stopped, on another machine with the two files alone.

    Returns:
        The file with the answers of recalibrated networks, beside the records of the comparison.
    """
    settings = {name: value for name, value in plan._asdict().items() if name not in ("root", "out", "jobs")}
    found = StudyFile(plan.out / RECALIBRATED, settings | {"recalibrated_from": SAMPLES}, command)
    _forget_half_done(plan, found)
    for number in range(1, len(plan.seeds) + 1):
        begun = plan._replace(seeds=plan.seeds[:number])
        methods = plan.configs(METHODS)
        taught_by = teacher_seeds(methods)
        compare(methods, begun.seeds, plan.out, jobs=plan.jobs, teacher_seeds=taught_by, command=command)
        _recalibrate(begun, found)
    return found.path


def _forget_half_done(plan: Plan, found: StudyFile) -> None:
    """Take runs out of the records that were trained on another machine and not recalibrated there: their weights are gone."""
    file, done = plan.out / RECORDS, {(row["method"], row["seed"]) for row in found.runs}
    lost = {
        path.relative_to(plan.out).as_posix()
        for method, seed, path in runs_of(plan)
        if (method, seed) not in done and not RunFolder(path).is_complete
    }
    lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
    left = [line for line in lines if json.loads(line)["run"] not in lost]
    if len(left) < len(lines):
        with rewriting(file):
            write_atomically(file, "".join(left))


def _recalibrate(plan: Plan, found: StudyFile) -> None:
    done = {(row["method"], row["seed"]) for row in found.runs}
    left = [run for run in runs_of(plan) if run[:2] not in done]
    with ProcessPoolExecutor(plan.jobs, mp_context=fresh_processes()) as pool:
        for row in pool.map(_recalibrated, [plan.root] * len(left), left):
            found.add(row)
            print(f"recalibrated {len(found.runs)} of {len(METHODS) * len(plan.seeds)}", flush=True)


def _recalibrated(root: Path, run: tuple[str, int, Path]) -> dict[str, Any]:
    torch.set_num_threads(1)
    method, seed, path = run
    folder = RunFolder(path)
    config = folder.config()
    dataset, _ = parts_of_run(config, root=root)
    own = Recalibration(folder.load_network(folder.model, None), config, dataset, SAMPLES)
    row: dict[str, Any] = {"method": method, "seed": seed}
    if config.model.norm == "timestep_batch":
        return row  # every timestep has its own statistics already
    right = {"each_k": own.each_k(), "mixture": own.right(own.made())}
    return row | {form: Answers.packed(values.numpy()).model_dump() for form, values in right.items()}


def answers(folder: Path) -> dict[tuple[str, str], Right]:
    """Whether each test sample is right, `[S, T, N]`, by method and form; see `FORMS`."""
    rows, records = study_file.read(folder / RECALIBRATED)["runs"], Records(folder)
    found: dict[tuple[str, str], list[Right]] = {}
    for row in rows:
        name = next(run for run in records.runs() if run.endswith(f"-{row['method']}/seed{row['seed']}"))
        record = records.find(folder / name)
        assert isinstance(record, RunRecord)
        T = record.config.timesteps
        found.setdefault((row["method"], "trained"), []).append(record.right[:T].astype(float))
        for form in ("each_k", "mixture"):
            if form in row:
                found.setdefault((row["method"], form), []).append(Answers(**row[form]).unpacked().astype(float))
    return {key: np.stack(value) for key, value in found.items()}


def to_markdown(folder: Path) -> str:
    """Accuracy at every k of every method in each form, and its difference to the target at k = 1 and to the base at k = T."""
    found = answers(folder)
    T = next(iter(found.values())).shape[1]
    first, last = found[TARGET, "trained"][:, 0], found[BASE, "trained"][:, -1]
    lines = [
        "| method | batch-norm | " + " | ".join(f"k={k}" for k in range(1, T + 1))
        + f" | k=1 less {TARGET.upper()}'s | k={T} less {BASE.upper()}'s |",
        "|---|---" + "|--:" * (T + 2) + "|",
    ]  # fmt: skip
    for (method, form), right in found.items():
        each = 100 * right.mean(-1)
        cells = [f"{each[:, k].mean():.2f} ± {each[:, k].std(ddof=1):.2f}" for k in range(T)]
        cells.append("" if (method, form) == (TARGET, "trained") else _difference(right[:, 0], first))
        cells.append("" if (method, form) == (BASE, "trained") else _difference(right[:, -1], last))
        lines.append(f"| {method} | {FORMS[form]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def smallest(folder: Path) -> tuple[float, float]:
    """The smallest and largest of the differences in points at k = 1 that this study would find in four of five repetitions."""
    found = answers(folder)
    target = found[TARGET, "trained"][:, 0]
    each = [100 * detectable(right[:, 0], target) for key, right in found.items() if key != (TARGET, "trained")]
    return min(each), max(each)


def _difference(ours: Right, theirs: Right) -> str:
    found = paired_difference(ours, theirs)
    return f"{100 * found['difference']:+.2f} [{100 * found['low']:+.2f}, {100 * found['high']:+.2f}]"


def draw(folder: Path, out: Path) -> None:
    """Accuracy over k of the methods as trained, and of the controls."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    found = answers(folder)
    with plt.rc_context({"svg.hashsalt": "spikedistill", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
        for place, ((method, form), right) in enumerate(found.items()):
            if form == "each_k" or (form == "mixture" and method != BASE):
                continue
            each = 100 * right.mean(-1)
            k = np.arange(1, each.shape[1] + 1) + 0.015 * place
            dashed = form != "trained" or "," in method
            label = method if form == "trained" else f"{method}, recalibrated"
            axes.errorbar(
                k, each.mean(0), each.std(0, ddof=1), capsize=2, linestyle="--" if dashed else "-", label=label
            )
        axes.set(xlabel="timesteps k", ylabel="test accuracy, %", xticks=range(1, each.shape[1] + 1))
        axes.legend(frameon=False, fontsize=8)
        figure.savefig(out, metadata={"Date": None})
        plt.close(figure)
