"""Seeing inside a network while it runs."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from spikedistill import LIF, temporal
from spikedistill.evaluation import record
from spikedistill.through_time import Recurrent


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


@pytest.mark.parametrize("gradients", [True, False])
def test_a_layer_that_runs_timestep_by_timestep_is_recorded_over_time(gradients):
    torch.manual_seed(0)
    model, x = temporal(nn.Sequential(nn.Linear(5, 4), Recurrent(LIF(), nn.Linear(4, 4)), LIF())), 3 * torch.randn(6, 5)
    with torch.set_grad_enabled(gradients), record(model) as recording:
        model(x, timesteps=4)
    assert {path: tuple(spikes.shape) for path, spikes in recording.spikes.items()} == {
        "1.layer": (4, 6, 4),
        "2": (4, 6, 4),
    }
    assert 0 < recording.spikes["1.layer"].mean() < 1
    assert torch.equal(recording.spikes["1.layer"] == 1, recording.membranes("1.layer") >= 1)


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


def test_recording_changes_nothing_and_ends_with_its_block():
    torch.manual_seed(0)
    model, x = temporal(nn.Sequential(nn.Linear(4, 4), LIF())), torch.randn(5, 4)
    before = model(x, timesteps=3)
    with record(model) as recording:
        assert torch.equal(model(x, timesteps=3), before)
    assert recording.spikes["1"].shape == (3, 5, 4)
    model(x, timesteps=1)
    assert recording.spikes["1"].shape == (3, 5, 4), "nothing is recorded after the block"
    assert not model._forward_pre_hooks
    assert not model._forward_hooks


def small_network():
    return temporal(nn.Sequential(nn.Linear(4, 4), LIF(), nn.Linear(4, 2))).eval()


CALLS = {
    "the same again": lambda model, x: model(x, timesteps=3),
    "another T": lambda model, x: model(x, timesteps=2),
    "another batch size": lambda model, x: model(x[:2], timesteps=3),
    "a sequence": lambda model, x: model(x.expand(3, 5, 4)),
}
OTHERS = {
    "a step": lambda model, x: model.step(x),
    "another network with its layers": lambda model, x: temporal(model.module)(x, timesteps=3),
}


@pytest.mark.parametrize("kind", [*CALLS, *OTHERS])
def test_what_else_runs_the_layers_beside_a_recorded_call_is_refused_and_the_call_is_kept(kind):
    model, x = small_network(), torch.rand(5, 4)
    with torch.no_grad(), record(model) as recording:
        model(x, timesteps=3)
        kept = dict(recording.spikes)
        with pytest.raises(ValueError, match="called a second time" if kind in CALLS else "record that call"):
            (CALLS | OTHERS)[kind](model, x)
        assert recording.spikes.keys() == kept.keys()
        assert all(recording.spikes[path] is kept[path] for path in kept)
        recording.clear()
        model(x[:2], timesteps=1)
        assert recording.spikes["1"].shape == (1, 2, 4), "of the call after it was cleared"


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_call_of_the_network_is_refused_also_where_nothing_is_recorded(kind):
    """Its membranes would begin anew at every step, and its layers have other names."""
    model = small_network()
    with record(model) as recording, pytest.raises(ValueError, match=r"layer '1' ran inside record\(\.\.\.\)"):
        OTHERS[kind](model, torch.rand(5, 4))
    assert not recording.spikes


def test_a_call_that_fails_leaves_room_for_one_that_does_not():
    class Picky(nn.Module):
        def forward(self, x):
            if x.shape[0] > 2:
                raise RuntimeError("too many")
            return x

    model = temporal(nn.Sequential(nn.Linear(4, 4), LIF(), Picky()))
    with record(model) as recording:
        with pytest.raises(RuntimeError, match="too many"):
            model(torch.rand(3, 4), timesteps=3)
        model(torch.rand(2, 4), timesteps=2)
    assert list(recording.spikes) == ["1"]
    assert recording.spikes["1"].shape == (2, 2, 4)


def test_what_a_checkpoint_computes_again_backward_is_recorded_once():
    class Again(nn.Module):
        def __init__(self, block):
            super().__init__()
            self.block = block

        def forward(self, x):
            return checkpoint(self.block, x, use_reentrant=False)

    ran = []
    model = temporal(Again(nn.Sequential(nn.Linear(4, 4), LIF(), nn.Linear(4, 4))))
    model.module.block[1].register_forward_hook(lambda *_: ran.append(torch._C._current_graph_task_id() != -1))
    with record(model) as recording:
        model(2 * torch.rand(2, 4), timesteps=3).sum().backward()
    assert ran == [False, True], "forward, and again backward"
    assert list(recording.spikes) == ["block.1"]
