"""Every method is one sentence: task loss over the submodels + Σ weight · divergence + regularisers.

A term is one named, weighted loss; an objective is a named sum of terms.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from torch import Tensor

from .submodels import Average

INPUTS = ("target", "teacher_logits", "scores", "average")


@dataclass(frozen=True)
class Term:
    """One named, weighted loss: `weight * function(logits, ..., **options)`.

    The function takes logits [S, B, C] and returns a scalar. Of `target`, `teacher_logits`, `scores` and `average` it is
    given those that its signature names. Raises ValueError for an option that the function does not have.
    """

    name: str
    weight: float
    function: Callable[..., Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        parameters = inspect.signature(self.function).parameters
        object.__setattr__(self, "inputs", tuple(name for name in INPUTS if name in parameters))
        allowed = [name for name in list(parameters)[1:] if name not in INPUTS]
        if unknown := [name for name in self.options if name not in allowed]:
            raise ValueError(
                f"term {self.name!r} has no option {', '.join(unknown)}: it takes {', '.join(allowed) or 'none'}"
            )
        if not isinstance(self.weight, int | float) or not math.isfinite(self.weight):
            raise ValueError(f"the weight of term {self.name!r} must be a finite number; got {self.weight!r}")


class ObjectiveValue(NamedTuple):
    """The loss to minimise, and the unweighted, detached value of each term by its name, for logging."""

    total: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class Objective:
    """A named sum of terms: called with logits and labels it returns the total and every term's value.

    `submodels` says whose logits it is meant for: the timesteps', or those of heads (auxiliary ones first, the network's own,
    the mean over time, last). Raises ValueError for no terms, or two of one name.
    """

    name: str
    terms: Sequence[Term]
    submodels: Literal["timesteps", "heads"] = "timesteps"

    def __post_init__(self) -> None:
        names = [term.name for term in self.terms]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"objective {self.name!r} needs one or more terms with different names; got {names}")

    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        teacher_logits: Tensor | None = None,
        scores: Tensor | None = None,
        average: Average | None = None,
    ) -> ObjectiveValue:
        """Σ weight · value over the terms, for logits [S, B, C] and target int64 [B].

        teacher_logits [B, C] or [S, B, C] are needed where `needs_teacher`; scores [S] replace the ranking of timesteps.
        Where several processes share a batch, `average` returns the mean of a tensor over them: rankings and counts of
        samples are then those of the whole batch. Raises ValueError for missing or wrong inputs.
        """
        if self.needs_teacher and teacher_logits is None:
            raise ValueError(
                f"objective {self.name!r} learns from a trained network; got no teacher_logits: "
                "pass its logits on this batch, [B, C] or [S, B, C]"
            )
        given = {"target": target, "teacher_logits": teacher_logits, "scores": scores, "average": average}
        values = {
            term.name: term.function(logits, **{name: given[name] for name in term.inputs}, **term.options)
            for term in self.terms
        }
        total = sum((term.weight * values[term.name] for term in self.terms), logits.new_zeros(()))
        return ObjectiveValue(total, {name: value.detach() for name, value in values.items()})

    def __str__(self) -> str:
        """The loss as a formula of its terms' names."""
        formula = " + ".join(f"{term.weight:g} {term.name}" for term in self.terms).replace("+ -", "- ")
        return f"{formula}, over {self.submodels}"

    @property
    def needs_teacher(self) -> bool:
        """Whether a term learns from the logits of a trained network."""
        return any("teacher_logits" in term.inputs for term in self.terms)

    @property
    def compares_submodels(self) -> bool:
        """Whether a term's teacher and students are timesteps, which share all of their graph under a single rate segment.

        Such a term carries no signal there. Heads have graphs of their own.
        """
        marked = any(getattr(term.function, "compares_submodels", False) for term in self.terms)
        return marked and self.submodels == "timesteps"
