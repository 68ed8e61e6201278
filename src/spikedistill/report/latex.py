"""Tables of a comparison, each a `tabular` for a document that loads booktabs."""

from collections.abc import Callable, Sequence
from typing import Any

from .blocks import Row, decimals, duration, measured, numbered

Columns = dict[str, tuple[str, Callable[[Any], str]]]  # a head, the key of its figures, how they are written
_TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",  # after the end of a row it would be an option
        "]": "{]}",
        **{character: "\\" + character for character in "&%$#_{}"},
    }
)


def leaderboard(rows: Sequence[Row]) -> str:
    """Accuracies at every k, their mean, and its difference to the baseline."""
    K = numbered(rows[0], "accuracy_")
    several = rows[0]["seeds"] > 1
    lines = []
    for row in rows:
        cells = [row["method"].translate(_TEX)]
        for key in (*(f"accuracy_{k}" for k in K), "area"):
            spread = rf" \pm {row[f'{key}_std']:.2f}" if several else ""
            cells += [f"${row[key]:.2f}{spread}$"]
        against = ["--", "--"]
        if "area_difference" in row:
            against = [_interval(row, "area_difference", "area"), f"${row['area_p']:.3f}$"]
        lines.append([*cells, *against])
    return _tabular(["Method", *(f"$k={k}$" for k in K), r"Mean over $k$", r"Difference [95\,\%]", "$p$"], lines)


def cost(rows: Sequence[Row]) -> str:
    """What training took, and how often neurons fire."""
    columns: Columns = {
        "Method": ("method", str),
        "T": ("timesteps", str),
        "Epochs": ("epochs", str),
        "Training time": ("training_s", duration),
        "Images/s": ("images_per_s", decimals(0)),
        "Memory, MiB": ("peak_mib", decimals(0)),
        "Firing rate": ("firing_rate", decimals(3)),
    }
    return _figures(columns, rows)


def timesteps(rows: Sequence[Row]) -> str:
    """Every timestep alone."""
    K = sorted({k for row in rows for k in numbered(row, "accuracy_")})
    units = {"accuracy": r"Accuracy, \%", "confidence": r"Confidence, \%", "entropy": "Entropy, nats"}
    columns: Columns = {"Method": ("method", str)}
    for key, unit in units.items():
        columns |= {f"{unit}, $k={k}$": (f"{key}_{k}", decimals(3 if key == "entropy" else 2)) for k in K}
    return _figures(columns, rows)


def regret(rows: Sequence[Row]) -> str:
    """What one network loses to specialists at each k."""
    K = sorted({k for row in rows for k in numbered(row, "regret_")})
    lines = [
        [
            f"{row['method']} against {row['specialists']}".translate(_TEX),
            *(_interval(row, f"regret_{k}", f"regret_{k}") if f"regret_{k}" in row else "--" for k in K),
        ]
        for row in rows
    ]
    return _tabular([r"Points lost [95\,\%]", *(f"$k={k}$" for k in K)], lines)


def published(rows: Sequence[Row]) -> str:
    """Numbers of papers beside those here, with a dagger where they may be off, for reasons that the page of the comparison has."""
    lines, dagger = [], r"^\dagger"
    for row in rows:
        accuracy = f"${row['accuracy']}{dagger if row['doubt'] else ''}$"
        places = [str(row[key]).translate(_TEX) or "--" for key in ("network", "T", "source")]
        lines.append([row["ours"].translate(_TEX), f"${row['ours_accuracy']:.2f}$", accuracy, *places])
    return _tabular(["Method", "Here", "Published", "Its network", "Its $T$", "Source"], lines)


def _figures(columns: Columns, rows: Sequence[Row]) -> str:
    """A table of columns `{head: (key, format)}`, a dash where a row has no such figure, without columns that no row has."""
    known = {head: part for head, part in columns.items() if any(measured(row, part[0]) for row in rows)}
    lines = [
        [write(row[key]).translate(_TEX) if measured(row, key) else "--" for key, write in known.values()]
        for row in rows
    ]
    return _tabular([*known], lines)


def _interval(row: Row, key: str, ends: str) -> str:
    difference, low, high = (f"{row[name]:+.2f}" for name in (key, f"{ends}_low", f"{ends}_high"))
    return f"${difference}$ [${low}$, ${high}$]"


def _tabular(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    begin = [rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", " & ".join(head) + r" \\", r"\midrule"]
    return "\n".join([*begin, *(" & ".join(cells) + r" \\" for cells in lines), r"\bottomrule", r"\end{tabular}", ""])
