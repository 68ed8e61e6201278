"""The runs of a comparison that have no numbers: they diverged, or their teacher did."""

from collections.abc import Sequence

from ..blocks import Column, Row

_LOST = (Column("diverged", "Diverged"), Column("not_trained", "Not trained"))


def planned_seeds(row: Row) -> int:
    """How many runs were planned for a method."""
    return row["seeds"] + sum(row.get(column.key, 0) for column in _LOST)


def count_columns(rows: Sequence[Row]) -> list[Column]:
    """How many runs of each method are finished and how many are not; no columns if all are finished."""
    lost = [column for column in _LOST if any(row.get(column.key) for row in rows)]
    return [Column("seeds", "Finished"), *lost] if lost else []


def what_was_lost(rows: Sequence[Row]) -> str:
    """How many runs have no numbers, in a sentence; empty if all have some."""
    diverged, not_trained = (sum(row.get(column.key, 0) for row in rows) for column in _LOST)
    if not diverged and not not_trained:
        return ""
    runs, parts = sum(planned_seeds(row) for row in rows), []
    if diverged:
        parts.append(f"{diverged} diverged")
    if not_trained:
        was, its = ("was", "its") if not_trained == 1 else ("were", "their")
        parts.append(f"{not_trained} {was} not trained, because {its} teacher diverged")
    return f"Of {runs} runs {' and '.join(parts)}."


def why_no_differences(rows: Sequence[Row]) -> str:
    """Why no method is compared with the baseline, the first method, in a sentence; empty if some are."""
    baseline, *others = rows
    if "area" not in baseline:
        return f"There are no differences, because the baseline, {baseline['method']}, has no finished run."
    if not any("area_difference" in row for row in others):
        return f"There are no differences, because no other method has finished a seed that {baseline['method']} has."
    return ""
