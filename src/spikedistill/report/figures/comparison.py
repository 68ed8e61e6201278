"""The plots of a comparison of methods."""

from collections.abc import Mapping, Sequence

from .drawing import ACCENT, DASHES, INK, MUTED, SYMBOLS, Figure, band, labels_of, line, plot, span, whole_ticks

# their contrast is 3:1 or more on the light and on the dark page
METHODS = ("#3d7fe0", "#d9691e", "#21936a", "#c2569f", "#967a14", "#178fa6", "#d64545", "#8667d8")
Epoch = tuple[int, float, float, float]
Estimate = tuple[float, float | None, float | None]  # with the low and the high end of its interval, if it has one
_ZERO = {"type": "line", "line": {"color": INK, "width": 1, "dash": "dot"}}


def methods(
    curves: Mapping[str, Sequence[tuple[float | None, float]]],
    y_title: str = "test accuracy, %",
    *,
    least: float | None = None,
) -> Figure:
    """A curve for each method, `{method: (mean, standard deviation) at k = 1..K}`; the first is the baseline.

    Accuracies have an axis that spans at least `least` points.
    """
    labels, traces = labels_of(list(curves)), []
    step = min(0.05, 0.3 / len(curves))  # side by side, so that error bars do not hide each other
    for place, (label, curve) in enumerate(zip(labels, curves.values(), strict=True)):
        color, shift = _method_color(place), step * (place - (len(curves) - 1) / 2)
        points = [(round(k + shift, 4), mean) for k, (mean, _) in enumerate(curve, 1)]
        symbol, dash = SYMBOLS[place % len(SYMBOLS)], DASHES[place % len(DASHES)]
        spreads = [spread for _, spread in curve]
        trace = line(label, points, color, symbol=symbol, dash=dash) | {
            "name": label,
            "legendgroup": label,  # entries in groups fill lines; otherwise every column is as wide as the longest name
            "customdata": [[k, spread] for k, spread in enumerate(spreads, 1)],
            "hovertemplate": "k = %{customdata[0]}: %{y:.2f} ± %{customdata[1]:.2f}<extra>%{fullData.name}</extra>",
        }
        if any(spreads):
            trace["error_y"] = {"type": "data", "array": spreads, "color": color, "thickness": 1.5, "width": 3}
        traces.append(trace)
    figure = plot(traces, "k, timesteps", y_title)
    if least is not None:
        ends = [
            mean + sign * s for curve in curves.values() for mean, s in curve if mean is not None for sign in (-1, 1)
        ]
        figure["layout"]["yaxis"] |= {"range": span(ends, least)}
    largest = max(map(len, curves.values()))
    figure["layout"]["xaxis"] |= whole_ticks(largest) | {"range": [0.75, largest + 0.25]}
    return figure


def methods_over_epochs(
    curves: Mapping[str, Sequence[Epoch]], y_title: str, *, least: float | None = None, bands: bool = True
) -> Figure:
    """A line over the epochs for each method, `{method: (epoch, mean, lowest, highest seed)}`; the first is the baseline.

    Args:
        curves: of the methods.
        y_title: title of the values, with the unit.
        least: the fewest points that the axis of an accuracy spans; None for a loss, whose axis is logarithmic if it
            can be.
        bands: fill the area between the lowest and the highest seed.
    """
    lines, areas = [], []
    for place, (label, epochs) in enumerate(zip(labels_of(list(curves)), curves.values(), strict=True)):
        color = _method_color(place)
        points = [(epoch, mean) for epoch, mean, _, _ in epochs]
        symbol, dash = SYMBOLS[place % len(SYMBOLS)], DASHES[place % len(DASHES)]
        trace = line(label, points, color, symbol=symbol, dash=dash, size=6)
        trace["marker"]["maxdisplayed"] = 8
        hover = f"epoch %{{x}}: %{{y:.{'4f' if least is None else '2f'}}}<extra>%{{fullData.name}}</extra>"
        lines.append(trace | {"name": label, "legendgroup": label, "hovertemplate": hover})
        if bands and any(low != high for _, _, low, high in epochs):
            low, high = ([(epoch[0], epoch[end]) for epoch in epochs] for end in (2, 3))
            areas.append(band(low, high, color, opacity=0.15) | {"legendgroup": label})
    figure = plot([*areas, *lines], "epoch", y_title)
    values = [y for trace in figure["data"] for y in trace["y"]]
    if least is not None:
        figure["layout"]["yaxis"] |= {"range": span(values, least)}
    elif min(values) > 0:
        figure["layout"]["yaxis"] |= {"type": "log"}
    figure["layout"]["showlegend"] = len(curves) > 1
    figure["layout"]["xaxis"] |= whole_ticks(max(epoch for epochs in curves.values() for epoch, *_ in epochs))
    return figure


