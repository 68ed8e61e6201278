"""The derivative of a neuron's mean rate with respect to a constant added to its input: the gradient of rate-based training.

The same constant is added to the input current at every timestep of a segment, and the membrane at the segment's start is held
fixed. With g_t the surrogate derivative at u_t and k_t = dv_t/du_t, the derivative through the reset:

    du_t/dI = 1 + lambda * k_{t-1} * du_{t-1}/dI ,       dr/dI = mean_t g_t * du_t/dI

The derivative for the decay has the source v_{t-1} instead of 1; the derivative for the initial membrane has the source lambda,
at the first timestep only. A threshold changes the distance x = u - threshold, and with it v_t: dx_t = lambda * dv_{t-1} - 1 and
dv_t = k_t * dx_t + 1 - s_t. This holds for soft and hard reset, because the membrane after a reset is u_t = x_t + threshold, x_t
or v_reset. One segment is rate-based backpropagation (Yu et al., RateBP, NeurIPS 2024); segments of length one are SLTT (Meng et
al., 2023).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .dynamics import membrane_precision
from .loops import NormalisedCurrent, PackedSpikes, Path, on_path, path_of, rates_by_kernel, rates_by_loop
from .neuron import Neuron


class Response(NamedTuple):
    """Spikes of a sequence, and the derivatives of the mean rate of each of its m segments.

    Attributes:
        spikes: `[T, B, ...]`, zeros and ones in the dtype of the current; packed if they were computed in chunks.
        to_current: dr/dI of each segment, `[m, B, ...]`.
        to_decay: dr/d(decay) of each segment, `[m, B, ...]`; None unless requested.
        to_v_init: dr/d(v_init), `[m, B, ...]`, zero after the first segment; None unless requested.
        to_threshold: dr/d(threshold) of each segment, `[m, B, ...]`; None unless requested.
        rates: mean spikes of each segment, `[m, B, ...]`; None if the loop does not compute them.
    """

    spikes: Any
    to_current: Tensor
    to_decay: Tensor | None = None
    to_v_init: Tensor | None = None
    to_threshold: Tensor | None = None
    rates: Tensor | None = None


def lif_response(
    current: Tensor,
    lengths: Sequence[int],
    neuron: Neuron,
    learned: Sequence[str] = (),
    *,
    only_bits: bool = False,
) -> Response:
    """Run the dynamics of `lif` without a graph, and compute the derivatives of every segment's mean rate.

    Args:
        current: currents `[T, B, ...]`, or `[1, B, ...]` if they are the same at all timesteps.
        lengths: timesteps of each segment; they sum to T.
        neuron: the options of the neurons.
        learned: options with respect to which derivatives are also computed, among "decay", "threshold" and "v_init".
        only_bits: hold the spikes in bits only, as `SpikesInBits`, where the loop can.

    Raises:
        UserError: for an option that is a tensor and does not broadcast over a timestep of the currents.
    """
    lengths, sources = tuple(lengths), ("current", *learned)
    path = path_of(current, neuron, sum(lengths), lengths=lengths, learned=learned)
    if not path.is_eager:
        return _by_loop(current, lengths, sources, neuron, path, only_bits)
    if len(current) < sum(lengths):
        current = current.expand(sum(lengths), *current.shape[1:])
    with torch.no_grad():
        return _respond(current, lengths, sources, neuron, current.dtype)


def norm_lif_response(
    current: NormalisedCurrent,
    lengths: Sequence[int],
    neuron: Neuron,
    learned: Sequence[str] = (),
    *,
    only_bits: bool = False,
) -> Response:
    """`lif_response` with a batch-norm computed in the same loop."""
    path = path_of(current.x, neuron, lengths=lengths, learned=learned)
    return _by_loop(current, tuple(lengths), ("current", *learned), neuron, path, only_bits)


def _by_loop(
    current: Tensor | NormalisedCurrent,
    lengths: tuple[int, ...],
    sources: tuple[str, ...],
    neuron: Neuron,
    path: Path,
    only_bits: bool,
) -> Response:
    """The response from one kernel or loop."""
    if path.kernels is None:
        return Response(*rates_by_loop(_respond, current, lengths, sources, neuron, path))
    spikes, rates, to_current = rates_by_kernel(current, lengths, neuron, path, only_bits=only_bits)
    return Response(spikes, to_current, rates=rates)


def lif_response_in_chunks(
    currents: Callable[[int, int], Tensor],
    lengths: Sequence[int],
    chunk: int,
    neuron: Neuron,
    learned: Sequence[str] = (),
) -> Response:
    """`lif_response` of currents that are read a few timesteps at a time, so that they are never all in memory.

    Args:
        currents: called as `currents(start, stop)`, returns those of timesteps start to stop - 1, `[stop - start, B, ...]`.
        lengths: timesteps of each segment; they sum to T.
        chunk: the largest number of timesteps to read at a time; no chunk spans two segments.

    The other arguments are those of `lif_response`.

    Returns:
        The same as `lif_response`, with the spikes packed.
    """
    membrane: Tensor | None = None
    spikes: PackedSpikes | None = None
    derivatives, start = [], 0
    with torch.no_grad():
        for segment, length in enumerate(lengths):
            traces: dict[str, Trace] | None = None
            for first in range(start, start + length, chunk):
                part = currents(first, min(first + chunk, start + length))
                if membrane is None or spikes is None:
                    like = membrane_precision(part[0])
                    neuron = neuron.over(like)
                    membrane = neuron.initial_membrane(like)
                    spikes = PackedSpikes.silent(sum(lengths), membrane)
                if traces is None:  # tensors, because PyTorch would compile the loop again for every number
                    fresh = _fresh_traces(segment, ("current", *learned))
                    traces = {
                        name: Trace(*(membrane.new_full((), float(number)) for number in trace))
                        for name, trace in fresh.items()
                    }
                run = on_path(path_of(part, neuron, in_chunks=True), _advance)
                fired, membrane, traces = run(part, membrane, traces, neuron, torch.uint8)
                spikes.write(first, fired)
            assert traces is not None
            derivatives.append({source: trace.total / length for source, trace in traces.items()})
            start += length
        assert spikes is not None
        return _response(spikes, derivatives)


class Trace(NamedTuple):
    """The derivative of the membrane with respect to one source, and its sum over timesteps weighted by the surrogate."""

    membrane: float | Tensor
    total: float | Tensor = 0.0

    def after(self, source: float | Tensor, decay: float | Tensor, survives: float | Tensor, slope: Tensor) -> "Trace":
        """The derivatives one timestep later: du = source + decay * dv, weighted by ds/du, then through the reset."""
        u = source + decay * self.membrane
        return Trace(survives * u, self.total + slope * u)


def _fresh_traces(segment: int, sources: tuple[str, ...]) -> dict[str, Trace]:
    """Derivatives at a segment's start. The membrane there is held fixed; in the first segment it is the initial membrane."""
    return {source: Trace(1.0 if source == "v_init" and segment == 0 else 0.0) for source in sources}


