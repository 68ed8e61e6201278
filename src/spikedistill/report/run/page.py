"""A run as one web page: what was trained, how good it is at every k, and how it came to be."""

from pathlib import Path

from ...files import alone_in, write_atomically
from ...run_folder import RunFolder
from ..blocks import Page
from ..page import render
from .headline import headline, trained
from .reading import Run, check_present, read_run
from .sections import SECTIONS


def write_report(run: Path | str) -> Path:
    """Write `report.html` into a run folder: the run in figures, plots and words, readable offline.

    The page is a function of the folder's files: the same files give the same bytes. It shows what the folder holds; a
    section without data is left out.

    Args:
        run: the run folder, with `config.yaml` and `results.json` at least.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: the folder or one of these files is missing.
        UserError: a file is broken, or does not belong to the others.
    """
    folder = RunFolder(run)
    check_present(folder)
    with alone_in(folder.path, wait=True):
        page = render(page_of_run(read_run(run)))
        with folder.rewriting(folder.report):
            write_atomically(folder.report, page)
    return folder.report


def page_of_run(run: Run) -> Page:
    """The run as a page."""
    verdict, numbers = headline(run)
    sections = [section for make in SECTIONS if (section := make(run))]
    return Page("report of one run", run.results.recipe, trained(run), verdict, numbers, sections)
