"""Accuracy under attack over the size of the attack, and which rows not to believe."""

from typing import Any

from ....robustness.checks import UNBOUNDED
from ....robustness.results import Robustness, RowResult
from ... import figures
from ...blocks import Column, Plot, Plots, Section, Table, Text, decimals
from ..reading import Run

_BASELINES = ("noise", "random-events")
ROWS = (
    Column("attack", "Attack"),
    Column("eps", "eps", write=decimals(1)),
    Column("k", "k"),
    Column("accuracy", "Right, %", write=decimals(1)),
    Column("zero", "Zero gradients, %", write=decimals(0)),
    Column("fell", "Fell to"),
    Column("doubt", "Why it is too optimistic"),
)


def robustness_section(run: Run) -> Section | None:
    """Curves over eps for each k, and every row with its doubts."""
    found = run.robustness
    if found is None:
        return None
    checked = [row for row in found.rows if any(check.about == UNBOUNDED for check in row.checks)]
    doubted = sum(any(not check.passed for check in row.checks) for row in checked)
    unchecked = sum(bool(row.checks) for row in found.rows) - len(checked)
    size = "eps levels of 255 in any pixel" if found.unit == 255 else "eps percent of their events"
    words = (
        f"Right answers in percent of {found.samples:,} test samples that were changed, by no more than {size}, so that the "
        "network mistakes them. An attack at k timesteps sees k timesteps. Its gradients go through several "
        "surrogates in turn, each on the samples that the ones before have left."
    )
    if checked:
        words += f" {doubted} of {len(checked)} rows fail a check, and are upper bounds."
    if unchecked:
        words += f" {unchecked} rows were measured without the attacks that check them, and may be upper bounds."
    blocks: list[Any] = [Text(words), Plots([_curves(found)]), _table(found)]
    if found.mean_corruption_error:
        blocks.append(_corruptions(found))
    if found.exits is not None:
        blocks.append(_exits(found))
    return Section("robustness", "Under attack", blocks)


def _curves(found: Robustness) -> Plot:
    """The worst case of each k over eps, and noise."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in found.rows:
        if row.remark == "clean":
            lines[f"worst, k={row.timesteps}"] = [(0.0, row.accuracy)]
    for worst in found.worst_case:
        lines.setdefault(f"worst, k={worst.timesteps}", []).append((found.unit * worst.eps, worst.accuracy))
    for row in found.rows:
        if row.name in _BASELINES and row.eps is not None and not row.remark:
            lines.setdefault(f"{row.name}, k={row.timesteps}", []).append((found.unit * row.eps, row.accuracy))
    rows = [{"line": name, "eps": x, "accuracy": y} for name, points in lines.items() for x, y in points]
    title = "Right under the worst attack, and under noise"
    columns = [
        Column("line", "Line"),
        Column("eps", "eps", write=decimals(1)),
        Column("accuracy", "Right, %", write=decimals(1)),
    ]
    return Plot(
        name="under_attack",
        title=title,
        note="Worst: samples that withstand every attack with gradients of this size.",
        alt=f"Line plot of accuracy over eps, {len(lines)} lines.",
        figure=figures.under_attack(
            lines, "levels of 255" if found.unit == 255 else "percent of the events", _BASELINES
        ),
        height=340,
        table=Table("under_attack", title, columns, rows),
    )


def _table(found: Robustness) -> Table:
    shown = [row for row in found.rows if row.remark in ("", "clean")]
    rows = [
        {
            "attack": row.remark or row.name,
            "eps": None if row.eps is None else found.unit * row.eps,
            "k": row.timesteps,
            "accuracy": row.accuracy,
            "zero": None if row.no_gradient is None else 100 * row.no_gradient,
            "fell": _fell(row),
            "doubt": "; ".join(check.said for check in row.checks if not check.passed),
        }
        for row in shown
    ]
    return Table("attacks", "Every attack", ROWS, rows)


def _fell(row: RowResult) -> str:
    return ", ".join(f"{name} {count}" for name, count in row.fooled_through.items() if count)


def _corruptions(found: Robustness) -> Table:
    corrupted = [row for row in found.rows if row.kind is not None]
    severities = sorted({row.severity for row in corrupted if row.severity is not None})
    columns = [Column("kind", "Corruption"), Column("k", "k")]
    columns += [Column(str(severity), f"Severity {severity}, %", write=decimals(1)) for severity in severities]
    rows = [
        {"kind": kind, "k": k}
        | {str(row.severity): row.accuracy for row in corrupted if (row.kind, row.timesteps) == (kind, k)}
        for kind, k in dict.fromkeys((row.kind, row.timesteps) for row in corrupted)
    ]
    errors = ", ".join(f"{error:.1f} at k = {k}" for k, error in found.mean_corruption_error.items())
    return Table("corruptions", f"Right under common corruptions; mean error in percent {errors}", columns, rows)


def _exits(found: Robustness) -> Table:
    assert found.exits is not None
    columns = [
        Column("goal", "Attack on"),
        Column("accuracy", "Right, %", write=decimals(1)),
        Column("mean_exit", "Timesteps", write=decimals(2)),
        Column("never", "Run to the end, %", write=decimals(1)),
    ]
    title = f"Early exit at a confidence of {found.exits.threshold:g}, eps {found.unit * found.exits.eps:g}"
    return Table("attacked_exits", title, columns, [row.model_dump() for row in found.exits.rows])
