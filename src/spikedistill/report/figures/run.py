"""The plots of a run."""

from collections.abc import Iterable, Mapping, Sequence

from ...evaluation.intervals import wilson
from ...evaluation.results import Accuracy, Bin, Layer, Score
from ..blocks import significant, thinned
from ..run.reading import Epochs
from .drawing import (
    ACCENT,
    DASHES,
    INK,
    MUTED,
    SYMBOLS,
    Figure,
    Points,
    band,
    heatmap,
    labels_of,
    line,
    plot,
    span,
    whole_ticks,
)

MOST_POINTS = 200  # of a line
UNKNOWN_NOISE = 5.0  # the fewest points of accuracy that an axis spans if the number of samples is not known


def accuracy(
    ensemble: Sequence[Score], single: Sequence[Score], beyond: Sequence[Accuracy], samples: int | None
) -> Figure:
    """Accuracy in percent at every k: of the first k timesteps, of timestep k only, and dashed beyond T; 95 percent bands."""

    def points(entries: Sequence[Score | Accuracy]) -> list[tuple[float, float]]:
        return [(entry.k, 100 * entry.accuracy) for entry in entries]

    lines = [
        line("together", points(ensemble), ACCENT, size=9, width=3),
        line("alone", points(single), MUTED, symbol="square-open", dash="dot"),
    ]
    longer: list[Score | Accuracy] = [ensemble[-1], *beyond] if beyond else []
    if longer:
        lines.append(line("beyond training", points(longer), ACCENT, symbol="circle-open", dash="dash", size=9))
    for trace in lines:
        trace["hovertemplate"] = "k = %{x}: %{y:.2f} %<extra>%{fullData.name}</extra>"
    bands, least = [], UNKNOWN_NOISE
    if samples is not None:
        shown: list[tuple[Sequence[Score | Accuracy], str]] = [(ensemble, ACCENT), (single, MUTED), (longer, ACCENT)]
        for entries, color in shown:
            if len(entries) < 2:  # one k has no area
                continue
            ends = [(entry.k, *wilson(entry.accuracy, samples)) for entry in entries]
            low, high = [(k, 100 * low) for k, low, _ in ends], [(k, 100 * high) for k, _, high in ends]
            bands.append(band(low, high, color, opacity=0.15 if color == ACCENT else 0.09))
        least = noise([entry.accuracy for entry in ensemble], samples)
    figure = plot([*bands, *lines], "k, timesteps", "test accuracy, %")
    largest = (beyond or ensemble)[-1].k
    figure["layout"]["xaxis"] |= whole_ticks(largest) | {"range": [0.8, largest + 0.2]}
    figure["layout"]["yaxis"] |= {"range": span([y for trace in figure["data"] for y in trace["y"]], least)}
    return figure


def noise(accuracies: Sequence[float], samples: int) -> float:
    """The least width of an axis of accuracies in percent: three times the widest interval of them."""
    return 300 * max(high - low for low, high in (wilson(accuracy, samples) for accuracy in accuracies))


def over_epochs(epochs: Epochs, columns: dict[str, str], y_title: str, *, logarithmic: bool = False) -> Figure:
    """One line for each of the columns of metrics.csv, `{column: name}`, from faint to full in their order."""
    figure = plot(_lines(epochs, columns, scale=1), "epoch", y_title)
    figure["layout"]["xaxis"] |= _epoch_ticks(epochs)
    if logarithmic:
        figure["layout"]["yaxis"] |= {"type": "log"}
    return figure


def is_logarithmic(epochs: Epochs, columns: Iterable[str]) -> bool:
    """Whether a logarithmic axis can show all values of these columns, of which there are some."""
    known = [value for column in columns for value in epochs[column] if value is not None]
    return bool(known) and min(known) > 0


def accuracy_over_epochs(epochs: Epochs, columns: dict[str, str], least: float) -> Figure:
    """Accuracies of metrics.csv in percent, `{column: name}`, on an axis no narrower than `least` points."""
    figure = plot(_lines(epochs, columns, scale=100), "epoch", "accuracy, %")
    figure["layout"]["xaxis"] |= _epoch_ticks(epochs)
    figure["layout"]["yaxis"] |= {"range": span([y for trace in figure["data"] for y in trace["y"]], least)}
    return figure


def _epoch_ticks(epochs: Epochs) -> Figure:
    return whole_ticks(int(max(epoch or 0 for epoch in epochs["epoch"])))


def _lines(epochs: Epochs, columns: dict[str, str], scale: float) -> list[Figure]:
    traces, shown = [], thinned(range(len(epochs["epoch"])), MOST_POINTS)
    for place, (column, name) in enumerate(columns.items()):
        values = [epochs[column][i] for i in shown]
        points = [(epochs["epoch"][i], significant(y and scale * y)) for i, y in zip(shown, values, strict=True)]
        symbol, dash = SYMBOLS[place % len(SYMBOLS)], DASHES[place % len(DASHES)]
        trace = line(name, points, ACCENT, symbol=symbol, dash=dash, size=7)
        trace["marker"]["maxdisplayed"] = 12
        trace["opacity"] = 0.45 + 0.55 * (place + 1) / len(columns)
        trace["hovertemplate"] = f"epoch %{{x}}: %{{y:.{4 if scale == 1 else 2}f}}<extra>%{{fullData.name}}</extra>"
        traces.append(trace)
    return traces


