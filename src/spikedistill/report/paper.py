"""A comparison as a paper shows it: a table for LaTeX and a figure as PDF."""

import io
from collections.abc import Sequence
from pathlib import Path

from ..files import write_atomically
from .blocks import Row
from .comparison import timesteps

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


def write_paper_files(folder: Path, rows: Sequence[Row]) -> None:
    """Write `leaderboard.tex` and `accuracy.pdf` into a folder; the same rows give the same bytes.

    Args:
        folder: of the comparison.
        rows: of the leaderboard, the baseline first; see `spikedistill.evaluation.comparison.leaderboard`.
    """
    write_atomically(folder / "leaderboard.tex", latex_table(rows))
    write_atomically(folder / "accuracy.pdf", accuracy_figure(rows))


def latex_table(rows: Sequence[Row]) -> str:
    """The leaderboard as a `tabular` for a document that loads booktabs: accuracies, mean over k, and its difference."""
    K = range(1, timesteps(rows) + 1)
    several = rows[0]["seeds"] > 1
    head = ["Method", *(f"$k={k}$" for k in K), r"Mean over $k$", r"Difference [95\,\%]", "$p$"]
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", " & ".join(head) + r" \\", r"\midrule"]
    for row in rows:
        cells = [row["method"].translate(_TEX)]
        for key in (*(f"accuracy_{k}" for k in K), "area"):
            spread = rf" \pm {row[f'{key}_std']:.2f}" if several else ""
            cells += [f"${row[key]:.2f}{spread}$"]
        if "area_difference" in row:
            difference, low, high = (f"{row[f'area_{part}']:+.2f}" for part in ("difference", "low", "high"))
            cells += [f"${difference}$ [${low}$, ${high}$]", f"${row['area_p']:.3f}$"]
        else:
            cells += ["--", "--"]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def accuracy_figure(rows: Sequence[Row]) -> bytes:
    """Accuracy over k of every method as PDF, one column of a paper wide, with a band of one standard deviation over seeds."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    K = range(1, timesteps(rows) + 1)
    with matplotlib.rc_context({"font.size": 8, "pdf.fonttype": 42, "text.parse_math": False}):
        figure = Figure(figsize=(3.4, 2.6 + 0.14 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        lines = []
        for place, row in enumerate(rows):
            mean = [row[f"accuracy_{k}"] for k in K]
            color = "black" if place == 0 else f"C{(place - 1) % 10}"
            lines += axes.plot(
                K,
                mean,
                color=color,
                marker="osD^vPX*"[place % 8],
                markersize=3,
                linestyle=("-", "--", ":", "-.")[place % 4],
                linewidth=1,
            )
            if row["seeds"] > 1:
                spread = [row[f"accuracy_{k}_std"] for k in K]
                low, high = ([m + sign * s for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1))
                axes.fill_between(K, low, high, color=color, alpha=0.15, linewidth=0)
        axes.set(xlabel="k, timesteps", ylabel="test accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(lines, [row["method"] for row in rows], loc="outside lower center", frameon=False)
        content = io.BytesIO()
        figure.savefig(content, format="pdf", metadata={"CreationDate": None})  # no date: the same rows, the same bytes
    return content.getvalue()
