"""Accuracy, latency and energy of a network on its test set, at fixed timesteps and under exit policies.

Shapes: T timesteps, N test samples, C classes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..data import Dataset, as_network_input, in_order, lengths_of
from ..errors import UserError
from ..through_time import Temporal
from .costs import energy
from .counting import count_operations
from .exits import POLICIES, ExitCurve, exit_curve
from .operations import OperationCounts

MOST_THRESHOLDS = 50
ENERGY_SAMPLES = 32
COSTS = "45nm"


def deployment(
    logits: Tensor,
    targets: Tensor,
    fixed_accuracy: Sequence[float],
    estimate: dict[str, Any] | None,
    lengths: Tensor | None = None,
) -> dict[str, Any]:
    """Every fixed k, and every exit policy at thresholds over its whole range.

    The energy of a point is the mean over samples, from the mean cost of each timestep: `sum_t active[t] · total_pj[t]`.

    Args:
        logits: `[T, N, C]`.
        targets: `[N]`.
        fixed_accuracy: fraction of samples that are right after k = 1..T timesteps.
        estimate: the result of `energy_per_timestep`, or None.
        lengths: the timesteps of each sample, `[N]`, if they differ.

    Returns:
        `{energy, fixed: [{k, accuracy, energy_pj}], policies: {policy: [{threshold, accuracy, mean_exit, leaving,
        energy_pj}]}}`; `leaving` holds the fraction of samples that leave at each timestep. With a threshold of None all
        samples run to T. An energy of None is unknown.
    """
    costs = None if estimate is None else torch.tensor(estimate["total_pj"], dtype=torch.float64)
    spent = [None] * len(logits)
    if costs is not None:
        running = costs if lengths is None else costs * (torch.arange(len(costs))[:, None] < lengths).double().mean(1)
        spent = running.cumsum(0).tolist()
    return {
        "energy": estimate,
        "fixed": [
            {"k": k, "accuracy": accuracy, "energy_pj": pj}
            for k, (accuracy, pj) in enumerate(zip(fixed_accuracy, spent, strict=True), 1)
        ],
        "policies": {
            policy: _points(exit_curve(logits, targets, policy, lengths), len(targets), costs) for policy in POLICIES
        },
    }


def energy_per_timestep(model: Temporal, dataset: Dataset, timesteps: int, batch_size: int) -> dict[str, Any] | None:
    """The estimated energy of each timestep, from 32 test samples that are spread over the test set.

    Returns:
        `{costs, samples, uncounted_macs, synaptic_pj: [...], total_pj: [...]}`, in picojoules per sample; None if the operations
        of the network cannot be counted.
    """
    lengths, places = lengths_of(dataset.test), torch.arange(len(dataset.test))
    if lengths is not None:  # in padding nothing would be counted
        places = (lengths == lengths.max()).nonzero().flatten()
    N = len(places)
    # spread, because some test sets are sorted by class
    chosen = places[torch.linspace(0, N - 1, min(ENERGY_SAMPLES, N), dtype=torch.float64).round().long()]
    batches = [
        as_network_input(inputs, dataset.kind) for inputs, _ in in_order(dataset.test.subset(chosen), batch_size)
    ]
    try:
        counts = count_operations(model, batches, None if dataset.kind == "events" else timesteps)
    except UserError:
        return None
    found = estimated_energy(counts)
    for name in ("synaptic_pj", "total_pj"):  # after the end of the longest recording nothing is computed
        found[name] += [0.0] * (timesteps - len(found[name]))
    return found


def estimated_energy(counts: OperationCounts) -> dict[str, Any]:
    """The estimated energy of each timestep, from counted operations.

    Returns:
        The same as `energy_per_timestep`.
    """
    estimate = energy(counts, COSTS)
    return {
        "costs": COSTS,
        "samples": counts.samples,
        "uncounted_macs": counts.uncounted_macs,
        "synaptic_pj": estimate.synaptic_pj,
        "total_pj": estimate.total_pj,
    }


def _points(curve: ExitCurve, samples: int, costs: Tensor | None) -> list[dict[str, Any]]:
    """Points of a curve, evenly spread over its mean exit times, with both ends."""
    wanted = torch.linspace(float(curve.mean_exit[0]), float(curve.mean_exit[-1]), MOST_THRESHOLDS, dtype=torch.float64)
    nearest = (curve.mean_exit - wanted[:, None]).abs().argmin(1)
    chosen = nearest.unique().tolist()  # thresholds with equal mean exit times do not occur
    running = (curve.active * samples).round()
    leaving = running - torch.nn.functional.pad(running, (0, 1))[:, 1:]
    return [
        {
            "threshold": _threshold(curve, index),
            "accuracy": float(curve.accuracy[index]),
            "mean_exit": float(curve.mean_exit[index]),
            "leaving": (leaving[index] / samples).tolist(),
            "energy_pj": None if costs is None else float(curve.active[index] @ costs),
        }
        for index in chosen
    ]


def _threshold(curve: ExitCurve, index: int) -> float | None:
    """A threshold with few digits that gives the decisions of the one at `index` and is not the score of any sample.

    Rounding on another machine could put a score that equals the threshold on either side of it.
    """
    high = float(curve.thresholds[index])
    if index == len(curve.thresholds) - 1:
        return None
    if curve.policy == "stability":  # counts are exact
        return high
    low = float(curve.thresholds[index - 1]) if index else 0.0
    rounded = (round((low + high) / 2, digits) for digits in range(1, 18))
    return next((value for value in rounded if low < value < high), high)
