"""The spikes and membranes of a recording as plots."""

import html
import json
import math
import re
from collections.abc import Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..evaluation import Recording
from ..files import write_atomically
from . import figures
from .blocks import Column, Number, Numbers, Page, Plot, Plots, Section, Table, Text, decimals, significant, thinned
from .page import render

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Limits that keep the page of a recording small. Over all layers together: neurons in rasters, and rows in tables of membranes.
# The next three are for one layer, and for a neuron's spikes in a table cell.
NEURONS, ROWS = 768, 400
MOST_NEURONS, MOST_ROWS, MOST_TIMES = 64, 32, 24


def raster(recording: Recording, layer: str, *, sample: int = 0, neurons: int | Sequence[int] = 64) -> "Figure":
    """Draw the spikes of a layer on one sample: a row for each neuron, timesteps from left to right, a dot for each spike.

    Args:
        recording: from `spikedistill.evaluation.record`.
        layer: one of `recording.spikes`.
        sample: which of the batch.
        neurons: how many, spread evenly over the layer, the same ones every time; or the indices of those to draw, into the
            layer `[...]` flattened.

    Returns:
        A plotly figure: a notebook displays it, `.show()` opens it in a browser, `.write_html(path)` keeps it. A neuron of a
        convolutional layer is named by channel, row and column.

    Raises:
        UserError: for a layer, a sample or neurons that the recording does not have.
    """
    shown = _Layer(recording, layer, sample).some(neurons)
    return _standing_alone(figures.raster(shown.fired, shown.timesteps), f"Spikes of {shown.title}")


def membranes(recording: Recording, layer: str, *, sample: int = 0, neurons: int | Sequence[int] = 4) -> "Figure":
    """Draw the membranes of a few neurons on one sample, after each timestep's leak and input and before its reset.

    A dotted line is the threshold; the marks at which a neuron fires are filled. The arguments, the figure and the errors are
    those of `raster`.
    """
    shown = _Layer(recording, layer, sample).some(neurons)
    figure = figures.membranes(shown.potentials, shown.fired, shown.thresholds)
    return _standing_alone(figure, f"Membranes of {shown.title}")


def write_recording(recording: Recording, path: Path | str, *, sample: int = 0) -> Path:
    """Write one web page with the spikes and membranes of every layer on one sample, readable offline.

    Args:
        recording: from `spikedistill.evaluation.record`.
        path: the file to write, such as `recording.html`.
        sample: which of the batch.

    Returns:
        The path.

    Raises:
        UserError: for an empty recording, or a sample that it does not have.
    """
    layers = [_Layer(recording, layer, sample) for layer in recording.spikes]
    if not layers:
        raise UserError(_EMPTY)
    busiest = max(layers, key=lambda layer: layer.rate)
    timesteps, batch = recording.spikes[busiest.name].shape[:2]
    neurons = sum(layer.spikes.shape[1] for layer in layers)
    fired = sum(int(layer.spikes.count_nonzero()) for layer in layers)
    rate = fired / neurons / timesteps
    page = Page(
        kind="recording of one sample",
        title=f"Spikes on sample {sample}",
        subject=f"Sample {sample} of a batch of {batch}: timesteps 1 to {timesteps}, layers of neurons from input to output.",
        verdict=f"The busiest layer is {busiest.name}, with {busiest.rate:.3f} spikes per neuron and timestep.",
        numbers=Numbers(
            [
                Number("layers", len(layers), str(len(layers)), "layers"),
                Number("neurons", neurons, f"{neurons:,}", "neurons"),
                Number("spikes", fired, f"{fired:,}", "spikes"),
                Number("rate", rate, f"{rate:.3f}", "spikes per neuron and timestep"),
            ]
        ),
        sections=[_section(layer, number, len(layers)) for number, layer in enumerate(layers, 1)],
    )
    write_atomically(Path(path), render(page))
    return Path(path)


