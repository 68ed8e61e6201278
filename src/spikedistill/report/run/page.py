"""A run as one web page: what was trained, its accuracy at every k, and its training."""

from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError
from ...evaluation.logits_file import LabelledLogits, LogitsLike
from ...files import alone_in, write_atomically
from ...run_folder import RunFolder
from ..blocks import Page
from ..page import render
from .headline import headline, trained
from .logits import may_be_logits, write_logits_report
from .reading import Run, check_present, read_run
from .sections import SECTIONS


def write_report(
    run: Path | str | LogitsLike,
    labels: LogitsLike | None = None,
    *,
    out: Path | str | None = None,
    title: str | None = None,
    classes: Sequence[str] | None = None,
    heldout: tuple[LogitsLike, LogitsLike] | None = None,
) -> Path:
    """Write a page of a run, or of logits of any library, in figures, plots and words, readable offline.

    - `write_report(run)` writes `report.html` into a run folder. The same files give the same bytes.
    - `write_report(logits, labels, out="page.html")` writes a page of logits `[T, N, C]` and labels `[N]`, tensors or arrays.
    - `write_report("logits.npz")` takes them from a file; see `evaluation.logits_file.read_logits`.

    Sections without data are left out.

    Args:
        run: the run folder, with `config.yaml` and `results.json` at least; or the logits, or a .npz or .safetensors file of them.
        labels: for logits, their labels, unless a file holds them.
        out: for logits, the path of the page; default next to their file.
        title: for logits, the title of the page; default the name of their file.
        classes: for logits, the names of the classes, unless a file holds them; default numbers.
        heldout: for logits, held-out logits and labels, unless a file holds them; one temperature for each k is fitted
            on them.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: if the folder or one of these files is missing.
        UserError: for a broken file, one that does not belong to the others, or logits and labels that do not fit.
    """
    if not isinstance(run, (str, Path)):
        if labels is None or out is None:
            missing = "labels" if labels is None else "out, the path of the page,"
            raise UserError(f"logits came without {missing} expected write_report(logits, labels, out='page.html')")
        given = LabelledLogits.of(run, labels, classes=classes, heldout=heldout)
        return write_logits_report(given, out=out, title=title)[0]
    if may_be_logits(Path(run)):
        if not all(value is None for value in (labels, classes, heldout)):
            raise UserError(f"labels, classes or heldout came with the file {run}, expected them in it")
        return write_logits_report(Path(run), out=out, title=title)[0]
    if not all(value is None for value in (labels, out, title, classes, heldout)):
        raise UserError(
            f"labels, out, title, classes or heldout came for the run folder {run}, which takes none of them"
        )
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
