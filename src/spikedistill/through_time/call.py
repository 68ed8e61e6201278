"""One call of a network, to which its signals belong."""

from typing import NoReturn

import torch

_STATE = (
    "a signal belongs to one call of the network, or one step. Carry values through time with Recurrent(layer, feedback) or "
    "Delay(n)"
)


class UnsupportedOperationError(AttributeError, TypeError):
    """A module called a function that has no rule across time."""


class Call:
    """One call of a network over time. Its signals know it, and it holds none of them: only their number of timesteps.

    Args:
        timesteps: T.

    Attributes:
        ended: whether the network has returned, and nobody holds the call open.
        held: whether somebody does, for intermediate features, and will end it.
        with_gradients: whether gradients were switched on when it began.
        timestep: which of its timesteps this is, inside a `Recurrent`; None where all run together, and in `step`.
        is_last: whether no timestep follows it in the same call of the network.
    """

    def __init__(self, timesteps: int) -> None:
        self.timesteps = timesteps
        self.ended = False
        self.held = False
        self.with_gradients = torch.is_grad_enabled()
        self.timestep: int | None = None
        self.is_last = True

    def refuse_late(self, name: str) -> None:
        """Refuse what a signal is used for after its call, but for a checkpoint that computes a part of it again backward.

        Raises:
            UnsupportedOperationError: in that case.
        """
        if torch._C._current_graph_task_id() == -1:
            raise UnsupportedOperationError(f"{name!r} got a signal of a call that has ended: {_STATE}")

    def refuse_stranger(self, name: str) -> NoReturn:
        """Raise the error for a signal of another call.

        Raises:
            UnsupportedOperationError: always.
        """
        raise UnsupportedOperationError(f"{name!r} got a signal of another call beside one of this call: {_STATE}")
