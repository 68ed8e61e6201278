"""Which ingredients together are good at every k? Trials on held-out images, one ingredient at a time, then together.

No trial is judged by test images. The methods that a recipe of our own is compared with get as many trials of their weights.
"""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spikedistill.comparisons.side_by_side import fresh_processes
from spikedistill.config import Config
from spikedistill.errors import UserError
from spikedistill.evaluation.recalibrated_runs import Recalibration, shares
from spikedistill.objectives import Objective, Term, distillation, list_objectives, register_objective, task, timesteps
from spikedistill.run_folder import RunDiverged, RunFolder
from spikedistill.training import train
from spikedistill.training.plan import make_plan

from .pairs import difference
from .plans import TEACHER_SEED, Plan, step_seconds
from .study_file import StudyFile

BASE = "ingredients"
TAUGHT = "a trained network teaches"
INGREDIENTS: dict[str, str] = {
    "the loss of every prefix": "objective.options.prefix",
    "the sum of right timesteps teaches": "objective.options.right_sum=0.7",
    "the mean of right timesteps teaches": "objective.options.masked=0.5",
    "membranes begin at half the threshold": "model.lif.v_init=half",
    "membranes begin where they learn to": "model.lif.v_init=learned",
    "batch-norm of each timestep": "model.norm=timestep_batch",
    "T drawn for every batch": "timestep-draws=2",
    "rate-based gradients": "gradient=rate",
    "rate-based gradients in three segments": "gradient=rate,segments=3",
    "averaged weights": "trainer.ema=0.99",
    "a penalty on spikes": "objective.firing-weight=0.1",
    TAUGHT: "objective.options.teacher=0.2",
}
"""What is tried alone, and then with others, by what a reader calls it."""
APART = tuple(
    frozenset(pair)
    for pair in (
        ("the sum of right timesteps teaches", "rate-based gradients"),
        ("the mean of right timesteps teaches", "rate-based gradients"),
        ("T drawn for every batch", "rate-based gradients in three segments"),
        ("T drawn for every batch", "batch-norm of each timestep"),
        ("T drawn for every batch", "averaged weights"),
    )
)
"""Pairs that training refuses. They cost no trial."""
TRIALS = 18  # of each method
GRIDS: dict[str, dict[str, Sequence[object]]] = {
    "twkd": {"alpha": (0.1, 0.2, 0.4), "beta": (0.25, 0.5, 1), "temperature": (2, 3)},
    "tks": {"alpha": (0.1, 0.3, 0.5, 0.7, 0.85, 1), "temperature": (2, 3, 4)},
    "s2w": {"weight": (0.25, 0.5, 1, 2, 4, 8), "temperature": (1, 2, 4)},
}
SAMPLES = 2000  # that batch-norm statistics are computed from
HOLDOUT = 0.1
_OVERHEAD = 1.7  # of a run over its training steps: scores of held-out and test images, and statistics computed anew
Scores = Mapping[str, float]


def ingredients(
    prefix: bool = False, teacher: float = 0.0, masked: float = 0.0, right_sum: float = 0.0, temperature: float = 3.0
) -> Objective:
    """What trials put together: cross-entropy and distillation of every timestep, or of every prefix, and what timesteps teach.

    As in TKS the sum of right timesteps takes over a share of the loss that grows from 0 to `right_sum`.
    """
    hard, soft = (task.prefix_ce, distillation.prefix_kd) if prefix else (task.twce, distillation.twkl)
    softened: dict[str, Any] = {"temperature": temperature}
    found = [Term("hard", 1.0, hard, end_weight=1 - right_sum if right_sum else None)]
    if teacher:
        found.append(Term("teacher", teacher, soft, softened))
    if masked:
        found.append(Term("masked", masked, distillation.twsd, softened | {"teacher": "correct_masked"}))
    if right_sum:
        found.append(Term("right_sum", 0.0, timesteps.right_sum, softened, end_weight=right_sum))
    return Objective("ingredients", found)


def register() -> None:
    """Give the trials' objective a name in this process; otherwise it is no method of the library."""
    if "ingredients" not in list_objectives():
        register_objective(ingredients)


def trial(names: Sequence[str]) -> str:
    """The method with some of the ingredients."""
    return ",".join([BASE, *(INGREDIENTS[name] for name in names)])


def grid(method: str) -> list[str]:
    """The trials of a method that ours is compared with."""
    options = GRIDS[method]
    return [
        ",".join([method, *(f"objective.options.{name}={value}" for name, value in zip(options, values, strict=True))])
        for values in itertools.product(*options.values())
    ]


