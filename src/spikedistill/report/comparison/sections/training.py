"""Loss and accuracy of all methods over the epochs of their training."""

from collections.abc import Sequence

from ....evaluation.comparison.epochs import scored_samples
from ....evaluation.comparison.leaderboard import with_numbers
from ... import figures
from ...blocks import Column, Plot, Plots, Row, Section, Table, Text, decimals, thinned
from ..shown import Shown

MOST_BANDS = 6  # methods with a band each; more bands would hide each other
MOST_POINTS = 100  # of a line
MOST_ROWS = 10  # of a table
_SAMPLES = {"test": "test", "holdout": "held-out", "train": "training"}


def training_section(shown: Shown) -> Section:
    """A plot of the loss and of accuracy at k = 1 and k = T, or the reason why there are none."""
    comparison, rows = shown.comparison, shown.comparison.epochs
    samples = _SAMPLES[scored_samples(comparison.methods)]
    of_plots = [
        ("epochs_loss", "loss", "Loss of all timesteps together", "cross-entropy, nats"),
        ("epochs_first", "accuracy_1", f"{samples.capitalize()} accuracy at k = 1", "accuracy, %"),
        ("epochs_last", "accuracy_T", f"{samples.capitalize()} accuracy at k = T", "accuracy, %"),
    ]
    plots = [
        _plot(shown, of_key, *of_one) for of_one in of_plots if (of_key := [row for row in rows if of_one[1] in row])
    ]
    words = [_words(shown, samples)] if plots else []
    methods = [row["method"] for row in with_numbers(comparison.leaderboard)]
    if missing := [method for method in methods if all(row["method"] != method for row in rows)]:
        words.append(f"There are no curves of {', '.join(missing)}: their records have no figures of the epochs.")
    blocks: list[Text | Plots] = [Text(" ".join(words))]
    return Section("training", "Training", [*blocks, Plots(plots, wide=len(methods) > 4)] if plots else blocks)


def _words(shown: Shown, samples: str) -> str:
    words = "The loss is the cross-entropy on the training batches, which all objectives have in common. "
    if samples == "training":
        words += "Training accuracy is that of the batches as they were trained on, with augmentation. "
    if samples == "test":
        words += "The test set is only watched here: it chooses no epoch. "
    if shown.comparison.seeds > 1:
        words += "Lines are means over the seeds"
        few = len(with_numbers(shown.comparison.leaderboard)) <= MOST_BANDS
        words += "; bands reach from the lowest to the highest seed. " if few else ". "
    return words + "T is the number of timesteps that a method was trained with."


def _plot(shown: Shown, rows: Sequence[Row], name: str, key: str, title: str, unit: str) -> Plot:
    names = figures.short_names(list(dict.fromkeys(row["method"] for row in rows)))
    curves: dict[str, list[Row]] = {name: [] for name in names.values()}
    for row in rows:
        curves[names[row["method"]]].append(row)
    lines = {
        method: [
            (row["epoch"], *(float(f"{row[end]:.5g}") for end in (key, f"{key}_low", f"{key}_high")))
            for row in thinned(of_one, MOST_POINTS)
        ]
        for method, of_one in curves.items()
    }
    least = None if key == "loss" else shown.noise
    figure = figures.methods_over_epochs(lines, unit, least=least, bands=len(lines) <= MOST_BANDS)
    logarithmic = figure["layout"]["yaxis"].get("type") == "log"
    ends = "; ".join(f"{method}: {of_one[-1][key]:.3g}" for method, of_one in curves.items())
    return Plot(
        name=name,
        title=title,
        note="The axis is logarithmic: equal steps are equal factors." if logarithmic else "",
        alt=f"Line plot over the epochs for every method, {unit}. At the end: {ends}.",
        figure=figure,
        height=340 + 12 * len(curves),
        table=_table(curves, name, key, f"{title}, {unit}"),
    )


def _table(curves: dict[str, list[Row]], name: str, key: str, caption: str) -> Table:
    """A row for each of some epochs, a column for each method."""
    epochs = sorted({row["epoch"] for of_one in curves.values() for row in of_one})
    shown = thinned(epochs, MOST_ROWS)
    if len(shown) < len(epochs):
        caption += f"; {len(shown)} of {len(epochs)} epochs"
    values = {(method, row["epoch"]): row[key] for method, of_one in curves.items() for row in of_one}
    columns = [
        Column("epoch", "Epoch"),
        *(Column(str(i), method, write=decimals(3)) for i, method in enumerate(curves)),
    ]
    rows = [{"epoch": e} | {str(i): values.get((method, e)) for i, method in enumerate(curves)} for e in shown]
    return Table(name, caption, columns, rows)
