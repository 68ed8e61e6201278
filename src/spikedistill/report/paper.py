"""A comparison as a paper shows it: a table for LaTeX, and figures as PDF and, for pages and slides, SVG."""

from collections.abc import Sequence
from pathlib import Path

from ..files import write_atomically
from .blocks import Row
from .comparison import timesteps
from .figures import FORMATS, print_figure

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


def write_paper_files(
    folder: Path, rows: Sequence[Row], steps: Sequence[Row] = (), lost: Sequence[Row] = (), chosen: Sequence[Row] = ()
) -> None:
    """Write `leaderboard.tex`, and as .pdf and .svg the figures accuracy, timesteps, regret and chosen that there are rows for.

    The same rows give the same bytes.

    Args:
        folder: of the comparison.
        rows: of the leaderboard, the baseline first; see `spikedistill.evaluation.comparison.leaderboard`.
        steps: one row per method; see `spikedistill.evaluation.comparison.every_timestep`.
        lost: what networks lose to specialists; see `spikedistill.evaluation.comparison.regrets`.
        chosen: which timesteps methods chose; see `spikedistill.evaluation.comparison.chosen_timesteps`.
    """
    write_atomically(folder / "leaderboard.tex", latex_table(rows))
    for name, shown in (("accuracy", rows), ("timesteps", steps), ("regret", lost), ("chosen", chosen)):
        for file_format in FORMATS:
            file = folder / f"{name}.{file_format}"
            if shown:
                write_atomically(file, print_figure(name, shown, file_format))
            else:
                file.unlink(missing_ok=True)  # of an earlier comparison here


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
