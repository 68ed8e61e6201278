"""Seeing inside a network while it runs."""

import pytest
import torch
from torch import nn

from spikedistill import LIF, temporal
from spikedistill.evaluation import record


def test_spikes_membranes_and_rates_of_a_neuron_worked_out_by_hand():
    model = temporal(nn.Sequential(LIF(decay=0.5)))
    x = torch.tensor([0.8, 0.8, 0.2]).view(3, 1, 1)
    with record(model) as recording:
        model(x)
    # u1 = 0.8; u2 = 0.4 + 0.8 = 1.2 fires and keeps 0.2; u3 = 0.1 + 0.2 = 0.3
    assert recording.membranes("0").flatten().tolist() == pytest.approx([0.8, 1.2, 0.3])
    assert recording.spikes["0"].flatten().tolist() == [0, 1, 0]
    assert recording.rates["0"].tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "options", [{}, {"v_reset": 0.0}, {"v_init": "half"}, {"decay": "learned", "threshold": "learned:0.7"}]
)
def test_a_neuron_fires_exactly_where_its_recorded_membrane_reaches_the_threshold(options):
    torch.manual_seed(0)
    model = temporal(nn.Sequential(nn.Linear(5, 7), LIF(**options), nn.Linear(7, 3)))
    with record(model) as recording:
        model(torch.randn(4, 6, 5), None)
    threshold = recording.thresholds["1"]
    assert threshold == pytest.approx(0.7 if "threshold" in options else 1.0)
    assert 0 < recording.spikes["1"].mean() < 1
    assert torch.equal(recording.spikes["1"] == 1, recording.membranes("1") >= threshold)


def test_a_shared_layer_is_recorded_each_time_it_is_called():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron = LIF()

        def forward(self, x):
            return self.neuron(self.neuron(x) + x)

    with record(model := temporal(Twice())) as recording:
        model(torch.rand(3, 2, 4) * 2)
    assert list(recording.spikes) == ["neuron", "neuron#1"]


def test_recording_keeps_the_last_pass_and_changes_nothing():
    torch.manual_seed(0)
    model, x = temporal(nn.Sequential(nn.Linear(4, 4), LIF())), torch.randn(5, 4)
    before = model(x, timesteps=3)
    with record(model) as recording:
        model(torch.randn(9, 4), timesteps=2)
        assert torch.equal(model(x, timesteps=3), before)
    assert recording.spikes["1"].shape == (3, 5, 4)
    model(x, timesteps=1)
    assert recording.spikes["1"].shape == (3, 5, 4), "nothing is recorded after the block"
    assert not model._forward_pre_hooks
