"""What flows through a network in place of a tensor: it looks like `[B, ...]` to every module and holds time inside.

A signal is not a `Tensor` subclass. It answers the calls that `torch.nn` modules make through `__torch_function__`, and each kind
of signal (`Unrolled`, `Rate`, `Stream`) says what such a call means across time. The tables below are an allow-list: a function
without a rule is refused by name, because a silently wrong gradient is the worst defect a training library can have.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Self

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

TRANSPOSED = frozenset({"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
LINEAR = TRANSPOSED | {"conv1d", "conv2d", "conv3d", "linear"}
NORMS = frozenset({"group_norm", "instance_norm", "layer_norm", "local_response_norm", "rms_norm"})
MEAN_POOLS = frozenset(
    {"adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"}
)
MAX_POOLS = frozenset(
    {"adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "max_pool1d", "max_pool2d", "max_pool3d"}
)
DROPOUTS = frozenset({"alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"})
# Linear in the signal, one timestep at a time, whatever else they do to its shape.
SHAPES = frozenset(
    {
        "__getitem__", "cat", "channel_shuffle", "chunk", "clone", "concat", "concatenate", "contiguous", "expand", "flatten",
        "flip", "interpolate", "mean", "movedim", "narrow", "neg", "__neg__", "pad", "permute", "pixel_shuffle",
        "pixel_unshuffle", "repeat", "reshape", "roll", "select", "split", "squeeze", "stack", "sum", "swapaxes", "transpose",
        "unflatten", "unsqueeze", "view",
    }
)  # fmt: skip
SUMS = frozenset({"__add__", "__radd__", "__rsub__", "__sub__", "add", "sub"})
# Linear in each signal as long as only one of them varies in time.
PRODUCTS = frozenset({"__matmul__", "__mul__", "__rmul__", "bmm", "matmul", "mul"})
QUOTIENTS = frozenset({"__truediv__", "div"})
NONLINEAR = frozenset(
    {
        "__pow__", "__rtruediv__", "abs", "celu", "clamp", "elu", "exp", "gelu", "hardsigmoid", "hardswish", "hardtanh",
        "leaky_relu", "log_softmax", "mish", "pow", "prelu", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus",
        "sqrt", "square", "tanh",
    }
)  # fmt: skip

# How many axes follow the channels in the samples of convolutions and pooling: conv2d has 2.
_SPATIAL_AXES = {name: int(name[-2]) for name in LINEAR | MEAN_POOLS | MAX_POOLS if name != "linear"}
# Modules ask for these with the tensor's own methods; each goes the way of the function of that name.
_METHODS = sorted(
    name for name in SHAPES | SUMS | PRODUCTS | QUOTIENTS | NONLINEAR if callable(getattr(Tensor, name, None))
)
# `x += y` rebinds the contents, so that every name of the signal sees the sum, as with a tensor.
_IN_PLACE = {"__iadd__": "__add__", "__isub__": "__sub__", "__imul__": "__mul__", "__itruediv__": "__truediv__"}
_REFUSED = ("__bool__", "__eq__", "__ge__", "__gt__", "__iter__", "__le__", "__len__", "__lt__", "__ne__")


class UnsupportedOperationError(AttributeError, TypeError):
    """A module called a function that has no rule across time."""


class Signal(ABC):
    """A value that varies over `timesteps` and looks like one sample batch `[B, ...]`."""

    timesteps: int
    gradient: str

    @property
    @abstractmethod
    def sample(self) -> Tensor:
        """A tensor `[B, ...]` with the shape, dtype and device that the signal shows."""

    @abstractmethod
    def apply(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What calling `func` means across time."""

    @abstractmethod
    def fire(self, neuron: Any) -> Self:
        """Send the signal, as currents, through a layer of neurons."""

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
        kwargs = dict(kwargs or {})
        first = signals_in(args, kwargs)[0]
        in_place = kwargs.pop("inplace", False)
        result = first.apply(func.__name__, func, args, kwargs)
        if in_place:
            first.become(result)
            return first
        return result

    def refuse(self, name: str, advice: str = "") -> NoReturn:
        """Raise the error that names what has no rule.

        Raises:
            UnsupportedOperationError: always.
        """
        raise UnsupportedOperationError(
            f"{name!r} has no rule across time under gradient={self.gradient!r}: "
            + (advice or "use a torch.nn layer in its place, or take mean_rate(signal), an ordinary tensor [B, ...]")
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
        self.refuse(name)

    __hash__ = object.__hash__


def _method(name: str) -> Callable[..., Any]:
    func = getattr(Tensor, name)

    def call(self: Signal, *args: Any, **kwargs: Any) -> Any:
        return self.apply(name, func, (self, *args), kwargs)

    return call


def _in_place_method(name: str) -> Callable[..., Any]:
    def call(self: Signal, *args: Any) -> Signal:
        self.become(getattr(self, name)(*args))
        return self

    return call


def _refused_method(name: str) -> Callable[..., Any]:
    def call(self: Signal, *args: Any) -> NoReturn:
        self.refuse(name, "control flow and comparisons cannot look inside time; take mean_rate(signal), a tensor")

    return call


for _name in _METHODS:
    setattr(Signal, _name, _method(_name))
for _name, _base in _IN_PLACE.items():
    setattr(Signal, _name, _in_place_method(_base))
for _name in _REFUSED:
    setattr(Signal, _name, _refused_method(_name))


def is_signal(value: Any) -> bool:
    return isinstance(value, Signal)


def signals_in(*values: Any) -> list[Signal]:
    """The signals among (nested) arguments, in order."""
    return [leaf for leaf in pytree.tree_leaves(values, is_leaf=is_signal) if isinstance(leaf, Signal)]


def replace_signals(value: Any, get: Callable[[Any], Any]) -> Any:
    """The same nested arguments with `get(signal)` in place of each signal."""
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
        return pytree.tree_map(lambda out: out.unsqueeze(0), one_timestep(*(value[0] for value in values)))
    in_dims = tuple(0 if value.shape[0] > 1 else None for value in values)
    return torch.vmap(one_timestep, in_dims=in_dims)(*(v if v.shape[0] > 1 else v[0] for v in values))


def fold_time(func: Callable[..., Any], value: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Call `func`, which treats the samples of a batch alike, once on time folded into the batch: `[T, B, ...] -> [T*B, ...]`."""
    out = func(value.flatten(0, 1), *args, **kwargs)
    return pytree.tree_map(lambda tensor: tensor.unflatten(0, value.shape[:2]), out)


def check_sample(signal: Signal, name: str) -> None:
    """Refuse a call whose layer reads the signal's axes otherwise than they are, where folding time would be wrong.

    Raises:
        ValueError: for a convolution or pooling over n dimensions and a signal that is not `[B, C, ...]` with n of them.
    """
    axes = _SPATIAL_AXES.get(name, signal.ndim - 2)
    if signal.ndim != axes + 2:
        raise ValueError(
            f"{name} takes samples [B, C, ...] of {axes + 2} dimensions; this signal shows {list(signal.shape)}. "
            "Static inputs are passed as [B, ...] with timesteps=T, sequences as [T, B, ...] without it"
        )


def dropout_scale_shift(
    name: str, func: Callable[..., Any], sample: Tensor, p: float, training: bool
) -> tuple[Tensor | float, Tensor | float]:
    """The mask of a dropout, drawn once per sample for all its timesteps, as `y = scale * x + shift`."""
    if not training or p == 0:
        return 1.0, 0.0
    ones = torch.ones_like(sample, requires_grad=False)
    if "alpha" not in name:
        return func(ones, p, True), 0.0
    masks = torch.nn.functional.dropout if name == "alpha_dropout" else _feature_dropout
    kept = (masks(ones, p, True) > 0).to(sample.dtype)
    # Klambauer et al. (2017): dropped elements take SELU's lower limit, and mean and variance of N(0, 1) are kept.
    low = -1.7580993408473766
    scale = ((1 - p) * (1 + p * low**2)) ** -0.5 if p < 1 else 0.0
    return scale * kept, scale * (low * (1 - kept) - p * low)


def _feature_dropout(ones: Tensor, p: float, training: bool) -> Tensor:
    per_channel = ones.flatten(2)[:, :, :1].view(*ones.shape[:2], *[1] * (ones.ndim - 2))
    return torch.nn.functional.dropout(per_channel, p, training).expand_as(ones)


def segment_lengths(segments: int | Sequence[int], timesteps: int) -> tuple[int, ...]:
    """Timesteps of each segment: a count is split as evenly as it goes, the longer ones first.

    Raises:
        ValueError: where the segments do not make up the timesteps.
    """
    if isinstance(segments, int):
        if not 1 <= segments <= timesteps:
            raise ValueError(f"segments={segments} cannot divide {timesteps} timesteps: expected 1 to {timesteps}")
        short, extra = divmod(timesteps, segments)
        return tuple([short + 1] * extra + [short] * (segments - extra))
    if sum(segments) != timesteps or min(segments, default=0) < 1:
        raise ValueError(f"segments {tuple(segments)} must be positive and sum to the {timesteps} timesteps")
    return tuple(segments)
