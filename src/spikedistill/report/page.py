"""From sections, those of a run folder or others, to one web page that needs nothing else."""

from pathlib import Path

from ..files import alone_in, write_atomically
from ..run_folder import RunFolder
from .blocks import Page, Plots
from .run.headline import headline, trained
from .run.reading import Run, check_present, read_run
from .run.sections import SECTIONS


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


def render(page: Page) -> str:
    """The page as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("spikedistill.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    blocks = [block for section in page.sections for block in section.blocks]
    figures = {plot.name: plot.figure for block in blocks if isinstance(block, Plots) for plot in block.plots}
    template = environment.get_template("report.html.j2")
    return template.render(page=page, figures=figures, plotly_js=get_plotlyjs())
