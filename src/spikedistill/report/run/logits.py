"""A page of logits `[T, N, C]` and labels of any library: how good, how sure and how early, without anything about training."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import UserError
from ...evaluation.logits_file import SUFFIXES, LabelledLogits, LogitsLike, read_logits
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
    logits: Path | str | LogitsLike,
    labels: LogitsLike | None = None,
    *,
    out: Path | str | None = None,
    title: str | None = None,
    classes: Sequence[str] | None = None,
    heldout: tuple[LogitsLike, LogitsLike] | None = None,
) -> tuple[Path, Results]:
    """Write a page of logits; see `write_report`.

    Returns:
        The path of the page, and the results on it.
    """
    if isinstance(logits, (str, Path)):
        if labels is not None or heldout is not None:
            raise UserError(f"labels came beside the file {logits}, expected them in it, as labels")
        path = Path(logits)
        given = read_logits(path)
        given = given if classes is None else replace(given, classes=list(classes))
        out, title, origin = out or path.with_suffix(".html"), title or path.stem, f"{path}: "
    else:
        if labels is None or out is None:
            missing = "labels" if labels is None else "out, the path of the page,"
            raise UserError(f"logits came without {missing} expected write_report(logits, labels, out='page.html')")
        given = LabelledLogits.of(logits, labels, classes=classes, heldout=heldout)
        title, origin = title or "logits", ""
    try:
        results = Results.model_validate(scored(given) | {"recipe": title})
        results.check()
    except UserError as error:
        raise UserError(f"{origin}{error}") from None
    target = Path(out)
    if target.is_dir():
        raise UserError(f"{target} is a folder, expected the path of a page, such as {target / 'page.html'}")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, render(page_of_logits(given, results)))
    return target, results


def page_of_logits(given: LabelledLogits, results: Results) -> Page:
    """The page of labelled logits, and of what was found of them."""
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
    )
    verdict, numbers = headline(run)
    T, N, C = given.logits.shape
    subject = f"Logits: {N:,} samples, {T} timestep{'s' * (T > 1)}, {C} classes."
    sections = [section for make in SECTIONS if (section := make(run))]
    return Page("report of logits", run.results.recipe, subject, verdict, numbers, sections)
