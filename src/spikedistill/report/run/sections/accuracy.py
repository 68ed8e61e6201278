"""Accuracy at every k, and the table of record."""

from collections.abc import Sequence

from ....evaluation.intervals import wilson
from ....evaluation.results import Score
from ... import figures
from ...blocks import Column, Plot, Plots, Row, Section, Table, Terms, decimals, percent
from ..reading import Run

K = Column("k", "k")
SCORES = (
    percent("accuracy", "Accuracy"),
    Column("nll", "NLL", "nats", decimals(3)),
    percent("ece", "ECE", "points"),
    percent("confidence", "Confidence"),
    Column("entropy", "Entropy", "nats", decimals(3)),
    Column("brier", "Brier", "0 to 2", decimals(3)),
)
# Columns for many classes, and for unbalanced ones.
MORE_ACCURACIES = (percent("top5_accuracy", "Top-5 accuracy"), percent("balanced_accuracy", "Balanced accuracy"))


def accuracy_section(run: Run) -> Section:
    """The curve, the table of record, and a glossary."""
    words = Terms(
        [
            (
                "k",
                "The number of timesteps the network has run when it answers. Fewer is faster and takes less energy.",
            ),
            ("Together", "The answer of a device that stops after k timesteps: the mean of their scores."),
            ("Alone", "The answer of timestep k by itself."),
        ]
    )
    return Section("accuracy", "Accuracy over timesteps", [words, Plots([_curve(run)]), *_tables(run)])


def _curve(run: Run) -> Plot:
    view = run.results.last
    columns = [K, percent("together", "First k together"), percent("alone", "Timestep k alone")]
    rows: list[Row] = [
        {"k": both.k, "together": both.accuracy, "alone": alone.accuracy}
        for both, alone in zip(view.ensemble, view.single, strict=True)
    ]
    note = f"{run.scored_on[:1].upper()}{run.scored_on[1:]}."
    if run.samples is not None:
        note += " Bands are 95 % intervals (Wilson): where the accuracy on all images of this kind may lie."
        columns[2:2] = [percent("low", "Low end, 95 %"), percent("high", "High end, 95 %")]
    if view.beyond:
        columns.append(percent("beyond", "Together, beyond training"))
        rows += [{"k": entry.k, "beyond": entry.accuracy} for entry in view.beyond]
        note += (
            f" Dashed: run for longer than the {run.results.timesteps} timesteps of training; not part of the record."
        )
    if run.samples is not None:
        for row in rows:
            row["low"], row["high"] = wilson(row["together"] if "together" in row else row["beyond"], run.samples)
    return Plot(
        name="accuracy",
        title="Test accuracy at every k",
        note=note,
        alt=f"Line plot of test accuracy over k. {verdict([entry.accuracy for entry in view.ensemble])}",
        figure=figures.accuracy(view.ensemble, view.single, view.beyond, run.samples),
        table=Table("accuracy", "Test accuracy at every k", columns, rows),
    )


def _tables(run: Run) -> list[Table | Terms]:
    results, last, selected = run.results, run.results.last, run.results.selected
    rows = _rows(last.ensemble)
    columns = [K, SCORES[0], *_more_accuracies(last.ensemble)]
    for row, alone in zip(rows, last.single, strict=True):
        row["single_accuracy"] = alone.accuracy
    if selected:
        columns.append(percent("selected_accuracy", "Selected epoch"))
        for row, chosen in zip(rows, selected.ensemble, strict=True):
            row["selected_accuracy"] = chosen.accuracy
    if results.best_test:
        columns.append(percent("best_test_accuracy", "Best test epoch (optimistic)"))
        rows[-1]["best_test_accuracy"] = results.best_test.accuracy
    if (other := results.recalibrated) is not None:
        columns += [percent("each_k", "Statistics of k"), percent("mixture", "Statistics of each timestep")]
        for row, each_k, mixture in zip(rows, other.each_k, other.mixture, strict=True):
            row |= {"each_k": each_k, "mixture": mixture}
    columns += [percent("single_accuracy", "Alone"), *SCORES[1:]]
    alone_title = f"Every timestep alone{', last epoch' if run.is_trained else ''}"
    selected_title = "The selected epoch, first k timesteps together"
    tables: list[Table | Terms] = [
        Table("record", f"Table of record: {run.scored_on}, first k timesteps together", columns, rows),
        Terms(_terms(run)),
        Table("single", alone_title, [K, *_scores(last.single)], _rows(last.single), summary=alone_title),
    ]
    if selected:
        columns, rows = [K, *_scores(selected.ensemble)], _rows(selected.ensemble)
        tables.append(Table("selected", selected_title, columns, rows, summary=selected_title))
    return tables


