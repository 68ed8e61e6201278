"""Methods on the recordings of N-MNIST that are at hand, by cross-validation: every recording is tested on once.

Accuracies of folds are not independent, because any two folds share most of their training samples. The variance of a mean
difference over J folds is therefore taken as (1/J + n_test/n_train) s², with s² the variance of the J differences (Nadeau and
Bengio, Inference for the generalization error, Machine Learning 52 (2003) 239).
"""

import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file
from sklearn.model_selection import StratifiedKFold

from spikedistill.comparisons import compare
from spikedistill.config import Config
from spikedistill.evaluation import exit_times
from spikedistill.files import write_atomically
from spikedistill.objectives.submodels import prefix_means, right_submodels
from spikedistill.recipes.settings import variant
from spikedistill.run_folder import RunFolder

from .better import holm
from .plans import step_seconds, teacher_seeds
from .results import commit, machine, versions

METHODS = ("sce", "twce", "twkd", "s2w", "w2s", "esd")
STUDIES = {
    "methods": METHODS,
    # what S2W's paper varies, and the controls of its second form
    "s2w": (
        "sce",
        "s2w",
        *(
            f"s2w,objective.options.{option}"
            for option in (
                "weight=0.25",
                "weight=4",
                "temperature=1",
                "temperature=4",
                "divergence=mse",
                "measure=entropy",
                "measure=margin",
                "measure=random",
                "measure=first_to_last",
                "variant=ensemble_teacher",
                "variant=cascade",
            )
        ),
        "w2s",
        "label-smoothing",
        "entropy-regularisation",
    ),
}
THRESHOLDS = (0.8, 0.9, 0.95, 0.99)  # of the policy "confidence", chosen before any run
_FOLDS, _BATCH = 10, 32
_LEVEL, _POWER = 0.05, 0.8


class Plan(NamedTuple):
    """What is trained on every fold."""

    timesteps: int
    epochs: int
    seeds: tuple[int, ...]
    jobs: int
    methods: tuple[str, ...] = METHODS


def write_folds(root: Path, out: Path) -> list[Path]:
    """Data roots of ten folds, with links to the recordings of both splits in `root`; the same at every call."""
    files = sorted((root / "N-MNIST").glob("*/*/*.bin"), key=lambda file: (file.parent.name, file.name))
    if not files:
        raise FileNotFoundError(f"{root}/N-MNIST holds no recordings: unpack them there")
    digits = [file.parent.name for file in files]
    folds = []
    cut = StratifiedKFold(_FOLDS, shuffle=True, random_state=0).split(files, digits)
    for number, (_, tested) in enumerate(cut):
        place = out / f"fold{number}"
        for index, file in enumerate(files):
            link = place / "N-MNIST" / ("Test" if index in set(tested) else "Train") / file.parent.name / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                os.link(file.resolve(), link)
        folds.append(place)
    return folds


def budget(folds: Sequence[Path], plan: Plan) -> str:
    """About how many hours of one core the whole will take, by the time of a training step of the first method here."""
    files = len([*(folds[0] / "N-MNIST" / "Train").glob("*/*.bin")])
    runs = len(folds) * len(plan.methods) * len(plan.seeds)
    hours = 1.3 * runs * plan.epochs * files * step_seconds(_config(plan.methods[0], folds[0], plan)) / 3600
    return f"about {hours:.1f} CPU hours: {runs} runs"


def study(folds: Sequence[Path], runs: Path, plan: Plan, file: Path, command: str) -> dict[str, Any]:
    """Train and score the methods fold by fold, and write the file after each; goes on where it was stopped.

    Args:
        folds: the data roots.
        runs: folder of the runs.
        plan: what is trained.
        file: JSON, with which another machine can go on.
        command: what is run.

    Returns:
        `{machine, ..., runs: [{method, fold, seed, tested, trained, accuracies, exits}]}`, with accuracies in percent.

    Raises:
        ValueError: if the file holds a study with another plan.
    """
    about = {"machine": machine("cpu"), "versions": versions(), **commit(), "command": command}
    settings = {
        "timesteps": plan.timesteps,
        "epochs": plan.epochs,
        "seeds": list(plan.seeds),
        "methods": list(plan.methods),
    }
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {**settings, "runs": []}
    if (kept := {name: found.get(name) for name in settings}) != settings:
        raise ValueError(f"{file} holds a study of {kept}, this is {settings}: choose another --out")
    for number, fold in enumerate(folds):
        done = [run for run in found["runs"] if run["fold"] == number]
        if len(done) < len(plan.methods) * len(plan.seeds):
            place = runs / f"T{plan.timesteps}" / fold.name
            configs = [_config(method, fold, plan) for method in plan.methods]
            compare(configs, plan.seeds, place, jobs=plan.jobs, teacher_seeds=teacher_seeds(configs))
            found["runs"] = [run for run in found["runs"] if run["fold"] != number] + [*_rows(place, number, plan)]
            found |= about | {"written": datetime.now(UTC).isoformat(timespec="seconds")}
            write_atomically(file, json.dumps(found, indent=1) + "\n")
            print(f"fold {number + 1} of {len(folds)}", flush=True)
    return found


