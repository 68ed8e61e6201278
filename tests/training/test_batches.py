"""The order of training samples."""

import torch

from spikedistill.data import Batches, TensorSamples


def batches(n: int, size: int, *, seed: int = 0, epoch: int = 0, done: int = 0, rank: int = 0, world: int = 1) -> list:
    samples = TensorSamples(torch.arange(n), torch.arange(n))
    return [inputs.tolist() for inputs, *_ in Batches(samples, size, seed, lambda: (epoch, done), rank, world)]


def test_an_epoch_shows_every_sample_once_in_even_batches():
    epoch = batches(10, 4)
    assert sorted(sum(epoch, [])) == list(range(10))
    assert [len(batch) for batch in epoch] == [4, 3, 3], "10 samples in ceil(10 / 4) batches"


def test_order_depends_on_seed_and_epoch_alone():
    assert batches(50, 8) == batches(50, 8)
    assert batches(50, 8, epoch=1) != batches(50, 8)
    assert batches(50, 8, seed=1) != batches(50, 8)


def test_a_resumed_epoch_goes_on_where_it_stopped():
    assert batches(50, 8, done=3) == batches(50, 8)[3:]


def test_processes_share_each_batch_of_a_single_process():
    alone, first, second = batches(48, 8), batches(48, 8, rank=0, world=2), batches(48, 8, rank=1, world=2)
    assert [sorted(a + b) for a, b in zip(first, second, strict=True)] == [sorted(batch) for batch in alone]


def test_processes_have_equally_many_samples_by_repeating_some():
    first, second = batches(7, 4, rank=0, world=2), batches(7, 4, rank=1, world=2)
    assert [len(batch) for batch in first] == [len(batch) for batch in second]
    assert set(sum(first + second, [])) == set(range(7))


def test_a_batch_says_which_samples_it_holds():
    samples = TensorSamples(torch.arange(10) * 7, torch.arange(10) % 3)
    for inputs, targets, indices in Batches(samples, 4, 0, lambda: (0, 0)):
        assert torch.equal(inputs, samples.inputs(indices))
        assert torch.equal(targets, samples.targets[indices])