def _rows(entries: Sequence[Score]) -> list[Row]:
    return [entry.model_dump() for entry in entries]


def _scores(entries: Sequence[Score]) -> list[Column]:
    return [SCORES[0], *_more_accuracies(entries), *SCORES[1:]]


def _more_accuracies(entries: Sequence[Score]) -> list[Column]:
    return [column for column in MORE_ACCURACIES if getattr(entries[0], column.key) is not None]


def _terms(run: Run) -> list[tuple[str, str]]:
    terms = [
        (
            "NLL",
            "Negative log-likelihood, the mean cross-entropy: how much the truth surprises the network, 0 at best.",
        ),
        ("ECE", "Expected calibration error: how far confidence and accuracy lie apart on average, 0 at best."),
        ("Confidence", "The mean probability that the network gives its own answer."),
        ("Brier", "Mean squared distance between probabilities and truth, 0 at best, 2 at worst."),
    ]
    first = run.results.last.ensemble[0]
    if first.top5_accuracy is not None:
        terms.append(
            ("Top-5 accuracy", "How often the true class is among the five that the network finds most likely.")
        )
    if first.balanced_accuracy is not None:
        note = "The mean of the accuracies of all classes, in which a rare class counts as much as a frequent one."
        terms.append(("Balanced accuracy", note))
    if (other := run.results.recalibrated) is not None:
        note = (
            f"Accuracy with batch-norm statistics computed anew from {other.samples} training samples, without training: for k "
            "timesteps alone, or for each timestep. spikedistill recalibrate writes such a network."
        )
        terms.append(("Statistics", note))
    if run.results.selected:
        terms.append(("Selected epoch", "The best on samples held out from training; the test set had no say."))
    if run.results.best_test:
        note = f"Epoch {run.results.best_test.epoch}, chosen by looking at the test set: better than what to expect on new data."
        terms.append(("Best test epoch", note))
    return terms


def verdict(accuracy: Sequence[float]) -> str:
    """A curve of accuracies (fractions, k = 1..T) in one sentence."""
    T, gain = len(accuracy), 100 * (accuracy[-1] - accuracy[0])
    near = [abs(value - accuracy[-1]) <= 0.005 for value in accuracy]
    if T == 1:
        return "The network runs for a single timestep: there is nothing to trade."
    if all(near):
        return f"The first timestep is as good as all {T} to within half a point: the network can answer at any k."
    if near[0]:
        return f"k = 1 is as good as k = {T} to within half a point, but the timesteps between are not."
    if gain < 0:
        return f"More timesteps do not help: accuracy falls by {-gain:.1f} points from k = 1 to k = {T}."
    start = f"Stopping after the first of {T} timesteps costs {gain:.1f} points of accuracy"
    if near[-2]:
        enough = next(k for k in range(1, T) if all(near[k - 1 :]))
        return f"{start}; from k = {enough} on it costs less than half a point."
    last = 100 * (accuracy[-1] - accuracy[-2])
    if T == 2:
        return f"{start}."
    return (
        f"{start}, and stopping before the last still {last:.1f}."
        if last > 0
        else f"{start}; the last one loses {-last:.1f} again."
    )
