"""The order of training samples."""

import pytest
import torch
from waiting import DEVICE, NoWaiting

from spikedistill.data import Batches, TensorSamples, kept_on
from spikedistill.data.batches import SHARE, on_device


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


@pytest.mark.parametrize("resident", [True, False])
def test_batches_of_a_device_are_never_waited_for_and_the_order_is_sent_once_where_the_samples_lie_there(resident):
    host = TensorSamples(torch.zeros(10, 3, 4, 4, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64))
    samples = on_device(host, DEVICE) if resident else host
    with NoWaiting() as seen:
        for inputs, targets, indices in Batches(samples, 4, 0, lambda: (0, 0), device=DEVICE):
            assert inputs.device == targets.device == indices.device == DEVICE
            assert inputs.dtype == torch.uint8
    assert seen.copies == (1 if resident else 3 * 3)


def test_samples_are_kept_on_a_gpu_where_they_take_up_no_more_than_a_quarter_of_what_is_free(monkeypatch):
    samples = TensorSamples(torch.zeros(1000, dtype=torch.uint8), torch.zeros(1000, dtype=torch.int64))
    assert kept_on(samples, torch.device("cpu")) is samples
    monkeypatch.setattr("spikedistill.data.batches.on_device", lambda samples, device: device)
    gpu = torch.device("cuda", 0)
    for free, fits in ((4000, True), (3999, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**9))
        assert kept_on(samples, gpu) is (gpu if fits else samples)
    assert SHARE == 0.25
