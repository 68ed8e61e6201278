"""A plain network given time: the module that users call."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .finite import check_finite
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

    def forward(self, x: Tensor, timesteps: int | None = None) -> Any:
        """Run the network for T timesteps.

        Args:
            x: a static input `[B, ...]`, shown at every timestep, or a sequence `[T, B, ...]`.
            timesteps: T, for a static input alone.

        Returns:
            Logits `[T, B, C]`: whatever the network returns, with each signal as the tensor of all its timesteps.

        Raises:
            UserError: for T below 1, an input whose dimensions do not fit the network, or, on a CPU, one that holds NaN or
                infinite values.
        """
        values, total = self.check_input(x, timesteps)
        signal: Signal
        if torch.is_grad_enabled():
            signal = self.rule.signal(values, total, self.module, still=timesteps is not None)
        else:
            # every rule computes the same values, and T may be another than the segments make up
            signal = Unrolled(values.detach(), total, self.rule.name)
        return replace_signals(self.module(signal), lambda out: out.over_time())

    def step(
        self, x: Tensor, state: Mapping[str, Tensor] | None = None, *, still: bool = False
    ) -> tuple[Any, dict[str, Tensor]]:
        """Advance the network by one timestep.

        The mean of the first k steps' logits is what `forward` over k timesteps has as its mean.

        Args:
            x: the input `[B, ...]` of this timestep.
            state: membranes (and counted timesteps) by module path, as the previous step returned them; None at first. Rows of
                the tensors are samples, so that finished ones can be dropped: `{k: v[keep] for k, v in state.items()}`.
            still: promises that x is the same at every timestep, from the first on. What comes before the first neurons is then
                computed once, as in a call on the whole sequence, and their currents are part of the state. It pays in a compiled
                step (`CompiledStep`); without, following the shapes costs more than computing a small stem again.

        Returns:
            The logits `[B, C]` of this timestep and the state to pass on.

        Raises:
            RuntimeError: in training mode, where batch-norm needs all timesteps at once.
            UserError: for a state of another network or batch size, or, on a CPU, an input that holds NaN or infinite values.
        """
        if self.training:
            raise RuntimeError(
                "step() runs one timestep, and batch-norm in training needs them all: call model.eval() first"
            )
        membranes = Membranes({m: path for path, m in self.module.named_modules()}, state or {}, still)
        if not membranes.reads_currents:
            check_finite(x)
        value = x if torch.is_grad_enabled() else x.detach()
        keeps = membranes.keeps_currents or membranes.reads_currents
        out = self.module(Stream(value.to("meta") if membranes.reads_currents else value, membranes, keeps))
        if membranes.before and membranes.before.keys() != membranes.after.keys():
            strangers = sorted(membranes.before.keys() ^ membranes.after.keys())
            raise UserError(
                f"the state is not one of this network: {', '.join(strangers)} fit no layer with state in it"
            )
        return replace_signals(out, lambda signal: signal.mean_over_time()), membranes.after

    def check_input(self, x: Tensor, timesteps: int | None) -> tuple[Tensor, int]:
        """The input as `[T or 1, B, ...]`, and T.

        Raises:
            UserError: for T below 1, an input whose dimensions do not fit the network, or, on a CPU, one that holds NaN or
                infinite values.
        """
        if isinstance(x, Signal):
            raise UserError(
                "a network under temporal() is used inside another: give time to the outer one alone, and put the inner "
                "one's plain network, its attribute `module`, in its place"
            )
        if timesteps is not None and timesteps < 1:
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
    """Run a plain `torch.nn` network, written for `[B, ...]` with `LIF` between its layers, over time.

    The parameters are shared with `module`, and nothing is kept between calls: there is no state to reset. Batch-norm takes its
    statistics over all timesteps and samples and updates its running ones once per call; dropout draws one mask per sample for
    all timesteps.

    Args:
        module: the network.
        gradient: how gradients flow back through time: `Bptt`, `Sltt`, `Rate` or `Dsr` of `spikedistill.temporal`, or the name of
            one, "bptt", "sltt", "rate" or "dsr". All give the same values and differ in their gradients.
        sample_axes: the axes of one sample, such as "3, H, W", where inputs are to be checked against them; numbers must match.
        options: those of the rule, where it is given by name: `temporal(net, gradient="rate", segments=2)`.

    Returns:
        A module to be called with `x` `[B, ...]` and `timesteps=T`, or with `x` `[T, B, ...]`, that returns logits `[T, B, C]`; and
        with a method `step` for one timestep at a time.

    Raises:
        UserError: for an unknown rule, an option that it does not have or that is out of its range, or neurons that "dsr"
            says nothing of: with hard reset, an initial membrane, or decays that are learned or differ.
        TypeError: for an option of no rule.
    """
    return Temporal(module, rule_of(gradient, **options), sample_axes)


def mean_rate(value: Any) -> Tensor:
    """The mean over time of a signal inside a network, an ordinary tensor `[B, ...]` with its graph.

    Branches, features and recording leave the flow of time here. A plain tensor, as in an ANN, is returned as it is.
    """
    return value.mean_over_time() if isinstance(value, Signal) else value
