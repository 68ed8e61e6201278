"""Refuses inputs with NaN or infinite values: no neuron fires on NaN, so the network would return plausible logits."""

import math

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from ..errors import UserError

_NAMED = 8


class NotFiniteInput(UserError):
    """An input holds NaN or infinite values.

    Args:
        count: how many.
        size: of how many values.
        samples: which samples hold them, counted from 0.
    """

    def __init__(self, count: int, size: int, samples: list[int]) -> None:
        super().__init__(count, size, samples)
        self.count = count
        self.size = size
        self.samples = samples

    def __str__(self) -> str:
        return (
            f"the input holds {self.count} values of {self.size} that are NaN or infinite, in {name_samples(self.samples)}, "
            "counted from 0: repair these samples, or leave them out"
        )


def has_values(x: Tensor) -> bool:
    """Whether the values of a tensor can be read.

    They cannot while PyTorch traces, compiles or exports, in a dispatch mode, or under a transform of `torch.func`; and some
    tensors have no values, such as those on the meta device.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or is_in_torch_dispatch_mode():
        return False
    if type(x) not in (Tensor, torch.nn.Parameter) or x.is_meta:
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(x)


def check_finite(x: Tensor, axis: int = 0) -> None:
    """Refuse an input that holds NaN or infinite values.

    Values are read only on a CPU, because reading them from a GPU stops the program until the GPU has finished, and only if
    `has_values`.

    Args:
        x: the input.
        axis: the axis of its samples.

    Raises:
        NotFiniteInput: naming the samples, counted from 0.
    """
    if not has_values(x) or x.device.type != "cpu" or not x.is_floating_point():
        return
    # the fastest way to read all values: a sum is not finite if one of them is not, or if it overflows
    if not math.isfinite(x.detach().sum().item()):
        wrong = ~x.detach().isfinite()
        if count := int(wrong.sum()):
            rows = torch.atleast_1d(wrong).movedim(axis, 0)
            samples = rows.reshape(len(rows), -1).any(1).nonzero().flatten().tolist()
            raise NotFiniteInput(count, x.numel(), samples)


def name_samples(places: list[int]) -> str:
    """Names samples by number in words, at most a few of them."""
    if len(places) == 1:
        return f"sample {places[0]}"
    if len(places) > _NAMED:
        return f"samples {', '.join(map(str, places[:_NAMED]))} and {len(places) - _NAMED} more"
    return f"samples {', '.join(map(str, places[:-1]))} and {places[-1]}"
