"""The table of what was tried."""

from collections import Counter
from collections.abc import Mapping, Sequence

from .attempts import RIGHT, WRONG, Attempt, Kind

_COLUMNS = (*RIGHT, *WRONG)


def rows(kinds: Sequence[Kind], found: Mapping[tuple[str, int], Attempt]) -> list[tuple[str, list[int]]]:
    """Name and figures of each kind that was tried, and of all together: tried, then one number for each outcome."""
    counted: dict[str, Counter[str]] = {kind.name: Counter() for kind in kinds}
    for attempt in found.values():
        if attempt.kind in counted:
            counted[attempt.kind][attempt.verdict.outcome] += 1
    figures = [(name, [count.total(), *(count[outcome] for outcome in _COLUMNS)]) for name, count in counted.items()]
    figures = [row for row in figures if row[1][0]]
    return [*figures, ("all", [sum(column) for column in zip(*(row[1] for row in figures), strict=True)])]


def print_table(kinds: Sequence[Kind], found: Mapping[tuple[str, int], Attempt]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="trouble")
    table.add_column("kind", no_wrap=True)
    for column in ("tried", *_COLUMNS):
        table.add_column(column, justify="right")
    for name, figures in rows(kinds, found):
        table.add_row(name, *map(str, figures))
    Console(width=150).print(table)


def to_markdown(kinds: Sequence[Kind], found: Mapping[tuple[str, int], Attempt]) -> str:
    """The table as it stands in docs/reliability.md."""
    lines = ["| trouble | " + " | ".join(("tried", *_COLUMNS)) + " |", "|---|" + "--:|" * (1 + len(_COLUMNS))]
    lines += [f"| {name} | " + " | ".join(map(str, figures)) + " |" for name, figures in rows(kinds, found)]
    return "\n".join(lines)
