"""A signal flows through a network in place of a tensor. Its shape is `[B, ...]` for every module, but it holds all timesteps.

A signal is not a `Tensor` subclass, and belongs to one call of a network. It handles the functions that `torch.nn` modules call
through `__torch_function__`. Each kind of signal (`Unrolled`, `Rates`, `Stream`) defines what the functions of `operations.py` do
over time. All others are refused by name, because a silently wrong gradient is the worst defect of a training library.
"""

import inspect
import operator
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NoReturn, Self

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import UserError
from .call import Call, UnsupportedOperationError
from .operations import PER_TIMESTEP, VIEWS

# Methods of tensors that modules call; each does the same as the function of that name.
_METHODS = sorted(name for name in PER_TIMESTEP - {"__getitem__"} if callable(getattr(Tensor, name, None)))
# `x += y` replaces the contents, so that every reference to the signal has the sum, as with a tensor.
_IN_PLACE = {
    "__iadd__": "__add__", "__ipow__": "__pow__", "__isub__": "__sub__", "__imul__": "__mul__", "__itruediv__": "__truediv__",
}  # fmt: skip
# Under torch.compile, `signal / tensor` becomes the tensor's reflected method: the same operation with its operands in order.
_REFLECTED = {
    "__rdiv__": ("__truediv__", operator.truediv),
    "__rpow__": ("__pow__", operator.pow),
}
# Methods that change a tensor in place.
_WRITES = frozenset(name for name in dir(Tensor) if name.endswith("_") and not name.endswith("__"))
_REFUSED = (
    "__array__", "__bool__", "__eq__", "__float__", "__ge__", "__gt__", "__int__", "__iter__", "__le__", "__len__", "__lt__",
    "__ne__",
)  # fmt: skip
_RANDOM = frozenset({"bernoulli", "multinomial", "normal", "poisson", "rand_like", "randint_like", "randn_like"})
_GENERAL_ADVICE = "use layers and operations that have one, or take mean_rate(signal), an ordinary tensor [B, ...]"
# The tensor attributes that are read first by those layers of torch that cannot run over time.
_ADVICE = {
    "is_contiguous": "asked for by torch.nn.SyncBatchNorm, which takes no signal; keep torch.nn.BatchNorm and call "
    "synchronise_batch_norm(network), from spikedistill.through_time import synchronise_batch_norm",
    "__setitem__": "a signal's entries are not written to; make a new one with torch.cat, or multiply by a mask and add",
    "is_nested": "asked for by torch.nn.MultiheadAttention and transformer layers, which take no signal; write attention with "
    "torch.nn.Linear, @ and softmax",
}


