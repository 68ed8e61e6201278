"""`temporal`: a plain network becomes one that runs over timesteps."""

import weakref
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .call import Call
from .draws import without_draws
from .finite import check_finite
from .left import refuse_left_signals
from .neuron_step import WrongStep
from .rules import Gradient, Rule, rule_of
from .signal import Signal, replace_signals
from .stream import Membranes, Stream
from .unrolled import Unrolled


class Temporal(nn.Module):
    """A plain network that runs over time; see `temporal`."""

    def __init__(self, module: nn.Module, rule: Rule, sample_axes: str | None) -> None:
        super().__init__()
        rule.check(module)
        self.module = module
        self.training = module.training
        self.rule = rule
        self.sample_axes = sample_axes

    def forward(self, x: Tensor, timesteps: int | None = None, lengths: Tensor | None = None) -> Any:
        """Run the network for T timesteps.

        Args:
            x: a static input `[B, ...]`, shown at every timestep, or a sequence `[T, B, ...]`.
            timesteps: T, only for a static input.
            lengths: the timesteps of each sample of a sequence, `[B]`, if they differ. What follows in `x` is padding: batch-norm
                and means over time leave it out, so that it changes nothing at the timesteps before. The logits after a
                sample's last timestep mean nothing.

        Returns:
            Logits `[T, B, C]`: the network's output, with each signal as the tensor of all its timesteps.

        Raises:
            UserError: for T below 1; an input that is no tensor, does not fit the network or, on a CPU, holds NaN or infinite
                values; lengths that are not from 1 to T, or with gradients under a rule that has none for them; a network that
                leaves a signal on a module or, with gradients, has a backward hook on one.
        """
        values, total = self.check_input(x, timesteps)
        signal: Signal
        if torch.is_grad_enabled():
            if lengths is not None:
                self.rule.check_lengths()
            signal = self.rule.signal(values, total, self.module, still=timesteps is not None)
        else:
            # all rules compute the same values, and T need not fit the segments
            signal = Unrolled(values.detach(), Call(total), self.rule.name)
        if lengths is not None:
            signal.call.lengths = _checked_lengths(lengths, values, timesteps)
        out, call = self._run(signal, lambda out: out.over_time()), weakref.ref(signal.call)
        del signal
        self._check_nothing_left(call)
        return out

    def _run(self, signal: Signal, read: Callable[[Any], Tensor]) -> Any:
        """Run the network on a signal, read each output as a tensor, and end the signal's call."""
        call = signal.call
        if call.with_gradients and not torch.compiler.is_compiling():
            _refuse_backward_hooks(self.module)

        def read_own(out: Any) -> Tensor:
            if out.call is not call:
                call.refuse_stranger("return")
            return read(out)

        try:
            return replace_signals(self.module(signal), read_own)
        except WrongStep as error:
            error.find_in(self.module)
            raise
        finally:
            call.ended = not call.held

    def _check_nothing_left(self, call: weakref.ref[Any]) -> None:
        """Refuse signals on modules, which can exist only if the ended call is still referenced."""
        if not torch.compiler.is_compiling() and call() is not None:
            refuse_left_signals(self.module)

    def step(
        self, x: Tensor, state: Mapping[str, Tensor] | None = None, *, still: bool = False
    ) -> tuple[Any, dict[str, Tensor]]:
        """Advance the network by one timestep.

        The mean of the logits of the first k steps equals that of `forward` over k timesteps.

        Args:
            x: the input `[B, ...]` of this timestep.
            state: what the previous step returned; None at the first timestep. It holds the states of layers, such as membranes, by
                module path. Rows of the tensors are samples, so finished ones can be dropped:
                `{k: v[keep] for k, v in state.items()}`.
            still: declare that x is the same at every timestep. The layers before the first neurons are then computed once, as in a
                call on the whole sequence, and their outputs become part of the state. It pays in a compiled step (`CompiledStep`);
                otherwise following the shapes costs more than computing a small stem again.

        Returns:
            The logits `[B, C]` of this timestep and the state to pass on.

        Raises:
            RuntimeError: in training mode, where batch-norm needs all timesteps at once.
            UserError: for a state of another network or batch size, an input that is no tensor or, on a CPU, holds NaN or infinite
                values, or a network that leaves a signal on one of its modules.
            UnsupportedOperationError: for a network that draws random numbers outside of the `step` of its neurons.
        """
        self.check_step(x, state)
        if self.training:
            raise RuntimeError(
                "step() runs one timestep, and batch-norm in training needs them all: call model.eval() first"
            )
        paths = {m: path for path, m in self.module.named_modules()}

        def run() -> tuple[Any, dict[str, Tensor]]:
            return self._advance(x, paths, state or {}, still)

        out, after = run() if state else without_draws(run, paths, "in step()")
        if state and state.keys() != after.keys():
            strangers = sorted(state.keys() ^ after.keys())
            raise UserError(
                f"the state is not one of this network: {', '.join(strangers)} fit no layer with state in it"
            )
        return out, after

    def _advance(
        self, x: Tensor, paths: Mapping[Any, str], state: Mapping[str, Tensor], still: bool
    ) -> tuple[Any, dict[str, Tensor]]:
        membranes = Membranes(paths, state, still)
        if not membranes.reads_currents:
            check_finite(x)
        value = x if torch.is_grad_enabled() else x.detach()
        keeps = membranes.keeps_currents or membranes.reads_currents
        stream = Stream(value.to("meta") if membranes.reads_currents else value, membranes, keeps)
        out = self._run(stream, lambda signal: signal.mean_over_time())
        after, call = membranes.after, weakref.ref(membranes)
        del stream, membranes
        self._check_nothing_left(call)
        return out, after

    def check_input(self, x: Tensor, timesteps: int | None) -> tuple[Tensor, int]:
        """The input as `[T or 1, B, ...]`, and T.

        Raises:
            UserError: for T below 1, an input whose dimensions do not fit the network, or, on a CPU, one that holds NaN or
                infinite values.
        """
        if isinstance(x, Signal):
            raise UserError(
                "a network from temporal() is used inside another: wrap only the outer one, and use the attribute `module` of "
                "the inner one in its place"
            )
        _check_tensor(x)
        if timesteps is not None:
            if isinstance(timesteps, bool) or not isinstance(timesteps, Integral):
                raise UserError(
                    f"timesteps is {_in_words(timesteps)}, expected a whole number T: the network takes one input, "
                    "model(x, timesteps=T)"
                )
            timesteps = int(timesteps)
            if timesteps < 1:
                raise UserError(f"timesteps is {timesteps}, expected 1 or more")
        if not self._fits(x.shape[2:] if timesteps is None else x.shape[1:]):
            raise UserError(
                f"got an input {list(x.shape)} with timesteps={timesteps}; expected [B, {self.sample_axes}] with timesteps=T, "
                f"or [T, B, {self.sample_axes}] without timesteps"
            )
        if timesteps is None and (x.ndim < 2 or x.shape[0] == 0):
            raise UserError(
                f"got an input {list(x.shape)} without timesteps; expected a sequence [T, B, ...] with T >= 1, or timesteps=T"
            )
        check_finite(x, axis=1 if timesteps is None else 0)
        return (x, x.shape[0]) if timesteps is None else (x.unsqueeze(0), timesteps)

    def check_step(self, x: Tensor, state: Mapping[str, Tensor] | None) -> None:
        """Check the input and the state of `step`.

        Raises:
            UserError: for an input that is no tensor `[B, ...]` or does not fit the network, or a state that is no dict.
        """
        _check_tensor(x)
        if x.ndim == 0 or not self._fits(x.shape[1:]):
            raise UserError(
                f"step got an input {list(x.shape)}; expected the input of one timestep, [B, {self.sample_axes or '...'}]"
            )
        if state is not None and not isinstance(state, Mapping):
            raise UserError(
                f"the state is {_in_words(state)}, expected the dict that the previous step returned, or None at the first"
            )

    def _fits(self, sample: torch.Size) -> bool:
        if self.sample_axes is None:
            return True
        axes = self.sample_axes.split(", ")
        return len(axes) == len(sample) and all(
            int(axis) == size for axis, size in zip(axes, sample, strict=True) if axis.isdigit()
        )


