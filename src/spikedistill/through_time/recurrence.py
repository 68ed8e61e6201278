"""`Recurrent` and `Delay`: state of a network other than that of neurons."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from .signal import Signal


class Recurrent(nn.Module):
    """A layer whose output is fed back at the next timestep: y_t = layer(x_t + feedback(y_{t-1})), with y_{-1} = 0.

    It runs one timestep after another, under "bptt", "sltt" and `step`. Under "sltt" the gradient's path through the membranes is
    cut, and the path through y is not. Dropout inside draws one mask per sample for all timesteps. Batch-norm inside must be in
    eval mode.

    Args:
        layer: a module for `[B, ...]`, such as `LIF()` or `nn.Sequential(nn.Linear(8, 8), LIF())`.
        feedback: a module from the layer's output to its input, such as `nn.Linear(8, 8)`. At t = 0 its input is zero, so it
            returns its bias.
        shape: the shape of one sample of y, without the batch, if it differs from that of x: `shape=(8,)` for a layer that turns
            `[B, 3]` into `[B, 8]`.

    Raises:
        UserError: for a plain tensor, or if y has another shape than the zeros given to the feedback at t = 0.
        UnsupportedOperationError: with gradients under "rate" and "dsr".
    """

    def __init__(self, layer: nn.Module, feedback: nn.Module, *, shape: Sequence[int] | None = None) -> None:
        super().__init__()
        for name, part in {"layer": layer, "feedback": feedback}.items():
            if not isinstance(part, nn.Module):
                raise UserError(f"{name} is {part!r}, expected a torch.nn.Module")
        self.layer = layer
        self.feedback = feedback
        self.shape = None if shape is None else tuple(shape)

    def forward(self, x: Any) -> Any:
        """The outputs of the layer at all timesteps, as a signal."""
        return _signal(x, self).recur(self)

    def at(self, x: Signal, before: Signal, *, first: bool) -> Signal:
        """The layer at one timestep.

        Args:
            x: its input `[B, ...]`.
            before: its output at the timestep before; zeros at the first timestep.
            first: whether this is the first timestep.
        """
        try:
            current = x + self.feedback(before)
        except RuntimeError as error:
            if not first:
                raise
            raise UserError(
                f"the feedback of a Recurrent failed on {list(before.shape)}, the assumed shape of y, for x {list(x.shape)}: give "
                "the shape of one sample of y, without the batch, as shape=..."
            ) from error
        out = self.layer(current)
        if not isinstance(out, Signal) or out.shape != before.shape:
            got = f"samples {list(out.shape[1:])}" if isinstance(out, Signal) else f"a {type(out).__name__}"
            raise UserError(
                f"the layer of a Recurrent returned {got}, its feedback was given {list(before.shape[1:])}: y must have the "
                "shape of x, or the one given as shape=..., without the batch"
            )
        if out.call is not x.call:
            x.call.refuse_stranger("return")
        return out


class Delay(nn.Module):
    """The input of n timesteps before: y_t = x_{t-n}, and zeros for t < n.

    It runs under "bptt", "sltt" and `step`, whose state holds the last n inputs, `[B, n, ...]`.

    Args:
        timesteps: n, 0 or more.

    Raises:
        UserError: for another number, or a plain tensor.
        UnsupportedOperationError: with gradients under "rate" and "dsr".
    """

    def __init__(self, timesteps: int) -> None:
        super().__init__()
        if type(timesteps) is not int or timesteps < 0:
            raise UserError(f"a Delay of {timesteps!r}: expected a whole number of timesteps, 0 or more")
        self.timesteps = timesteps

    def forward(self, x: Any) -> Any:
        """The signal, n timesteps later."""
        signal = _signal(x, self)
        return signal.delay(self) if self.timesteps else signal

    def extra_repr(self) -> str:
        return str(self.timesteps)


def _signal(x: Any, layer: nn.Module) -> Signal:
    """The signal that flows in a network.

    Raises:
        UserError: for anything else.
    """
    if isinstance(x, Signal):
        return x
    got = f"a tensor {list(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
    raise UserError(
        f"{type(layer).__name__} got {got}, expected the signal inside a network: wrap the network in temporal(...)"
    )
