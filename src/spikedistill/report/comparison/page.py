"""A comparison of several methods as one web page: who is better, by how much, and how sure that is."""

from pathlib import Path

from ...evaluation.comparison.comparison import Comparison
from ...files import write_atomically
from ..blocks import Page
from ..page import render
from .headline import compared, headline
from .sections import SECTIONS
from .shown import Shown


def write_comparison(folder: Path, comparison: Comparison, *, command: str | None = None) -> Path:
    """Write `report.html` into the folder of a comparison, readable offline; the same input gives the same bytes.

    Args:
        folder: of the comparison. The page links to the reports of its runs, `<method>/seed<k>/report.html`, that are there.
        comparison: what is shown.
        command: the command that repeats the comparison, if it was started from the command line.

    Returns:
        The path of the page.
    """
    path = folder / "report.html"
    write_atomically(path, render(page_of_comparison(Shown(comparison, folder, command))))
    return path


def page_of_comparison(shown: Shown) -> Page:
    """The comparison as a page."""
    verdict, numbers = headline(shown)
    sections = [section for make in SECTIONS if (section := make(shown))]
    title = f"{shown.comparison.baseline.dataset}: {len(shown.comparison.methods)} methods"
    return Page("comparison", title, compared(shown), verdict, numbers, sections)
