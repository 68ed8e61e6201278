"""One timestep of a trained network as a function of plain tensors: `logits, *after = step(x, *state)`.

That is the form that other runtimes take. Batch-norm and the normalisation of images are part of it. What the state is before the
first timestep is a number for each neuron, so that one function serves every timestep.
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..neurons import LIF, SpikingNeuron
from ..sparse import sparse_layers
from ..through_time import Bptt, Temporal, UnsupportedOperationError


class StateTensor(NamedTuple):
    """A tensor of the state.

    Attributes:
        key: in the state of `Temporal.step`: the path of a layer of neurons, or of what else remembers.
        shape: of one sample.
        dtype: "float32" or "int64".
        start: before the first timestep, a number or nested lists that broadcast over `shape`.
        threshold: of the neurons whose membranes it holds, a number or nested lists; None if it holds anything else.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    start: Any
    threshold: Any

    @property
    def before(self) -> str:
        """The name of the tensor as an input."""
        return f"state.{self.key}"

    @property
    def after(self) -> str:
        """The name of the tensor as an output."""
        return f"next.{self.key}"

    def initial(self, samples: int) -> Tensor:
        """The tensor `[B, ...]` before the first timestep."""
        start = torch.tensor(self.start, dtype=getattr(torch, self.dtype))
        return start.expand(samples, *self.shape).clone()


class FlatStep(nn.Module):
    """`logits, *after = step(x, *state)` of a network in eval mode, of which it holds a copy without gradients.

    Args:
        network: the network.
        x: some samples `[B, ...]` of one timestep, B at least 2.

    Raises:
        UserError: for a network that draws random numbers, or whose first timestep cannot be said by a first state.
    """

    def __init__(self, network: Temporal, x: Tensor) -> None:
        super().__init__()
        self.network = plain(network)
        with torch.no_grad(), sparse_layers("never"):
            try:
                first, after = self.network.step(x)
            except UnsupportedOperationError as error:
                raise UserError(f"one timestep of the network cannot be exported: {error}") from None
            if not isinstance(first, Tensor):
                raise UserError(
                    f"the network returns a {type(first).__name__}, expected logits [B, C]: export a network without heads"
                )
            self.classes = first.shape[1]
            self.state = tuple(self._describe(key, rows) for key, rows in after.items())
            if self.state:
                again, second = self.network.step(x, {each.key: each.initial(len(x)) for each in self.state})
                wrong = [key for key in after if not torch.equal(after[key], second[key])]
                if wrong or not torch.equal(first, again):
                    where = wrong[0] if wrong else self.state[-1].key
                    raise UserError(
                        f"the first timestep of {where!r} is not that of any later one with a fixed state before it, and a step of "
                        "plain tensors has no other way to begin: the network cannot be exported in this form"
                    )

    def _describe(self, key: str, rows: Tensor) -> StateTensor:
        layer = dict(self.network.module.named_modules()).get(key.partition("#")[0])
        start: Any = 0 if not rows.is_floating_point() else 0.0
        threshold: Any = None
        if isinstance(layer, LIF) and not layer.runs_by_step:
            dynamics = layer.dynamics(rows.ndim)
            start, threshold = _written(dynamics.v_init), _written(dynamics.threshold)
        if rows.dtype not in (torch.float32, torch.int64):
            raise UserError(f"the state {key!r} is {rows.dtype}, expected float32 or int64")
        return StateTensor(key, tuple(rows.shape[1:]), str(rows.dtype).removeprefix("torch."), start, threshold)

    def initial(self, samples: int) -> list[Tensor]:
        """The state before the first timestep."""
        return [each.initial(samples) for each in self.state]

    @torch.no_grad()
    def run(self, x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The step without gradients, as what runs an exported file returns it."""
        logits, *after = self(x, *state)
        return logits, after

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        keys = [each.key for each in self.state]
        logits, after = self.network.step(x, dict(zip(keys, state, strict=True)))
        return (logits, *(after[key] for key in keys))


class WholeSequence(nn.Module):
    """Logits `[T, B, C]` of images `[B, ...]` shown for T timesteps, or of event frames `[T, B, ...]`.

    Args:
        network: the network.
        timesteps: T, for images; None for event frames.
    """

    def __init__(self, network: Temporal, timesteps: int | None) -> None:
        super().__init__()
        self.network, self.timesteps = plain(network), timesteps

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x, self.timesteps)
        return logits


def plain(network: Temporal) -> Temporal:
    """A copy of a network on the CPU that takes no gradients and checks no inputs."""
    module = copy.deepcopy(network.module).cpu().eval().requires_grad_(False)
    return Temporal(module, Bptt(), None).eval()


def is_live(network: Temporal) -> bool:
    """Whether a network has spiking neurons at all."""
    return any(isinstance(module, SpikingNeuron) for module in network.modules())


def _written(value: float | Tensor) -> Any:
    return value.tolist() if isinstance(value, Tensor) else float(value)
