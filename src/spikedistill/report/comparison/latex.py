"""Tables of a comparison, each a `tabular` for a document that loads booktabs."""

from collections.abc import Sequence

from ...evaluation.comparison.leaderboard import with_numbers
from ..blocks import Column, Row, decimals, measured, numbered
from .costs import cost_columns
from .lost import count_columns

_TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "–": "--",
        "[": "{[}",  # after the end of a row, LaTeX would read a bracket as an option
        "]": "{]}",
        **{character: "\\" + character for character in "&%$#_{}"},
    }
)


def leaderboard(rows: Sequence[Row]) -> str:
    """Accuracies at every k, their mean, and its difference to the baseline; how many runs are finished, if not all are."""
    K, counts = numbered(with_numbers(rows)[0], "accuracy_"), count_columns(rows)
    lines = []
    for row in rows:
        cells = [row["method"].translate(_TEX), *(column.text(row) for column in counts)]
        for key in (*(f"accuracy_{k}" for k in K), "area"):
            spread = rf" \pm {row[f'{key}_std']:.2f}" if row["seeds"] > 1 else ""
            cells.append(f"${row[key]:.2f}{spread}$" if key in row else "--")
        against = ["--", "--"]
        if "area_difference" in row:
            p = f"${row['area_p']:.3f}$" if "area_p" in row else "--"
            against = [_interval(row, "area_difference", "area"), p]
        lines.append([*cells, *against])
    head = ["Method", *(column.title for column in counts), *(f"$k={k}$" for k in K), r"Mean over $k$"]
    return _tabular([*head, r"Difference [95\,\%]", "$p$"], lines)


def cost(rows: Sequence[Row]) -> str:
    """What training cost, and how often neurons fire."""
    columns = cost_columns(rows)
    return _tabular(["Method", *(column.head for column in columns)], _cells(columns, rows))


def timesteps(rows: Sequence[Row]) -> str:
    """Every single timestep; a number that no method has gets no column."""
    titles = {"accuracy": r"Accuracy, \%", "confidence": r"Confidence, \%", "entropy": "Entropy, nats"}
    columns = [
        Column(f"{key}_{k}", rf"{title}, $k={k}$", write=decimals(3 if key == "entropy" else 2))
        for key, title in titles.items()
        for k in sorted({k for row in rows for k in numbered(row, f"{key}_")})
        if any(measured(row, f"{key}_{k}") for row in rows)
    ]
    return _tabular(["Method", *(column.title for column in columns)], _cells(columns, rows))


def regret(rows: Sequence[Row]) -> str:
    """The accuracy that one network loses to specialists at each k."""
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
    """Published accuracies next to those of the comparison. A dagger marks doubts, which the page of the comparison explains."""
    lines, dagger = [], r"^\dagger"
    for row in rows:
        accuracy = f"${row['accuracy']}{dagger if row['doubt'] else ''}$"
        places = [str(row[key]).translate(_TEX) or "--" for key in ("network", "T", "source")]
        lines.append(
            [row["ours"].translate(_TEX), f"${row['ours_accuracy']:.2f}$", str(row["ours_k"]), accuracy, *places]
        )
    head = ["Method", "Here", "at $k$", "Published", "Its network", "Its $T$", "Source"]
    return _tabular(head, lines, "lrrrlrl")


def _cells(columns: Sequence[Column], rows: Sequence[Row]) -> list[list[str]]:
    cells = [[row["method"], *(column.text(row) for column in columns)] for row in rows]
    return [[cell.translate(_TEX) for cell in line] for line in cells]


def _interval(row: Row, key: str, ends: str) -> str:
    interval = f" [${row[f'{ends}_low']:+.2f}$, ${row[f'{ends}_high']:+.2f}$]" if f"{ends}_low" in row else ""
    return f"${row[key]:+.2f}${interval}"


def _tabular(head: Sequence[str], lines: Sequence[Sequence[str]], columns: str = "") -> str:
    """A table whose first column is text and whose others are numbers, unless `columns` gives other alignments."""
    columns = columns or "l" + "r" * (len(head) - 1)
    begin = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", " & ".join(head) + r" \\", r"\midrule"]
    return "\n".join([*begin, *(" & ".join(cells) + r" \\" for cells in lines), r"\bottomrule", r"\end{tabular}", ""])
