"""What guards a comparison against wrong conclusions, as further columns of its leaderboard.

- A method that has not learned its training samples yet may be last for that alone: the training loss stands beside accuracy.
- A mean over k hides a k at which a method is poor: its largest regret does not.
- A taught method also needs the time of its teacher.
- After other training times methods may rank in another order: a place is a range that holds for both.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ...recipe_name import RecipeName
from .epochs import every_epoch
from .leaderboard import Methods, Rows, finished, with_numbers


def add_guards(methods: Methods, rows: Rows) -> None:
    """Add columns to the rows of a leaderboard, for methods that have numbers.

    `train_loss` is the cross-entropy of all T timesteps together on the batches of the last epoch, in nats. `largest_regret` is the
    largest distance in points, over all k, to the method that is best at that k. `teacher_s` are the seconds that the teacher was
    trained for, if it was measured.
    """
    losses = {row["method"]: row["loss"] for row in every_epoch(methods) if "loss" in row}
    runs, known = finished(methods), with_numbers(rows)
    K = max(run.config.timesteps for records in runs.values() for run in records)
    best = {key: max(row[key] for row in known) for key in (f"accuracy_{k}" for k in range(1, K + 1))}
    for row in known:
        if row["method"] in losses:
            row["train_loss"] = losses[row["method"]]
        row["largest_regret"] = max(most - row[key] for key, most in best.items())
        if taught := [run.cost["teacher_s"] for run in runs[row["method"]] if "teacher_s" in run.cost]:
            row["teacher_s"] = float(np.median(taught))


def places(budgets: Sequence[Mapping[RecipeName, float]]) -> dict[RecipeName, tuple[int, int]]:
    """The first and last place that each method may have, if one is before another only where that holds at every budget.

    Args:
        budgets: the mean over k of every method, for each training time.

    Returns:
        Places from 1 on, for methods that have a mean at every budget.
    """
    methods = [method for method in budgets[0] if all(method in areas for areas in budgets)]

    def before(first: RecipeName, second: RecipeName) -> bool:
        return all(areas[first] > areas[second] for areas in budgets)

    return {
        method: (
            1 + sum(before(other, method) for other in methods),
            len(methods) - sum(before(method, other) for other in methods),
        )
        for method in methods
    }
