"""How a function is called on the timesteps of signals: on each of them, or once on time folded into the batch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import UserError
from .operations import LAYERS
from .signal import Signal, is_signal, signals_in

# How many axes follow the channels in the samples of convolutions and pooling: conv2d has 2.
_SPATIAL_AXES = {name: int(name[-2]) for name in LAYERS if name.endswith("d") and name[-2].isdigit()}


def map_over_time(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], get: Callable[[Any], Tensor]
) -> Any:
    """Call `func` on every timestep of its signals. Every operation that treats timesteps alike uses it.

    Args:
        get: returns the tensor `[T or 1, B, ...]` of a signal; a leading 1 means constant in time.

    Returns:
        The results of `func`, each tensor with the time axis in front again.
    """
    leaves, spec = pytree.tree_flatten((args, kwargs), is_leaf=is_signal)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Signal)]
    values = [get(leaves[i]) for i in places]

    def one_timestep(*tensors: Tensor) -> Any:
        filled = list(leaves)
        for i, tensor in zip(places, tensors, strict=True):
            filled[i] = tensor
        step_args, step_kwargs = pytree.tree_unflatten(filled, spec)
        return func(*step_args, **step_kwargs)

    if all(value.shape[0] == 1 for value in values):
        # squeezed, not indexed: the gradient of an index has another order in memory
        return pytree.tree_map(lambda out: out.unsqueeze(0), one_timestep(*(value.squeeze(0) for value in values)))
    in_dims = tuple(0 if value.shape[0] > 1 else None for value in values)
    return torch.vmap(one_timestep, in_dims=in_dims)(*(v if v.shape[0] > 1 else v.squeeze(0) for v in values))


def fold_time(func: Callable[..., Any], value: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Call `func`, which treats the samples of a batch alike, once on time folded into the batch: `[T, B, ...] -> [T*B, ...]`."""
    if len(value) == 1:  # views that merge or split axes of length 1 lose the order in memory of a single sample
        return pytree.tree_map(lambda tensor: tensor.unsqueeze(0), func(value.squeeze(0), *args, **kwargs))
    out = func(value.flatten(0, 1), *args, **kwargs)
    return pytree.tree_map(lambda tensor: tensor.unflatten(0, value.shape[:2]), out)


def check_layer(signal: Signal, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse arguments that a layer would misread once time is folded into the batch.

    Raises:
        UnsupportedOperationError: for weights, or arguments other than the input, that vary in time.
        UserError: for a convolution or pooling over n dimensions, if the signal is not `[B, C, ...]` with n axes after the
            channels.
    """
    if not args or args[0] is not signal or signals_in(*args[1:], *kwargs.values()):
        signal.refuse(name, "only its input can be a signal; products of signals are written with *, @ or einsum")
    ndim = signal.ndim
    axes = _SPATIAL_AXES.get(name, ndim - 2 if name == "embedding" else max(ndim - 2, 0))
    if ndim != axes + 2:
        raise UserError(
            f"{name} takes samples [B, C, ...] of {axes + 2} dimensions; this signal has {list(signal.shape)}. "
            "Static inputs are passed as [B, ...] with timesteps=T, sequences as [T, B, ...] without it"
        )


def segment_lengths(segments: int | Sequence[int], timesteps: int) -> tuple[int, ...]:
    """Timesteps of each segment. A number of segments splits T as evenly as possible, longer segments first.

    Raises:
        UserError: for segments that do not sum to T.
    """
    if isinstance(segments, int):
        if not 1 <= segments <= timesteps:
            raise UserError(f"segments={segments} cannot divide {timesteps} timesteps: expected 1 to {timesteps}")
        short, extra = divmod(timesteps, segments)
        return tuple([short + 1] * extra + [short] * (segments - extra))
    if sum(segments) != timesteps or min(segments, default=0) < 1:
        raise UserError(f"segments {tuple(segments)} must be positive and sum to the {timesteps} timesteps")
    return tuple(segments)
