"""The elements of all plots: palette, lines, bands, heat maps, axes, as plotly figures in plain data,
`{"data": [...], "layout": {...}}`.

Colours are the page's CSS variables, such as `var(--accent)`, which the page's script replaces: text and plots share
one palette, for light and dark. Only methods have different colours. Series differ by marker and dash as well as by
colour.
"""

import html
from collections.abc import Iterable, Sequence
from typing import Any

Figure = dict[str, Any]
Points = Sequence[tuple[float | str | None, float | str | None]]

ACCENT, MUTED, INK, LINE, PANEL = (f"var(--{name})" for name in ("accent", "muted", "ink", "line", "panel"))
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")
DASHES = ("solid", "dash", "dot", "dashdot")


def line(
    name: str, points: Points, color: str, *, symbol: str = "circle", dash: str = "solid", size: int = 8, width: int = 2
) -> Figure:
    outline = {"color": color, "width": 2 if symbol.endswith("open") else 0}
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label_of(name),
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "line": {"color": color, "dash": dash, "width": width},
        "marker": {"color": color, "symbol": symbol, "size": size, "line": outline},
    }


def heatmap(
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
    figure = plot([trace | {name: value for name, value in options.items() if value is not None}], x_title, y_title)
    figure["layout"]["xaxis"] |= {"type": "category"}
    figure["layout"]["yaxis"] |= {"type": "category", "showgrid": False, "autorange": "reversed"}
    return figure


def plot(traces: list[Figure], x_title: str, y_title: str) -> Figure:
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


def band(lows: Points, highs: Points, color: str, *, opacity: float = 0.16) -> Figure:
    """The area between two lines, such as the ends of intervals; it has no entry in the legend."""
    edge = [*lows, *reversed(highs)]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [x for x, _ in edge],
        "y": [y for _, y in edge],
        "fill": "toself",
        "fillcolor": color,
        "line": {"color": color, "width": 0},
        "opacity": opacity,
        "hoverinfo": "skip",
        "showlegend": False,
    }


def span(values: Iterable[float | None], least: float, bounds: tuple[float, float] = (0.0, 100.0)) -> list[float]:
    """The ends of an axis that shows all values and is no narrower than `least`, so that noise does not fill a plot.

    Args:
        values: all values that are drawn, also the ends of intervals; None is skipped.
        least: the smallest distance of the ends.
        bounds: bounds of the values; the axis goes beyond them only as far as marks need.
    """
    known = [value for value in values if value is not None] or list(bounds)
    low, high = min(known), max(known)
    missing = max(0.0, min(least, bounds[1] - bounds[0]) - (high - low))
    low, high = low - missing / 2, high + missing / 2
    if high > bounds[1]:
        low, high = low - (high - bounds[1]), bounds[1]
    if low < bounds[0]:
        low, high = bounds[0], high + (bounds[0] - low)
    return [low - 0.05 * (high - low), high + 0.05 * (high - low)]


def whole_ticks(largest: int) -> Figure:
    """Ticks of an axis of whole numbers; by default, an axis of few numbers has ticks between them."""
    return {"dtick": 1} if largest <= 10 else {}


def labels_of(names: Sequence[str]) -> list[str]:
    """Labels of categories, made unique, because plotly distinguishes categories only by their text."""
    labels = [label_of(name) for name in names]
    return labels if len(set(labels)) == len(labels) else [f"{i}: {label}" for i, label in enumerate(labels)]


def label_of(name: str) -> str:
    """A name for plotly, which renders HTML: escaped, and shortened if it is long."""
    return html.escape(name if len(name) <= 24 else name[:12] + "…" + name[-11:])
