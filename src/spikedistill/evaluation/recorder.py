"""Seeing inside: the spikes, membranes and rates of every layer of neurons during a forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..neurons import LIF, Neuron, lif_step
from ..neurons.dynamics import membrane_precision
from ..through_time import Temporal
from ..through_time.features import OverTime


class Recording:
    """What the layers of neurons did in one call of a network, by module path. It is empty until the call has ended.

    A layer that was called again in the same call of the network has a further entry, `path#1`.

    Attributes:
        currents: input currents of each layer, `[T, B, ...]`.
        spikes: spikes of each layer, `[T, B, ...]`, zeros and ones.
    """

    def __init__(self) -> None:
        self.currents: dict[str, Tensor] = {}
        self.spikes: dict[str, Tensor] = {}
        self._dynamics: dict[str, Neuron] = {}
        self._is_whole = False

    @property
    def rates(self) -> dict[str, Tensor]:
        """Firing rate of each layer at each timestep, `[T]`: spikes per neuron and timestep, averaged over the batch."""
        return {path: spikes.flatten(1).double().mean(1) for path, spikes in self.spikes.items()}

    @property
    def thresholds(self) -> dict[str, float | Tensor]:
        """Threshold of each layer, at or above which its neurons fire; one per channel as what broadcasts over `[B, ...]`."""
        found = {path: dynamics.threshold for path, dynamics in self._dynamics.items()}
        return {path: t.item() if isinstance(t, Tensor) and t.numel() == 1 else t for path, t in found.items()}

    def membranes(self, path: str) -> Tensor:
        """Membranes of a layer after each timestep's leak and input and before its reset, `[T, B, ...]`.

        A neuron fires at the timesteps at which this reaches its threshold.

        Raises:
            KeyError: where no layer of that path was recorded.
        """
        dynamics, before = self._dynamics[path], []
        currents = membrane_precision(self.currents[path])
        membrane = dynamics.initial_membrane(currents[0])
        for current in currents.unbind(0):
            before.append(dynamics.integrate(current, membrane))
            membrane = lif_step(current, membrane, dynamics)[1]
        return torch.stack(before)

    def clear(self) -> None:
        """Forget the call that was recorded, so that the next one is."""
        self.currents.clear()
        self.spikes.clear()
        self._dynamics.clear()
        self._is_whole = False

    def begin(self) -> None:
        """Record a call, in the place of one that failed.

        Raises:
            UserError: where a call has been recorded.
        """
        if self._is_whole:
            raise UserError(
                "the network was called a second time inside record(...), which records one call: give each call a block of its "
                "own, or forget the first with recording.clear()"
            )
        self.clear()

    def end(self) -> None:
        """Keep the call, which has returned."""
        self._is_whole = True

    def take(self, path: str, neuron: LIF, currents: Tensor, spikes: Tensor) -> None:
        """Keep one layer's pass."""
        calls = sum(key == path or key.startswith(f"{path}#") for key in self.spikes)
        key = path if calls == 0 else f"{path}#{calls}"
        self.currents[key], self.spikes[key] = currents.detach(), spikes.detach()
        self._dynamics[key] = neuron.dynamics(currents.ndim - 1).detached()


@contextmanager
def record(model: Temporal) -> Iterator[Recording]:
    """Record every layer of neurons in a call of a network: `with record(model) as recording: model(x, timesteps=4)`.

    The network computes what it always does. Memory grows with all activations of the call, so record small batches.

    A recording holds one call. A second one in the block is refused, unless `recording.clear()` has forgotten the first.

    Args:
        model: a network from `create_model`, `temporal` or `load`.

    Raises:
        UserError: from the second call in the block, and from whatever else runs the layers there, such as `model.step`.
    """
    recording, over_time = Recording(), OverTime()
    running = False

    def begin(*_: Any) -> None:
        nonlocal running
        recording.begin()
        over_time.clear()
        running = True

    def stop(*_: Any) -> None:
        nonlocal running
        running = False

    def watch(path: str) -> Any:
        def after(neuron: LIF, inputs: tuple[Any, ...], output: Any) -> None:
            if not running:
                return _refuse_others(path)
            values = over_time.of(path, inputs[0], output)
            if values is not None:
                recording.take(path, neuron, *values)
            return None

        return after

    handles = [
        model.register_forward_pre_hook(begin),
        model.register_forward_hook(lambda *_: recording.end()),
        model.register_forward_hook(stop, always_call=True),  # also after an error
    ]
    for path, module in model.module.named_modules():
        if isinstance(module, LIF):
            handles.append(module.register_forward_hook(watch(path)))
    try:
        yield recording
    finally:
        for handle in handles:
            handle.remove()


def _refuse_others(path: str) -> None:
    """Refuse a layer that runs outside of a call of the network, but for a checkpoint, which runs it again backward.

    Raises:
        UserError: in that case.
    """
    if torch._C._current_graph_task_id() == -1:
        raise UserError(
            f"layer {path!r} ran inside record(...), and not in a call model(x, timesteps=T) of the network that is recorded: "
            "record that call, and use step() and other networks with the same layers outside of the block"
        )