class Signal(ABC):
    """A value that varies over `timesteps` and looks like one sample batch `[B, ...]`.

    Attributes:
        call: the call of a network to which it belongs.
        gradient: the name of the gradient rule.
        kept: read after its call on purpose, as an intermediate feature.
    """

    call: Call
    gradient: str
    kept = False
    # the axes of `_held_like` before those of a sample batch
    _axes_before: int = 1
    # whether another signal may share the memory, as a view and its base do in PyTorch
    _shared = False

    # makes numpy's scalars use the signal's own product in 2.0 * signal
    __array_ufunc__ = None

    @property
    @abstractmethod
    def _held_like(self) -> Tensor:
        """A tensor with the signal's dtype and device, and after `_axes_before` axes its shape."""

    @property
    @abstractmethod
    def requires_grad(self) -> bool:
        """Whether the values carry a graph."""

    @abstractmethod
    def apply(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Apply `func` over time."""

    @abstractmethod
    def fire(self, neuron: Any) -> Self:
        """Send the signal, as currents, through a layer of `LIF` neurons."""

    @abstractmethod
    def advance(self, neuron: Any) -> Self:
        """Send the signal, as currents, through a layer of neurons with its own `step`."""

    @abstractmethod
    def normalise(self, norm: Any) -> Self:
        """Send the signal through a batch-norm of ours: with statistics per timestep, or over several processes."""

    @abstractmethod
    def recur(self, recurrent: Any) -> Self:
        """Send the signal through a `Recurrent`, one timestep after another."""

    @abstractmethod
    def delay(self, delay: Any) -> Self:
        """Send the signal through a `Delay`."""

    @abstractmethod
    def _over_time(self) -> Tensor: ...

    @abstractmethod
    def _mean_over_time(self) -> Tensor: ...

    @abstractmethod
    def become(self, other: Any) -> None:
        """Take over the contents of another signal of the same kind."""

    def over_time(self) -> Tensor:
        """The exact values of all timesteps, `[T, B, ...]`.

        The tensor may share memory with the signal: do not change it in place.
        """
        if self.call.ended and not self.kept:
            self.call.refuse_late("over_time")
        return self._over_time()

    def mean_over_time(self) -> Tensor:
        """The mean over timesteps, `[B, ...]`."""
        if self.call.ended and not self.kept:
            self.call.refuse_late("mean_rate")
        return self._mean_over_time()

    def firing_rate(self) -> Tensor:
        """The mean over timesteps and all axes, a scalar."""
        return self.mean_over_time().mean()

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__name__
        if name in _REFLECTED:
            name, func = _REFLECTED[name]
            args = args[::-1]
        elif name in _WRITES and args and isinstance(args[0], Tensor):
            # not the TypeError of `refuse`, for which PyTorch would replace t += x by t = t + x
            raise UserError(f"{name!r} would write a signal into a tensor, which has no time axis: write t = t + x")
        elif func is Tensor.matmul and torch.compiler.is_compiling():
            signals_in(args)[0].refuse("@", "torch.compile mistakes which side is which; write torch.matmul(a, b)")
        return cls._call(name, func, args, dict(kwargs or {}))

    @staticmethod
    def _call(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Apply `func`, which the tables list under that name, to arguments that include a signal."""
        if not args and "input" in kwargs:
            args = (kwargs.pop("input"),)
        signals = signals_in(*args, *kwargs.values())
        first = signals[0]
        if kwargs.get("out") is not None:
            first.refuse(name, "it writes to a tensor, out=..., that has no time axis")
        for signal in signals:
            if signal.call is not first.call:
                first.call.refuse_stranger(name)
            signal.enter(name, args, kwargs, to_stop_gradient=name == "detach")
        in_place = kwargs.pop("inplace", False)
        if first.call.watch is not None:
            first.call.watch(name, func, args, kwargs)
        try:
            result = first.apply(name, func, args, kwargs)
        except RuntimeError as error:
            _explain(error, name, first, args, kwargs)
            raise
        if in_place:
            first.overwrite(name, result)
            return first
        if name in VIEWS:
            for signal in (first, *signals_in(result)):
                signal._shared = True
        return result

    def refuse(self, name: str, advice: str | None = None) -> NoReturn:
        """Raise the error that names a function that is not defined over time.

        Raises:
            UnsupportedOperationError: always.
        """
        raise UnsupportedOperationError(
            f"{name!r} has no rule across time under gradient={self.gradient!r}: {advice or advice_on(name)}"
        )

    def enter(self, name: str, *given: Any, to_stop_gradient: bool = False) -> None:
        """Refuse to compute with a signal after its call, or with gradients disabled if a gradient would be lost.

        An `autograd.Function` and a reentrant checkpoint disable gradients, and do not detect the tensors inside a signal. The
        graph would end there without an error, and weights would receive no gradient. A network may itself disable gradients
        around frozen layers.

        Args:
            name: the function or layer.
            given: modules and (nested) arguments with weights.
            to_stop_gradient: whether the function is meant to stop the gradient.

        Raises:
            UnsupportedOperationError: after the call, or for a lost gradient.
        """
        if self.call.ended:
            self.call.refuse_late(name)
        if to_stop_gradient or torch.is_grad_enabled():
            return
        if self.requires_grad:
            self.refuse(
                name,
                "gradients are switched off around it, and its result would lose the graph. To stop a gradient take "
                "signal.detach(); checkpoint with use_reentrant=False; a torch.autograd.Function cannot take a signal",
            )
        if self.call.with_gradients and not torch.compiler.is_compiling() and _loses_weights(given):
            self.refuse(
                name,
                "a torch.autograd.Function, or a reentrant checkpoint, computes it, and its weights would get no gradient: such a "
                "Function cannot take a signal; checkpoint with use_reentrant=False",
            )

    def overwrite(self, name: str, other: Any) -> None:
        """Take the result of an operation in place, if PyTorch would change no other tensor by it.

        Raises:
            UnsupportedOperationError: if another signal may share the memory, as a view does, or if shape or dtype would
                change, which PyTorch refuses too.
        """
        if self._shared:
            self.refuse(
                name,
                "in place it would change every view of the same tensor too, which signals do not share; write it out of place, "
                "as y = y + z",
            )
        if other.shape != self.shape or not torch.can_cast(other.dtype, self.dtype):
            self.refuse(
                name,
                f"in place it would turn {self.dtype} {list(self.shape)} into {other.dtype} {list(other.shape)}; write it out of "
                "place, as y = y + z",
            )
        self.become(other if other.dtype == self.dtype else other.to(self.dtype))

    @property
    def timesteps(self) -> int:
        return self.call.timesteps

    @property
    def sample(self) -> Tensor:
        """A tensor `[B, ...]` with the signal's shape, dtype and device."""
        return self._held_like[0] if self._axes_before else self._held_like

    @property
    def shape(self) -> torch.Size:
        return self._held_like.shape[self._axes_before :]

    @property
    def ndim(self) -> int:
        return self._held_like.ndim - self._axes_before

    @property
    def dtype(self) -> torch.dtype:
        return self._held_like.dtype

    @property
    def device(self) -> torch.device:
        return self._held_like.device

    @property
    def is_cuda(self) -> bool:
        return self._held_like.is_cuda

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
        return self._held_like.is_floating_point()

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        self.refuse("__setitem__", _ADVICE["__setitem__"])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(timesteps={self.timesteps}, shape={list(self.shape)})"

    def __getattr__(self, name: str) -> Any:
        own = inspect.getattr_static(type(self), name, None)
        if isinstance(own, property) and own.fget is not None:
            # the property has raised an AttributeError, such as UnsupportedOperationError, which Python drops before it calls this
            return own.fget(self)
        if name.startswith("__") or not hasattr(Tensor, name):
            raise AttributeError(f"a signal has no attribute {name!r}")
        self.refuse(name, advice_on(name))

    __hash__ = object.__hash__


def _method(name: str) -> Callable[..., Any]:
    func = getattr(Tensor, name)

    def call(self: Signal, *args: Any, **kwargs: Any) -> Any:
        return self._call(name, func, (self, *args), kwargs)

    return call


def _in_place_method(name: str, out_of_place: str) -> Callable[..., Any]:
    def call(self: Signal, *args: Any) -> Signal:
        self.overwrite(name, getattr(self, out_of_place)(*args))
        return self

    return call


def _refused_method(name: str) -> Callable[..., Any]:
    def call(self: Signal, *args: Any, **kwargs: Any) -> NoReturn:
        self.refuse(name, "no single value stands for all timesteps; take mean_rate(signal), a tensor")

    return call


for _name in _METHODS:
    setattr(Signal, _name, _method(_name))
for _name, _base in _IN_PLACE.items():
    setattr(Signal, _name, _in_place_method(_name, _base))
for _name in _REFUSED:
    setattr(Signal, _name, _refused_method(_name))


def advice_on(name: str) -> str:
    """What to write instead of a function that is not defined over time."""
    if name in _ADVICE:
        return _ADVICE[name]
    if name in _RANDOM or name.removesuffix("_") in _RANDOM:
        return "one draw serves all timesteps, as in dropout: draw a tensor of the shape of the signal, torch.rand(x.shape)"
    if name in _WRITES:
        return f"it changes a tensor in place; write x = x.{name[:-1]}(...) where that has a rule"
    if name.startswith("new_") or name.endswith("_like"):
        return "make a tensor of the shape of the signal: torch.zeros(x.shape, dtype=x.dtype, device=x.device)"
    return _GENERAL_ADVICE


_FUNCTION = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]


