"""What is learned: losses over submodels' logits [S, B, C], their weighted sums, and the catalogue of published ones.

Pure functions that need torch alone: the logits may come from any spiking network, of whichever library.
"""

from spikedistill.objectives import catalogue  # noqa: F401  (fills the registry)

from .composition import Objective, ObjectiveValue, Term
from .distillation import logit_kd, prefix_kd, reliable, twkl, twsd
from .registry import (
    create_objective,
    describe_objective,
    list_objectives,
    objective_options,
    register_objective,
)
from .strong_weak import strong2weak, timestep_scores, weak2strong
from .submodels import compares_submodels
from .task import entropy, heads_ce, prefix_ce, sce, twce

__all__ = [
    "Objective",
    "ObjectiveValue",
    "Term",
    "compares_submodels",
    "create_objective",
    "describe_objective",
    "entropy",
    "heads_ce",
    "list_objectives",
    "logit_kd",
    "objective_options",
    "prefix_ce",
    "prefix_kd",
    "register_objective",
    "reliable",
    "sce",
    "strong2weak",
    "timestep_scores",
    "twce",
    "twkl",
    "twsd",
    "weak2strong",
]