def temporal(
    module: nn.Module, *, gradient: Gradient | Rule = "bptt", sample_axes: str | None = None, **options: Any
) -> Temporal:
    """Run a plain `torch.nn` network, written for `[B, ...]` with `LIF` or another `SpikingNeuron` between its layers, over time.

    The parameters are shared with `module`. Nothing is kept between calls, so there is no state to reset. Batch-norm takes its
    statistics over all timesteps and samples, and updates its running statistics once per call. Dropout draws one mask per sample
    for all timesteps.

    Args:
        module: the network.
        gradient: how gradients flow back through time: `Bptt()`, `Sltt()`, `Rate(...)` or `Dsr()`, or the name of one, "bptt",
            "sltt", "rate" or "dsr". All give the same values and differ in their gradients.
        sample_axes: the axes of one sample, such as "3, H, W". If given, inputs are checked against them; numbers must match.
        options: options of a rule that is given by name: `temporal(net, gradient="rate", segments=2)`.

    Returns:
        A module to be called with `x` `[B, ...]` and `timesteps=T`, or with `x` `[T, B, ...]`, that returns logits `[T, B, C]`; and
        with a method `step` for one timestep at a time.

    Raises:
        UserError: for an unknown rule, an option that it does not have or that is out of its range, or neurons for which the
            rule is not defined: under "rate" and "dsr" those with their own `step`, under "dsr" also those with hard reset, an
            initial membrane, or decays that are learned or differ.
        TypeError: for an option that no rule has.
    """
    if not isinstance(module, nn.Module):
        raise UserError(f"temporal takes a torch.nn.Module, got a {type(module).__name__}")
    return Temporal(module, rule_of(gradient, **options), sample_axes)


