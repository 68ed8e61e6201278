"""The loss of every timestep, of every prefix and of every term over the epochs."""

import re

from ... import figures
from ...blocks import Column, Plot, Plots, Section, Table, Text, decimals
from ..reading import Epochs, Run


def training_section(run: Run) -> Section | None:
    """One plot for each group of columns that metrics.csv has."""
    if "epoch" not in run.epochs:
        return None
    terms = {name: name.removeprefix("loss/") for name in run.epochs if name.startswith("loss/")}
    groups = [
        ("loss_single", "Loss of every timestep alone", "cross-entropy, nats", _by_k(run.epochs, "ce_single_")),
        ("loss_prefix", "Loss of the first k together", "cross-entropy, nats", _by_k(run.epochs, "ce_prefix_")),
        ("loss_terms", "Terms of the objective", "loss", terms),
    ]
    heads = _by_k(run.epochs, "head_accuracy_", "head")
    if heads:
        groups.append(
            ("heads", "Accuracy of every head", "share that is right", heads | {"no_head_right": "none is right"})
        )
    for role in ("strongest", "weakest"):
        chosen = _by_k(run.epochs, f"{role}_", "timestep")
        groups.append((role, f"Which timestep was the {role}", "share of batches", chosen))
    height = 280 + 10 * max(len(columns) for *_, columns in groups)  # room for the legend
    plots = [_plot(run.epochs, *group, height) for group in groups if group[-1]]
    words = (
        "Means over the training batches of each epoch. Where small k lies high, early answers are learned less well."
    )
    return Section("training", "Loss over epochs", [Text(words), Plots(plots)]) if plots else None


def _plot(epochs: Epochs, name: str, title: str, unit: str, columns: dict[str, str], height: int) -> Plot:
    ends = [(label, epochs[column][-1]) for column, label in columns.items()]
    at_end = ", ".join(f"{label} {'not finite' if end is None else f'{end:.3f}'}" for label, end in ends)
    return Plot(
        name=name,
        title=title,
        note="",
        alt=f"Line plot over {len(epochs['epoch'])} epochs of training, {unit}. At the end: {at_end}.",
        figure=figures.over_epochs(epochs, columns, unit),
        height=height,
        table=Table(
            name,
            f"{title}, {unit}",
            [Column("epoch", "Epoch", write=decimals(0)), *(Column(c, columns[c], write=decimals(4)) for c in columns)],
            [{c: epochs[c][i] for c in ("epoch", *columns)} for i in range(len(epochs["epoch"]))],
        ),
    )


def _by_k(epochs: Epochs, prefix: str, label: str = "k =") -> dict[str, str]:
    found = {int(match[1]): name for name in epochs if (match := re.fullmatch(re.escape(prefix) + r"(\d+)", name))}
    return {found[k]: f"{label} {k}" for k in sorted(found)}
