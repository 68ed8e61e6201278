"""What flows through a network in place of a tensor: it looks like `[B, ...]` to every module and holds time inside.

A signal is not a `Tensor` subclass. It answers the calls that `torch.nn` modules make through `__torch_function__`, and each kind
of signal (`Unrolled`, `Rates`, `Stream`) says what such a call means across time, for the functions of `operations.py`; any other
is refused by name, because a silently wrong gradient is the worst defect a training library can have.
"""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Self

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import UserError
from .operations import LAYERS, PER_TIMESTEP

# How many axes follow the channels in the samples of convolutions and pooling: conv2d has 2.
_SPATIAL_AXES = {name: int(name[-2]) for name in LAYERS if name.endswith("d") and name[-2].isdigit()}
# Modules ask for these with the tensor's own methods; each goes the way of the function of that name.
_METHODS = sorted(name for name in PER_TIMESTEP - {"__getitem__"} if callable(getattr(Tensor, name, None)))
# `x += y` rebinds the contents, so that every name of the signal sees the sum, as with a tensor.
_IN_PLACE = {"__iadd__": "__add__", "__isub__": "__sub__", "__imul__": "__mul__", "__itruediv__": "__truediv__"}
# `signal / tensor` is the signal's to answer, but under torch.compile the tensor's: the same operation with its operands in order.
_REFLECTED = {
    "__rdiv__": ("__truediv__", operator.truediv),
    "__rpow__": ("__pow__", operator.pow),
}
_REFUSED = (
    "__array__", "__bool__", "__eq__", "__float__", "__ge__", "__gt__", "__int__", "__iter__", "__le__", "__len__", "__lt__",
    "__ne__", "__setitem__",
)  # fmt: skip
_GENERAL_ADVICE = "use layers and operations that have one, or take mean_rate(signal), an ordinary tensor [B, ...]"
# What torch's own layers ask for first, where they cannot run over time at all.
_ADVICE = {
    "is_contiguous": "asked for by torch.nn.SyncBatchNorm, which takes no signal; keep torch.nn.BatchNorm and call "
    "synchronise_batch_norm(network), from spikedistill.through_time import synchronise_batch_norm",
    "is_nested": "asked for by torch.nn.MultiheadAttention and transformer layers, which take no signal; write attention with "
    "torch.nn.Linear, @ and softmax",
}


class UnsupportedOperationError(AttributeError, TypeError):
    """A module called a function that has no rule across time."""


