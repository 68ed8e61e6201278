"""The plots of a run as plotly figures in plain data: `{"data": [...], "layout": {...}}`.

Colours are the page's CSS variables, `var(--accent)`, which its script fills in: one palette serves text and plots, light
and dark. Methods alone have colours of their own. Series differ by marker and dash as well as by colour.
"""

import html
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .results import Accuracy, Bin, Layer, Score
from .run import Epochs

Figure = dict[str, Any]
Points = Sequence[tuple[float | str | None, float | str | None]]

ACCENT, MUTED, INK, LINE, PANEL = (f"var(--{name})" for name in ("accent", "muted", "ink", "line", "panel"))
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")
DASHES = ("solid", "dash", "dot", "dashdot")
# of a luminance between those of the light and the dark page: 3:1 or more against either
METHODS = ("#3d7fe0", "#d9691e", "#21936a", "#c2569f", "#967a14", "#178fa6", "#d64545", "#8667d8")


def accuracy(ensemble: Sequence[Score], single: Sequence[Score], beyond: Sequence[Accuracy]) -> Figure:
    """Accuracy in percent at every k: together, alone, and dashed beyond the trained timesteps."""

    def points(entries: Sequence[Score | Accuracy]) -> Points:
        return [(entry.k, 100 * entry.accuracy) for entry in entries]

    traces = [
        _line("together", points(ensemble), ACCENT, size=9, width=3),
        _line("alone", points(single), MUTED, symbol="square-open", dash="dot"),
    ]
    if beyond:
        longer = points([ensemble[-1], *beyond])
        traces.append(_line("beyond training", longer, ACCENT, symbol="circle-open", dash="dash", size=9))
    for trace in traces:
        trace["hovertemplate"] = "k = %{x}: %{y:.2f} %<extra>%{fullData.name}</extra>"
    figure = _figure(traces, "k, timesteps", "test accuracy, %")
    largest = (beyond or ensemble)[-1].k
    figure["layout"]["xaxis"] |= _whole_ticks(largest) | {"range": [0.8, largest + 0.2]}
    return figure


def over_epochs(epochs: Epochs, columns: dict[str, str], y_title: str) -> Figure:
    """One line for each of the columns of metrics.csv, `{column: name}`, from faint to full in their order."""
    traces = []
    for place, (column, name) in enumerate(columns.items()):
        points = list(zip(epochs["epoch"], epochs[column], strict=True))
        symbol, dash = SYMBOLS[place % len(SYMBOLS)], DASHES[place % len(DASHES)]
        trace = _line(name, points, ACCENT, symbol=symbol, dash=dash)
        trace["marker"]["maxdisplayed"] = 12
        trace["opacity"] = 0.45 + 0.55 * (place + 1) / len(columns)
        trace["hovertemplate"] = "epoch %{x}: %{y:.4f}<extra>%{fullData.name}</extra>"
        traces.append(trace)
    figure = _figure(traces, "epoch", y_title)
    figure["layout"]["xaxis"] |= _whole_ticks(int(max(epoch or 0 for epoch in epochs["epoch"])))
    return figure


def reliability(raw: Sequence[Bin], calibrated: Sequence[Bin]) -> Figure:
    """Accuracy against confidence in every bin that holds samples; on the diagonal confidence is deserved."""

    def bins(name: str, entries: Sequence[Bin], color: str, symbol: str, dash: str) -> Figure:
        filled = [entry for entry in entries if entry.count]
        points = [(100 * (entry.confidence or 0.0), 100 * (entry.accuracy or 0.0)) for entry in filled]
        hover = "sure to %{x:.1f} %, right in %{y:.1f} %<br>%{customdata} samples<extra>%{fullData.name}</extra>"
        trace = _line(name, points, color, symbol=symbol, dash=dash, width=1)
        counts = [entry.count for entry in filled]
        trace["marker"]["size"] = [round(5 + 9 * (count / max(counts)) ** 0.5, 1) for count in counts]
        return trace | {"customdata": counts, "hovertemplate": hover}

    diagonal = _line("deserved", [(0, 0), (100, 100)], MUTED, dash="dot") | {
        "mode": "lines",
        "hoverinfo": "skip",
        "showlegend": False,
    }
    traces = [diagonal, bins("as trained", raw, ACCENT, "circle", "solid")]
    if calibrated:
        traces.append(bins("after temperature", calibrated, INK, "diamond-open", "dash"))
    figure = _figure(traces, "confidence, %", "accuracy, %")
    for axis in ("xaxis", "yaxis"):
        figure["layout"][axis] |= {"range": [-4, 104], "dtick": 25}
    return figure


