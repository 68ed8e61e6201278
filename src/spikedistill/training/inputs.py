"""The inputs of an objective on a batch: one provider for each input that `objectives/inputs.py` declares."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from ..objectives import Objective
from ..objectives.submodels import Average
from .teacher import Teacher


@dataclass(frozen=True, kw_only=True)
class AtHand:
    """The values from which the inputs of an objective are computed, after the student has run on a batch.

    Attributes:
        objective: what is learned.
        teacher: the trained network, if there is one.
        kind: the kind of the data, "image" or "events".
        inputs: the batch, augmented.
        target: labels `[B]`.
        submodels: the logits `[S, B, C]` that the objective takes.
        features: mean rates `[B, ...]` of the student's layers.
        transforms: the trained layers that transform these features.
        cached: the teacher's logits on the batch, `[B, C]`, if they were computed at the start of the run.
        average: the mean of a tensor over the processes that share the batch, if there are several.
        progress: the share of training that is done.
        class_weights: how much a sample of each class counts, `[C]`; None if all count the same.
        firing_rates: of the layers of neurons, `[L]`, if the objective takes them.
        lengths: the timesteps of each sample, `[B]`, if they differ.
        network: the student.
    """

    objective: Objective
    teacher: Teacher | None
    kind: str
    inputs: Tensor
    target: Tensor
    submodels: Tensor
    features: Sequence[Tensor]
    transforms: Sequence[nn.Module] = ()
    cached: Tensor | None = None
    average: Average | None = None
    progress: float = 0.0
    class_weights: Tensor | None = None
    firing_rates: Tensor | None = None
    lengths: Tensor | None = None
    network: nn.Module | None = None

    @cached_property
    def taught(self) -> tuple[Tensor | None, Sequence[Tensor]]:
        """The teacher's logits `[B, C]` on the batch, and the features `[B, ...]` of its layers, from one pass."""
        if self.cached is not None or self.teacher is None:
            return self.cached, ()
        return self.teacher.look(self.inputs, self.kind, self.lengths)

    def with_target(self, target: Tensor) -> "AtHand":
        """The same with other labels, without another pass of the teacher."""
        other = replace(self, target=target)
        if "taught" in self.__dict__:
            other.__dict__["taught"] = self.taught
        return other

    def of_each_length(self) -> list[tuple[float, "AtHand"]]:
        """The samples of each length without the padding after them, and their share of the batch."""
        if self.lengths is None:
            return [(1.0, self)]
        logits, features = self.taught
        parts = []
        for length in self.lengths.unique().tolist():
            rows = (self.lengths == length).nonzero().flatten()
            part = replace(
                self,
                inputs=self.inputs[:length, rows],
                target=self.target[rows],
                submodels=self.submodels[:length, rows],
                features=[feature[rows] for feature in self.features],
                lengths=None,
            )
            taught = None if logits is None else logits[rows], [feature[rows] for feature in features]
            part.__dict__["taught"] = taught
            parts.append((len(rows) / len(self.lengths), part))
        return parts


PROVIDERS: dict[str, Callable[[AtHand], Any]] = {
    "teacher_logits": lambda at: at.taught[0],
    "scores": lambda at: at.objective.ranking(at.submodels, at.target, at.average),
    "average": lambda at: at.average,
    "class_weights": lambda at: at.class_weights,
    "features": lambda at: at.features,
    "teacher_features": lambda at: at.taught[1],
    "transforms": lambda at: list(at.transforms) or None,
    "classifier": lambda at: at.teacher and at.teacher.classifier,
    "firing_rates": lambda at: at.firing_rates,
    "weights": lambda at: at.network and weights_of(at.network),
    "progress": lambda at: at.progress,
}


def weights_of(network: nn.Module) -> list[Tensor]:
    """The parameters without "bias" in their name, those of batch-norm and of neurons among them."""
    return [parameter for name, parameter in network.named_parameters() if "bias" not in name]


def inputs_of(at: AtHand) -> dict[str, Any]:
    """The inputs that the objective uses, by name; others are not computed."""
    return {name: PROVIDERS[name](at) for name in at.objective.inputs}