def _refuse_backward_hooks(network: nn.Module) -> None:
    """Refuse backward hooks, which PyTorch calls only if tensors go in and out of the module.

    Raises:
        UserError: naming the module.
    """
    for path, module in network.named_modules():
        if module._backward_hooks or module._backward_pre_hooks:
            raise UserError(
                f"{f'module {path!r}' if path else 'the network'} has a backward hook, which would never be called, because a "
                "signal is no tensor: register it on temporal(network) or on the tensor mean_rate(signal), or remove it"
            )


def _checked_lengths(lengths: Tensor, x: Tensor, timesteps: int | None) -> Tensor:
    """The timesteps of each sample, on the device of the input.

    Raises:
        UserError: for a static input, or anything but whole numbers from 1 to T, one for each sample.
    """
    T, B = x.shape[:2]
    whole = isinstance(lengths, Tensor) and lengths.dtype == torch.int64 and lengths.shape == (B,)
    if timesteps is not None or not whole or not bool(((lengths >= 1) & (lengths <= T)).all()):
        kind = "a static input" if timesteps is not None else f"a sequence {list(x.shape)}"
        raise UserError(
            f"lengths is {_in_words(lengths)} for {kind}, expected the timesteps of each sample of a sequence [T, B, ...]: int64 "
            "[B], from 1 to T"
        )
    return lengths.to(x.device)


def _check_tensor(x: Any) -> None:
    """Check that an input is a tensor.

    Raises:
        UserError: naming what came.
    """
    if isinstance(x, Tensor):
        return
    if isinstance(x, Mapping):
        got, advice = f"a {type(x).__name__} with {', '.join(map(repr, x))}", "give the tensor in it"
    elif isinstance(x, (tuple, list)):
        got, advice = f"a {type(x).__name__} of {len(x)}", "give the tensor in it, or torch.stack(...) of several"
    elif hasattr(x, "__array__"):
        got, advice = f"a {type(x).__module__}.{type(x).__name__}", "torch.as_tensor(x) makes one"
    else:
        got, advice = _in_words(x), "a network takes one"
    raise UserError(f"the input is {got}, expected one tensor [B, ...]: {advice}")


def _in_words(value: Any) -> str:
    """A short value itself, or the type of a longer one."""
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)}"
    return repr(value) if value is None or isinstance(value, (int, float, str)) else f"a {type(value).__name__}"


def firing_rate(value: Any) -> Tensor:
    """The share of neurons that fire at a timestep, of their spikes inside a network: a number with its graph."""
    return value.firing_rate() if isinstance(value, Signal) else value.mean()


def mean_rate(value: Any) -> Tensor:
    """The mean over time of a signal inside a network, an ordinary tensor `[B, ...]` with its graph.

    Branches, features and recordings use it. A plain tensor, as in an ANN, is returned unchanged.
    """
    return value.mean_over_time() if isinstance(value, Signal) else value