def _section(layer: "_Layer", number: int, layers: int) -> Section:
    """The section of the page about one layer."""
    many = layer.some(min(MOST_NEURONS, max(8, NEURONS // layers)))
    spikes = Plot(
        name=f"raster_{number}",
        title="Spikes",
        note=f"{many.choice}.",
        alt=f"Raster of neurons over timesteps, {sum(map(len, many.fired.values()))} spikes.",
        figure=figures.raster(many.fired, many.timesteps),
        height=420,
        table=Table(
            f"raster_{number}",
            f"When neurons of {layer.name} fire",
            [Column("neuron", "Neuron"), Column("timesteps", "Timesteps")],
            [{"neuron": name, "timesteps": _listed(times)} for name, times in many.fired.items()],
        ),
    )
    shape = " x ".join(map(str, layer.shape))
    rate = f"{layer.rate:.3f} spikes per neuron and timestep on this sample."
    if layer.thresholds is None:  # a layer with its own `step`: its membranes are not known
        return Section(f"layer-{number}", layer.name, [Text(f"{shape} neurons: {rate}"), Plots([spikes])])
    words = f"{shape} neurons of {_span(layer.thresholds)}: {rate}"
    return Section(f"layer-{number}", layer.name, [Text(words), Plots([spikes, _traces(layer, number, layers)])])


def _traces(layer: "_Layer", number: int, layers: int) -> Plot:
    """Membranes of a few neurons of a layer."""
    few = layer.some(4)
    potentials = {name: [significant(u, 5) for u in values] for name, values in few.potentials.items()}
    return Plot(
        name=f"membranes_{number}",
        title="Membranes",
        note=f"{few.choice}. After leak and input, before the reset; filled where a neuron fires.",
        alt=f"Membranes of neurons over timesteps, and their {_span(few.thresholds)}.",
        figure=figures.membranes(potentials, few.fired, few.thresholds),
        height=420,
        table=Table(
            f"membranes_{number}",
            f"Membranes of neurons of {layer.name}",
            [Column("t", "Timestep"), *(Column(name, f"Neuron {name}", write=decimals(4)) for name in potentials)],
            [
                {"t": t + 1} | {name: _rounded(u[t]) for name, u in potentials.items()}
                for t in thinned(range(few.timesteps), min(MOST_ROWS, max(8, ROWS // layers)))
            ],
        ),
    )


def _listed(times: Sequence[int]) -> str | None:
    """Timesteps in words; None for a neuron that never fires."""
    first = ", ".join(map(str, times[:MOST_TIMES]))
    return f"{first}, … {len(times)} in all" if len(times) > MOST_TIMES else first or None


def _rounded(potential: float | None) -> float | None:
    return None if potential is None else round(potential, 4)


class _Layer:
    """What a layer of neurons did on one sample.

    Attributes:
        name: its path in the network.
        sample: which of the batch.
        shape: of its neurons.
        spikes: `[T, neurons]`.
        rate: spikes per neuron and timestep.

    Raises:
        UserError: for an empty recording, or a layer or a sample that it does not have.
    """

    def __init__(self, recording: Recording, layer: str, sample: int) -> None:
        if not recording.spikes:
            raise UserError(_EMPTY)
        if layer not in recording.spikes:
            raise UserError(f"the recording has no layer {layer!r}: it has {', '.join(recording.spikes)}")
        timesteps, batch, *shape = recording.spikes[layer].shape
        if not 0 <= sample < batch:
            raise UserError(f"sample is {sample}, but the samples of the recording are 0 to {batch - 1}")
        self.name, self.sample, self._recording = layer, sample, recording
        self.shape = tuple(shape) or (1,)
        self.spikes = recording.spikes[layer][:, sample].reshape(timesteps, -1)
        self.rate = float((self.spikes != 0).double().mean())

    @cached_property
    def thresholds(self) -> list[float] | None:
        """The threshold of each neuron; None if it is not known."""
        if self.name not in self._recording.thresholds:
            return None
        threshold = torch.as_tensor(self._recording.thresholds[self.name], dtype=torch.float64)
        of_all = threshold.expand(self._recording.spikes[self.name].shape[1:])
        values: list[float] = of_all[self.sample].flatten().tolist()
        return values

    def potentials(self) -> Tensor:
        """Membranes `[T, neurons]`."""
        return self._recording.membranes(self.name)[:, self.sample].reshape(len(self.spikes), -1)

    def some(self, neurons: int | Sequence[int]) -> "_Neurons":
        """The given number of its neurons, spread evenly, or those with the given indices.

        Raises:
            UserError: for no neurons, or an index outside the layer.
        """
        count = self.spikes.shape[1]
        if isinstance(neurons, int):
            if neurons < 1:
                raise UserError(f"neurons is {neurons}, expected 1 or more of the {count} of {self.name!r}")
            # steps near the golden ratio of the layer, wrapped around: equal steps would draw the same row and column
            # of every channel
            step = next(step for step in range(round(0.618 * count), 0, -1) if math.gcd(step, count) == 1)
            indices = sorted(place * step % count for place in range(min(neurons, count)))
            return _Neurons(self, indices, ", spread evenly" if len(indices) < count else "")
        if len(neurons) == 0 or not all(0 <= neuron < count for neuron in neurons):
            raise UserError(
                f"neurons is {list(neurons)}, expected indices from 0 to {count - 1}, as {self.name!r} has them"
            )
        return _Neurons(self, list(dict.fromkeys(int(neuron) for neuron in neurons)))


class _Neurons:
    """Some neurons of a layer on one sample.

    Attributes:
        timesteps: how many were recorded.
        choice: how the neurons were chosen, in words.
        title: the same, with the layer and the sample.
        fired: the timesteps, from 1, at which each neuron fires, by its place in the layer, such as channel, row and
            column.
    """

    def __init__(self, layer: _Layer, indices: list[int], spread: str = "") -> None:
        self.timesteps, count = layer.spikes.shape
        self._layer, self._indices = layer, indices
        self.choice = f"{len(indices)} of {count} neurons" if len(indices) < count else f"all {count} neurons"
        self.choice += spread
        self.title = f"{layer.name}, sample {layer.sample}: {self.choice}"
        places = [np.unravel_index(index, layer.shape) for index in indices]
        self._names = [", ".join(str(int(axis)) for axis in place) for place in places]
        rows = layer.spikes[:, indices].T.tolist()
        fired = [[t for t, spike in enumerate(row, 1) if spike] for row in rows]
        self.fired = dict(zip(self._names, fired, strict=True))

    @property
    def potentials(self) -> dict[str, list[float | None]]:
        """The membrane of each neuron at every timestep; None if it is not finite."""
        rows = self._layer.potentials()[:, self._indices].T.tolist()
        finite = [[u if math.isfinite(u) else None for u in row] for row in rows]
        return dict(zip(self._names, finite, strict=True))

    @property
    def thresholds(self) -> list[float]:
        """The different ones among theirs."""
        of_all = self._layer.thresholds or []
        return sorted({of_all[index] for index in self._indices})


_EMPTY = "the recording is empty: call the network inside the block of record(network), and let it have spiking neurons"


def _span(thresholds: Sequence[float]) -> str:
    low, high = min(thresholds), max(thresholds)
    return f"threshold {low:g}" if low == high else f"thresholds {low:g} to {high:g}"


def _standing_alone(figure: figures.Figure, title: str) -> "Figure":
    """A figure of a page with a title, fixed colours in place of the page's variables, and zoom enabled."""
    from plotly.graph_objects import Figure

    style = (resources.files(__package__) / "templates" / "style.css").read_text(encoding="utf-8")
    palette = dict(re.findall(r"--([a-z]+): (#\w+);", style.split("@media")[0]))
    coloured = re.sub(r"var\(--([a-z]+)\)", lambda variable: palette[variable[1]], json.dumps(figure))
    shown = Figure(json.loads(coloured))
    shown.update_layout(
        title={"text": html.escape(title), "font": {"color": palette["ink"], "size": 15}},
        paper_bgcolor=palette["panel"],
        dragmode="zoom",
        margin={"t": 80},
    )
    shown.update_xaxes(fixedrange=False)
    shown.update_yaxes(fixedrange=False)
    return shown
