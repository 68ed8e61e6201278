"""Every single timestep, for each method of a comparison: accuracy, confidence and entropy."""

from collections.abc import Sequence

from ... import figures
from ...blocks import Column, Plot, Plots, Row, Section, Table, Text, decimals
from ..shown import Shown

# key, title, unit
_FIGURES = (
    ("accuracy", "Accuracy of timestep k only", "%"),
    ("confidence", "Confidence of timestep k only", "%"),
    ("entropy", "Entropy of timestep k only", "nats"),
)


def timesteps_section(shown: Shown) -> Section | None:
    """A plot for each number that was evaluated."""
    rows = shown.timesteps
    noise = {"accuracy": shown.noise}
    plots = [
        _plot(rows, *figure, noise.get(figure[0]))
        for figure in _FIGURES
        if any(row.get(f"{figure[0]}_1") is not None for row in rows)
    ]
    words = (
        "Means over the seeds. A timestep whose confidence is above its accuracy is overconfident. Objectives with an entropy term "
        "keep the entropy high."
    )
    return (
        Section("timesteps", "Every timestep on its own", [Text(words), Plots(plots, wide=len(rows) > 4)])
        if plots
        else None
    )


def _plot(rows: Sequence[Row], key: str, title: str, unit: str, noise: float | None) -> Plot:
    K = max(int(name.removeprefix(f"{key}_")) for row in rows for name in row if name.startswith(f"{key}_"))
    keys = [f"{key}_{k}" for k in range(1, K + 1)]
    names = figures.short_names([row["method"] for row in rows])
    curves = {names[row["method"]]: [(row[name], 0.0) for name in keys if name in row] for row in rows}
    ends = "; ".join(
        f"{name}: {', '.join('unknown' if value is None else f'{value:.2f}' for value, _ in curve)}"
        for name, curve in curves.items()
    )
    columns = [Column(name, f"k = {k}", unit, decimals(4)) for k, name in enumerate(keys, 1)]
    return Plot(
        name=f"{key}_alone",
        title=title,
        note="",
        alt=f"Line plot over k for every method, {unit}. {ends}.",
        figure=figures.methods(curves, f"{key}, {unit}", least=noise),
        table=Table(f"{key}_alone", f"{title}, {unit}", [Column("method", "Method"), *columns], rows),
        height=320 + 12 * len(rows),
    )
