"""Batches whose order depends only on the seed, the epoch and the position, so that a run can be resumed anywhere."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ..seeds import derive_seed
from .ahead import Ahead, workers_for
from .dataset import Samples, TensorSamples, lengths_of
from .sending import sent
from .torch_samples import TorchSamples, same_draws

# The share of a GPU's free memory that samples may take; the rest is for training.
SHARE = 0.25


class Batches:
    """An epoch of shuffled batches; each process gets its share of every batch.

    Every epoch has every sample once, in batches whose sizes differ by one at most. With several processes some samples are
    repeated if needed, so that each process has the same number.

    Samples on a device are selected there, and the order of an epoch is sent once. Other batches are sent one by one, without a
    synchronisation.

    Args:
        samples: the training samples.
        batch_size: samples per batch over all processes together.
        seed: the run's.
        position: called when an epoch begins; returns the epoch and the number of its batches that are done already.
        rank: this process's number.
        world_size: number of processes.
        device: the device that batches are sent to.
        workers: processes that read files ahead.
        draws: make the random draws of reading, such as resized crops.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        seed: int,
        position: Callable[[], tuple[int, int]],
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
        workers: int = 0,
        draws: bool = False,
    ) -> None:
        self.samples = samples
        self._ahead = Ahead(samples, workers, seed if draws else None)
        self.device = device or torch.device("cpu")
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
        order = sent(self._order(epoch), self.samples.targets.device)
        chunks = order.tensor_split(self.count)[done:]
        read = self._ahead.batches(chunks, epoch)
        for number, indices in enumerate(chunks, done):
            with _draws(self.samples, self.seed, epoch, number, self.rank):
                inputs, targets = next(read), self.samples.targets[indices]
            yield sent(inputs, self.device), sent(targets, self.device), sent(indices, self.device)

    def _order(self, epoch: int) -> Tensor:
        """This process's samples of the epoch, in order."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
        order = torch.randperm(len(self.samples), generator=generator)
        padded = order[torch.arange(self.share * self.world_size) % len(order)]
        return padded[self.rank :: self.world_size]


def kept_on(samples: Samples, device: torch.device) -> Samples:
    """The samples on a GPU if they are in memory and fit into a quarter of its free memory; else unchanged."""
    if device.type != "cuda" or not isinstance(samples, TensorSamples):
        return samples
    free, _ = torch.cuda.mem_get_info(device)
    return on_device(samples, device) if samples.data.nbytes <= SHARE * free else samples


def on_device(samples: TensorSamples, device: torch.device) -> TensorSamples:
    """The samples on a device, in the type they are stored in."""
    return TensorSamples(samples.data.to(device), samples.targets.to(device), samples.lengths)


def in_order(samples: Samples, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of all samples in their order, for evaluation."""
    chunks = torch.arange(len(samples)).split(batch_size)
    read = Ahead(samples, workers_for(samples)).batches(chunks)
    for number, indices in enumerate(chunks):
        with _draws(samples, number):
            inputs = next(read)
        yield inputs, samples.targets[indices]


def of_one_length(samples: Samples, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Places and inputs of all samples, for evaluation: in their order, or, if their lengths differ, the shortest first and without
    padding."""
    lengths = lengths_of(samples)
    if lengths is None:
        places = torch.arange(len(samples)).split(batch_size)
        yield from zip(places, (inputs for inputs, _ in in_order(samples, batch_size)), strict=True)
        return
    for frames in lengths.unique().tolist():
        same = (lengths == frames).nonzero().flatten()
        for places, (inputs, _) in zip(same.split(batch_size), in_order(samples.subset(same), batch_size), strict=True):
            yield places, inputs[:, :frames]


def _draws(samples: Samples, *key: int) -> AbstractContextManager[None]:
    """Seed the random draws of transforms in a user's data set by a key; other samples draw nothing."""
    return same_draws(derive_seed(*key)) if isinstance(samples, TorchSamples) else nullcontext()


def as_network_input(inputs: Tensor, kind: str) -> Tensor:
    """Stored samples as a network takes them: images uint8 `[B, C, H, W]` scaled to [0, 1], event frames `[T, B, C, H, W]`."""
    if kind == "events":
        return inputs.transpose(0, 1)
    return inputs.to(torch.get_default_dtype()) / 255 if inputs.dtype == torch.uint8 else inputs
