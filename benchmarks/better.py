"""Whether a method is better than others for users who do not know yet how long their network will run.

It is better than another if three things hold: it loses no more than a margin at any k, its mean over k is higher, and its
largest distance from the best method is smaller. The first two are tests. All have to be passed, so the p-value is the largest
of theirs, and it is corrected by Holm for the number of other methods.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from spikedistill.evaluation.comparison.differences import paired_difference
from spikedistill.evaluation.comparison.records import LostRun, Records, RunRecord

MARGIN = 0.3  # points
LEVEL = 0.05
Right = npt.NDArray[np.float64]


def verdicts(ours: Right, others: Mapping[str, Right], margin: float = MARGIN) -> list[dict[str, Any]]:
    """Ours beside each other method.

    Args:
        ours: whether each test sample is right, `[S, T, N]`, of three seeds or more.
        others: the same of other methods, with the same seeds, by name.
        margin: points that may be lost at a k.

    Returns:
        Rows `{method, each_k: [...], mean, noninferior, superior, p, regret, own_regret, better}`: for every k and for the mean
        over k `{difference, low, high}` in points; the largest one-sided p-value that ours loses the margin at a k, and that of its
        mean being no higher; the larger of both after Holm; the largest regrets of the other and of ours; and whether all three
        hold.
    """
    accuracy = {"": 100 * ours.mean((0, 2)), **{name: 100 * right.mean((0, 2)) for name, right in others.items()}}
    best = np.max([*accuracy.values()], axis=0)
    regret = {name: float((best - each).max()) for name, each in accuracy.items()}
    rows: list[dict[str, Any]] = []
    for name, theirs in others.items():
        each_k = [paired_difference(ours[:, k], theirs[:, k]) for k in range(ours.shape[1])]
        lost = [_above(ours[:, k] + margin / 100, theirs[:, k]) for k in range(ours.shape[1])]
        mean = paired_difference(ours.mean(1), theirs.mean(1))
        tests = {"noninferior": max(lost), "superior": _above(ours.mean(1), theirs.mean(1))}
        rows.append(
            {"method": name, "each_k": [_points(row) for row in each_k], "mean": _points(mean), **tests}
            | {"p": max(tests.values()), "regret": regret[name], "own_regret": regret[""]}
        )
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p"] = p
        row["better"] = bool(p < LEVEL and regret[""] < row["regret"])
    return rows


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm, 1979).

    The k-th smallest of m is multiplied by m - k + 1; none gets below those before it, or above 1.
    """
    order, found, largest = np.argsort(p), [0.0] * len(p), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - place) * p[index]))
        found[index] = largest
    return found


def _above(ours: Right, theirs: Right) -> float:
    """The one-sided p-value of ours being no higher."""
    found = paired_difference(ours, theirs)
    return found["p"] / 2 if found["difference"] > 0 else 1 - found["p"] / 2


def _points(row: Mapping[str, float]) -> dict[str, float]:
    return {name: 100 * row[name] for name in ("difference", "low", "high")}


class Compared(NamedTuple):
    """The methods of a comparison.

    Attributes:
        right: the answers of each, `[S, T, N]`, by name, of the seeds with which none of them diverged.
        diverged: the seeds with which a method diverged, by name; one that diverged with all is not in `right`.
        names: of all.
        lost_teachers: ordinary networks that diverged, so that methods that learn from them have no runs.
    """

    right: dict[str, Right]
    diverged: dict[str, list[int]]
    names: tuple[str, ...]
    lost_teachers: tuple[str, ...]


def methods_of(folder: Path, wanted: Collection[str] = ()) -> Compared:
    """The answers of some methods of a comparison; default all.

    Raises:
        ValueError: if methods were trained with other seeds, or with several teachers.
    """
    records = Records(folder)
    found: dict[str, dict[int, RunRecord | LostRun]] = {}
    lost_teachers: list[str] = []
    for run in [name for name in records.runs() if not name.startswith("tuning/")]:
        record = records.find(folder / run)
        if record is None:
            continue
        if record.config.model.neuron == "relu":
            lost_teachers += [run] * isinstance(record, LostRun)
            continue
        if wanted and record.config.recipe not in wanted:
            continue
        of_method = found.setdefault(str(record.config.recipe), {})
        if record.config.seed in of_method:
            raise ValueError(f"{folder} has seeds with several teachers: compare the methods with one")
        of_method[record.config.seed] = record
    if len(seeds := {tuple(sorted(each)) for each in found.values()}) > 1:
        raise ValueError(f"{folder} has methods with the seeds {sorted(seeds)}: finish the comparison first")
    trained = {
        name: {seed: run for seed, run in each.items() if isinstance(run, RunRecord)} for name, each in found.items()
    }
    diverged = {
        name: sorted({*found[name]} - {*each}) for name, each in trained.items() if len(each) < len(found[name])
    }
    trained = {name: each for name, each in trained.items() if each}
    common = sorted(set.intersection(*({*each} for each in trained.values()))) if trained else []
    return Compared(
        {
            name: np.stack([each[seed].right[: each[seed].config.timesteps].astype(float) for seed in common])
            for name, each in trained.items()
            if common
        },
        diverged,
        tuple(found),
        tuple(lost_teachers),
    )


def to_markdown(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """Differences at every k and of the mean, and what follows."""
    T = len(rows[0]["each_k"])
    ks = " | ".join(f"k={k}" for k in range(1, T + 1))
    lines = [
        f"| {name} less | {ks} | mean over k | p | largest regret | that of {name} | better |",
        "|---|" + "---|" * (T + 1) + "--:|--:|--:|---|",
    ]
    for row in rows:
        cells = [_said(each) for each in (*row["each_k"], row["mean"])]
        cells += [
            f"{row['p']:.3f}",
            f"{row['regret']:.2f}",
            f"{row['own_regret']:.2f}",
            "yes" if row["better"] else "no",
        ]
        lines.append(f"| {row['method']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _said(row: Mapping[str, float]) -> str:
    return f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
