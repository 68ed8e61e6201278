"""Accuracy and loss over the epochs of training."""

import re

from ... import figures
from ...blocks import Column, Plot, Plots, Row, Section, Table, Text, decimals, percent, significant, thinned
from ..reading import Epochs, Run

MOST_ROWS = 20  # of a table; all epochs are in metrics.csv
MOST_NARROW = 6  # lines whose names fit above a plot of a third of the page
_SETS = {"train": "training", "holdout": "held-out", "test": "test"}


def training_section(run: Run) -> Section | None:
    """A plot of accuracies, and one for each group of losses that metrics.csv has."""
    if "epoch" not in run.epochs:
        return None
    epochs = run.epochs
    terms = {name: name.removeprefix("loss/") for name in epochs if name.startswith("loss/")}
    groups = [
        ("loss_single", "Loss of every timestep on its own", "cross-entropy, nats", _by_k(epochs, "ce_single_")),
        ("loss_prefix", "Loss of the first k together", "cross-entropy, nats", _by_k(epochs, "ce_prefix_")),
        ("loss_terms", "Terms of the objective", "loss", terms),
    ]
    heads = _by_k(epochs, "head_accuracy_", "head")
    if heads:
        groups.append(
            ("heads", "Accuracy of every head", "share that is right", heads | {"no_head_right": "none is right"})
        )
    for role in ("strongest", "weakest"):
        chosen = _by_k(epochs, f"{role}_", "timestep")
        groups.append((role, f"Which timestep was the {role}", "share of batches", chosen))
    plots = [_plot(epochs, *group) for group in groups if group[-1]]
    if accuracies := accuracy_columns(epochs, run.results.timesteps):
        plots.insert(0, _accuracy(run, accuracies))
    words = (
        "Losses and training accuracy are means over the training batches of each epoch, taken while the weights change. "
        "A high loss at small k means that early predictions are learned less well."
    )
    many = any(len(columns) > MOST_NARROW for *_, columns in groups)
    return (
        Section("training", "Accuracy and loss over epochs", [Text(words), Plots(plots, wide=many)]) if plots else None
    )


def accuracy_columns(epochs: Epochs, T: int) -> dict[str, str]:
    """The columns of accuracy at k = 1 and k = T that metrics.csv has, `{column: name}`."""
    columns: dict[str, str] = {}
    for name, title in _SETS.items():
        last = "train_accuracy" if name == "train" else f"{name}_accuracy_{T}"
        ends = {f"{name}_accuracy_1": 1, last: T} if T > 1 else {last: 1}
        columns |= {column: f"{title}, k = {k}" for column, k in ends.items() if column in epochs}
    return columns


def _accuracy(run: Run, columns: dict[str, str]) -> Plot:
    epochs, curve = run.epochs, run.results.last.ensemble
    least = figures.UNKNOWN_NOISE
    if run.samples is not None:
        least = figures.noise([entry.accuracy for entry in curve], run.samples)
    at_end = ", ".join(
        f"{label} {'not finite' if (end := epochs[column][-1]) is None else f'{100 * end:.2f} %'}"
        for column, label in columns.items()
    )
    tracked = any(column.startswith("test_") for column in columns)
    note = f"After the last epoch: {at_end}." + (" The test set is only watched here." if tracked else "")
    return Plot(
        name="accuracy_epochs",
        title="Accuracy at the first and the last timestep",
        note=note,
        alt=f"Line plot of accuracy over {len(epochs['epoch'])} epochs of training. At the end: {at_end}.",
        figure=figures.accuracy_over_epochs(epochs, columns, least),
        table=_table(epochs, "accuracy_epochs", "Accuracy", [percent(c, title) for c, title in columns.items()]),
        height=300,
    )


def _plot(epochs: Epochs, name: str, title: str, unit: str, columns: dict[str, str]) -> Plot:
    ends = [(label, epochs[column][-1]) for column, label in columns.items()]
    at_end = ", ".join(f"{label} {'not finite' if end is None else f'{end:.3f}'}" for label, end in ends)
    is_loss = name.startswith("loss_")
    logarithmic = is_loss and figures.is_logarithmic(epochs, columns)
    note = "The axis is logarithmic: equal steps are equal factors." if logarithmic else ""
    return Plot(
        name=name,
        title=title,
        note=note,
        alt=f"Line plot over {len(epochs['epoch'])} epochs of training, {unit}. At the end: {at_end}.",
        figure=figures.over_epochs(epochs, columns, unit, logarithmic=logarithmic),
        height=300,
        table=_table(epochs, name, f"{title}, {unit}", [Column(c, columns[c], write=decimals(4)) for c in columns]),
    )


def _table(epochs: Epochs, name: str, caption: str, columns: list[Column]) -> Table:
    count = len(epochs["epoch"])
    places = thinned(range(count), MOST_ROWS)
    if len(places) < count:
        caption += f"; {len(places)} of {count} epochs, all are in metrics.csv"
    keys = ["epoch", *(column.key for column in columns)]
    rows: list[Row] = [{key: significant(epochs[key][i]) for key in keys} for i in places]
    return Table(name, caption, [Column("epoch", "Epoch", write=decimals(0)), *columns], rows)


def _by_k(epochs: Epochs, prefix: str, label: str = "k =") -> dict[str, str]:
    found = {int(match[1]): name for name in epochs if (match := re.fullmatch(re.escape(prefix) + r"(\d+)", name))}
    return {found[k]: f"{label} {k}" for k in sorted(found)}
