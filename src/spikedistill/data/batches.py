"""Batches whose order is a function of the seed, the epoch and the position alone, so that a run can stop anywhere and go on."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..seeds import derive_seed
from .dataset import Samples


class Batches:
    """An epoch of shuffled batches, each process its share of every one.

    An epoch shows every sample once, in batches as even as they can be: none is left over. With several processes the last samples
    are repeated where needed, so that each process has equally many.

    Args:
        samples: the training samples.
        batch_size: samples per batch over all processes together.
        seed: the run's.
        position: called when an epoch begins; returns the epoch and how many of its batches are done already.
        rank: this process's number.
        world_size: number of processes.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        seed: int,
        position: Callable[[], tuple[int, int]],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.samples = samples
        self.seed = seed
        self.position = position
        self.rank = rank
        self.world_size = world_size
        self.share = -(-len(samples) // world_size)
        self.count = -(-self.share * world_size // batch_size)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Inputs, targets, and the samples' places in the training set."""
        epoch, done = self.position()
        for indices in self._order(epoch).tensor_split(self.count)[done:]:
            yield self.samples.inputs(indices), self.samples.targets[indices], indices

    def _order(self, epoch: int) -> Tensor:
        """This process's samples of the epoch, in order."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
        order = torch.randperm(len(self.samples), generator=generator)
        padded = order[torch.arange(self.share * self.world_size) % len(order)]
        return padded[self.rank :: self.world_size]


def in_order(samples: Samples, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of all samples in their own order, for evaluation."""
    for indices in torch.arange(len(samples)).split(batch_size):
        yield samples.inputs(indices), samples.targets[indices]


def as_network_input(inputs: Tensor, kind: str) -> Tensor:
    """Stored samples as a network takes them: images uint8 `[B, C, H, W]` scaled to [0, 1], event frames `[T, B, C, H, W]`."""
    if kind == "events":
        return inputs.transpose(0, 1)
    return inputs.to(torch.get_default_dtype()) / 255 if inputs.dtype == torch.uint8 else inputs
