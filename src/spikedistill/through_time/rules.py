"""How gradients flow back through time: each rule is a value, which makes the signal that flows through a network.

All rules give the same values and differ in their gradients.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..errors import UserError
from ..neurons import SpikingNeuron
from .call import Call
from .chunked import ChunkedRates
from .mapping import segment_lengths
from .rates import Rates, segment_means
from .representation import Representation, common_decay, fading_weights, weighted_mean
from .signal import Signal
from .unrolled import Unrolled

# The rules, which the package and the library export.
__all__ = ["Bptt", "Dsr", "Rate", "Sltt"]

if TYPE_CHECKING:
    from ..config import Gradient
else:
    Gradient = str  # this room needs only torch; RULES has the names


class Rule(ABC):
    """A gradient rule, a frozen dataclass whose fields are its options.

    Attributes:
        name: its short form.
        unused: the options of neurons that the rule does not use.
    """

    name: ClassVar[str]
    unused: ClassVar[tuple[str, ...]] = ()

    @property
    def label(self) -> str:
        """The name of the rule in tables and figures."""
        return self.name

    def written(self) -> dict[str, Any]:
        """The keyword arguments of `rule_of` that make it, as they are written to files."""
        return {"gradient": self.name, **{field.name: getattr(self, field.name) for field in fields(self)}}  # type: ignore[arg-type]

    def paths(self, timesteps: int) -> int:
        """The number of separate gradient paths of T timesteps. With one, timesteps cannot learn from each other.

        Raises:
            UserError: for options that do not fit T timesteps.
        """
        return timesteps

    def check(self, module: nn.Module) -> None:  # noqa: B027 most rules take any network
        """Refuse a network for which the rule is not defined.

        Raises:
            UserError: naming the layer.
        """

    def check_lengths(self) -> None:
        """Refuse sequences of different length, of which a mean over all timesteps would contain padding.

        Raises:
            UserError: naming the rules that take them.
        """
        raise UserError(
            f"under gradient={self.name!r} all sequences of a batch have one length: use bptt or sltt for lengths that differ"
        )

    @abstractmethod
    def signal(self, values: Tensor, timesteps: int, module: nn.Module, *, still: bool) -> Signal:
        """The input of a network as a signal.

        Args:
            values: `[T, B, ...]`, or `[1, B, ...]` if it is the same at all timesteps.
            timesteps: T.
            module: the network.
            still: whether it is the same at all timesteps.
        """


@dataclass(frozen=True)
class Bptt(Rule):
    """Backpropagation through time, exact except for the surrogate.

    Attributes:
        checkpoint: use less memory and a third more time. For every convolution on spikes that is followed by batch-norm and
            neurons, keep only the spikes, in one bit each, and run the convolution again in the backward pass.
    """

    name: ClassVar[str] = "bptt"
    cuts_membranes: ClassVar[bool] = False
    checkpoint: bool = False

    def check_lengths(self) -> None:
        pass

    def signal(self, values: Tensor, timesteps: int, module: nn.Module, *, still: bool) -> Signal:
        return Unrolled(values, Call(timesteps), self.name, self.cuts_membranes, checkpoint=self.checkpoint)


@dataclass(frozen=True)
class Sltt(Bptt):
    """`Bptt` with the path through the previous membrane cut (Meng et al., SLTT, ICCV 2023)."""

    name: ClassVar[str] = "sltt"
    cuts_membranes: ClassVar[bool] = True


@dataclass(frozen=True)
class Rate(Rule):
    """Gradients through mean rates. The backward pass costs the same for every T (Yu et al., RateBP, NeurIPS 2024, in one pass).

    Attributes:
        segments: the number of segments of time with a mean rate each, or their lengths, such as `(1, 3)`. One segment is RateBP, T
            segments are SLTT.
        chunk: the number of timesteps of a layer to compute at a time. Spikes between layers are then stored in one bit each, and
            training memory does not grow with T. None computes all at once, which is faster.
        recompute: with `chunk`, run every convolution twice, once for the statistics of the next batch-norm and once for the
            neurons. False keeps the outputs of one layer at a time instead.

    Raises:
        UserError: for segments or chunks that are not whole numbers of 1 or more, or `recompute=False` without `chunk`.
    """

    name: ClassVar[str] = "rate"
    segments: int | Sequence[int] = 1
    chunk: int | None = None
    recompute: bool = True

    def __post_init__(self) -> None:
        lengths = self.segments if isinstance(self.segments, Sequence) else [self.segments]
        if not lengths or not all(type(length) is int and length >= 1 for length in lengths):
            raise UserError(
                f"segments={self.segments!r}: expected how many segments of time, 1 or more, or the length of each"
            )
        if self.chunk is not None and (type(self.chunk) is not int or self.chunk < 1):
            raise UserError(
                f"chunk={self.chunk} with gradient='rate': expected the timesteps to compute at a time, 1 or more"
            )
        if self.chunk is None and not self.recompute:
            raise UserError(
                "recompute=False only means something with chunk: give chunk, the timesteps to compute at a time"
            )

    @property
    def label(self) -> str:
        return f"rate m={self.segments}"

    def check(self, module: nn.Module) -> None:
        _check_lif_only(module, self.name)

    def paths(self, timesteps: int) -> int:
        return len(segment_lengths(self.segments, timesteps))

    def signal(self, values: Tensor, timesteps: int, module: nn.Module, *, still: bool) -> Signal:
        lengths = segment_lengths(self.segments, timesteps)
        means = values if still else segment_means(_floating(values, self.name), lengths)
        call = Call(timesteps)
        if self.chunk is None:
            return Rates(values.detach(), means, lengths, call)
        return ChunkedRates(values.detach(), means, lengths, self.chunk, self.recompute, call)


@dataclass(frozen=True)
class Dsr(Rule):
    """Gradients through weighted mean rates, whose weights decay like the membrane: the slope of a clamp, without a surrogate.

    Meng et al., DSR, CVPR 2022, extended to learned thresholds.
    """

    name: ClassVar[str] = "dsr"
    unused: ClassVar[tuple[str, ...]] = ("surrogate", "detach_reset")

    def paths(self, timesteps: int) -> int:
        return 1

    def check(self, module: nn.Module) -> None:
        _check_lif_only(module, self.name)
        common_decay(module)

    def signal(self, values: Tensor, timesteps: int, module: nn.Module, *, still: bool) -> Signal:
        weights = fading_weights(common_decay(module), timesteps)
        means = values if still else weighted_mean(_floating(values, self.name), weights)
        return Representation(values.detach(), means, weights, Call(timesteps))


def _check_lif_only(module: nn.Module, gradient: str) -> None:
    """Refuse layers of neurons with their own step, for which a rule has no derivative.

    Raises:
        UserError: naming the first.
    """
    for path, layer in module.named_modules():
        if isinstance(layer, SpikingNeuron) and layer.runs_by_step:
            raise UserError(
                f"gradient={gradient!r} is derived for LIF neurons, and {f'layer {path!r}' if path else 'the network'} is a "
                f"{type(layer).__name__} with its own step: use gradient='bptt' or 'sltt'"
            )


def _floating(values: Tensor, gradient: str) -> Tensor:
    """Check that a sequence has floating-point values, because the rule takes means over time.

    Raises:
        UserError: for integers.
    """
    if not values.is_floating_point():
        raise UserError(
            f"got a sequence of {values.dtype} under gradient={gradient!r}, which takes means over time: expected floating-point "
            "values, x.float(), or use gradient='bptt' or 'sltt'"
        )
    return values


RULES: dict[str, type[Rule]] = {kind.name: kind for kind in (Bptt, Sltt, Rate, Dsr)}
"""Gradient rules by name."""
OPTIONS: dict[str, Any] = {field.name: field.default for kind in RULES.values() for field in fields(kind)}  # type: ignore[arg-type]
"""The options of all rules and their defaults."""


def rule_of(gradient: Gradient | Rule, **options: Any) -> Rule:
    """The rule itself, or the rule of that name with these options.

    Raises:
        UserError: for an unknown name, or an option that another rule has and that differs from its default.
        TypeError: for an option that no rule has.
    """
    if unknown := options.keys() - OPTIONS.keys():
        raise TypeError(f"no gradient rule has an option {', '.join(sorted(unknown))}: expected {', '.join(OPTIONS)}")
    given = {name: value for name, value in options.items() if value != OPTIONS[name]}
    if isinstance(gradient, Rule):
        if given:
            raise UserError(f"got {gradient} and also {', '.join(given)}: give one or the other")
        return gradient
    if gradient not in RULES:
        raise UserError(f"gradient is {gradient!r}, expected one of {', '.join(RULES)}")
    own = [field.name for field in fields(RULES[gradient])]  # type: ignore[arg-type]
    for name, value in given.items():
        if name not in own:
            raise UserError(f"{name}={value} only means something under {_having(name)}; this is gradient={gradient!r}")
    return RULES[gradient](**given)


def _having(option: str) -> str:
    """The rules that have an option, in words."""
    kinds = [kind for kind in RULES.values() if option in {field.name for field in fields(kind)}]  # type: ignore[arg-type]
    return " or ".join(f"gradient={kind.name!r}" for kind in kinds)