class Signal(ABC):
    """A value that varies over `timesteps` and looks like one sample batch `[B, ...]`."""

    timesteps: int
    gradient: str

    # numpy's scalars step back, so that 2.0 * signal is the signal's own product whatever the type of 2.0
    __array_ufunc__ = None

    @property
    @abstractmethod
    def sample(self) -> Tensor:
        """A tensor `[B, ...]` with the shape, dtype and device that the signal shows."""

    @property
    @abstractmethod
    def requires_grad(self) -> bool:
        """Whether the values carry a graph."""

    @abstractmethod
    def apply(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What calling `func` means across time."""

    @abstractmethod
    def fire(self, neuron: Any) -> Self:
        """Send the signal, as currents, through a layer of neurons."""

    @abstractmethod
    def normalise(self, norm: Any) -> Self:
        """Send the signal through a batch-norm with statistics of its own kind: each timestep's, or those of several processes."""

    @abstractmethod
    def over_time(self) -> Tensor:
        """The exact values of all timesteps, `[T, B, ...]`."""

    @abstractmethod
    def mean_over_time(self) -> Tensor:
        """The mean over timesteps, `[B, ...]`."""

    @abstractmethod
    def become(self, other: Any) -> None:
        """Take over the contents of another signal of the same kind."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__name__
        if name in _REFLECTED:
            name, func = _REFLECTED[name]
            args = args[::-1]
        elif func is Tensor.matmul and torch.compiler.is_compiling():
            signals_in(args)[0].refuse("@", "torch.compile mistakes which side is which; write torch.matmul(a, b)")
        return cls._call(name, func, args, dict(kwargs or {}))

    @staticmethod
    def _call(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Apply `func`, of that name in the tables, to arguments with a signal among them."""
        if not args and "input" in kwargs:
            args = (kwargs.pop("input"),)
        signals = signals_in(args, kwargs)
        first = signals[0]
        if kwargs.get("out") is not None:
            first.refuse(name, "it writes to a tensor, out=..., that has no time axis")
        if name != "detach":
            for signal in signals:
                signal.keep_graph(name)
        in_place = kwargs.pop("inplace", False)
        result = first.apply(name, func, args, kwargs)
        if in_place:
            first.become(result)
            return first
        return result

    def refuse(self, name: str, advice: str = _GENERAL_ADVICE) -> NoReturn:
        """Raise the error that names what has no rule.

        Raises:
            UnsupportedOperationError: always.
        """
        raise UnsupportedOperationError(f"{name!r} has no rule across time under gradient={self.gradient!r}: {advice}")

    def keep_graph(self, name: str) -> None:
        """Refuse to compute with a signal that carries a graph where gradients are switched off.

        An `autograd.Function` and a reentrant checkpoint run so and see no tensor in a signal: its graph would end there unnoticed.

        Raises:
            UnsupportedOperationError: in that case.
        """
        if self.requires_grad and not torch.is_grad_enabled():
            self.refuse(
                name,
                "gradients are switched off around it, and its result would lose the graph. To stop a gradient take "
                "signal.detach(); checkpoint with use_reentrant=False; a torch.autograd.Function cannot take a signal",
            )

    @property
    def shape(self) -> torch.Size:
        return self.sample.shape

    @property
    def ndim(self) -> int:
        return self.sample.ndim

    @property
    def dtype(self) -> torch.dtype:
        return self.sample.dtype

    @property
    def device(self) -> torch.device:
        return self.sample.device

    @property
    def is_cuda(self) -> bool:
        return self.sample.is_cuda

    def __getitem__(self, index: Any) -> Any:
        masks = (torch.bool, torch.uint8)
        if any(isinstance(part, Tensor) and part.dtype in masks for part in pytree.tree_leaves(index)):
            self.refuse("boolean-mask indexing", "multiply by the mask, or index with the positions of its ones")
        return self._call("__getitem__", Tensor.__getitem__, (self, index), {})

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self.ndim

    def is_floating_point(self) -> bool:
        return self.sample.is_floating_point()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(timesteps={self.timesteps}, shape={list(self.shape)})"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__") or not hasattr(Tensor, name):
            raise AttributeError(f"a signal has no attribute {name!r}")
        self.refuse(name, _ADVICE.get(name, _GENERAL_ADVICE))

    __hash__ = object.__hash__


def _method(name: str) -> Callable[..., Any]:
    func = getattr(Tensor, name)

    def call(self: Signal, *args: Any, **kwargs: Any) -> Any:
        return self._call(name, func, (self, *args), kwargs)

    return call


def _in_place_method(name: str) -> Callable[..., Any]:
    def call(self: Signal, *args: Any) -> Signal:
        self.become(getattr(self, name)(*args))
        return self

    return call


def _refused_method(name: str) -> Callable[..., Any]:
    def call(self: Signal, *args: Any, **kwargs: Any) -> NoReturn:
        self.refuse(name, "no single value stands for all timesteps; take mean_rate(signal), a tensor")

    return call


for _name in _METHODS:
    setattr(Signal, _name, _method(_name))
for _name, _base in _IN_PLACE.items():
    setattr(Signal, _name, _in_place_method(_base))
for _name in _REFUSED:
    setattr(Signal, _name, _refused_method(_name))


# What most arguments are: pytree, which knows every other container too, takes as long as a small layer to find that out.
_NESTS = frozenset({tuple, list, dict})
_LEAVES = frozenset({Tensor, torch.nn.Parameter, int, float, bool, str, type(None), torch.dtype})