def firing_rates(layers: Sequence[Layer]) -> Figure:
    """Mean spikes per neuron, layers from top to bottom, timesteps from left to right."""
    rates = [layer.rates for layer in layers]
    names = _labels([layer.layer for layer in layers])
    timesteps = [str(k) for k in range(1, len(rates[0]) + 1)]
    return _heatmap(
        rates,
        timesteps,
        names,
        "timestep",
        "",
        text=[[f"{rate:.2f}" for rate in row] for row in rates] if len(timesteps) <= 8 else None,
        hovertemplate="%{y}, timestep %{x}: %{z:.4f}<extra></extra>",
    )


def cosines(lines: Mapping[str, Sequence[float | None]], places: Sequence[str], x_title: str) -> Figure:
    """One line for each gradient rule, from place to place; those with segments from faint to full, in their order."""
    names, labels = list(lines), _labels(places)
    segmented = [name for name in names if name.startswith("rate")]
    traces = []
    for place, name in enumerate(names):
        color = ACCENT if name in segmented else INK if name == "sltt" else MUTED
        symbol, dash = SYMBOLS[place % len(SYMBOLS)], DASHES[place % len(DASHES)]
        trace = _line(name, list(zip(labels, lines[name], strict=True)), color, symbol=symbol, dash=dash)
        if name in segmented:
            trace["opacity"] = 0.45 + 0.55 * (segmented.index(name) + 1) / len(segmented)
        trace["hovertemplate"] = "%{x}: %{y:.4f}<extra>%{fullData.name}</extra>"
        traces.append(trace)
    figure = _figure(traces, x_title, "cosine to BPTT")
    figure["layout"]["xaxis"] |= {"type": "category"}
    return figure


