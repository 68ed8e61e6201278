"""Stages of a network that run for different numbers of timesteps.

Du et al.: Temporal Flexibility in Spiking Neural Networks (MTT, ICLR 2025).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .unrolled import Unrolled


@contextmanager
def timesteps_behind(module: nn.Module, counts: Mapping[str, int]) -> Iterator[None]:
    """Within the block, let the network run for other numbers of timesteps behind the named layers, under "bptt" and "sltt".

    No layer behind a named one may use spikes from before it, as over a skip connection. Calls return as many logits as the last
    number.

    Args:
        module: the network.
        counts: timesteps from the output of a layer on, by its name as `named_modules` gives it.

    Raises:
        UserError: in a call, for a layer that does not return one signal.
    """
    known = dict(module.named_modules())

    def hook(name: str) -> Any:
        def after(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
            if not isinstance(output, Unrolled):
                raise UserError(
                    f"layer {name!r} returns a {type(output).__name__}, expected one signal under 'bptt' or 'sltt', whose "
                    "timesteps can change there"
                )
            return retimed(output, counts[name])

        return after

    handles = [known[name].register_forward_hook(hook(name)) for name in counts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def retimed(signal: Unrolled, timesteps: int) -> Unrolled:
    """A signal over another number of timesteps, to which its call changes too; see `over_other_timesteps`."""
    values = signal.over_time()
    signal.call.timesteps = timesteps
    return signal.holding(over_other_timesteps(values, timesteps))


def over_other_timesteps(values: Tensor, timesteps: int) -> Tensor:
    """Values `[T, B, ...]` over k timesteps, `[k, B, ...]`: repeated if k is larger, added up in groups if it is smaller.

    The larger number m is divided into n groups of neighbours, n the smaller number. Group i ends at i m / n, rounded to the
    nearest whole number, and down if two are equally near. Every value is in exactly one group.
    """
    T = len(values)
    if timesteps == T:
        return values
    few, many = min(T, timesteps), max(T, timesteps)
    # -(-a // b) rounds up: the smallest whole number that is not below i m / n - 1/2
    ends = [-(-(2 * i * many - few) // (2 * few)) for i in range(few + 1)]
    sizes = [end - begin for begin, end in pairwise(ends)]
    if timesteps > T:
        return values.repeat_interleave(torch.tensor(sizes, device=values.device), 0)
    return torch.stack([group.sum(0) for group in values.split(sizes)])
