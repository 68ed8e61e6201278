"""Records the spikes, membranes and firing rates of every layer of neurons during a forward pass."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..errors import UserError
from ..neurons import LIF, Neuron, SpikingNeuron, lif_step
from ..neurons.dynamics import membrane_precision
from ..through_time import Steps, Temporal
from ..through_time.features import OverTime
from ..through_time.steps import check_steps, layers_of, spiking_types
from .watching import watching_steps


class Recording:
    """The inputs and outputs of all spiking layers in one pass of a network, by module path. It is empty until the pass
    has ended.

    A layer that was called again in the same timestep has a further entry, `path#1`.
    """

    def __init__(self) -> None:
        self._parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._dynamics: dict[str, Neuron] = {}
        self._is_whole = False

    @property
    def currents(self) -> dict[str, Tensor]:
        """Inputs of each layer, `[T, B, ...]`."""
        return {path: part[0] for path, part in self._joined().items()}

    @property
    def spikes(self) -> dict[str, Tensor]:
        """Spikes of each layer, `[T, B, ...]`: zeros and ones in networks of this library, the layer's outputs in others."""
        return {path: part[1] for path, part in self._joined().items()}

    def _joined(self) -> dict[str, tuple[Tensor, Tensor]]:
        for parts in self._parts.values():
            if len(parts) > 1:
                rows = [spikes.shape[1] for _, spikes in parts]
                if len(set(rows)) > 1:
                    raise UserError(
                        f"the recorded pass had {rows} samples at its timesteps, expected one number: record a pass in which "
                        "no sample leaves the batch"
                    )
                currents, spikes = zip(*parts, strict=True)
                parts[:] = [(torch.cat(currents), torch.cat(spikes))]
        return {path: parts[0] for path, parts in self._parts.items()}

    @property
    def rates(self) -> dict[str, Tensor]:
        """Firing rate of each layer at each timestep, `[T]`: the share of neurons that fire, averaged over the batch."""
        return {path: (spikes != 0).flatten(1).double().mean(1) for path, spikes in self.spikes.items()}

    @property
    def thresholds(self) -> dict[str, float | Tensor]:
        """Threshold of each layer, at or above which its neurons fire; per channel it broadcasts over `[B, ...]`."""
        found = {path: dynamics.threshold for path, dynamics in self._dynamics.items()}
        return {path: t.item() if isinstance(t, Tensor) and t.numel() == 1 else t for path, t in found.items()}

    def membranes(self, path: str) -> Tensor:
        """Membranes of a `LIF` layer after each timestep's leak and input and before its reset, `[T, B, ...]`.

        A neuron fires at the timesteps at which its membrane reaches its threshold.

        Raises:
            KeyError: if no layer of that path was recorded.
            UserError: for a layer that is no `LIF`: the equation of its membrane is not known.
        """
        if path in self._parts and path not in self._dynamics:
            raise UserError(
                f"layer {path!r} is no LIF layer of this library, so its membranes are not known: expected one of "
                f"{', '.join(self._dynamics) or 'those, of which the network has none'}"
            )
        dynamics, before = self._dynamics[path], []
        currents = membrane_precision(self.currents[path])
        membrane = dynamics.initial_membrane(currents[0])
        for current in currents.unbind(0):
            before.append(dynamics.integrate(current, membrane))
            membrane = lif_step(current, membrane, dynamics)[1]
        return torch.stack(before)

    def clear(self) -> None:
        """Drop the recorded pass, so that the next one can be recorded."""
        self._parts.clear()
        self._dynamics.clear()
        self._is_whole = False

    def begin(self) -> None:
        """Begin to record a pass; what a failed pass left is dropped.

        Raises:
            UserError: if a pass has been recorded.
        """
        if self._is_whole:
            raise UserError(
                "the network was called a second time inside record(...), which records one call: give each call a block of its "
                "own, or forget the first with recording.clear()"
            )
        self.clear()

    def end(self) -> None:
        """Store the pass, which has ended."""
        self._is_whole = True

    def take(self, path: str, layer: nn.Module, currents: Tensor, spikes: Tensor) -> None:
        """Store the inputs and outputs of one layer for the whole pass, or for its next timestep."""
        self._parts.setdefault(path, []).append((currents.detach(), spikes.detach()))
        if isinstance(layer, LIF) and not layer.runs_by_step and path not in self._dynamics:
            self._dynamics[path] = layer.dynamics(currents.ndim - 1).detached()


