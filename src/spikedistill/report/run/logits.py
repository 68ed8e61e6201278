"""A page of logits `[T, N, C]` and labels of any library: how good, how sure and how early, without anything about training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from ...errors import UserError
from ...evaluation.logits_file import LogitsFile, as_logits, as_targets, read_logits
from ...evaluation.networks import LogitsLike, scored
from ...evaluation.results import Results, first_fault
from ...files import write_atomically
from ..blocks import Page
from ..page import render
from .headline import headline
from .reading import Run
from .sections import SECTIONS


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
        stored = read_logits(path)
        out, title, origin = out or path.with_suffix(".html"), title or path.stem, str(path)
    else:
        if labels is None or out is None:
            missing = "labels" if labels is None else "out, the path of the page,"
            raise UserError(f"logits came without {missing} expected write_report(logits, labels, out='page.html')")
        held = None if heldout is None else (as_logits(heldout[0]), as_targets(heldout[1]))
        stored = LogitsFile(as_logits(logits), as_targets(labels), heldout=held)
        title, origin = title or "logits", ""
    try:
        run = _run_of(stored, title, classes)
    except UserError as error:
        raise UserError(f"{origin}: {error}" if origin else str(error)) from None
    target = Path(out)
    if target.is_dir():
        raise UserError(f"{target} is a folder, expected the path of a page, such as {target / 'page.html'}")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, render(page_of_logits(run, Path(origin).name)))
    return target, run.results


def page_of_logits(run: Run, origin: str = "") -> Page:
    """The page, of what `origin` held."""
    verdict, numbers = headline(run)
    T, N, C = (run.logits if isinstance(run.logits, Tensor) else Tensor()).shape
    of = f" of {origin}" if origin else ""
    subject = f"Logits{of}: {N:,} samples, {T} timestep{'s' * (T > 1)}, {C} classes."
    sections = [section for make in SECTIONS if (section := make(run))]
    return Page("report of logits", run.results.recipe, subject, verdict, numbers, sections)


def _run_of(stored: LogitsFile, title: str, classes: Sequence[str] | None) -> Run:
    """The logits as a run of which nothing else is known."""
    found: dict[str, Any] = scored(
        stored.logits,
        stored.labels,
        stored.heldout,
        classes or stored.classes,
        stored.energy,
        list(stored.firing_rates),
    )
    try:
        results = Results.model_validate(found | {"recipe": title})
        results.check()
    except ValidationError as error:
        raise UserError(f"what the file says of the network is broken ({first_fault(error)})") from None
    return Run(
        config={},
        config_text="",
        results=results,
        epochs={},
        gradients=[],
        logits=stored.logits,
        targets=stored.labels,
        images=None,
        indices=None,
    )