def methods(curves: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Accuracy of each method, `{method: (mean, standard deviation) in percent at k = 1..K}`; the first is the baseline."""
    labels, traces = _labels(list(curves)), []
    step = min(0.05, 0.3 / len(curves))  # side by side, so that error bars do not hide each other
    for place, (label, curve) in enumerate(zip(labels, curves.values(), strict=True)):
        color, shift = _method_color(place), step * (place - (len(curves) - 1) / 2)
        points = [(round(k + shift, 4), mean) for k, (mean, _) in enumerate(curve, 1)]
        symbol, dash = SYMBOLS[place % len(SYMBOLS)], DASHES[place % len(DASHES)]
        spreads = [spread for _, spread in curve]
        trace = _line(label, points, color, symbol=symbol, dash=dash) | {
            "name": label,
            "customdata": [[k, spread] for k, spread in enumerate(spreads, 1)],
            "hovertemplate": "k = %{customdata[0]}: %{y:.2f} ± %{customdata[1]:.2f} %<extra>%{fullData.name}</extra>",
        }
        if any(spreads):
            trace["error_y"] = {"type": "data", "array": spreads, "color": color, "thickness": 1.5, "width": 3}
        traces.append(trace)
    figure = _figure(traces, "k, timesteps", "test accuracy, %")
    largest = max(map(len, curves.values()))
    figure["layout"]["xaxis"] |= _whole_ticks(largest) | {"range": [0.75, largest + 0.25]}
    return figure


def differences(intervals: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> Figure:
    """Differences to the baseline, `{of what: {method: (difference, low, high) in points}}`, methods from top to bottom."""
    names = list(next(iter(intervals.values())))
    traces = []
    for place, (what, found) in enumerate(intervals.items()):
        color, symbol = ((ACCENT, "circle"), (MUTED, "square-open"))[place % 2]
        y = [row + 0.24 * (place - (len(intervals) - 1) / 2) for row in range(len(names))]
        entries = [found[name] for name in names]
        trace = _line(what, list(zip([entry[0] for entry in entries], y, strict=True)), color, symbol=symbol)
        trace |= {
            "mode": "markers",
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [high - difference for difference, _, high in entries],
                "arrayminus": [difference - low for difference, low, _ in entries],
                "color": color,
                "thickness": 1.5,
                "width": 4,
            },
            "customdata": [[low, high] for _, low, high in entries],
            "hovertemplate": "%{x:+.2f} [%{customdata[0]:+.2f}, %{customdata[1]:+.2f}]<extra>%{fullData.name}</extra>",
        }
        traces.append(trace)
    figure = _figure(traces, "points of accuracy from the baseline", "")
    rows = list(range(len(names)))
    figure["layout"]["yaxis"] |= {"tickvals": rows, "ticktext": _labels(names), "range": [len(names) - 0.5, -0.5]}
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1}
    figure["layout"]["shapes"] = [zero | {"line": {"color": INK, "width": 1, "dash": "dot"}}]
    return figure


def _method_color(place: int) -> str:
    return INK if place == 0 else METHODS[(place - 1) % len(METHODS)]


def tradeoff(
    fixed: Points, curves: Mapping[str, Points], front: Points, chosen: tuple[float, float], x_title: str
) -> Figure:
    """Accuracy in percent against a cost: fixed timesteps, a curve for each policy, the Pareto front, and last the chosen point."""
    traces = [_line("fixed k", fixed, MUTED, symbol="square", dash="dot", size=9)]
    for place, (policy, points) in enumerate(curves.items()):
        trace = _line(policy, points, ACCENT, symbol=SYMBOLS[place], dash=DASHES[place], size=6)
        trace["opacity"] = 0.45 + 0.55 * (len(curves) - place) / len(curves)
        traces.append(trace)
    traces.append(_line("Pareto front", front, INK, symbol="circle-open", size=4, width=1))
    traces.append(_line("chosen", [chosen], INK, symbol="star", size=17) | {"mode": "markers"})
    for trace in traces:
        trace["marker"]["maxdisplayed"] = 0 if trace["name"] in ("fixed k", "chosen") else 16
        trace["hovertemplate"] = "%{x:.4~g}: %{y:.2f} %<extra>%{fullData.name}</extra>"
    return _figure(traces, x_title, "test accuracy, %")


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """True classes from top to bottom, predicted ones from left to right; shade is the root of the row's share."""
    names = _labels(classes)
    shade = [[(count / max(sum(row), 1)) ** 0.5 for count in row] for row in counts]
    return _heatmap(
        shade,
        names,
        names,
        "predicted class",
        "true class",
        text=[[str(count or "") for count in row] for row in counts] if len(classes) <= 12 else None,
        customdata=[list(row) for row in counts],
        hovertemplate="%{y} called %{x}: %{customdata}<extra></extra>",
    )


def raster(fired: Mapping[str, Collection[int]], timesteps: int) -> Figure:
    """A dot for every spike: `{neuron: timesteps it fires at}`, neurons from bottom to top, timesteps from left to right."""
    trace = _line("spikes", [(t, neuron) for neuron, times in fired.items() for t in times], ACCENT, size=5)
    trace |= {"mode": "markers", "hovertemplate": "neuron %{y} fires at timestep %{x}<extra></extra>"}
    figure = _figure([trace], "timestep", "neuron")
    figure["layout"]["xaxis"] |= _whole_ticks(timesteps) | {"range": [0.5, timesteps + 0.5]}
    # neurons that never fire have their row as well
    rows: Figure = {"type": "category", "categoryarray": list(fired), "range": [-0.5, len(fired) - 0.5]}
    figure["layout"]["yaxis"] |= rows | {"showgrid": False}
    return figure


def membranes(
    potentials: Mapping[str, Sequence[float | None]], fired: Mapping[str, Collection[int]], threshold: float
) -> Figure:
    """One line for each neuron, `{neuron: potential at each timestep}`, filled where it fires, and the threshold."""
    timesteps = len(next(iter(potentials.values())))
    ends = (0.5, timesteps + 0.5)
    level = _line("threshold", [(x, threshold) for x in ends], MUTED, dash="dot", width=1)
    traces = [level | {"mode": "lines", "hoverinfo": "skip"}]
    for place, (neuron, values) in enumerate(potentials.items()):
        symbol, dash = SYMBOLS[place % len(SYMBOLS)], DASHES[place % len(DASHES)]
        trace = _line(f"neuron {neuron}", list(enumerate(values, 1)), ACCENT, symbol=f"{symbol}-open", dash=dash)
        if timesteps > 16:
            trace["marker"] |= {"size": 5, "line": {"color": ACCENT, "width": 1}}
        trace["marker"]["symbol"] = [symbol + ("" if t in fired[neuron] else "-open") for t in range(1, timesteps + 1)]
        trace["opacity"] = 0.45 + 0.55 * (place + 1) / len(potentials)
        trace["hovertemplate"] = "timestep %{x}: %{y:.4f}<extra>%{fullData.name}</extra>"
        traces.append(trace)
    figure = _figure(traces, "timestep", "membrane")
    figure["layout"]["xaxis"] |= _whole_ticks(timesteps) | {"range": ends}
    return figure


def _line(
    name: str, points: Points, color: str, *, symbol: str = "circle", dash: str = "solid", size: int = 8, width: int = 2
) -> Figure:
    outline = {"color": color, "width": 2 if symbol.endswith("open") else 0}
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": _label(name),
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "line": {"color": color, "dash": dash, "width": width},
        "marker": {"color": color, "symbol": symbol, "size": size, "line": outline},
    }


