"""Methods that were trained with several teachers: every seed with every teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...recipe_name import RecipeName
from .record_format import Numbers, parts
from .records import LostRun, RunRecord

# The runs of each taught method, one per seed, by the seed of their teacher.
Crossed = Mapping[RecipeName, Mapping[int, Sequence[RunRecord | LostRun]]]


def over_teachers(by_teacher: Sequence[Sequence[RunRecord | LostRun]]) -> list[RunRecord | LostRun]:
    """A method's runs with several teachers, of the same seeds each, as one run for each seed.

    Teachers without any finished run are left out, as those that diverged.
    """
    useful = [runs for runs in by_teacher if any(isinstance(run, RunRecord) for run in runs)]
    return [_as_one(of_seed) for of_seed in zip(*(useful or by_teacher[:1]), strict=True)]


def _as_one(runs: Sequence[RunRecord | LostRun]) -> RunRecord | LostRun:
    """Runs of one seed as one, in which every number is the mean over the teachers.

    If one of them has no numbers, it stands for all: seeds with fewer teachers are not compared with others.
    """
    finished = [run for run in runs if isinstance(run, RunRecord)]
    if len(finished) < len(runs):
        return next(run for run in runs if isinstance(run, LostRun))
    if len(finished) == 1:
        return finished[0]
    numbers = Numbers.model_validate(_mean([run.numbers.model_dump() for run in finished]))
    return replace(finished[0], right=np.mean([run.right for run in finished], 0), **parts(numbers))


def _mean(values: Sequence[Any]) -> Any:
    """The mean of each number in values of one form: of JSON, with numbers as text too. What has none is that of the first."""
    first = values[0]
    if all(value == first for value in values):
        return first
    if isinstance(first, dict):
        return {key: _mean([value[key] for value in values]) for key in first if all(key in value for value in values)}
    if isinstance(first, list):
        return [_mean(each) for each in zip(*values, strict=False)]
    try:
        mean = float(np.mean([float(value) for value in values]))
    except (TypeError, ValueError):
        return first
    return repr(mean) if isinstance(first, str) else mean


def every_teacher(crossed: Crossed) -> list[dict[str, Any]]:
    """Each taught method with each teacher: `{method, teacher_seed, seeds, accuracy_k, area}`, means over seeds in percent.

    A teacher without any finished run has a row without numbers, and seeds that are not finished with every other are left out.
    """
    rows: list[dict[str, Any]] = []
    for method, of_all in crossed.items():
        by_teacher = {seed: runs for seed, runs in of_all.items() if any(isinstance(run, RunRecord) for run in runs)}
        rows += [{"method": method, "teacher_seed": seed, "seeds": 0} for seed in of_all if seed not in by_teacher]
        whole = [
            all(isinstance(run, RunRecord) for run in of_seed) for of_seed in zip(*by_teacher.values(), strict=True)
        ]
        for teacher_seed, runs in by_teacher.items():
            finished = [run for run, kept in zip(runs, whole, strict=True) if kept and isinstance(run, RunRecord)]
            if not finished:
                continue
            T = finished[0].config.timesteps
            accuracy = 100 * np.mean([run.right[:T].mean(1) for run in finished], 0)
            row = {"method": method, "teacher_seed": teacher_seed, "seeds": len(finished)}
            row |= {f"accuracy_{k}": float(value) for k, value in enumerate(accuracy, 1)}
            rows.append(row | {"area": float(accuracy.mean())})
    return rows


def teacher_spread(rows: Sequence[dict[str, Any]]) -> dict[RecipeName, float]:
    """How much a method's mean over k differs between teachers: the standard deviation in points, from two teachers on."""
    areas: dict[RecipeName, list[float]] = {}
    for row in rows:
        if "area" in row:
            areas.setdefault(row["method"], []).append(row["area"])
    return {method: float(np.std(values, ddof=1)) for method, values in areas.items() if len(values) > 1}