def singles(taught: bool) -> list[tuple[str, ...]]:
    """No ingredient, and each alone."""
    return [(), *((name,) for name in INGREDIENTS if taught or name != TAUGHT)]


def walk(scores: Scores, taught: bool) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Add ingredients, the best ones first, and keep what raises the accuracy.

    Args:
        scores: the mean accuracy over k of the trials that have ended.
        taught: whether a trained network may teach.

    Returns:
        The ingredients that are kept, and what has to be tried next; None if nothing has.
    """
    alone = singles(taught)
    helpful = [names for names in alone[1:] if scores[trial(names)] > scores[trial(())]]
    helpful.sort(key=lambda names: -scores[trial(names)])
    kept: tuple[str, ...] = helpful[0] if helpful else ()
    left = TRIALS - len(alone)
    for (name,) in helpful[1:]:
        tried = (*kept, name)
        if left == 0 or _clash(tried):
            continue
        left -= 1
        if trial(tried) not in scores:
            return kept, tried
        if scores[trial(tried)] > scores[trial(kept)]:
            kept = tried
    return kept, None


def _clash(names: Sequence[str]) -> bool:
    """Whether two ingredients set the same, or exclude each other."""
    keys = [setting.split("=")[0] for name in names for setting in INGREDIENTS[name].split(",")]
    return len(set(keys)) < len(keys) or any(pair <= {*names} for pair in APART)


def missing(scores: Scores) -> list[str]:
    """The methods to try next, by what has been tried."""
    first = [trial(names) for names in singles(True)] + [each for method in GRIDS for each in grid(method)]
    if left := [method for method in first if method not in scores]:
        return left
    ahead = (walk(scores, taught)[1] for taught in (False, True))
    return list(dict.fromkeys(trial(names) for names in ahead if names is not None))


def budget(plan: Plan) -> str:
    """About how many hours of one core the trials will take, by the time of a training step of the base here."""
    (base,) = plan.configs(["twce"])
    methods = len(GRIDS) * TRIALS + len(singles(True)) + 2 * (TRIALS - len(singles(True)))
    hours = _OVERHEAD * methods * len(plan.seeds) * plan.epochs * plan.samples * step_seconds(base) / 3600
    return f"at most about {hours:.1f} CPU hours: {methods} methods, {len(plan.seeds)} seeds"


def study(plan: Plan, file: Path, command: str) -> list[dict[str, Any]]:
    """Train all trials; goes on where it was stopped.

    Returns:
        `{method, seed, accuracy, recalibrated, seconds}` of each run: percent of held-out images after each k, None where a network
        cannot be trained so, and with batch-norm statistics of each timestep computed anew.

    Raises:
        ValueError: if the file holds a study with another plan.
    """
    settings = {name: value for name, value in plan._asdict().items() if name not in ("root", "out", "jobs")}
    found = StudyFile(file, settings, command)
    register()
    teacher = plan.out / "teacher"
    pool = ProcessPoolExecutor(plan.jobs, mp_context=fresh_processes())
    try:
        (config,) = plan.configs(["ann"], ("--data.holdout", str(HOLDOUT)))
        pool.submit(_train, config.model_copy(update={"out": teacher, "seed": TEACHER_SEED, "resume": "auto"})).result()
        while methods := missing(scores(found.runs, plan.seeds)):
            done = {(run["method"], run["seed"]) for run in found.runs}
            left = [(m, seed) for m in methods for seed in plan.seeds if (m, seed) not in done]
            begun = [pool.submit(_tried, plan, method, seed, teacher) for method, seed in left]
            for number, ended in enumerate(as_completed(begun), 1):
                row = ended.result()
                found.add(row)
                print(f"{number} of {len(left)}: {row['method']}, seed {row['seed']}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)  # whatever ends the study, runs that have not begun do not begin
    return found.runs


def _train(config: Config) -> None:
    torch.set_num_threads(1)
    train(config)


def _tried(plan: Plan, method: str, seed: int, teacher: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    register()
    begun = time.process_time()
    found: dict[str, Any] = {"method": method, "seed": seed, "accuracy": None, "recalibrated": None}
    taught = method.startswith("twkd") or "options.teacher=" in method
    settings = ("--data.holdout", str(HOLDOUT), *(("--teacher", str(teacher)) if taught else ()))
    try:
        (config,) = plan.configs([method], settings)
        folder = plan.out / method.replace(",", "+") / f"seed{seed}"
        config = config.model_copy(update={"out": folder, "seed": seed, "resume": "auto"})
        train(config)
    except (UserError, RunDiverged) as error:
        return found | {"refused": str(error)}
    run, made = RunFolder(folder), make_plan(config)
    assert made.holdout is not None
    dataset = replace(made.dataset, test=made.holdout)
    own = Recalibration(run.load_network(run.model, None), config, dataset, SAMPLES)
    trained = own.right(own.network)
    found["accuracy"] = [100 * share for share in shares(trained)]
    if config.model.norm == "batch":
        found["recalibrated"] = [100 * share for share in shares(own.right(own.made()))]
    return found | {"seconds": time.process_time() - begun}


def scores(runs: Sequence[Mapping[str, Any]], seeds: Sequence[int], form: str = "accuracy") -> dict[str, float]:
    """The mean accuracy over k and seeds of each method that was trained with all seeds; less than 0 if it cannot be trained."""
    of_method: dict[str, list[float]] = {}
    for run in runs:
        of_method.setdefault(run["method"], []).append(-1.0 if run[form] is None else float(np.mean(run[form])))
    return {method: float(np.mean(each)) for method, each in of_method.items() if len(each) == len(seeds)}


def best(runs: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, str]:
    """The best trial of every method, ours without and with a trained network."""
    found = scores(runs, seeds)
    own = {name: trial(walk(found, taught)[0]) for name, taught in (("ours", False), ("ours-taught", True))}
    return own | {method: max(grid(method), key=lambda each: found[each]) for method in GRIDS}


def to_markdown(runs: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> str:
    """What each ingredient adds alone, and each step of the walks; then the best trial of each method."""
    found = scores(runs, seeds)
    T = len(next(run["accuracy"] for run in runs if run["accuracy"] is not None))
    base = _of(runs, trial(()), "accuracy")
    shown = {", ".join(names) or "none: `twce`": trial(names) for names in _tried_together(found)}
    lines = [
        f"| ingredients | k=1 | k={T} | mean over k | k=1, gain | k={T}, gain | mean, gain "
        f"| recalibrated: k=1, gain | k={T}, gain | mean, gain |",
        "|---|--:|--:|--:|---|---|---|---|---|---|",
    ]
    for name, method in shown.items():
        own, anew = _of(runs, method, "accuracy"), _of(runs, method, "recalibrated")
        if own is None:
            lines.append(f"| {name} | cannot be trained so |" + " |" * 8)
            continue
        assert base is not None
        cells = [f"{view.mean():.2f}" for view in _views(own)]
        for runs_of_it, plain in ((own, method == trial(())), (anew, anew is None)):
            pairs = [] if plain else zip(_views(runs_of_it), _views(base), strict=True)
            cells += [difference(list(a), list(b), 2) for a, b in pairs] or 3 * [""]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    anew = scores(runs, seeds, "recalibrated")
    lines += ["", "| | best trial | mean over k | recalibrated |", "|---|---|--:|--:|"]
    for name, method in best(runs, seeds).items():
        known = _of(runs, method, "recalibrated") is not None
        lines.append(f"| {name} | `{method}` | {found[method]:.2f} | {f'{anew[method]:.2f}' if known else ''} |")
    return "\n".join(lines)


def _views(accuracy: Any) -> list[Any]:
    """Of accuracies `[S, T]`: at the first timestep, the last, and the mean over k."""
    return [accuracy[:, 0], accuracy[:, -1], accuracy.mean(1)]


def _tried_together(found: Scores) -> list[tuple[str, ...]]:
    """All trials of ours, in their order."""
    order = singles(True)
    for taught in (False, True):
        order += [names for names in _steps(found, taught) if names not in order]
    return order


def _steps(found: Scores, taught: bool) -> Iterator[tuple[str, ...]]:
    """What a walk tries after the single ingredients."""
    known = {trial(names): found[trial(names)] for names in singles(taught)}
    while (ahead := walk(known, taught)[1]) is not None:
        yield ahead
        known[trial(ahead)] = found[trial(ahead)]


def _of(runs: Sequence[Mapping[str, Any]], method: str, form: str) -> Any:
    """Accuracy `[S, T]` of a method, seed by seed; None where there is none."""
    own = sorted((run for run in runs if run["method"] == method), key=lambda run: run["seed"])
    return None if any(run[form] is None for run in own) else np.array([run[form] for run in own])