def differences(intervals: Mapping[str, Mapping[str, Estimate]], least: float = 0.0) -> Figure:
    """Differences to the baseline, `{quantity: {method: estimate in points}}`, methods from top to bottom.

    The axis spans `least` points or more.
    """
    names = list(next(iter(intervals.values())))
    traces = []
    for place, (what, found) in enumerate(intervals.items()):
        color, symbol = ((ACCENT, "circle"), (MUTED, "square-open"))[place % 2]
        y = [row + 0.24 * (place - (len(intervals) - 1) / 2) for row in range(len(names))]
        entries = [found[name] for name in names]
        trace = line(what, list(zip([entry[0] for entry in entries], y, strict=True)), color, symbol=symbol)
        trace |= {
            "mode": "markers",
            "error_x": _interval(entries, color),
            "customdata": [_ends(entry) for entry in entries],
            "hovertemplate": "%{x:+.2f}%{customdata}<extra>%{fullData.name}</extra>",
        }
        traces.append(trace)
    figure = plot(traces, "points from the baseline", "")
    rows = list(range(len(names)))
    figure["layout"]["yaxis"] |= {"tickvals": rows, "ticktext": labels_of(names), "range": [len(names) - 0.5, -0.5]}
    figure["layout"]["shapes"] = [_ZERO | {"x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1}]
    ends = [end for found in intervals.values() for entry in found.values() for end in entry]
    figure["layout"]["xaxis"] |= {"range": span([0.0, *ends], least, bounds=(-100.0, 100.0))}
    return figure


def regrets(curves: Mapping[str, Mapping[int, Estimate]]) -> Figure:
    """Points of accuracy lost at each k, `{method and specialists: {k: estimate}}`."""
    traces, step = [], min(0.08, 0.4 / len(curves))
    for place, (label, curve) in enumerate(zip(labels_of(list(curves)), curves.values(), strict=True)):
        color, shift = METHODS[place % len(METHODS)], step * (place - (len(curves) - 1) / 2)
        points = [(round(k + shift, 4), regret) for k, (regret, _, _) in curve.items()]
        trace = line(label, points, color, symbol=SYMBOLS[place % len(SYMBOLS)], dash=DASHES[place % len(DASHES)])
        trace |= {
            "name": label,
            "error_y": _interval(list(curve.values()), color),
            "customdata": [[k, _ends(entry)] for k, entry in curve.items()],
            "hovertemplate": "k = %{customdata[0]}: %{y:+.2f}%{customdata[1]}<extra>%{fullData.name}</extra>",
        }
        traces.append(trace)
    figure = plot(traces, "k, timesteps", "points lost")
    largest = max(k for curve in curves.values() for k in curve)
    figure["layout"]["xaxis"] |= whole_ticks(largest) | {"range": [0.75, largest + 0.25]}
    figure["layout"]["shapes"] = [_ZERO | {"xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0}]
    return figure


def shares(bars: Mapping[str, Sequence[float]]) -> Figure:
    """A bar of shares that sum to 1 for each name, from top to bottom: the parts are timesteps 1, 2, ..."""
    names = labels_of(list(bars))
    traces = []
    for k, parts in enumerate(zip(*bars.values(), strict=True), 1):
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": f"timestep {k}",
                "x": list(parts),
                "y": list(range(len(names))),
                "marker": {"color": METHODS[(k - 1) % len(METHODS)]},
                "hovertemplate": "%{x:.3f}<extra>%{fullData.name}</extra>",
            }
        )
    figure = plot(traces, "share of batches", "")
    rows = list(range(len(names)))
    figure["layout"] |= {"barmode": "stack", "showlegend": True}
    figure["layout"]["legend"] |= {"traceorder": "normal"}
    figure["layout"]["xaxis"] |= {"range": [0, 1]}
    figure["layout"]["yaxis"] |= {"tickvals": rows, "ticktext": names, "range": [len(names) - 0.5, -0.5]}
    return figure


def _ends(entry: Estimate) -> str:
    """The interval in words; empty if there is none."""
    _, low, high = entry
    return "" if low is None or high is None else f" [{low:+.2f}, {high:+.2f}]"


def _interval(entries: Sequence[Estimate], color: str) -> Figure:
    """Error bars from the low to the high end around each middle, if there is an interval."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [None if high is None else high - middle for middle, _, high in entries],
        "arrayminus": [None if low is None else middle - low for middle, low, _ in entries],
        "color": color,
        "thickness": 1.5,
        "width": 4,
    }


def _method_color(place: int) -> str:
    return INK if place == 0 else METHODS[(place - 1) % len(METHODS)]
