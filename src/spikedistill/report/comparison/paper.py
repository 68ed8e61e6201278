"""A comparison as a paper shows it: tables for LaTeX, and figures as PDF and, for pages and slides, SVG."""

from collections.abc import Sequence
from pathlib import Path

from ...files import write_atomically
from ..blocks import Row
from ..figures import FORMATS, print_figure
from . import latex
from .lost import with_numbers

_TABLES = {
    "leaderboard": latex.leaderboard,
    "cost": latex.cost,
    "timesteps": latex.timesteps,
    "regret": latex.regret,
    "published": latex.published,
}
_FIGURES = ("accuracy", "timesteps", "regret", "chosen")
PAPER_FILES = (*(f"{name}.tex" for name in _TABLES), *(f"{name}.{end}" for name in _FIGURES for end in FORMATS))


def write_paper_files(
    folder: Path,
    rows: Sequence[Row],
    steps: Sequence[Row] = (),
    lost: Sequence[Row] = (),
    chosen: Sequence[Row] = (),
    published: Sequence[Row] = (),
) -> None:
    """Write what a paper takes over: tables as .tex, and figures as .pdf and .svg.

    Tables are leaderboard, cost, timesteps, regret and published, figures accuracy, timesteps, regret and chosen, as far as there
    are rows for them. The same rows give the same bytes.

    Args:
        folder: of the comparison.
        rows: of the leaderboard, the baseline first; see `spikedistill.evaluation.comparison.leaderboard`.
        steps: one row per method; see `spikedistill.evaluation.comparison.leaderboard.every_timestep`.
        lost: what networks lose to specialists; see `spikedistill.evaluation.comparison.leaderboard.regrets`.
        chosen: which timesteps methods chose; see `spikedistill.evaluation.comparison.leaderboard.chosen_timesteps`.
        published: what papers report; see `spikedistill.evaluation.comparison.published.beside_published`.
    """
    tables = {"leaderboard": rows, "cost": rows, "timesteps": steps, "regret": lost, "published": published}
    for name, shown in tables.items():
        _write_or_remove(folder / f"{name}.tex", _TABLES[name](shown) if shown else None)
    for name, drawn in zip(_FIGURES, (with_numbers(rows), steps, lost, chosen), strict=True):
        for file_format in FORMATS:
            figure = print_figure(name, drawn, file_format) if drawn else None
            _write_or_remove(folder / f"{name}.{file_format}", figure)


def _write_or_remove(file: Path, content: bytes | str | None) -> None:
    """Write a file, or remove that of an earlier comparison here."""
    if content is None:
        file.unlink(missing_ok=True)
    else:
        write_atomically(file, content)