def is_signal(value: Any) -> bool:
    return isinstance(value, Signal)


def signals_in(*values: Any) -> list[Signal]:
    """The signals among (nested) arguments, in order."""
    found: list[Signal] = []
    for value in values:
        kind = type(value)
        if kind in _LEAVES:
            continue
        if kind in _NESTS:
            found += signals_in(*(value.values() if kind is dict else value))
        elif isinstance(value, Signal):
            found.append(value)
        else:
            found += [leaf for leaf in pytree.tree_leaves(value, is_leaf=is_signal) if isinstance(leaf, Signal)]
    return found


def replace_signals(value: Any, get: Callable[[Any], Any]) -> Any:
    """The same nested arguments with `get(signal)` in place of each signal."""
    kind = type(value)
    if kind in _LEAVES:
        return value
    if kind is dict:
        return {key: replace_signals(part, get) for key, part in value.items()}
    if kind in _NESTS:
        return kind([replace_signals(part, get) for part in value])
    if isinstance(value, Signal):
        return get(value)
    return pytree.tree_map(lambda leaf: get(leaf) if isinstance(leaf, Signal) else leaf, value, is_leaf=is_signal)


def map_over_time(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], get: Callable[[Any], Tensor]
) -> Any:
    """Call `func` on every timestep of its signals: the one rule for whatever treats timesteps alike.

    Args:
        get: the tensor `[T or 1, B, ...]` that stands for a signal; a leading 1 is a value constant in time.

    Returns:
        What `func` returns, each tensor with the time axis in front again.
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
        # squeezed, not indexed: the gradient of an index is zeros, filled, in another order in memory
        return pytree.tree_map(lambda out: out.unsqueeze(0), one_timestep(*(value.squeeze(0) for value in values)))
    in_dims = tuple(0 if value.shape[0] > 1 else None for value in values)
    return torch.vmap(one_timestep, in_dims=in_dims)(*(v if v.shape[0] > 1 else v.squeeze(0) for v in values))


def fold_time(func: Callable[..., Any], value: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Call `func`, which treats the samples of a batch alike, once on time folded into the batch: `[T, B, ...] -> [T*B, ...]`."""
    out = func(value.flatten(0, 1), *args, **kwargs)
    return pytree.tree_map(lambda tensor: tensor.unflatten(0, value.shape[:2]), out)


def check_layer(signal: Signal, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse the call of a layer on what it would misread once time is folded into the batch.

    Raises:
        UnsupportedOperationError: where its weights, or anything but its input, vary in time too.
        UserError: for a convolution or pooling over n dimensions and a signal that is not `[B, C, ...]` with n of them.
    """
    if not args or args[0] is not signal or signals_in(args[1:], kwargs):
        signal.refuse(name, "only its input can be a signal; products of signals are written with *, @ or einsum")
    axes = _SPATIAL_AXES.get(name, max(signal.ndim - 2, 0))
    if signal.ndim != axes + 2:
        raise UserError(
            f"{name} takes samples [B, C, ...] of {axes + 2} dimensions; this signal shows {list(signal.shape)}. "
            "Static inputs are passed as [B, ...] with timesteps=T, sequences as [T, B, ...] without it"
        )


def segment_lengths(segments: int | Sequence[int], timesteps: int) -> tuple[int, ...]:
    """Timesteps of each segment: a count is split as evenly as it goes, the longer ones first.

    Raises:
        UserError: where the segments do not make up the timesteps.
    """
    if isinstance(segments, int):
        if not 1 <= segments <= timesteps:
            raise UserError(f"segments={segments} cannot divide {timesteps} timesteps: expected 1 to {timesteps}")
        short, extra = divmod(timesteps, segments)
        return tuple([short + 1] * extra + [short] * (segments - extra))
    if sum(segments) != timesteps or min(segments, default=0) < 1:
        raise UserError(f"segments {tuple(segments)} must be positive and sum to the {timesteps} timesteps")
    return tuple(segments)
