"""The base class of every layer of neurons. Subclass it to define your own neurons by one timestep."""

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

from torch import Tensor, nn

from ..errors import UserError

# What a layer passes from one timestep to the next. The first axis of every tensor is the batch.
State: TypeAlias = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


class SpikingNeuron(nn.Module, ABC):
    """A layer of spiking neurons, defined by what it does in one timestep.

    Subclass it, write `step`, and put the layer where `LIF` would stand. It then runs under the gradient rules "bptt" and "sltt",
    inside a `Recurrent`, and one timestep at a time (`model.step`, `AnytimeClassifier`). The rules "rate" and "dsr" refuse it,
    because their gradients are derived for leaky integrate-and-fire neurons.

    A layer keeps its parameters on itself, and never its state: `step` receives and returns it. Random numbers may be drawn in
    `step`, anew at every timestep. Draw them from PyTorch's global generator, which training seeds before every batch.

        class Integrator(SpikingNeuron):
            def step(self, current, state):
                u = current if state is None else state + current
                spikes = spike(u - 1.0, "arctan")
                return spikes, u - spikes
    """

    @abstractmethod
    def step(self, current: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Advance the layer by one timestep.

        Args:
            current: the input current `[B, ...]`, in float32 or better.
            state: what `step` returned at the timestep before; None at the first timestep.

        Returns:
            The spikes, of the shape and dtype of `current`; and the state: a tensor, a tuple of tensors, or a dict of tensors by
            name. The first axis of every tensor is the batch, and the state has the same parts at every timestep.
        """

    @property
    def runs_by_step(self) -> bool:
        """Whether the layer runs by its `step`. Only `LIF` has faster code for whole sequences."""
        return True

    def forward(self, current: Any) -> Any:
        """Turn the currents of all timesteps, a signal, into the spikes of all timesteps, also a signal.

        Raises:
            UserError: for a plain tensor, whose time axis is not known.
        """
        if not hasattr(current, "fire"):
            name = type(self).__name__
            got = f"a tensor {list(current.shape)}" if isinstance(current, Tensor) else f"a {type(current).__name__}"
            instead = f"{name}.step for one timestep" if self.runs_by_step else "lif for a sequence [T, B, ...]"
            raise UserError(
                f"{name} got {got}, expected the signal inside a network: wrap the network in temporal(...), or call the function "
                f"{instead}"
            )
        return current.advance(self) if self.runs_by_step else current.fire(self)