def _heatmap(
    z: Sequence[Sequence[float]], x: Sequence[str], y: Sequence[str], x_title: str, y_title: str, **options: Any
) -> Figure:
    gap = 2 if len(x) <= 20 else 0
    trace = {
        "type": "heatmap",
        "z": z,
        "x": x,
        "y": y,
        "zmin": 0,
        "zmax": max(max(row) for row in z) or 1,
        "colorscale": [[0, PANEL], [1, ACCENT]],
        "showscale": False,
        "xgap": gap,
        "ygap": gap,
        "texttemplate": "%{text}",
        "textfont": {"size": 10},
    }
    figure = _figure([trace | {name: value for name, value in options.items() if value is not None}], x_title, y_title)
    figure["layout"]["xaxis"] |= {"type": "category"}
    figure["layout"]["yaxis"] |= {"type": "category", "showgrid": False, "autorange": "reversed"}
    return figure


def _figure(traces: list[Figure], x_title: str, y_title: str) -> Figure:
    axis = {
        "gridcolor": LINE,
        "linecolor": LINE,
        "zeroline": False,
        "automargin": True,
        "fixedrange": True,
        "tickcolor": LINE,
    }
    return {
        "data": traces,
        "layout": {
            "autosize": True,
            "dragmode": False,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 12, "color": MUTED},
            "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
            "xaxis": axis | {"showgrid": False, "title": {"text": x_title, "standoff": 8}},
            "yaxis": axis | {"title": {"text": y_title, "standoff": 8}},
            "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
            "showlegend": len(traces) > 1,
            "hoverlabel": {"bgcolor": PANEL, "bordercolor": LINE, "font": {"color": INK}},
            "hovermode": "closest",
        },
    }


def _whole_ticks(largest: int) -> Figure:
    """Ticks of an axis that counts: few numbers would get ticks between them."""
    return {"dtick": 1} if largest <= 10 else {}


def _labels(names: Sequence[str]) -> list[str]:
    """Labels of categories, which plotly tells apart by their text alone."""
    labels = [_label(name) for name in names]
    return labels if len(set(labels)) == len(labels) else [f"{i}: {label}" for i, label in enumerate(labels)]


def _label(name: str) -> str:
    """A name as plotly shall show it, which reads HTML; a long one shortened."""
    return html.escape(name if len(name) <= 24 else name[:12] + "…" + name[-11:])
