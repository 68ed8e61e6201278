"""snnTorch's networks as `Steps`: the hidden states of their neurons become the state that is passed on."""

import inspect
from typing import Any, Literal

from torch import Tensor, nn, zeros

from ..errors import UserError
from ..through_time.steps import Stepwise, leaves
from .memory import Place, check_state, put_on, taken_from


class SnnTorchSteps(Stepwise):
    """The network that `from_snntorch` returns: it has `step`, and its modules keep no state between calls."""

    def __init__(
        self, module: nn.Module, logits: Literal["spikes", "membranes"], output: int, initial: tuple[Any, ...] | None
    ) -> None:
        import snntorch

        super().__init__(module)
        self.logits = logits
        self.output = output
        self.spiking = (snntorch.SpikingNeuron,)
        _refuse_whole_sequences(module, snntorch)
        neurons = [(path, part) for path, part in module.named_modules() if isinstance(part, self.spiking)]
        if not neurons:
            raise UserError(
                f"a {type(module).__name__} without neurons of snnTorch came: expected a network with snntorch neurons"
            )
        self.neurons = [part for _, part in neurons]  # in a list, because they belong to `module`
        self.places: list[Place] = [(path, part, name) for path, part in neurons for name in _memories(part)]
        # neurons make zeros in the shape of their input in place of a state of another shape; a DeltaLeaky takes None
        delta = getattr(snntorch, "DeltaLeaky", ())
        self.empty = {
            f"{path}.{name}": None if isinstance(part, delta) else zeros(0) for path, part, name in self.places
        }
        self.initial = (zeros(0),) * _count_states(module) if initial is None else initial

    def step(self, x: Tensor, state: Any = None, /) -> tuple[Tensor, Any]:
        """Advance by one timestep.

        Args:
            x: input `[B, ...]` of this timestep.
            state: the hidden states of all neurons by path, such as `"2.mem"`, and the states that the network's
                forward takes; None at the first timestep.

        Raises:
            UserError: for a state without a row for each sample, or an output that is not as described.
        """
        if state is not None:
            check_state(state, ("hidden", "passed"), len(x))
        hidden, passed = ({}, None) if state is None else (state["hidden"], state["passed"])
        start = {
            key: hidden.get(key, empty if empty is None else empty.to(x.device)) for key, empty in self.empty.items()
        }
        with put_on(self.places, start):
            given = tuple(_on(x, part) for part in self.initial) if passed is None else passed
            out = self.module(x, *given)
            logits, passed = self._split(out, len(given))
            used = [place for place in self.places if not _is_empty(getattr(place[1], place[2]))]
            return logits, {"hidden": taken_from(used, len(x)), "passed": passed}

    def _split(self, out: Any, states: int) -> tuple[Any, tuple[Any, ...]]:
        """The logits, and the states that the network passes on."""
        if not states:
            if self.logits == "spikes":
                return (out[0] if isinstance(out, tuple) else out), ()
            if isinstance(out, tuple):
                return _last_tensor(out), ()
            membrane: Any = self.neurons[-1].mem
            if not isinstance(out, Tensor) or membrane.shape != out.shape:
                got = list(out.shape) if isinstance(out, Tensor) else f"a {type(out).__name__}"
                raise UserError(
                    f"the membranes of the last neurons are {list(membrane.shape)} and the network returned {got}: expected a "
                    "network that ends with neurons; logits='spikes' takes what it returns"
                )
            return membrane, ()
        if not isinstance(out, tuple) or len(out) != states + 1:
            got = f"{len(out)} values" if isinstance(out, tuple) else f"a {type(out).__name__}"
            raise UserError(
                f"the network took {states} states and returned {got}, expected its output and {states} states in the same order"
            )
        parts = list(out)
        answer = parts.pop(self.output)
        return (answer if self.logits == "spikes" else _last_tensor(parts)), tuple(parts)


def from_snntorch(
    module: nn.Module,
    *,
    logits: Literal["spikes", "membranes"] = "spikes",
    output: int = 0,
    initial: tuple[Any, ...] | None = None,
) -> SnnTorchSteps:
    """Run an snnTorch network one timestep at a time, with its state outside of its modules.

    The network shares its parameters with `module`. Each step puts the state into the neurons (`mem`, `syn`, `spk`,
    ...), runs the network, takes the state out, and puts back what was there before. So there is nothing to reset, and
    samples can leave the batch.

    Args:
        module: a network for one timestep: its neurons have `init_hidden=True` and it is called as `module(x)`, or it
            takes and returns its states, `module(x, mem1, mem2) -> (output, mem1, mem2)`. A forward that loops over
            timesteps cannot run one timestep at a time.
        logits: "spikes", what the network returns (of several values the first); or "membranes", the membranes of its last neurons:
            the last of the returned values, or the last neurons' `mem`.
        output: position of the output among the values that a network with states returns; the others, in order, are the states.
        initial: initial states, one for each state that forward takes; by default `torch.zeros(0)`, which neurons
            replace by zeros.

    Returns:
        A module with `step(x, state) -> (logits, state)`, that can also be called: `x` `[B, ...]` with `timesteps=T`, or
        `[T, B, ...]` without, gives logits `[T, B, C]`.

    Raises:
        UserError: for a network without such neurons, or with a layer that needs all timesteps at once, or an unknown `logits`.
    """
    if not isinstance(module, nn.Module):
        raise UserError(f"from_snntorch takes a torch.nn.Module, got a {type(module).__name__}")
    if logits not in ("spikes", "membranes"):
        raise UserError(f"logits is {logits!r}, expected 'spikes' or 'membranes'")
    return SnnTorchSteps(module, logits, output, initial)


def _memories(neuron: nn.Module) -> list[str]:
    """Names of the states that a neuron keeps between timesteps: its buffers that are not saved."""
    return sorted(neuron._non_persistent_buffers_set) + ["mem_prev"] * ("mem_prev" in vars(neuron))


def _count_states(module: nn.Module) -> int:
    """The number of states that forward takes after its input."""
    parameters = list(inspect.signature(module.forward).parameters.values())[1:]
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in by_place and p.default in (None, inspect.Parameter.empty) for p in parameters)


def _refuse_whole_sequences(module: nn.Module, snntorch: Any) -> None:
    """Refuse layers that need all timesteps at once.

    Raises:
        UserError: naming the first.
    """
    names = ("StateLeaky", "AssociativeLeaky", "LeakyParallel")
    whole = tuple(getattr(snntorch, name) for name in names if hasattr(snntorch, name))
    for path, part in module.named_modules():
        if isinstance(part, whole):
            raise UserError(
                f"layer {path!r} is a {type(part).__name__}, which needs all timesteps at once and cannot run one at a time: "
                "evaluate(logits, labels) takes the logits [T, N, C] of such a network"
            )


def _last_tensor(values: Any) -> Any:
    return next((value for _, value in reversed(list(leaves(values)))), None)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, Tensor) and value.numel() == 0)


def _on(x: Tensor, value: Any) -> Any:
    return value.to(x.device) if isinstance(value, Tensor) else value
