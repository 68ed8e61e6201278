"""The figures of a comparison for papers, one column wide: drawn by matplotlib from the rows that the page shows."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from ...recipe_name import RecipeName
from ..blocks import numbered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Row = Mapping[str, Any]
Format = Literal["pdf", "svg"]
FORMATS: tuple[Format, ...] = get_args(Format)
WIDTH = 3.4  # inches
_MARKERS, _LINES = "osD^vPX*", ("-", "--", ":", "-.")
_ALONE = {"accuracy": "accuracy, %", "confidence": "confidence, %", "entropy": "entropy, nats"}
# "none" keeps text as text in an SVG; a fixed salt gives its parts the same names every time
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "spikedistill",
    "text.parse_math": False,
}


def print_figure(name: str, rows: Sequence[Row], file_format: Format) -> bytes:
    """A figure as a vector graphic; the same rows give the same bytes.

    Args:
        name: "accuracy" over k with a band of one standard deviation; "timesteps", each on its own, with confidence and entropy;
            "regret" at each k with its interval; "chosen", how often each timestep was strongest and weakest over training.
        rows: one or more, of `leaderboard`, `every_timestep`, `regrets` or `chosen_timesteps`; see
            `spikedistill.evaluation.comparison.leaderboard`.
        file_format: of the file.
    """
    import matplotlib

    draw = {"accuracy": _accuracy, "timesteps": _timesteps, "regret": _regret, "chosen": _chosen}[name]
    content = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        no_date = {"CreationDate": None} if file_format == "pdf" else {"Date": None}
        draw(rows).savefig(content, format=file_format, metadata=no_date)
    return content.getvalue()


def _accuracy(rows: Sequence[Row]) -> "Figure":
    figure, (axes,) = _panels(1, 1, names := [short_name(row["method"]) for row in rows])
    lines = []
    for place, row in enumerate(rows):
        K = numbered(row, "accuracy_")
        mean, spread = [row[f"accuracy_{k}"] for k in K], [row[f"accuracy_{k}_std"] for k in K]
        lines.append(_curve(axes, place, K, mean))
        if any(spread):
            low, high = ([m + sign * s for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1))
            axes.fill_between(K, low, high, color=_color(place), alpha=0.15, linewidth=0)
    axes.set(xlabel="k, timesteps", ylabel="test accuracy, %")
    _legend(figure, lines, names)
    return figure


def _timesteps(rows: Sequence[Row]) -> "Figure":
    shown = {key: title for key, title in _ALONE.items() if any(math.isfinite(row[f"{key}_1"]) for row in rows)}
    figure, panels = _panels(len(shown), 1, names := [short_name(row["method"]) for row in rows])
    lines = []
    for axes, (key, title) in zip(panels, shown.items(), strict=True):
        for place, row in enumerate(rows):
            K = numbered(row, f"{key}_")
            lines.append(_curve(axes, place, K, [row[f"{key}_{k}"] for k in K]))
        axes.set(ylabel=title)
    panels[-1].set(xlabel="timestep k alone")
    _legend(figure, lines[: len(rows)], names)
    return figure


def _regret(rows: Sequence[Row]) -> "Figure":
    names = [f"{short_name(row['method'])} against {short_name(row['specialists'])}" for row in rows]
    figure, (axes,) = _panels(1, 1, names)
    axes.axhline(0, color="black", linewidth=0.5)
    bars, step = [], min(0.08, 0.4 / len(rows))  # side by side, so that intervals do not hide each other
    for place, row in enumerate(rows):
        K = numbered(row, "regret_")
        lost = [row[f"regret_{k}"] for k in K]
        ends = [
            [abs(row.get(f"regret_{k}_{end}", math.nan) - row[f"regret_{k}"]) for k in K] for end in ("low", "high")
        ]
        shifted = [k + step * (place - (len(rows) - 1) / 2) for k in K]
        style = _marks(place) | {"color": f"C{place % 10}", "capsize": 2, "elinewidth": 0.8}
        bars.append(axes.errorbar(shifted, lost, yerr=ends, **style))
    axes.set(xlabel="k, timesteps", ylabel="points lost to the network\ntrained at T = k")
    _legend(figure, bars, names)
    return figure


def _chosen(rows: Sequence[Row]) -> "Figure":
    from matplotlib import colormaps

    methods, roles = list(dict.fromkeys(row["method"] for row in rows)), ("strongest", "weakest")
    T = max(k for row in rows for k in numbered(row, "share_"))
    names = {k: f"timestep {k}" for k in range(1, T + 1)}
    colors = {k: colormaps["viridis_r"](k / T) for k in names}  # light to dark as time goes on
    figure, panels = _panels(len(methods), 2, [*names.values()][: (T + 1) // 2])
    parts: dict[int, Any] = {}
    for (method, role), axes in zip(((m, r) for m in methods for r in roles), panels, strict=True):
        epochs = [row for row in rows if (row["method"], row["role"]) == (method, role)]
        edges = [row["epoch"] - 0.5 for row in epochs] + [epochs[-1]["epoch"] + 0.5]
        K = sorted({k for row in epochs for k in numbered(row, "share_")})
        shares = [[row.get(f"share_{k}", 0.0) for row in [*epochs, epochs[-1]]] for k in K]
        stack = axes.stackplot(edges, shares, colors=[colors[k] for k in K], step="post")
        parts |= dict(zip(K, stack, strict=True))
        axes.set(ylim=(0, 1), title=role if method == methods[0] else "")
        axes.set(ylabel=short_name(method, "\n") if role == roles[0] else "")
        axes.margins(x=0)
    for axes in panels[-2:]:
        axes.set(xlabel="epoch")
    _legend(figure, [parts[k] for k in names], [*names.values()], ncols=2)
    return figure


def _panels(rows: int, columns: int, named: Sequence[str]) -> tuple["Figure", list["Axes"]]:
    """A figure with room for a legend of these names below each other, and its panels in reading order."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    height = 2.6 if rows == 1 else 0.6 + 1.5 * rows
    lines = sum(1 + _wrapped(name).count("\n") for name in named)
    figure = Figure(figsize=(WIDTH, height + 0.16 * lines), layout="constrained")
    panels = [*figure.subplots(rows, columns, sharex=True, sharey=columns > 1, squeeze=False).flat]
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, panels


