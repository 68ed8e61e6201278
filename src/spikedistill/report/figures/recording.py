"""The plots of recorded neurons."""

from collections.abc import Collection, Mapping, Sequence

from .drawing import ACCENT, DASHES, MUTED, SYMBOLS, Figure, line, plot, whole_ticks


def raster(fired: Mapping[str, Collection[int]], timesteps: int) -> Figure:
    """A dot for every spike: `{neuron: timesteps it fires at}`, neurons from bottom to top, timesteps from left to right."""
    trace = line("spikes", [(t, neuron) for neuron, times in fired.items() for t in times], ACCENT, size=5)
    trace |= {"mode": "markers", "hovertemplate": "neuron %{y} fires at timestep %{x}<extra></extra>"}
    figure = plot([trace], "timestep", "neuron")
    figure["layout"]["xaxis"] |= whole_ticks(timesteps) | {"range": [0.5, timesteps + 0.5]}
    # neurons that never fire have a row too
    rows: Figure = {"type": "category", "categoryarray": list(fired), "range": [-0.5, len(fired) - 0.5]}
    figure["layout"]["yaxis"] |= rows | {"showgrid": False}
    return figure


def membranes(
    potentials: Mapping[str, Sequence[float | None]], fired: Mapping[str, Collection[int]], thresholds: Sequence[float]
) -> Figure:
    """One line for each neuron, `{neuron: potential at each timestep}`, filled where it fires, and their thresholds."""
    timesteps = len(next(iter(potentials.values())))
    ends = (0.5, timesteps + 0.5)
    levels = [line("threshold", [(x, threshold) for x in ends], MUTED, dash="dot", width=1) for threshold in thresholds]
    traces = [level | {"mode": "lines", "hoverinfo": "skip"} for level in levels]
    for place, (neuron, values) in enumerate(potentials.items()):
        symbol, dash = SYMBOLS[place % len(SYMBOLS)], DASHES[place % len(DASHES)]
        trace = line(f"neuron {neuron}", list(enumerate(values, 1)), ACCENT, symbol=f"{symbol}-open", dash=dash)
        if timesteps > 16:
            trace["marker"] |= {"size": 5, "line": {"color": ACCENT, "width": 1}}
        trace["marker"]["symbol"] = [symbol + ("" if t in fired[neuron] else "-open") for t in range(1, timesteps + 1)]
        trace["opacity"] = 0.45 + 0.55 * (place + 1) / len(potentials)
        trace["hovertemplate"] = "timestep %{x}: %{y:.4f}<extra>%{fullData.name}</extra>"
        traces.append(trace)
    figure = plot(traces, "timestep", "membrane")
    figure["layout"]["xaxis"] |= whole_ticks(timesteps) | {"range": ends}
    return figure