def _loses_weights(given: tuple[Any, ...]) -> bool:
    """Whether an `autograd.Function` inside the running network computes with trained weights."""
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        if frame.f_code is _FUNCTION:
            return _learn(given) or _learn(frame.f_locals.get("args"))
        if frame.f_globals.get("__package__") == __package__ and frame.f_code.co_name == "_run":
            return False
    return False


def _learn(given: Any) -> bool:
    for leaf in pytree.tree_leaves(given):
        if isinstance(leaf, torch.nn.Module) and any(weight.requires_grad for weight in leaf.parameters()):
            return True
        if isinstance(leaf, Tensor) and leaf.requires_grad:
            return True
    return False


def _explain(error: RuntimeError, name: str, signal: Signal, args: Any, kwargs: Any) -> None:
    """Explain an error that comes from a signal and weights of different dtypes.

    Raises:
        UserError: naming both.
    """
    if name == "embedding" and signal.dtype not in (torch.int32, torch.int64):
        raise UserError(f"embedding takes whole numbers, of int64 or int32; got values of {signal.dtype}") from error
    if "type" not in str(error) and "not implemented for" not in str(error):
        return
    met = {leaf.dtype for leaf in pytree.tree_leaves((args[1:], kwargs)) if type(leaf) in (Tensor, torch.nn.Parameter)}
    expected = next((dtype for dtype in met if dtype.is_floating_point and dtype != signal.dtype), None)
    if expected is None and signal.dtype.is_floating_point:
        return
    weights = "" if expected is None else f" and weights of {expected}"
    convert = (
        "x.float() / 255 if images of bytes" if signal.dtype == torch.uint8 else f"x.to({expected or torch.float32})"
    )
    raise UserError(
        f"{name} got values of {signal.dtype}{weights}: convert the network's input, {convert}, or the network"
    ) from error


# The types of most arguments. pytree handles all containers, but takes as long as a small layer.
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
        if isinstance(value, Signal):
            found.append(value)
        elif kind in _NESTS:
            found += signals_in(*(value.values() if kind is dict else value))
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
