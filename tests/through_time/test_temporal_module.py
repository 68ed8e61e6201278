"""The module that users call: segments, inputs and messages; precision, memory formats and copies."""

import copy

import pytest
import torch
from naive import Naive
from temporal_runs import T, assert_same_gradients, build, f64, make_input, run
from torch import nn
from zoo import block, head

from spikedistill import LIF, mean_rate, temporal
from spikedistill.through_time.mapping import segment_lengths


@pytest.mark.parametrize(
    ("segments", "timesteps", "expected"),
    [
        (1, 4, (4,)),
        (2, 4, (2, 2)),
        (4, 4, (1, 1, 1, 1)),
        (2, 5, (3, 2)),
        (3, 8, (3, 3, 2)),
        ((1, 3), 4, (1, 3)),
        ([2, 1, 1], 4, (2, 1, 1)),
        (1, 1, (1,)),
    ],
)
def test_segments_are_a_count_or_lengths(segments, timesteps, expected):
    assert segment_lengths(segments, timesteps) == expected


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        (0, "segments=0: expected how many segments of time, 1 or more"),
        (-1, "segments=-1: expected how many segments of time"),
        (5, "segments=5 cannot divide 4 timesteps: expected 1 to 4"),
        ((1, 2), r"segments \(1, 2\) must be positive and sum to the 4 timesteps"),
        ((4, 0), r"segments=\(4, 0\): expected how many segments"),
        ((5, -1), r"segments=\(5, -1\): expected how many segments"),
        ((), r"segments=\(\): expected how many segments"),
    ],
)
def test_segments_that_do_not_make_up_the_timesteps_are_refused(segments, message):
    def run():
        return temporal(build("sequential"), gradient="rate", segments=segments)(
            make_input("sequential", "static"), timesteps=4
        )

    with pytest.raises(ValueError, match=message):
        run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient": "backprop"}, "gradient is 'backprop', expected one of bptt, sltt, rate"),
        ({"segments": 2}, "segments=2 only means something under gradient='rate'; this is gradient='bptt'"),
        ({"gradient": "sltt", "segments": (1, 3)}, "only means something under gradient='rate'"),
    ],
)
def test_rules_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        temporal(nn.Identity(), **options)


@pytest.mark.parametrize("timesteps", [0, -2])
def test_at_least_one_timestep_is_asked_for(timesteps):
    with pytest.raises(ValueError, match=f"timesteps is {timesteps}, expected 1 or more"):
        temporal(build("sequential"))(make_input("sequential", "static"), timesteps=timesteps)


@pytest.mark.parametrize("shape", [(0, 2, 3), (3,), ()])
def test_a_sequence_has_timesteps_and_samples(shape):
    with pytest.raises(
        ValueError, match=r"without timesteps; expected a sequence \[T, B, ...\] with T >= 1, or timesteps=T"
    ):
        temporal(nn.Identity())(torch.zeros(shape))


@pytest.mark.parametrize(
    ("shape", "timesteps", "fits"),
    [
        ((2, 2, 6, 6), 3, True),
        ((3, 2, 2, 6, 6), None, True),
        ((3, 2, 2, 6, 6), 3, False),  # both timesteps and a sequence
        ((2, 2, 6, 6), None, False),  # neither
        ((2, 3, 6, 6), 3, False),  # another number of channels
        ((3, 2, 3, 6, 6), None, False),
        ((2, 6), 3, False),
    ],
)
def test_sample_axes_say_what_came_and_what_was_expected(shape, timesteps, fits):
    model = temporal(nn.Identity(), sample_axes="2, H, W")
    if fits:
        model(torch.zeros(shape), timesteps=timesteps)
        return
    with pytest.raises(
        ValueError, match=r"got an input .* expected \[B, 2, H, W\] with timesteps=T, or \[T, B, 2, H, W\] without"
    ):
        model(torch.zeros(shape), timesteps=timesteps)


def test_outputs_of_any_nesting_come_back_as_tensors():
    class Many(nn.Module):
        def forward(self, x):
            return {"a": (x, [x.flatten(1)]), "mean": mean_rate(x), "constant": 3, "none": None}

    out = temporal(Many())(torch.randn(T, 2, 3, 4))
    assert out["a"][0].shape == (T, 2, 3, 4)
    assert out["a"][1][0].shape == (T, 2, 12)
    assert out["mean"].shape == (2, 3, 4)
    assert (out["constant"], out["none"]) == (3, None)


def test_mean_rate_of_a_tensor_is_the_tensor():
    x = torch.randn(2, 3)
    assert mean_rate(x) is x