def reliability(raw: Sequence[Bin], calibrated: Sequence[Bin]) -> Figure:
    """Accuracy against confidence in every bin that holds samples; on the diagonal confidence equals accuracy."""

    def bins(name: str, entries: Sequence[Bin], color: str, symbol: str, dash: str) -> Figure:
        filled = [entry for entry in entries if entry.count]
        points = [(100 * (entry.confidence or 0.0), 100 * (entry.accuracy or 0.0)) for entry in filled]
        hover = "sure to %{x:.1f} %, right in %{y:.1f} %<br>%{customdata} samples<extra>%{fullData.name}</extra>"
        trace = line(name, points, color, symbol=symbol, dash=dash, width=1)
        counts = [entry.count for entry in filled]
        trace["marker"]["size"] = [round(5 + 9 * (count / max(counts)) ** 0.5, 1) for count in counts]
        return trace | {"customdata": counts, "hovertemplate": hover}

    diagonal = line("deserved", [(0, 0), (100, 100)], MUTED, dash="dot") | {
        "mode": "lines",
        "hoverinfo": "skip",
        "showlegend": False,
    }
    traces = [diagonal, bins("as trained", raw, ACCENT, "circle", "solid")]
    if calibrated:
        traces.append(bins("after temperature", calibrated, INK, "diamond-open", "dash"))
    figure = plot(traces, "confidence, %", "accuracy, %")
    for axis in ("xaxis", "yaxis"):
        figure["layout"][axis] |= {"range": [-4, 104], "dtick": 25}
    return figure


def firing_rates(layers: Sequence[Layer]) -> Figure:
    """Mean spikes per neuron, layers from top to bottom, timesteps from left to right."""
    rates = [layer.rates for layer in layers]
    names = labels_of([layer.layer for layer in layers])
    timesteps = [str(k) for k in range(1, len(rates[0]) + 1)]
    return heatmap(
        rates,
        timesteps,
        names,
        "timestep",
        "",
        text=[[f"{rate:.2f}" for rate in row] for row in rates] if len(timesteps) <= 8 else None,
        hovertemplate="%{y}, timestep %{x}: %{z:.4f}<extra></extra>",
    )


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """True classes from top to bottom, predicted ones from left to right; shade is the root of the row's share."""
    names = labels_of(classes)
    shade = [[round((count / max(sum(row), 1)) ** 0.5, 3) for count in row] for row in counts]
    return heatmap(
        shade,
        names,
        names,
        "predicted class",
        "true class",
        text=[[str(count or "") for count in row] for row in counts] if len(classes) <= 12 else None,
        customdata=[list(row) for row in counts],
        hovertemplate="%{y} called %{x}: %{customdata}<extra></extra>",
    )


def tradeoff(
    fixed: Points,
    curves: Mapping[str, Points],
    front: Points,
    chosen: tuple[float, float],
    x_title: str,
    least: float = UNKNOWN_NOISE,
) -> Figure:
    """Accuracy in percent against a cost: fixed timesteps, a curve for each policy, the Pareto front, and last the chosen point.

    The axis of accuracy spans `least` points or more.
    """
    traces = [line("fixed k", fixed, MUTED, symbol="square", dash="dot", size=9)]
    for place, (policy, points) in enumerate(curves.items()):
        trace = line(policy, points, ACCENT, symbol=SYMBOLS[place], dash=DASHES[place % len(DASHES)], size=6)
        trace["opacity"] = 0.45 + 0.55 * (len(curves) - place) / len(curves)
        traces.append(trace)
    traces.append(line("Pareto front", front, INK, symbol="circle-open", size=4, width=1))
    traces.append(line("chosen", [chosen], INK, symbol="star", size=17) | {"mode": "markers"})
    for trace in traces:
        trace["marker"]["maxdisplayed"] = 0 if trace["name"] in ("fixed k", "chosen") else 16
        trace["hovertemplate"] = "%{x:.4~g}: %{y:.2f} %<extra>%{fullData.name}</extra>"
    figure = plot(traces, x_title, "test accuracy, %")
    figure["layout"]["yaxis"] |= {"range": span([y for trace in traces for y in trace["y"]], least)}
    return figure


def under_attack(lines: Mapping[str, Sequence[tuple[float, float]]], unit: str, baselines: tuple[str, ...]) -> Figure:
    """Accuracy in percent over the size of the attack in a unit; lines whose names begin as baselines do are dotted."""
    traces = []
    for place, (name, points) in enumerate(lines.items()):
        color, dash = (MUTED, "dot") if name.startswith(baselines) else (ACCENT, DASHES[place % len(DASHES)])
        trace = line(name, list(points), color, symbol=SYMBOLS[place % len(SYMBOLS)], dash=dash)
        trace["hovertemplate"] = "eps %{x}: %{y:.1f} %<extra>%{fullData.name}</extra>"
        traces.append(trace)
    figure = plot(traces, f"eps, {unit}", "right, %")
    figure["layout"]["yaxis"] |= {"range": [0, 102]}
    return figure


def cosines(lines: Mapping[str, Sequence[float | None]], places: Sequence[str], x_title: str) -> Figure:
    """One line for each gradient rule over `places`; rules with segments from faint to full, in their order."""
    names, labels = list(lines), labels_of(places)
    segmented = [name for name in names if name.startswith("rate")]
    traces = []
    for place, name in enumerate(names):
        color = ACCENT if name in segmented else INK if name == "sltt" else MUTED
        symbol, dash = SYMBOLS[place % len(SYMBOLS)], DASHES[place % len(DASHES)]
        trace = line(name, list(zip(labels, lines[name], strict=True)), color, symbol=symbol, dash=dash)
        if name in segmented:
            trace["opacity"] = 0.45 + 0.55 * (segmented.index(name) + 1) / len(segmented)
        trace["hovertemplate"] = "%{x}: %{y:.4f}<extra>%{fullData.name}</extra>"
        traces.append(trace)
    figure = plot(traces, x_title, "cosine to BPTT")
    figure["layout"]["xaxis"] |= {"type": "category"}
    return figure
