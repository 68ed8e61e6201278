"""From a run folder to one web page that needs nothing else."""

from pathlib import Path
from typing import Any

from ..files import write_atomically
from ..run_folder import RunFolder
from .blocks import Plots
from .headline import headline, trained
from .run import Run, read_run
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
        ValueError: a file is broken, or does not belong to the others.
    """
    page = render(read_run(run))
    path = RunFolder(run).report
    write_atomically(path, page)
    return path


def render(run: Run) -> str:
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
    return environment.get_template("report.html.j2").render(context(run), plotly_js=get_plotlyjs())


def context(run: Run) -> dict[str, Any]:
    """What the template draws."""
    sections = [section for make in SECTIONS if (section := make(run))]
    blocks = [block for section in sections for block in section.blocks]
    verdict, numbers = headline(run)
    return {
        "title": run.results.recipe,
        "trained": trained(run),
        "verdict": verdict,
        "numbers": numbers,
        "sections": sections,
        "figures": {plot.name: plot.figure for block in blocks if isinstance(block, Plots) for plot in block.plots},
    }
