"""The inputs of objectives in addition to logits and labels: each is declared once, as one field of `Inputs`.

`training/inputs.py` computes them in a run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict, get_type_hints

import torch
from torch import Tensor

from .checks import check_progress
from .submodels import Average


@dataclass(frozen=True, kw_only=True)
class Input:
    """The declaration of an input.

    Attributes:
        what: what an objective does that needs this input; empty if every objective works without it.
        wanted: what to pass.
        example: makes one that fits logits `[2, 1, 2]`, to try an objective on; None for an optional input.
        check: refuses a wrong value.
        of_teacher: whether it comes from a trained network.
        of_layers: whether it takes the features of layers inside the networks.
        is_number: whether it is a Python number that changes over training, so that a step cannot be recorded.
    """

    what: str = ""
    wanted: str = ""
    example: Callable[[], Any] = lambda: None
    check: Callable[[Any], object] = lambda value: value
    of_teacher: bool = False
    of_layers: bool = False
    is_number: bool = False


def _features() -> list[Tensor]:
    return [torch.zeros(1, 1, 1, 1, device="cpu")]


_LOGITS = Input(
    what="learns from a trained network",
    wanted="its logits on this batch, [B, C] or [S, B, C]",
    example=lambda: torch.zeros(1, 2, device="cpu"),
    of_teacher=True,
)
_RATES = Input(
    what="learns from features",
    wanted="the student's mean rates as a list of tensors [B, ...], one per layer",
    example=_features,
    of_layers=True,
)
_TAUGHT_FEATURES = Input(
    what="learns from the features of a trained network",
    wanted="what its layers return on this batch, tensors [B, ...] in the order of the student's features",
    example=_features,
    of_teacher=True,
    of_layers=True,
)
_TRANSFORMS = Input(
    what="learns from features that pass trained layers first",
    wanted="those layers, one per layer of the features, and train them along",
    example=lambda: [torch.nn.Identity()],
)
_CLASSIFIER = Input(
    what="learns from what the classifier of a trained network makes of features",
    wanted="a function from the features of its last layer, [B, c, ...], to logits [B, C]",
    example=lambda: lambda values: values.flatten(1).expand(-1, 2),
    of_teacher=True,
    of_layers=True,
)
_FIRING_RATES = Input(
    what="learns to fire less",
    wanted="the mean rate of each layer of neurons, a tensor [L]",
    example=lambda: torch.zeros(1, device="cpu"),
)
_WEIGHTS = Input(
    what="keeps the weights of the network small",
    wanted="its weights as a list of tensors, such as all parameters that are no biases",
    example=lambda: [torch.zeros(1, device="cpu")],
)
_PROGRESS = Input(
    what="changes its weights over training",
    wanted="the share of training that is done, 0 to 1",
    example=lambda: 0.0,
    check=check_progress,
    is_number=True,
)


class Inputs(TypedDict, total=False):
    """The keyword arguments of an objective; None is the same as not given."""

    teacher_logits: Annotated[Tensor | None, _LOGITS]
    """`[B, C]` or `[S, B, C]`; needed if `needs_teacher`."""
    scores: Annotated[Tensor | None, Input()]
    """Strengths `[S]` of the timesteps, used in place of the ranking that the loss would compute."""
    average: Annotated[Average | None, Input()]
    """If several processes share a batch, the mean of a tensor over them: rankings, counts and weights of samples are then those of
    the whole batch."""
    class_weights: Annotated[Tensor | None, Input()]
    """`[C]`: how much a sample of each class counts in the cross-entropies of the labels."""
    features: Annotated[Sequence[Tensor] | None, _RATES]
    """Mean rates `[B, ...]` of the student's layers; needed if `needs_features`."""
    teacher_features: Annotated[Sequence[Tensor] | None, _TAUGHT_FEATURES]
    """Features `[B, ...]` of the teacher's layers, in the same order."""
    transforms: Annotated[Sequence[Callable[[Tensor], Tensor]] | None, _TRANSFORMS]
    """Trained layers that are applied to the student's features, in the same order; needed if there is a `transform`."""
    classifier: Annotated[Callable[[Tensor], Tensor] | None, _CLASSIFIER]
    """The teacher's classifier, from the features of its last layer to logits."""
    firing_rates: Annotated[Tensor | None, _FIRING_RATES]
    """`[L]`: the share of the neurons of each layer that fire at a timestep, with its graph."""
    weights: Annotated[Sequence[Tensor] | None, _WEIGHTS]
    """The weights of the network, tensors of any shape: in a run all its parameters without "bias" in their name."""
    progress: Annotated[float | None, _PROGRESS]
    """The share of training that is done, 0 to 1; needed if `needs_progress`."""


INPUTS: dict[str, Input] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(Inputs, include_extras=True).items()
}