def _config(method: str, root: Path, plan: Plan) -> Config:
    config = variant(f"nmnist-{method}", ())
    return config.model_copy(
        update={
            "timesteps": plan.timesteps,
            "epochs": plan.epochs,
            "data": config.data.model_copy(update={"root": root.resolve(), "batch_size": _BATCH}),
        }
    )


def _rows(place: Path, fold: int, plan: Plan) -> Iterator[dict[str, Any]]:
    """The scores of every run of a fold: accuracy after k timesteps, and early exit at the thresholds."""
    for method in plan.methods:
        for seed in plan.seeds:
            folder = RunFolder.trained(place / f"nmnist-{method}" / f"seed{seed}")
            saved = load_file(folder.logits)
            logits, targets = saved["logits"].double(), saved["targets"]
            right = right_submodels(prefix_means(logits), targets)  # [T, N]
            exits = []
            for threshold in THRESHOLDS:
                times = exit_times(logits, "confidence", threshold)
                hit = right[times - 1, range(len(times))].double().mean()
                exits.append(
                    {"threshold": threshold, "accuracy": 100 * float(hit), "timesteps": float(times.double().mean())}
                )
            yield {
                "method": method,
                "fold": fold,
                "seed": seed,
                "tested": len(targets),
                "accuracies": [100 * float(share) for share in right.double().mean(1)],
                "exits": exits,
            }


def difference(ours: npt.ArrayLike, theirs: npt.ArrayLike) -> dict[str, float]:
    """The mean difference over folds, with the interval of Nadeau and Bengio.

    Args:
        ours: a score of every fold, `[J]`, each the mean over its seeds.
        theirs: the same of the baseline on the same folds.

    Returns:
        `{difference, low, high, p, least}`: the mean, its 95 percent interval and two-sided p-value by Student's t with J - 1
        degrees of freedom, and the smallest true difference that would be found in four of five such studies.
    """
    from scipy import stats

    each = np.asarray(ours, float) - np.asarray(theirs, float)
    J = len(each)
    error = float(np.sqrt((1 / J + 1 / (J - 1)) * each.var(ddof=1)))  # J folds: n_test / n_train = 1 / (J - 1)
    mean, reach = float(each.mean()), float(stats.t.ppf(1 - _LEVEL / 2, J - 1))
    p = 2 * float(stats.t.sf(abs(mean) / error, J - 1)) if error else float(mean == 0)
    least = (reach + float(stats.t.ppf(_POWER, J - 1))) * error
    return {"difference": mean, "low": mean - reach * error, "high": mean + reach * error, "p": p, "least": least}


def to_markdown(found: dict[str, Any]) -> str:
    """Accuracy at every k of each method, its difference to the first method at k = 1 and T, and early exit."""
    T, methods = found["timesteps"], list(dict.fromkeys(run["method"] for run in found["runs"]))
    scores = {method: _scores(found, method) for method in methods}  # [J, S, T]
    lines = ["| method | " + " | ".join(f"k={k}" for k in range(1, T + 1)) + " |", "|---" * (T + 1) + "|"]
    lines += [
        f"| {method} | " + " | ".join(f"{value:.2f}" for value in all_runs.mean((0, 1))) + " |"
        for method, all_runs in scores.items()
    ]
    lines += ["", f"| method | k | difference to {methods[0]} | p, Holm | could be seen |", "|---|---|---|---|---|"]
    base = scores[methods[0]].mean(1)
    compared = [(method, k) for method in methods[1:] for k in (1, T)]
    rows = [difference(scores[method].mean(1)[:, k - 1], base[:, k - 1]) for method, k in compared]
    for (method, k), row, p in zip(compared, rows, holm([row["p"] for row in rows]), strict=True):
        span = f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        lines.append(f"| {method} | {k} | {span} | {p:.3f} | {row['least']:.2f} |")
    lines += ["", "| method | " + " | ".join(f"confidence {t:g}" for t in THRESHOLDS) + " |", "|---" * 5 + "|"]
    for method in methods:
        runs = [run for run in found["runs"] if run["method"] == method]
        cells = []
        for place in range(len(THRESHOLDS)):
            accuracy = np.mean([run["exits"][place]["accuracy"] for run in runs])
            steps = np.mean([run["exits"][place]["timesteps"] for run in runs])
            cells.append(f"{accuracy:.2f} after {steps:.2f}")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _scores(found: dict[str, Any], method: str) -> npt.NDArray[np.float64]:
    """Accuracies `[J, S, T]`."""
    rows = [run["accuracies"] for run in found["runs"] if run["method"] == method]
    return np.asarray(rows).reshape(_FOLDS, -1, found["timesteps"])
