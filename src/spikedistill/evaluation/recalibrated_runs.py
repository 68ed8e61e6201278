"""A run with batch-norm statistics computed anew: its scores, and its network as a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config import Config
from ..data import Dataset, as_network_input, balanced_order, lengths_of, training_indices
from ..errors import UserError
from ..models import save_model
from ..objectives.submodels import prefix_means, right_submodels
from ..through_time import Temporal
from ..trained import Trained
from .collecting import collect_logits
from .recalibration import recalibrated, spec_of

_BATCH = 250


class Recalibration(NamedTuple):
    """A network with the samples that its statistics are computed from.

    Attributes:
        network: as it was trained.
        config: of its run.
        dataset: of its run.
        samples: how many of the samples that it was trained on, classes balanced.
        k: recalibrate for these timesteps together; None for every timestep by itself.
    """

    network: Trained
    config: Config
    dataset: Dataset
    samples: int
    k: int | None = None

    @property
    def indices(self) -> Tensor:
        """Of the samples, in the training set."""
        targets, options = self.dataset.train.targets, self.config.data
        kept, _ = training_indices(targets, options.holdout, options.train_samples)
        return kept[balanced_order(targets[kept])[: self.samples]]

    def batches(self) -> Iterator[Tensor]:
        """The samples as a network takes them, in batches of about one size, without augmentation."""
        device, chosen = next(self.network.parameters()).device, self.indices
        for part in chosen.tensor_split(-(-len(chosen) // _BATCH)):
            yield as_network_input(self.dataset.train.inputs(part), self.dataset.kind).to(device)

    def made(self) -> Temporal:
        """The network with other statistics."""
        return recalibrated(self.network, self.batches(), self.config.timesteps, k=self.k)

    def right(self, model: Temporal) -> Tensor:
        """Whether each test sample is right after 1, ..., T timesteps, `[T, N]`."""
        logits = collect_logits(model, self.dataset.test, self.dataset.kind, self.config.timesteps, _BATCH)
        return right_submodels(prefix_means(logits.double()), self.dataset.test.targets)

    def each_k(self) -> Tensor:
        """As `right`, each k with statistics for that k alone."""
        every_k = range(1, self.config.timesteps + 1)
        return torch.stack([self.right(self._replace(k=k).made())[k - 1] for k in every_k])

    def scores(self) -> dict[str, Any]:
        """Accuracy at every k with statistics for that k alone, and with those of the mixture for every timestep.

        Returns:
            `{samples, each_k: [...], mixture: [...]}`, fractions of test samples that are right.
        """
        each, mixture = shares(self.each_k()), shares(self.right(self.made()))
        return {"samples": len(self.indices), "each_k": each, "mixture": mixture}

    def write(self, out: Path) -> dict[str, dict[int, float]]:
        """Write the network with other statistics into a model file.

        Returns:
            Fractions of test samples that are right, as trained and recalibrated, for each k that the network serves.

        Raises:
            UserError: for k or samples out of range, recordings of different length, or a network that a model file cannot describe
                so.
        """
        T, k, file = self.config.timesteps, self.k, self.network.file
        check_samples(self.samples, self.dataset)
        if k is not None and not 1 <= k <= T:
            raise UserError(f"timesteps is {k}, expected 1 to {T}, with which the run was trained")
        if file is None or (k is None and T == 1):
            raise UserError("the run has one timestep: there is nothing to recalibrate")
        spec = file.network if k is not None else spec_of(self.network, T)
        made = self.made()
        served = T if k is None else k
        about: dict[str, Any] = {
            "classes": file.classes,
            "input": file.input,
            "imports": file.imports,
            "exit": file.exit,
        }
        save_model(made, spec, out, timesteps=served, **about)
        both = {"trained": self.network, "recalibrated": made}
        found = {name: shares(self.right(model)) for name, model in both.items()}
        return {
            name: {step: values[step - 1] for step in (range(1, T + 1) if k is None else (k,))}
            for name, values in found.items()
        }


def check_samples(samples: int, dataset: Dataset) -> None:
    """Refuse samples that no statistics can be computed from.

    Raises:
        UserError: for fewer than two, or recordings of different length.
    """
    if samples < 2:
        raise UserError(f"samples is {samples}, expected 2 or more: one sample has no variance")
    if lengths_of(dataset.train) is not None:
        raise UserError(f"recordings of {dataset.name} differ in length, and statistics would count their padding")


def shares(right: Tensor) -> list[float]:
    """Fractions of samples that are right, from `[T, N]`."""
    return [float(share) for share in right.double().mean(1)]
