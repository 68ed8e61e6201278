"""Methods that were trained with several teachers: every seed with every teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...recipe_name import RecipeName
from .records import LostRun, RunRecord

# The runs of each taught method, one per seed, by the seed of their teacher.
Crossed = Mapping[RecipeName, Mapping[int, Sequence[RunRecord | LostRun]]]


def over_teachers(runs: Sequence[RunRecord | LostRun]) -> RunRecord | LostRun:
    """Runs of one seed with several teachers as one: whether a sample is right is a mean over the teachers whose run is finished.

    Everything else is that of the first finished run. If none is finished, the first run stands for all.
    """
    finished = [run for run in runs if isinstance(run, RunRecord)]
    if len(finished) < 2:
        return finished[0] if finished else runs[0]
    return replace(finished[0], right=np.mean([run.right for run in finished], 0))


def every_teacher(crossed: Crossed) -> list[dict[str, Any]]:
    """Each taught method with each teacher: `{method, teacher_seed, seeds, accuracy_k, area}`, means over seeds in percent.

    A teacher without finished runs has no row.
    """
    rows = []
    for method, by_teacher in crossed.items():
        for teacher_seed, runs in by_teacher.items():
            finished = [run for run in runs if isinstance(run, RunRecord)]
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
        areas.setdefault(row["method"], []).append(row["area"])
    return {method: float(np.std(values, ddof=1)) for method, values in areas.items() if len(values) > 1}