def _curve(axes: "Axes", place: int, x: Sequence[float], y: Sequence[float]) -> "Line2D":
    (line,) = axes.plot(x, y, color=_color(place), **_marks(place))
    return line


def _marks(place: int) -> dict[str, Any]:
    style = {"marker": _MARKERS[place % len(_MARKERS)], "linestyle": _LINES[place % len(_LINES)]}
    return style | {"markersize": 3, "linewidth": 1}


def _color(place: int) -> str:
    """The first is the baseline."""
    return "black" if place == 0 else f"C{(place - 1) % 10}"


def _legend(figure: "Figure", handles: Sequence[Any], names: Sequence[str], ncols: int = 1) -> None:
    labels = [_wrapped(name) for name in names]
    figure.legend(handles, labels, loc="outside lower center", ncols=ncols, frameon=False)


def _wrapped(name: str) -> str:
    """A name in lines that fit into a column, next to its line in the legend."""
    return textwrap.fill(name, 42)


def short_name(method: RecipeName, between: str = ", ") -> str:
    """A short name: without the data set, which is the same for all, and of a variant only its changes."""
    settings = [change.partition("=") for change in method.changes]
    short = [key.rpartition(".")[2] + given + value for key, given, value in settings]
    if len({key.rpartition(".")[2] for key, _, _ in settings}) < len(settings):  # two of one last name
        short = list(method.changes)
    return between.join([method.base.variant, *short])


def short_names(methods: Sequence[RecipeName]) -> dict[RecipeName, str]:
    """The short name of each method of a plot; the name without its data set if two would be alike."""
    names = [short_name(method) for method in methods]
    distinct = len(set(names)) == len(set(methods))
    return {method: name if distinct else method.variant for method, name in zip(methods, names, strict=True)}
