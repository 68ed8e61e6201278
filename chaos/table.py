"""The table of what was tried."""

import os
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from .attempts import RIGHT, ROOT, WRONG, Attempt, Kind

COLUMNS = ("tried", *RIGHT, *WRONG)


def rows(kinds: Sequence[Kind], found: Mapping[tuple[str, int], Attempt]) -> list[tuple[str, list[int]]]:
    """Name and figures of each kind that was tried, and of all together: tried, then one number for each outcome."""
    counted: dict[str, Counter[str]] = {kind.name: Counter() for kind in kinds}
    for attempt in found.values():
        if attempt.kind in counted:
            counted[attempt.kind][attempt.verdict.outcome] += 1
    counted["all"] = sum(counted.values(), Counter())
    figures = [(name, [count.total(), *(count[column] for column in COLUMNS[1:])]) for name, count in counted.items()]
    return [row for row in figures if row[1][0]]


def print_table(kinds: Sequence[Kind], found: Mapping[tuple[str, int], Attempt]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("trouble", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for name, figures in rows(kinds, found):
        table.add_row(name, *map(str, figures))
    Console(width=160).print(table)


def to_markdown(kinds: Sequence[Kind], found: Mapping[tuple[str, int], Attempt]) -> str:
    """The table as it stands in docs/reliability.md, with the command, the commit and the machine."""
    lines = [f"`make chaos`, commit `{commit()}` of `src/`, {machine()}:", ""]
    lines += [f"| trouble | {' | '.join(COLUMNS)} |", "|---|" + "--:|" * len(COLUMNS)]
    lines += [f"| {name} | {' | '.join(map(str, figures))} |" for name, figures in rows(kinds, found)]
    return "\n".join(lines)


def commit() -> str:
    """The last commit that touched the library, and whether its files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = ", with changes" if git("status", "--porcelain", "src") else ""
    return git("log", "-1", "--format=%h", "--", "src") + changed


def machine() -> str:
    information = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in information if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"