@pytest.mark.parametrize("lengths", [(4,), (1, 3), (1, 1, 2)])
def test_mean_rate_weighs_segments_by_their_length(lengths):
    x = torch.randn(4, 2, 3, dtype=f64)

    class Mean(nn.Module):
        def forward(self, x):
            return mean_rate(x)

    torch.testing.assert_close(temporal(Mean(), gradient="rate", segments=lengths)(x), x.mean(0), rtol=0, atol=1e-15)


def test_copies_and_the_state_dict_hold_the_whole_network():
    model = temporal(build("everything_learned"), gradient="rate", segments=2)
    twin = copy.deepcopy(model)
    x = make_input("everything_learned", "static")
    assert torch.equal(model(x, timesteps=T), twin(x, timesteps=T))
    other = temporal(build("everything_learned"))
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(model.state_dict())
    model.eval(), other.eval()
    assert torch.equal(model(x, timesteps=T), other(x, timesteps=T))


@pytest.mark.parametrize(("gradient", "lengths"), [("bptt", None), ("rate", (2, 2))])
def test_channels_last_inputs_change_nothing(gradient, lengths):
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        network = build("residual_with_downsampling").to(memory_format=layout)
        x = make_input("sequential", "static").to(memory_format=layout)
        results.append(run(temporal(network, gradient=gradient, segments=lengths or 1), network, x, T))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-10)
    assert_same_gradients(results[0][1], results[1][1], 1e-8)


@pytest.mark.parametrize(("gradient", "lengths"), [("bptt", None), ("sltt", None), ("rate", (4,)), ("rate", (2, 2))])
@pytest.mark.parametrize("kind", ["static", "events"])
def test_autocast_follows_the_reference_under_autocast(gradient, lengths, kind):
    """bfloat16 convolutions, neurons in float32. One hidden layer: a deep network would amplify the roundings."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3), LIF(threshold=0.3), nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4), head(16)
    )
    timesteps = T if kind == "static" else None
    x = make_input("sequential", kind).float()
    reference = Naive(network.double(), gradient, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        expected = reference(x.bfloat16().double(), timesteps)
    expected.square().sum().backward()
    network.float()
    model = temporal(network, gradient=gradient, segments=lengths or 1)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x, timesteps=timesteps)
    assert logits.dtype == torch.bfloat16
    logits.float().square().sum().backward()
    assert (logits.double() - expected).norm() < 0.1 * expected.norm()
    for ours, theirs in zip(network.parameters(), reference.network.parameters(), strict=True):
        assert ours.grad is not None
        assert ours.grad.dtype == torch.float32
        if theirs.grad.norm() > 1e-6:
            assert torch.cosine_similarity(ours.grad.double().flatten(), theirs.grad.flatten(), dim=0) > 0.97


@pytest.mark.parametrize(("gradient", "lengths"), [("bptt", None), ("rate", (4,)), ("rate", (2, 2))])
def test_half_precision_networks_train(gradient, lengths):
    """Everything in bfloat16 but the membranes."""
    torch.manual_seed(0)
    network = nn.Sequential(block(2, 3), block(3, 4), head(144)).bfloat16()
    out = temporal(network, gradient=gradient, segments=lengths or 1)(
        make_input("sequential", "static").bfloat16(), timesteps=T
    )
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.bfloat16 for p in network.parameters())
    assert network[0][0].weight.grad.norm() > 0


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.AlphaDropout(0.5), nn.FeatureAlphaDropout(0.5)])
@pytest.mark.parametrize(("gradient", "segments"), [("bptt", 1), ("rate", 2)])
def test_a_sample_has_one_dropout_mask_for_all_timesteps(layer, gradient, segments):
    """On features [B, C] too: what is dropped is dropped at every timestep, and samples differ."""
    torch.manual_seed(0)
    out = temporal(layer, gradient=gradient, segments=segments)(torch.arange(1.0, 5.0).view(4, 1, 1).expand(4, 64, 32))
    moved = (out[1:] - out[:-1]).abs() > 1e-6  # an element that is kept follows the input, a dropped one stands still
    assert torch.equal(moved.all(0), moved.any(0))
    assert 0.4 < moved[0].float().mean() < 0.6
    assert not torch.equal(moved[0, 0], moved[0, 1])


@pytest.mark.parametrize("timesteps", [1, 2, 9])
def test_without_gradients_any_number_of_timesteps_runs_whatever_the_segments(timesteps):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), LIF(), nn.Linear(4, 2)).eval()
    x = torch.randn(5, 3)
    with torch.no_grad():
        expected = temporal(net)(x, timesteps=timesteps)
        assert torch.equal(temporal(net, gradient="rate", segments=(1, 3))(x, timesteps=timesteps), expected)
    with pytest.raises(ValueError, match="segments"):
        temporal(net, gradient="rate", segments=(1, 3))(x, timesteps=timesteps)