class FiringRates:
    """Mean firing rate of every layer at every timestep over many batches.

    Args:
        recording: the recording of the network that runs.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.sums: dict[str, Tensor] = {}
        self.count = torch.zeros(0)

    def add(self, batch_size: int) -> None:
        """Add the recorded batch to the means, and clear the recording for the next one."""
        rates = self.recording.rates
        for path, rate in rates.items():
            self.sums[path] = _added(self.sums.get(path, torch.zeros(0)), batch_size * rate)
        longest = max((len(rate) for rate in rates.values()), default=0)
        self.count = _added(self.count, torch.full((longest,), float(batch_size)))
        self.recording.clear()

    def means(self, timesteps: int) -> list[dict[str, Any]]:
        """`[{layer, rates}]`: spikes per neuron at each of the first timesteps, in the order of the network."""
        ended = torch.zeros(timesteps)  # where all recordings have ended, nothing fires
        return [
            {
                "layer": path.removeprefix("network."),
                "rates": _added(total / self.count[: len(total)], ended)[:timesteps].tolist(),
            }
            for path, total in self.sums.items()
        ]


def _added(total: Tensor, more: Tensor) -> Tensor:
    """The sum at each timestep, where one may have more of them."""
    return pad_sequence([total, more]).sum(1)


def firing_kinds(model: Any, spiking: tuple[type[nn.Module], ...] = ()) -> tuple[type[nn.Module], ...]:
    """The types of the layers whose outputs are spikes: ours, those that an adapter declares, and those that are given."""
    for kind in spiking:
        if not isinstance(kind, type) or not issubclass(kind, nn.Module):
            raise UserError(f"spiking holds {kind!r}, expected types of modules, such as spiking=(MyNeuron,)")
    return (SpikingNeuron, *spiking_types(model), *spiking)


def fires(model: Any, spiking: tuple[type[nn.Module], ...] = ()) -> bool:
    """Whether a network has layers that are known to fire."""
    kinds = firing_kinds(model, spiking)
    return any(isinstance(layer, kinds) for layer in layers_of(model).values())


@contextmanager
def record(model: Steps, *, spiking: tuple[type[nn.Module], ...] = ()) -> Iterator[Recording]:
    """Record every layer of neurons in a pass of a network: `with record(model) as recording: model(x, timesteps=4)`.

    The network computes what it always does. Memory grows with all activations of the pass, so record small batches.

    A recording holds one pass. A second pass in the block is refused, unless `recording.clear()` has dropped the first.
    In a network of this library a pass is a call of it; in any other with `step` it begins with the step whose state is
    None, and each further step adds a timestep.

    Args:
        model: a network from `create_model`, `temporal` or `load`, or any other with `step(x, state) -> (logits, state)`.
        spiking: types of further layers whose outputs are spikes. `SpikingNeuron`s and the neurons of `from_spikingjelly` and
            `from_snntorch` are recorded anyway.

    Raises:
        UserError: for a model without `step`, or without layers known to fire; for a second pass in the block, and for layers
            that run outside of the pass.
    """
    check_steps(model)
    if not isinstance(model, Temporal):
        with _recorded_steps(model, spiking) as recording:
            yield recording
        return
    kinds = firing_kinds(model, spiking)
    recording, over_time = Recording(), OverTime()
    calls: Counter[str] = Counter()
    running = False

    def begin(*_: Any) -> None:
        nonlocal running
        recording.begin()
        over_time.clear()
        calls.clear()
        running = True

    def stop(*_: Any) -> None:
        nonlocal running
        running = False

    def watch(path: str) -> Any:
        def after(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not running:
                return _refuse_others(path)
            values = over_time.of(path, inputs[0], output)
            if values is not None:
                recording.take(path if calls[path] == 0 else f"{path}#{calls[path]}", layer, *values)
                calls[path] += 1
            return None

        return after

    handles = [
        model.register_forward_pre_hook(begin),
        model.register_forward_hook(lambda *_: recording.end()),
        model.register_forward_hook(stop, always_call=True),  # also after an error
    ]
    for path, module in model.module.named_modules():
        if isinstance(module, kinds):
            handles.append(module.register_forward_hook(watch(path)))
    try:
        yield recording
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _recorded_steps(model: Steps, spiking: tuple[type[nn.Module], ...]) -> Iterator[Recording]:
    """`record` of a network that is not from this library."""
    if not fires(model, spiking):
        raise UserError(
            f"no layer of this {type(model).__name__} is known to fire: name the types of its neurons, such as "
            "record(model, spiking=(MyNeuron,))"
        )
    recording = Recording()

    def begin() -> None:
        recording.begin()
        recording.end()

    def refuse(path: str) -> None:
        raise UserError(f"layer {path!r} ran inside record(...), and not in model.step(x, state): record steps only")

    with watching_steps(model, firing_kinds(model, spiking), recording.take, begin=begin, refuse=refuse):
        yield recording


def _refuse_others(path: str) -> None:
    """Refuse a layer that runs outside of a call of the network; a checkpoint may run it again in the backward pass.

    Raises:
        UserError: in that case.
    """
    if torch._C._current_graph_task_id() == -1:
        raise UserError(
            f"layer {path!r} ran inside record(...), and not in a call model(x, timesteps=T) of the network that is recorded: "
            "record that call, and use step() and other networks with the same layers outside of the block"
        )
