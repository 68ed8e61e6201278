"""Every method is one formula: task loss over the submodels + Σ weight · divergence + regularisers.

A term is one named, weighted loss; an objective is a named sum of terms.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Unpack

import torch
from torch import Tensor

from ..errors import UserError
from .checks import HIGHEST_WEIGHT
from .inputs import INPUTS, Inputs
from .strong_weak import timestep_scores
from .submodels import Average


@dataclass(frozen=True)
class Term:
    """One named, weighted loss: `weight * function(logits, ..., **options)`.

    The function takes logits [S, B, C] and returns a scalar. It receives `target` and the inputs declared in `inputs.py` if its
    signature names them. With an `end_weight` the weight changes linearly over training from `weight` to `end_weight`. Raises
    UserError for an option that the function does not have.
    """

    name: str
    weight: float
    function: Callable[..., Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)
    end_weight: float | None = None
    inputs: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        parameters = inspect.signature(self.function).parameters
        object.__setattr__(self, "inputs", tuple(name for name in ("target", *INPUTS) if name in parameters))
        allowed = [name for name in list(parameters)[1:] if name not in self.inputs]
        if unknown := [name for name in self.options if name not in allowed]:
            raise UserError(
                f"term {self.name!r} has no option {', '.join(unknown)}: it takes {', '.join(allowed) or 'none'}"
            )
        for weight in (self.weight, self.weight if self.end_weight is None else self.end_weight):
            if not isinstance(weight, int | float) or not -HIGHEST_WEIGHT <= weight <= HIGHEST_WEIGHT:
                raise UserError(
                    f"the weight of term {self.name!r} must be a number up to ±{HIGHEST_WEIGHT:,.0f}; got {weight!r}"
                )

    def weight_at(self, progress: float | None) -> float:
        """The weight when this share of training is done; a constant one needs no progress."""
        if self.end_weight is None or progress is None:
            return self.weight
        return self.weight + (self.end_weight - self.weight) * progress

    def __str__(self) -> str:
        moving = "" if self.end_weight is None else f"..{self.end_weight:g}"
        return f"{self.weight:g}{moving} {self.name}"


class ObjectiveValue(NamedTuple):
    """The loss to minimise, and the unweighted, detached value of each term by its name, for logging."""

    total: Tensor
    terms: dict[str, Tensor]


def mean_value(parts: Sequence[tuple[float, ObjectiveValue]]) -> ObjectiveValue:
    """The weighted sum of values of one objective on parts of a batch; the weights add up to one."""
    first = parts[0][1]
    terms = {name: torch.stack([share * value.terms[name] for share, value in parts]).sum() for name in first.terms}
    return ObjectiveValue(torch.stack([share * value.total for share, value in parts]).sum(), terms)


@dataclass(frozen=True)
class Objective:
    """A named sum of terms: called with logits and labels it returns the total and every term's value.

    `submodels` names the logits that it takes. "timesteps": those of all timesteps. "heads": those of the auxiliary heads, then
    those of the network, as a mean over time. "pair": those of the exits of an ANN, then those of the same exits of the
    network; in each half, the output of the network itself is last. `layers` names the layers whose features are compared, if
    the terms compare features: by default the layers that end the network's stages; "last" is the last of them. `transform`
    names the kind of trained layer, not part of the network, that is applied to the student's features of each layer before the
    comparison. Raises UserError for no terms, two terms of one name, or no term with a weight.
    """

    name: str
    terms: Sequence[Term]
    submodels: Literal["timesteps", "heads", "pair"] = "timesteps"
    layers: tuple[str, ...] = ()
    transform: Literal["conv_norm", "generator"] | None = None

    def __post_init__(self) -> None:
        names = [term.name for term in self.terms]
        if not names or len(set(names)) < len(names):
            raise UserError(f"objective {self.name!r} needs one or more terms with different names; got {names}")
        if not any(term.weight or term.end_weight for term in self.terms):
            raise UserError(f"objective {self.name!r} has no weight above 0 and would learn nothing: raise one")

    def __call__(self, logits: Tensor, target: Tensor, **inputs: Unpack[Inputs]) -> ObjectiveValue:
        """Σ weight · value over the terms, for logits [S, B, C] and target int64 [B].

        Args:
            logits: the logits of the submodels, [S, B, C].
            target: class indices [B].
            inputs: see `Inputs`; those of the attribute `inputs` are used, and others ignored.

        Raises:
            UserError: for missing or wrong inputs.
            TypeError: for an unknown input.
        """
        if unknown := inputs.keys() - INPUTS.keys():
            raise TypeError(f"no objective takes {', '.join(sorted(unknown))}: expected {', '.join(INPUTS)}")
        given: dict[str, Any] = {"target": target, **dict.fromkeys(INPUTS), **inputs}
        for name, declared in INPUTS.items():
            if given[name] is not None:
                declared.check(given[name])
            elif self._needs(name):
                raise UserError(f"objective {self.name!r} {declared.what}; got no {name}: pass {declared.wanted}")
        progress: float | None = given["progress"]
        values = {
            term.name: term.function(logits, **{name: given[name] for name in term.inputs}, **term.options)
            for term in self.terms
        }
        total = sum((term.weight_at(progress) * values[term.name] for term in self.terms), logits.new_zeros(()))
        return ObjectiveValue(total, {name: value.detach() for name, value in values.items()})

    def ranking(self, logits: Tensor, target: Tensor, average: Average | None = None) -> Tensor | None:
        """How strong each submodel is by the measure of the terms that rank them, [S], to pass as `scores` and to log.

        None if no term ranks them, or two do by different measures.
        """
        measures = {term.options.get("measure", "confidence") for term in self.terms if "scores" in term.inputs}
        if len(measures) != 1:
            return None
        scores = timestep_scores(logits, target, measure=measures.pop())
        return scores if average is None else average(scores)

    def __str__(self) -> str:
        """The loss as a formula of its terms' names."""
        formula = " + ".join(map(str, self.terms)).replace("+ -", "- ")
        return f"{formula}, over {self.submodels}"

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs that it uses: those that its terms take, and progress if a weight changes over training."""
        used = {name for term in self.terms for name in term.inputs}
        if any(term.end_weight is not None for term in self.terms):
            used.add("progress")
        return tuple(name for name in INPUTS if name in used)

    @property
    def needs_teacher(self) -> bool:
        """Whether a term learns from the logits or the features of a trained network."""
        return any(INPUTS[name].of_teacher for name in self.inputs)

    @property
    def needs_features(self) -> bool:
        """Whether a term compares features of layers inside the networks."""
        return any(INPUTS[name].of_layers for name in self.inputs)

    @property
    def needs_firing_rates(self) -> bool:
        """Whether a term takes the firing rates of the layers of neurons."""
        return "firing_rates" in self.inputs

    @property
    def needs_progress(self) -> bool:
        """Whether a weight or a term changes over training."""
        return "progress" in self.inputs

    @property
    def compares_submodels(self) -> bool:
        """Whether timesteps are teacher and student of a term whose weight is not 0.

        Such a term needs two timesteps. It has no gradient if they share their whole graph, as under a single rate segment.
        Heads have graphs of their own.
        """
        marked = any(
            getattr(term.function, "compares_submodels", False) for term in self.terms if term.weight or term.end_weight
        )
        return marked and self.submodels == "timesteps"

    def _needs(self, name: str) -> bool:
        """Whether it needs an input."""
        if name == "transforms":
            return self.transform is not None
        return bool(INPUTS[name].what) and name in self.inputs
