"""A page of logits `[T, N, C]` and labels of any library: accuracy, calibration and early exit, without training."""

from pathlib import Path

from ...errors import UserError
from ...evaluation.logits_file import SUFFIXES, LabelledLogits, read_logits
from ...evaluation.networks import scored
from ...evaluation.results import Results
from ...files import write_atomically
from ..blocks import Page
from ..page import render
from .headline import headline
from .reading import Run
from .sections import SECTIONS


def may_be_logits(path: Path) -> bool:
    """Whether a path is that of a file of logits, and not of a run folder."""
    return path.suffix in SUFFIXES or path.is_file()


def write_logits_report(
    logits: Path | LabelledLogits, *, out: Path | str | None = None, title: str | None = None
) -> tuple[Path, Results]:
    """Write a page of logits.

    Args:
        logits: labelled logits, or a file of them.
        out: the path of the page; default next to the file.
        title: title of the page; default the name of the file.

    Returns:
        The path of the page, and the results on it.

    Raises:
        FileNotFoundError: if the file is missing.
        UserError: for logits and labels that do not fit, a broken file, or labelled logits without `out`.
    """
    if isinstance(logits, Path):
        given, beside, name, origin = read_logits(logits), logits.with_suffix(".html"), logits.stem, f"{logits}: "
    else:
        given, beside, name, origin = logits, None, "logits", ""
    target = beside if out is None else Path(out)
    if target is None:
        raise UserError("labelled logits came without out, expected the path of a page, such as out='page.html'")
    try:
        results = Results.model_validate(scored(given) | {"recipe": title or name})
        results.check()
    except UserError as error:
        raise UserError(f"{origin}{error}") from None
    if target.is_dir():
        raise UserError(f"{target} is a folder, expected the path of a page, such as {target / 'page.html'}")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, render(page_of_logits(given, results)))
    return target, results


def page_of_logits(given: LabelledLogits, results: Results) -> Page:
    """The page of labelled logits and their results."""
    run = Run(
        config={},
        config_text="",
        results=results,
        epochs={},
        gradients=[],
        logits=given.logits,
        targets=given.labels,
        images=None,
        indices=None,
        lengths=given.lengths,
    )
    verdict, numbers = headline(run)
    T, N, C = given.logits.shape
    subject = f"Logits: {N:,} samples, {T} timestep{'s' * (T > 1)}, {C} classes."
    sections = [section for make in SECTIONS if (section := make(run))]
    return Page("report of logits", run.results.recipe, subject, verdict, numbers, sections)
