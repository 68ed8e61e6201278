"""Training objectives: losses over the logits [S, B, C] of submodels, their weighted sums, and a catalogue of published ones.

Pure functions that need only torch: the logits may come from a spiking network of any library.
"""

from spikedistill.objectives import baselines, catalogue, newer  # noqa: F401  (they fill the registry)

from .composition import Objective, ObjectiveValue, Term, mean_value
from .distillation import head_tail_kd, logit_kd, noisy_kd, prefix_kd, reliable, twkl, twsd, wsld
from .features import blurred_distance, feature_distance, feature_mse, similarity
from .inputs import Inputs
from .joint import exits_ce, exits_kd
from .registry import (
    OBJECTIVES,
    create_objective,
    describe_objective,
    list_objectives,
    objective_options,
    objective_weights,
    register_objective,
)
from .selective_alignment import aligned_kd, selective
from .sparsity import firing
from .strong_weak import strong2weak, timestep_scores, weak2strong
from .submodels import compares_submodels
from .surrogate_modules import mutual, weighted_heads_ce
from .task import entropy, heads_ce, label_mse, logit_mse, prefix_ce, sce, tet_of_some, twce
from .teacher_classifier import activation_map_kl, class_activation_map, classified_kd
from .timesteps import adjacent, all_pairs, right_sum
from .weight_decay import fading_decay

__all__ = [
    "OBJECTIVES",
    "Inputs",
    "Objective",
    "ObjectiveValue",
    "Term",
    "activation_map_kl",
    "adjacent",
    "aligned_kd",
    "all_pairs",
    "blurred_distance",
    "class_activation_map",
    "classified_kd",
    "compares_submodels",
    "create_objective",
    "describe_objective",
    "entropy",
    "exits_ce",
    "exits_kd",
    "fading_decay",
    "feature_distance",
    "feature_mse",
    "firing",
    "head_tail_kd",
    "heads_ce",
    "label_mse",
    "list_objectives",
    "logit_kd",
    "logit_mse",
    "mean_value",
    "mutual",
    "noisy_kd",
    "objective_options",
    "objective_weights",
    "prefix_ce",
    "prefix_kd",
    "register_objective",
    "reliable",
    "right_sum",
    "sce",
    "selective",
    "similarity",
    "strong2weak",
    "tet_of_some",
    "timestep_scores",
    "twce",
    "twkl",
    "twsd",
    "weak2strong",
    "weighted_heads_ce",
    "wsld",
]
