"""The tables of a comparison, over the same test samples and the same seeds.

A run that diverged has no numbers. Means of a method are over its other runs, differences over the seeds that both methods
have.

Legend: S seeds, N test samples, K numbers of timesteps.
"""

import operator
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from ...errors import UserError
from ...recipe_name import RecipeName
from .differences import Array, paired_difference
from .records import LostRun, RunRecord

Methods = Mapping[RecipeName, Sequence[RunRecord | LostRun]]
Answers = Mapping[str, Mapping[int, Array]]
Rows = list[dict[str, Any]]
LOST = {"diverged": "diverged", "not trained": "not_trained"}  # the column of each status


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction of p-values for several comparisons."""
    order = np.argsort(p_values, kind="stable")
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def finished(methods: Methods) -> dict[RecipeName, list[RunRecord]]:
    """The runs of each method that have numbers; without methods that have none."""
    found = {method: [run for run in records if isinstance(run, RunRecord)] for method, records in methods.items()}
    return {method: records for method, records in found.items() if records}


def right_answers(methods: Methods) -> Answers:
    """Whether each sample is right after k timesteps, `[K, N]`, for each finished run of a method, by the place of its
    seed.

    K is the largest T that one of them was trained with.

    Raises:
        UserError: if the methods do not have the same number of seeds or test samples, or some were not evaluated at K.
    """
    K = max(record.config.timesteps for records in finished(methods).values() for record in records)
    right = {
        method: {place: run.right[:K] for place, run in enumerate(records) if isinstance(run, RunRecord)}
        for method, records in methods.items()
    }
    shapes = {method: sorted({array.shape for array in arrays.values()}) for method, arrays in right.items()}
    if len({shape for of_one in shapes.values() for shape in of_one}) > 1 or len({*map(len, methods.values())}) > 1:
        raise UserError(
            f"methods can be compared over the same seeds, timesteps and test samples; got {shapes}: give event recordings "
            "one T; spikedistill evaluate scores runs of earlier versions again, at more timesteps than T"
        )
    return {
        method: {place: array.astype(np.float64) for place, array in arrays.items()} for method, arrays in right.items()
    }


def paired(
    ours: Mapping[int, Array], theirs: Mapping[int, Array], pick: Callable[[Array], Array]
) -> dict[str, float] | None:
    """`paired_difference` over the seeds that both have, None if there are none; `pick` makes scores `[N]` from `[K, N]`."""
    places = sorted(ours.keys() & theirs.keys())
    if not places:
        return None
    first, second = (np.stack([pick(answers[place]) for place in places]) for answers in (ours, theirs))
    return paired_difference(first, second)


def leaderboard(methods: Methods, right: Answers) -> Rows:
    """One row per method, over its seeds, at every k up to the largest T that a method was trained with.

    Args:
        methods: the runs of each method, one per seed; the first method is the baseline.
        right: the result of `right_answers`.

    Returns:
        Rows `{method, seeds, accuracy_k, accuracy_k_std, area, area_std, timesteps, epochs, images_per_s, peak_mib,
        firing_rate}`, k = 1..K; accuracies and area (their mean over k) are in percent. `training_s`, in seconds, is there if
        it was measured; `teacher_agreement` and `teacher_agreement_where_wrong`, in percent, if there was a teacher. All but
        the baseline have `area_difference` and `accuracy_K_difference` in points, if at least one seed of both is finished;
        from three seeds on also `area_low`, `area_high`, `area_test_set_low`, `area_test_set_high` and the Holm-corrected
        `area_p`, and the same for `accuracy_K`. `seeds` counts finished runs. If some run diverged, or was not trained because
        its teacher diverged, all rows count such runs in `diverged` and `not_trained`. A method without any finished run has no
        other numbers.
    """
    baseline = next(iter(methods))
    lost = {run.status for records in methods.values() for run in records if isinstance(run, LostRun)}
    rows = [_row(method, methods[method], right[method], lost) for method in methods]
    last = max(len(array) for arrays in right.values() for array in arrays.values())
    picks: dict[str, Callable[[Array], Array]] = {"area": lambda a: a.mean(0), f"accuracy_{last}": lambda a: a[-1]}
    for name, pick in picks.items():
        found = {
            row["method"]: difference
            for row in rows
            if row["method"] != baseline
            and (difference := paired(right[row["method"]], right[baseline], pick)) is not None
        }
        known = {method: entry.pop("p") for method, entry in found.items() if "p" in entry}
        corrected = dict(zip(known, holm([*known.values()]), strict=True))
        for row in rows:
            row |= {f"{name}_{key}": 100 * value for key, value in found.get(row["method"], {}).items()}
            if row["method"] in corrected:
                row[f"{name}_p"] = corrected[row["method"]]
    return rows


def with_numbers(rows: Sequence[dict[str, Any]]) -> Rows:
    """The rows of a leaderboard whose method has a finished run."""
    return [row for row in rows if "area" in row]


def every_run(methods: Methods, right: Answers) -> Rows:
    """One row per run: `{method, seed, accuracy_k, area, <its cost>, <last row of its metrics.csv>}`.

    Accuracies are in percent. If some run has no numbers, all rows have a `status`, "finished", "diverged" or "not trained", and
    rows without numbers have a `reason`.
    """
    rows = []
    some_lost = any(isinstance(run, LostRun) for records in methods.values() for run in records)
    for method, records in methods.items():
        for place, run in enumerate(records):
            row: dict[str, Any] = {"method": method, "seed": run.config.seed}
            if isinstance(run, LostRun):
                rows.append(row | {"status": run.status, "reason": run.reason})
                continue
            if some_lost:
                row["status"] = "finished"
            accuracy = 100 * right[method][place].mean(1)
            row |= {f"accuracy_{k}": float(value) for k, value in enumerate(accuracy, 1)}
            row |= {"area": float(accuracy.mean()), **run.cost}
            rows.append(row | run.metrics[-1])
    return rows


def regrets(methods: Methods, right: Answers) -> Rows:
    """The accuracy that one network for every k loses at each k against networks that were trained for exactly that k.

    Specialists are methods that differ only in the timesteps of their training, such as `digits-skd,timesteps=1` and `digits-skd`,
    with two T or more. They are compared with every method that was trained at the largest T, K.

    Args:
        methods: as for `leaderboard`.
        right: the result of `right_answers`.

    Returns:
        Rows `{method, specialists, regret_k, regret_k_low, regret_k_high}` in points, the ends from 3 seeds on, for every k
        that a specialist was trained at, except the method itself: the accuracy of the specialist after its T = k timesteps minus
        that of the method after its first k, paired as in `paired_difference` over the seeds that both have. No rows if
        there are no specialists, or if no seed is finished for both.
    """
    trained = {method: records[0].config.timesteps for method, records in finished(methods).items()}
    families: dict[Any, dict[int, RecipeName]] = {}
    for method, T in trained.items():
        families.setdefault(_but_for_timesteps(method), {}).setdefault(T, method)
    rows, K = [], max(trained.values())
    for method in [method for method, T in trained.items() if T == K]:
        for members in families.values():
            if len(members) < 2:
                continue
            family = next(iter(members.values())).without("timesteps")
            row: dict[str, Any] = {"method": method, "specialists": family}
            for k, specialist in sorted(members.items()):
                if specialist == method:
                    continue
                found = paired(right[specialist], right[method], operator.itemgetter(k - 1))
                if found is not None:
                    row |= {f"regret_{k}": 100 * found["difference"]}
                    row |= {f"regret_{k}_{end}": 100 * found[end] for end in ("low", "high") if end in found}
            if len(row) > 2:
                rows.append(row)
    return rows


def _but_for_timesteps(method: RecipeName) -> tuple[str, str, frozenset[tuple[str, str]]]:
    """A key that is equal for methods that differ only in their timesteps; the order of other settings does not matter."""
    return method.dataset, method.method, frozenset(method.without("timesteps").settings.items())


def chosen_timesteps(methods: Methods) -> Rows:
    """How often methods that rank timesteps chose each of them: `{method, role, epoch, share_1, ..., share_T}`.

    Roles are "strongest" and "weakest". A share is the part of an epoch's training batches, mean over the seeds. No rows for
    methods that do not rank timesteps.
    """
    rows = []
    for method, records in finished(methods).items():
        for role in ("strongest", "weakest"):
            for epochs in zip(*(record.metrics for record in records), strict=True):
                keys = [f"{role}_{k}" for k in range(1, records[0].config.timesteps + 1) if f"{role}_{k}" in epochs[0]]
                shares = {key: float(np.mean([float(epoch[key]) for epoch in epochs])) for key in keys}
                if shares:
                    row = {"method": method, "role": role, "epoch": int(epochs[0]["epoch"])}
                    rows.append(row | {key.replace(role, "share"): share for key, share in shares.items()})
    return rows


def _row(
    method: RecipeName, runs: Sequence[RunRecord | LostRun], right: Mapping[int, Array], lost: Set[str]
) -> dict[str, Any]:
    """The row of a method; `lost` holds the statuses of the comparison's runs that have no numbers."""
    records = [run for run in runs if isinstance(run, RunRecord)]
    row: dict[str, Any] = {"method": method, "seeds": len(records)}
    for status, column in LOST.items():
        if status in lost:
            row[column] = sum(isinstance(run, LostRun) and run.status == status for run in runs)
    if not records:
        return row | {"timesteps": runs[0].config.timesteps, "epochs": runs[0].config.epochs}
    accuracy = 100 * np.stack([*right.values()]).mean(-1)  # [S, K]
    spread = accuracy.std(0, ddof=1) if len(accuracy) > 1 else np.zeros(accuracy.shape[1])
    area = accuracy.mean(1)
    for k in range(accuracy.shape[1]):
        row |= {f"accuracy_{k + 1}": float(accuracy[:, k].mean()), f"accuracy_{k + 1}_std": float(spread[k])}
    row |= {"area": float(area.mean()), "area_std": float(area.std(ddof=1)) if len(area) > 1 else 0.0}
    row |= {"timesteps": records[0].config.timesteps, "epochs": records[0].config.epochs}
    if all("training_s" in record.cost for record in records):  # records of earlier versions have speeds only
        row["training_s"] = float(np.median([record.cost["training_s"] for record in records]))
    for key in ("images_per_s", "peak_mib"):
        row[key] = float(np.median([record.cost.get(key, np.nan) for record in records]))
    layers = [np.mean(layer.rates) for record in records for layer in record.results.firing_rates]
    row["firing_rate"] = float(np.mean(layers)) if layers else float("nan")
    for key in ("agreement", "agreement_where_wrong"):
        shares = [share for record in records if (share := getattr(record.teacher, key)) is not None]
        if shares:
            row[f"teacher_{key}"] = 100 * float(np.mean(shares))
    return row


def every_timestep(methods: Methods) -> Rows:
    """Each single timestep k = 1..T of each method: `{method, accuracy_k, confidence_k, entropy_k}`, means over its seeds.

    Accuracy and confidence are in percent, entropy in nats. A number that was not evaluated is nan. A method without any
    finished run has no row.
    """
    rows = []
    for method, records in finished(methods).items():
        row: dict[str, Any] = {"method": method}
        single = [record.results.single for record in records]
        for key, unit in (("accuracy", 100), ("confidence", 100), ("entropy", 1)):
            for entries in zip(*single, strict=True):
                values = [value if (value := getattr(entry, key)) is not None else np.nan for entry in entries]
                row[f"{key}_{entries[0].k}"] = unit * float(np.mean(values))
        rows.append(row)
    return rows
