"""Spikes in one bit each."""

import pytest
import torch

from spikedistill.neurons import PackedSpikes


@pytest.mark.parametrize("timesteps", [1, 7, 8, 9, 20])
@pytest.mark.parametrize("chunk", [1, 3, 8, 20])
def test_what_is_written_in_chunks_is_read_in_others(timesteps, chunk):
    spikes = (torch.rand(timesteps, 3, 5, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    packed = PackedSpikes.silent(timesteps, spikes[0])
    for start in range(0, timesteps, chunk):
        packed.write(start, spikes[start : start + chunk])
    assert torch.equal(packed.read(0, timesteps, torch.float32), spikes)
    for start in range(timesteps):
        assert torch.equal(packed.read(start, timesteps, torch.float64), spikes[start:].double())


def test_eight_timesteps_take_a_byte():
    packed = PackedSpikes.silent(8, torch.zeros(2))
    # neuron 0 fires at timesteps 0 and 3: 1 + 8; neuron 1 at timestep 7: 128
    packed.write(0, torch.tensor([[1, 0], [0, 0], [0, 0], [1, 0], [0, 0], [0, 0], [0, 0], [0, 1]]))
    assert packed.bits.tolist() == [[9, 128]]
    assert PackedSpikes.silent(16, torch.zeros(4, 5)).bits.numel() == 2 * 20
