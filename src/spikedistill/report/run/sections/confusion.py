"""Which classes the network confuses, at k = T."""

import torch
from torch import Tensor

from ....objectives.submodels import prefix_means
from ... import figures
from ...blocks import Column, Plot, Plots, Row, Section, Table, Text
from ..reading import Run

Mistake = tuple[int, str, str]  # samples, true class, predicted class
WHOLE_TABLE = 20  # classes up to which the table is the whole matrix
WHOLE_PLOT = 128  # classes up to which the plot is
MOST_MISTAKES = 30  # rows of the table beyond that


def confusion_section(run: Run) -> Section | None:
    """The confusion matrix, and its largest entries in words."""
    if run.logits is None or run.targets is None:
        return None
    classes, T = run.classes, run.results.timesteps
    counts = confusion_matrix(run.logits, run.targets).tolist()
    places = [(n, t, p) for t, row in enumerate(counts) for p, n in enumerate(row) if n and t != p]
    places.sort(key=lambda mistake: -mistake[0])
    mistakes = [(n, classes[t], classes[p]) for n, t, p in places]
    worst = ", ".join(f"{true} called {said} ({n})" for n, true, said in mistakes[:3])
    words = (
        f"The most frequent mistakes at k = {T}, and how many: {worst}."
        if mistakes
        else f"At k = {T} every test sample is right."
    )
    note = "Right answers lie on the diagonal. The tint grows with the root of a class's share, so that rare mistakes show."
    shown = list(range(len(classes)))
    if len(classes) > WHOLE_PLOT:
        shown = sorted({place for _, *pair in places[:MOST_MISTAKES] for place in pair}) or shown[:WHOLE_PLOT]
        note += f" Shown are {len(shown)} of {len(classes)} classes, those of the most frequent mistakes."
    plot = Plot(
        name="confusion",
        title=f"Test samples by true and predicted class at k = {T}",
        note=note,
        alt=f"Confusion matrix of {len(classes)} classes. {words}",
        figure=figures.confusion([[counts[t][p] for p in shown] for t in shown], [classes[t] for t in shown]),
        height=440 if len(classes) <= WHOLE_TABLE else 640,
        table=_matrix(counts, classes) if len(classes) <= WHOLE_TABLE else _list(mistakes[:MOST_MISTAKES]),
    )
    return Section("confusion", "Which classes are confused", [Text(words), Plots([plot])])


def confusion_matrix(logits: Tensor, targets: Tensor) -> Tensor:
    """Number of samples `[true class, predicted class]` at k = T, from logits `[T, N, C]`."""
    C = logits.shape[-1]
    predicted = prefix_means(logits.double())[-1].argmax(-1)
    return torch.bincount(targets * C + predicted, minlength=C * C).view(C, C)


def _matrix(counts: list[list[int]], classes: list[str]) -> Table:
    columns = [Column("true", "True class"), *(Column(str(p), name) for p, name in enumerate(classes))]
    rows: list[Row] = [{"true": classes[t], **{str(p): n for p, n in enumerate(row)}} for t, row in enumerate(counts)]
    return Table("confusion", "Test samples of each true class, by predicted class", columns, rows)


def _list(mistakes: list[Mistake]) -> Table:
    columns = [
        Column("rank", "Rank"),
        Column("true", "True class"),
        Column("predicted", "Predicted class"),
        Column("count", "Samples"),
    ]
    rows: list[Row] = [
        {"rank": rank, "true": true, "predicted": said, "count": n} for rank, (n, true, said) in enumerate(mistakes, 1)
    ]
    return Table("confusion", "The most frequent mistakes", columns, rows)
