"""Membranes that begin at the running mean of where they end: by hand, and in a run that starts from an ANN."""

import pytest
import torch
from quick_runs import quick
from torch import nn

from spikedistill import UserError, create_model, temporal, train
from spikedistill.data import as_network_input
from spikedistill.evaluation import record, start_membranes
from spikedistill.neurons import LIF
from spikedistill.training.plan import make_plan


def test_the_running_mean_of_one_neuron_by_hand():
    """Decay 1, threshold 1, current 0.7 at T = 2: u = 0.7, 1.4, so it fires once and ends at 0.4, where the next batch begins."""
    neurons = nn.Sequential(nn.Flatten(), LIF(decay=1.0, v_init="learned", channels=1))
    network = temporal(neurons)
    batch = torch.full((3, 1), 0.7)
    assert start_membranes(network, [batch], 2) == {"1": pytest.approx(0.4)}
    assert neurons[1].v_init.tolist() == pytest.approx([0.4])
    # from 0.4: u = 1.1, then 0.1 + 0.7 = 0.8, ends at 0.8; (0.9 * 0.1 * 0.4 + 0.1 * 0.8) / 0.19. A call begins at M = 0
    neurons[1].v_init.data.zero_()
    assert start_membranes(network, [batch, batch], 2) == {"1": pytest.approx((0.036 + 0.08) / 0.19)}
    neurons[1].v_init.data.zero_()
    assert start_membranes(network, [batch, batch], 2, momentum=0.5) == {"1": pytest.approx((0.1 + 0.4) / 0.75)}


def test_neurons_that_did_not_fire_do_not_count_and_a_mean_below_zero_is_zero():
    neurons = nn.Sequential(nn.Flatten(), LIF(decay=1.0, v_init="learned", channels=2))
    network = temporal(neurons)
    assert start_membranes(network, [torch.tensor([[0.7, 0.1]])], 2) == {"1": pytest.approx(0.4)}, "0.2 is silent"
    neurons[1].v_init.data.zero_()
    ending_low = torch.tensor([[1.2, 0.1]]), torch.tensor([[-3.0, 0.1]])
    frames = torch.stack(ending_low)[:, :, :, None, None]
    deep = temporal(nn.Sequential(LIF(decay=1.0, v_init="learned", channels=2)))
    assert start_membranes(deep, [frames], 2) == {"0": 0.0}, "fired, and ended at -2.8"
    assert start_membranes(network, [torch.tensor([[0.7, 0.1]])], 2)["1"] > 0


def test_a_membrane_that_leaks_below_the_threshold_may_begin_above_it():
    """Decay 0.5 fires without input from 2 on; a current of 2.4 at T = 4 leaves membranes at more than 2."""
    neurons = nn.Sequential(nn.Flatten(), LIF(decay=0.5, v_init="learned", channels=2))
    (start,) = start_membranes(network := temporal(neurons), [torch.full((3, 2), 2.4)], 4).values()
    assert 1 < start <= 1.98
    assert network(torch.zeros(1, 2), timesteps=4).sum() == 0


@pytest.mark.parametrize("threshold", [1.0, "learned_per_channel"])
def test_no_membrane_begins_where_it_would_fire_without_input(threshold):
    """A current of 5 at T = 3 leaves membranes at 4, 8 and 12."""
    neurons = nn.Sequential(nn.Flatten(), LIF(decay=1.0, v_init="learned", threshold=threshold, channels=2))
    if threshold != 1.0:
        neurons[1].log_threshold.data = torch.tensor([1.0, 0.5]).log()
    lowest = 1.0 if threshold == 1.0 else 0.5
    network = temporal(neurons)
    assert start_membranes(network, [torch.full((3, 2), 5.0)], 3) == {"1": pytest.approx(0.99 * lowest)}
    assert network(torch.zeros(1, 2), timesteps=4).sum() == 0
    assert network(torch.full((1, 2), 0.02), timesteps=1).sum() >= 1, "and with a little it does"


def test_a_network_without_learned_membranes_and_a_silent_one_are_refused():
    network = create_model("convnet", num_classes=10, in_channels=1, image_size=8, width=0.25)
    with pytest.raises(UserError, match="initial membranes are learned"):
        start_membranes(network, [torch.rand(4, 1, 8, 8)], 4)
    silent = temporal(nn.Sequential(nn.Flatten(), LIF(v_init="learned", channels=2)))
    with pytest.raises(UserError, match="no neuron fired"):
        start_membranes(silent, [torch.zeros(4, 2)], 4)


def _learning(**changes):
    """A run whose initial membranes are learned."""
    config = quick("digits-twce", **changes)
    lif = config.model.lif.model_copy(update={"v_init": "learned"})
    return config.model_copy(update={"model": config.model.model_copy(update={"lif": lif})})


def test_a_run_starts_at_an_ann_with_membranes_at_their_mean(tmp_path, capsys):
    ann = train(quick("digits-ann", out=tmp_path / "ann", epochs=12))
    config = _learning(out=tmp_path / "snn", init_from=ann, init_membranes=True)
    plan = make_plan(config)
    network = plan.build_network()
    starts = [layer.v_init for layer in network.modules() if isinstance(layer, LIF)]
    assert starts
    assert all((start == start[0]).all() and 0 < start[0] < 1 for start in starts), starts
    plain = make_plan(_learning(init_from=ann)).build_network()
    images = as_network_input(plan.dataset.test.inputs(torch.arange(20)), "image")
    fired = []
    for each in (network, plain):
        with record(each.eval()) as recording, torch.no_grad():
            each(images, 4)
        fired.append(torch.stack(list(recording.rates.values()))[:, 0].mean())
    assert fired[0] > fired[1], "membranes that begin higher fire sooner"
    train(config)
    assert "membranes begin at 0." in capsys.readouterr().out


def test_weights_that_start_at_the_threshold_and_those_of_a_file_exclude_each_other(tmp_path):
    ann = train(quick("digits-ann", out=tmp_path / "ann", epochs=1))
    with pytest.raises(
        UserError, match=r"--model.norm tdbn only says where .* set --model.norm batch, or omit --init-from"
    ):
        make_plan(quick("digits-tdbn", out=tmp_path / "run", init_from=ann))


def test_what_it_needs_is_said(tmp_path):
    with pytest.raises(UserError, match="give its run or file as --init-from"):
        make_plan(_learning(out=tmp_path / "run", init_membranes=True))
