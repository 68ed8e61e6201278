"""One call of a network, to which its signals belong."""

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

_STATE = (
    "a signal belongs to one call of the network, or one step. Carry values through time with Recurrent(layer, feedback) or "
    "Delay(n)"
)


class UnsupportedOperationError(AttributeError, TypeError):
    """A module called a function that is not defined over time."""


class Call:
    """One call of a network over time. Signals refer to their call; the call holds no signal.

    Args:
        timesteps: T.

    Attributes:
        timesteps: T; behind a layer where it changes, the new one (see `retimed`).
        ended: whether the network has returned and the call is not held open.
        held: whether the call is held open to read intermediate features, and will be ended later.
        with_gradients: whether gradients were enabled when the call began.
        timestep: the index of this timestep in a layer that runs timestep by timestep; None if all run together, and in `step`.
        is_last: whether this is the last timestep of the call.
        lengths: the timesteps of each sample, `[B]`, after which padding follows; None if all have T.
        numbered: how many numbers were given to signals, by which those with the same elements are found.
        watch: called with every function of signals before it is computed: its name, itself and its arguments.
    """

    def __init__(self, timesteps: int) -> None:
        self.timesteps = timesteps
        self.ended = False
        self.held = False
        self.with_gradients = torch.is_grad_enabled()
        self.timestep: int | None = None
        self.is_last = True
        self.lengths: Tensor | None = None
        self.numbered = 0
        self.watch: Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], None] | None = None

    @property
    def present(self) -> Tensor | None:
        """Which sample has which timestep, bool `[T, B]`; None if all have all."""
        if self.lengths is None:
            return None
        return torch.arange(self.timesteps, device=self.lengths.device)[:, None] < self.lengths

    def refuse_late(self, name: str) -> None:
        """Refuse the use of a signal after its call. A checkpoint that recomputes part of the call in backward is allowed.

        Raises:
            UnsupportedOperationError: after the call.
        """
        if torch._C._current_graph_task_id() == -1:
            raise UnsupportedOperationError(f"{name!r} got a signal of a call that has ended: {_STATE}")

    def refuse_stranger(self, name: str) -> NoReturn:
        """Raise the error for a signal of another call.

        Raises:
            UnsupportedOperationError: always.
        """
        raise UnsupportedOperationError(f"{name!r} got signals of two calls: {_STATE}")
