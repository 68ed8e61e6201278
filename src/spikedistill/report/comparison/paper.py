"""A comparison for a paper: tables for LaTeX, and figures as PDF and, for pages and slides, SVG."""

import importlib.util
import logging
from pathlib import Path

from ...evaluation.comparison.comparison import Comparison
from ...evaluation.comparison.leaderboard import with_numbers
from ...files import write_atomically
from ..figures import FORMATS, print_figure
from . import latex

logger = logging.getLogger("spikedistill")

_TABLES = {
    "leaderboard": latex.leaderboard,
    "cost": latex.cost,
    "timesteps": latex.timesteps,
    "regret": latex.regret,
    "published": latex.published,
}
_FIGURES = ("accuracy", "timesteps", "regret", "chosen")
PAPER_FILES = (*(f"{name}.tex" for name in _TABLES), *(f"{name}.{end}" for name in _FIGURES for end in FORMATS))
"""Names of the files that `write_paper_files` can write."""


def write_paper_files(folder: Path, comparison: Comparison) -> None:
    """Write the files for a paper: tables as .tex, and figures as .pdf and .svg.

    Tables are leaderboard, cost, timesteps, regret and published, figures accuracy, timesteps, regret and chosen, as far as the
    comparison has rows for them. The same rows give the same bytes. Figures need matplotlib, of the extra `figures`;
    without it only tables are written, and a line of the log explains that.

    Args:
        folder: of the comparison.
        comparison: what is shown.
    """
    rows, steps = comparison.leaderboard, comparison.timesteps
    tables = {"leaderboard": rows, "cost": rows, "timesteps": steps, "regret": comparison.regrets}
    for name, shown in (tables | {"published": comparison.published}).items():
        _write_or_remove(folder / f"{name}.tex", _TABLES[name](shown) if shown else None)
    drawings = with_numbers(rows), steps, comparison.regrets, comparison.chosen
    if not importlib.util.find_spec("matplotlib"):
        logger.warning("no figures for papers, because matplotlib is missing: pip install matplotlib")
        return
    for name, drawn in zip(_FIGURES, drawings, strict=True):
        for file_format in FORMATS:
            figure = print_figure(name, drawn, file_format) if drawn else None
            _write_or_remove(folder / f"{name}.{file_format}", figure)


def _write_or_remove(file: Path, content: bytes | str | None) -> None:
    """Write a file; without content, remove the file of an earlier comparison."""
    if content is None:
        file.unlink(missing_ok=True)
    else:
        write_atomically(file, content)