def _response(spikes: Any, derivatives: list[dict[str, Any]]) -> Response:
    """The derivatives of all segments, stacked, by source."""
    return Response(
        spikes, **{f"to_{source}": torch.stack([a[source] for a in derivatives]) for source in derivatives[0]}
    )


def _respond(
    current: Tensor | list[Tensor],
    lengths: tuple[int, ...],
    sources: tuple[str, ...],
    neuron: Neuron,
    dtype: torch.dtype,
    unit: Tensor | None = None,
) -> Response:
    first = membrane_precision(current[0])
    neuron = neuron.over(first)
    membrane = neuron.initial_membrane(first)
    spikes: list[Tensor] = []  # stacked once: a compiled loop would write a tensor joined from parts twice
    derivatives, start = [], 0
    for segment, length in enumerate(lengths):
        traces = _fresh_traces(segment, sources)
        fired, membrane, traces = _advance(current[start : start + length], membrane, traces, neuron, dtype, unit)
        spikes += fired
        derivatives.append({source: trace.total / length for source, trace in traces.items()})
        start += length
    return _response(torch.stack(spikes), derivatives)


def _advance(
    current: Tensor | list[Tensor],
    membrane: Tensor,
    traces: dict[str, Trace],
    neuron: Neuron,
    dtype: torch.dtype,
    unit: Tensor | None = None,
) -> tuple[list[Tensor], Tensor, dict[str, Trace]]:
    """Compute n timesteps within a segment: their spikes in that dtype, and the membrane and the traces after them."""
    spikes = []
    for current_t in current:
        u = neuron.integrate(membrane_precision(current_t), membrane)
        distance = u - neuron.threshold
        slope = neuron.derivative(distance)
        if unit is not None:
            slope = slope * unit
        spikes_t = (distance >= 0).to(u.dtype)
        survives = _survival(u, spikes_t, slope, neuron)
        sources: dict[str, float | Tensor] = {"current": 1.0, "decay": membrane, "v_init": 0.0, "threshold": -1.0}
        traces = {name: trace.after(sources[name], neuron.decay, survives, slope) for name, trace in traces.items()}
        if "threshold" in traces:  # until here its trace is the derivative of u - threshold
            behind, total = traces["threshold"]
            traces["threshold"] = Trace(behind + (1 - spikes_t), total)
        membrane = neuron.reset(u, spikes_t)
        spikes.append(spikes_t.to(dtype))
    return spikes, membrane, traces


def _survival(u: Tensor, spikes: Tensor, slope: Tensor, neuron: Neuron) -> float | Tensor:
    """dv/du through the reset."""
    if neuron.v_reset is None:
        return 1.0 if neuron.detach_reset else 1.0 - neuron.threshold * slope
    return 1 - spikes if neuron.detach_reset else 1 - spikes + (neuron.v_reset - u) * slope
