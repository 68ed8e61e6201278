"""SpikingJelly's networks as `Steps`: the memories of their modules become the state that is passed on."""

import copy
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..through_time.steps import Stepwise
from .memory import Place, check_state, put_on, taken_from

Mode = Literal["s", "m"]
_CHECKED_SAMPLES = 8


class SpikingJellySteps(Stepwise):
    """The network that `from_spikingjelly` returns: it has `step`, and its modules keep no state between calls."""

    def __init__(self, module: nn.Module, step_mode: Mode | None = None) -> None:
        from spikingjelly.activation_based import base, neuron

        super().__init__(module)
        places: list[Place] = [
            (path, part, name)
            for path, part in module.named_modules()
            if isinstance(part, base.MemoryModule)
            for name, _ in part.named_memories()
        ]
        if not places:
            raise UserError(
                f"a {type(module).__name__} without neurons of SpikingJelly came: expected a network with "
                "spikingjelly.activation_based neurons"
            )
        self.places = places
        self.step_mode = step_mode or _mode_of(module)
        self.spiking = tuple(kind for name, kind in vars(neuron).items() if _fires(name, kind))
        self._is_checked = self.step_mode == "s"
        if self.step_mode == "m":
            _refuse_whole_sequences(module)

    def step(self, x: Tensor, state: Any = None, /) -> tuple[Tensor, Any]:
        """Advance by one timestep.

        Args:
            x: input `[B, ...]` of this timestep.
            state: the memories of all modules by path, such as membranes `"2.v"`; None at the first timestep.

        Raises:
            UserError: for a memory without a row for each sample, or an output that is no tensor `[B, C]`.
        """
        if state is not None:
            check_state(state, [f"{path}.{name}" for path, _, name in self.places], len(x))
        if not self._is_checked and not self.training:
            self._is_checked = True
            self._check_single_timesteps(x[:_CHECKED_SAMPLES])
        with put_on(self.places, self._fresh() if state is None else state):
            out = self.module(x.unsqueeze(0) if self.step_mode == "m" else x)
            after = taken_from(self.places, len(x))
        # in step mode "m" a network may end with a mean over time, which leaves [B, C]
        return out.squeeze(0) if self.step_mode == "m" and isinstance(out, Tensor) and out.ndim == 3 else out, after

    @torch.no_grad()
    def _check_single_timesteps(self, x: Tensor) -> None:
        """Refuse a network in step mode "m" whose outputs for single timesteps differ from those for all timesteps at
        once.

        Raises:
            UserError: if most samples have other outputs.
        """
        singles, state = [], None
        try:
            with put_on(self.places, self._fresh()):
                whole = self.module(torch.stack([x, x]))
            for _ in range(2):
                out, state = self.step(x, state)
                singles.append(out)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"the network fails on one timestep or on two ({type(error).__name__}: {' '.join(str(error).split())[:120]}): "
                "expected one that runs for any number of timesteps"
            ) from error
        if not isinstance(whole, Tensor) or not all(isinstance(out, Tensor) for out in singles):
            return  # `one_step` refuses such an output
        single = torch.stack(singles) if whole.ndim == 3 else torch.stack(singles).mean(0).unsqueeze(0)
        # rounding may flip a spike in a few samples
        differs = ((single - whole).abs() > 1e-3 * whole.abs().max()).any(-1).any(0)
        if 2 * int(differs.sum()) > len(x):
            raise UserError(
                "the network gives other outputs for timesteps one by one than for all at once, so one of its layers needs all at "
                "once: evaluate(logits, labels) takes the logits [T, N, C] of such a network"
            )

    def has_time_axis(self, layer: nn.Module) -> bool:
        return getattr(layer, "step_mode", "s") == "m"

    def _fresh(self) -> dict[str, Any]:
        """The values to which `reset` sets the memories."""
        resets: dict[str, Any] = {path: part._memories_rv for path, part, _ in self.places}
        return {f"{path}.{name}": copy.deepcopy(resets[path][name]) for path, _, name in self.places}


def from_spikingjelly(module: nn.Module, *, step_mode: Mode | None = None) -> SpikingJellySteps:
    """Run a SpikingJelly network one timestep at a time, with its state outside of its modules.

    The network shares its parameters with `module`. Each step puts the state into the modules' memories (`v` of
    neurons, and those of synapse filters, recurrent containers and delays), runs the network, takes the state out, and
    puts back what was there before. So there is nothing to reset, and samples can leave the batch.

    Args:
        module: a network of `spikingjelly.activation_based` modules, in step mode "s" or "m". Its output is `[B, C]`,
            or in step mode "m" `[T, B, C]`, or its mean over time.
        step_mode: "s" or "m", the mode in which the network as a whole is called; by default that of its outermost modules.

    Returns:
        A module with `step(x, state) -> (logits, state)`, that can also be called: `x` `[B, ...]` with `timesteps=T`, or
        `[T, B, ...]` without, gives logits `[T, B, C]`.

    Raises:
        UserError: for a network without such neurons, of mixed step modes, or with a module that needs all timesteps at once.
    """
    if not isinstance(module, nn.Module):
        raise UserError(f"from_spikingjelly takes a torch.nn.Module, got a {type(module).__name__}")
    if step_mode not in (None, "s", "m"):
        raise UserError(f"step_mode is {step_mode!r}, expected 's' or 'm'")
    return SpikingJellySteps(module, step_mode)


def _mode_of(module: nn.Module) -> Mode:
    """The step mode of the outermost modules that have one; modules inside a container may have another mode.

    Raises:
        UserError: if they differ.
    """

    def outermost(part: nn.Module) -> Iterator[Mode]:
        mode: Any = "m" if _supported_modes(part) == ("m",) else getattr(part, "step_mode", None)
        if mode is not None:
            yield mode
        else:
            for child in part.children():
                yield from outermost(child)

    modes = set(outermost(module))
    if len(modes) != 1:
        raise UserError(
            "some modules are in step mode 's' and some in 'm': set one with functional.set_step_mode(net, 'm'), or say "
            "which mode the network is called in, such as from_spikingjelly(net, step_mode='m')"
        )
    return modes.pop()


def _refuse_whole_sequences(module: nn.Module) -> None:
    """Refuse modules that need all timesteps at once.

    Raises:
        UserError: naming the first.
    """
    for path, part in module.named_modules():
        by_timestep = isinstance(part, nn.Sequential) or type(part).__name__.startswith("ThresholdDependentBatchNorm")
        if _supported_modes(part) == ("m",) and not by_timestep:
            raise UserError(
                f"layer {path!r} is a {type(part).__name__}, which needs all timesteps at once and cannot run one at a time: "
                "evaluate(logits, labels) takes the logits [T, N, C] of such a network"
            )


def _supported_modes(part: nn.Module) -> tuple[str, ...]:
    """The step modes that a module supports; none if it is not SpikingJelly's."""
    supported = getattr(part, "supported_step_mode", None)
    return tuple(supported()) if callable(supported) else ()


def _fires(name: str, kind: Any) -> bool:
    """Whether a name of SpikingJelly's neurons is a class of neurons that fire."""
    if not isinstance(kind, type) or not issubclass(kind, nn.Module) or name.startswith("NonSpiking"):
        return False
    return name.endswith(("Node", "PSN")) or name == "FlexSN"
