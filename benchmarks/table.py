"""Figures in rows: ratios within rounds, medians and quartiles."""

import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .contenders import SUITES
from .results import Results

Row = dict[str, Any]


def rows_of(results: Results, to: str | None = None) -> list[Row]:
    """One row for each contender at each T.

    Args:
        results: the raw figures.
        to: the contender that ratios are taken to; default the benchmark's reference.

    Raises:
        ValueError: where there are no figures, or none of `to`.
    """
    if not results.sessions:
        raise ValueError(f"{results.path} holds no figures")
    suite = SUITES[results.sessions[0]["suite"]]
    to = to or suite.reference
    cells = {(T, name) for T, rounds in results.rounds.items() for seconds in rounds for name in seconds}
    cells |= {(T, name) for name, T in results.fresh}
    if all(name != to for _, name in cells):
        raise ValueError(
            f"{results.path} has no figures of {to!r}: choose of {', '.join(sorted({n for _, n in cells}))}"
        )
    names = [
        *suite.contenders,
        *sorted({name for _, name in cells} - suite.contenders.keys()),
    ]  # some may be gone since
    return [_row(results, T, name, to) for T, name in sorted(cells, key=lambda cell: (cell[0], names.index(cell[1])))]


def _row(results: Results, timesteps: int, name: str, to: str) -> Row:
    rounds = [seconds for seconds in results.rounds[timesteps] if name in seconds]
    fresh = results.fresh.get((name, timesteps), {})
    peak = fresh.get("peak_bytes")
    return {
        "timesteps": timesteps,
        "contender": name,
        "rounds": len(rounds),
        **_quartiles("ms", [1000 * seconds[name] for seconds in rounds]),
        **_quartiles(f"per_{to}", [seconds[name] / seconds[to] for seconds in rounds if to in seconds]),
        "peak_mib": None if peak is None else round(peak / 2**20, 1),
        "first_step_s": _rounded(fresh.get("first_step_s"), 2),
        "first_step_warm_s": _rounded(fresh.get("first_step_warm_s"), 2),
    }


def _quartiles(name: str, values: Sequence[float]) -> dict[str, float | None]:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]) if values else (None, None, None)
    return {name: _rounded(middle, 3), f"{name}_q1": _rounded(low, 3), f"{name}_q3": _rounded(high, 3)}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """The rows as a file."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def describe(results: Results) -> list[str]:
    """What was measured, where and with which code, in a few lines."""
    first = results.sessions[0]
    lines = [
        f"{first['suite']}: " + ", ".join(f"{key} {value}" for key, value in first["workload"].items()),
        "machine: " + ", ".join(f"{key} {value}" for key, value in first["machine"].items() if value is not None),
    ]
    for session in results.sessions:
        libraries = ", ".join(f"{name} {version}" for name, version in session["versions"].items())
        changed = " with changes" if session["dirty"] else ""
        lines.append(f"{session['started']}, commit {session['commit']}{changed}, {libraries}: {session['command']}")
    return lines


def print_table(rows: Sequence[Row], caption: Sequence[str]) -> None:
    """All rows, T after T."""
    from rich.console import Console
    from rich.table import Table

    to = _ratio_column(rows).removeprefix("per_")
    table = Table()
    table.add_column("T", justify="right")
    table.add_column("contender")
    for column in ("ms", f"times {to} [quartiles]", "peak MiB", "first step s", "warm s", "rounds"):
        table.add_column(column, justify="right", no_wrap=True)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        table.add_row(
            str(row["timesteps"]),
            row["contender"],
            _shown(row["ms"], 1),
            _ratio(row),
            _shown(row["peak_mib"], 0),
            _shown(row["first_step_s"], 1),
            _shown(row["first_step_warm_s"], 1),
            str(row["rounds"]),
            end_section=following is not None and following["timesteps"] != row["timesteps"],
        )
    # in a file or a pipe it is as wide as it needs to be
    console = Console(width=None if sys.stdout.isatty() else 130)
    console.print(table)
    for line in caption:
        console.print(line, soft_wrap=True, highlight=False)


def to_markdown(rows: Sequence[Row]) -> str:
    """Three tables for a document, contenders down and T across: milliseconds, ratios, and peak memory in MiB."""
    to = _ratio_column(rows).removeprefix("per_")
    views: dict[str, Callable[[Row], str]] = {
        "ms": lambda row: _shown(row["ms"], 1),
        f"times {to}": _ratio,
        "peak MiB": lambda row: _shown(row["peak_mib"], 0),
    }
    T = sorted({row["timesteps"] for row in rows})
    names = list(dict.fromkeys(row["contender"] for row in sorted(rows, key=lambda row: -row["timesteps"])))
    cells = {(row["contender"], row["timesteps"]): row for row in rows}
    tables = []
    for title, view in views.items():
        lines = [f"| {title} | " + " | ".join(f"T={t}" for t in T) + " |", "|---" * (len(T) + 1) + "|"]
        for name in names:
            shown = [view(cells[name, t]) if (name, t) in cells else "" for t in T]
            if any(shown):
                lines.append(f"| {name} | " + " | ".join(shown) + " |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _ratio_column(rows: Sequence[Row]) -> str:
    return next(key for key in rows[0] if key.startswith("per_"))


def _ratio(row: Row) -> str:
    column = _ratio_column([row])
    if row[column] is None:
        return ""
    return f"{row[column]:.2f} [{row[f'{column}_q1']:.2f}, {row[f'{column}_q3']:.2f}]"


def _shown(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
