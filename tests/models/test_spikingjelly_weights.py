"""State dicts with SpikingJelly's names, read into our networks and compared with a plain forward pass over those names."""

import pytest
import torch
import torch.nn.functional as F
from plain_lif import plain_lif

from spikedistill import create_model
from spikedistill.models import load_spikingjelly

T, B, CLASSES = 3, 4, 5
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
CHANNELS = (4, 8, 16, 32)  # 64, 128, 256 and 512 at width 1/16
IF = {"decay": 1.0, "v_reset": 0.0, "threshold": 0.5}


def small(name, **options):
    torch.manual_seed(1)
    return create_model(name, num_classes=CLASSES, width=1 / 16, **options).double().eval()


def state_dict(depth, seed=0):
    """What `state_dict()` of SpikingJelly's ResNet of that depth returns, a sixteenth as wide, with random entries."""
    generator = torch.Generator().manual_seed(seed)
    entries = {}

    def draw(name, *shape, low=-1.0, high=1.0):
        entries[name] = torch.rand(shape, generator=generator, dtype=torch.float64) * (high - low) + low

    def norm(name, channels):
        draw(f"{name}.weight", channels, low=0.5, high=1.5)
        draw(f"{name}.bias", channels, low=-0.2, high=0.8)
        draw(f"{name}.running_mean", channels)
        draw(f"{name}.running_var", channels, low=0.5, high=2.0)
        entries[f"{name}.num_batches_tracked"] = torch.tensor(7)

    draw("conv1.weight", 4, 3, 7, 7, low=-0.2, high=0.2)
    norm("bn1", 4)
    inputs = 4
    for stage, (blocks, outputs) in enumerate(zip(DEPTHS[depth], CHANNELS, strict=True), 1):
        for index in range(blocks):
            block = f"layer{stage}.{index}"
            draw(f"{block}.conv1.weight", outputs, inputs, 3, 3)
            norm(f"{block}.bn1", outputs)
            draw(f"{block}.conv2.weight", outputs, outputs, 3, 3)
            norm(f"{block}.bn2", outputs)
            if inputs != outputs:
                draw(f"{block}.downsample.0.weight", outputs, inputs, 1, 1)
                norm(f"{block}.downsample.1", outputs)
            inputs = outputs
    draw("fc.weight", CLASSES, 32)
    draw("fc.bias", CLASSES)
    return entries


def plain_forward(entries, x, depth, *, sew, fire):
    """Logits [T, B, C] of inputs [T, B, ...], the network written out over SpikingJelly's names."""

    def over_time(function, value, *args, **kwargs):
        return torch.stack([function(step, *args, **kwargs) for step in value])

    def norm(name, value):
        statistics = [entries[f"{name}.{what}"] for what in ("running_mean", "running_var", "weight", "bias")]
        return over_time(F.batch_norm, value, *statistics)

    def conv(name, value, **geometry):
        return over_time(F.conv2d, value, entries[f"{name}.weight"], **geometry)

    x = fire(norm("bn1", conv("conv1", x, stride=2, padding=3)))
    x = over_time(F.max_pool2d, x, 3, 2, 1)
    for stage, blocks in enumerate(DEPTHS[depth], 1):
        for index in range(blocks):
            block, stride = f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1
            skip = x
            x = fire(norm(f"{block}.bn1", conv(f"{block}.conv1", x, stride=stride, padding=1)))
            x = norm(f"{block}.bn2", conv(f"{block}.conv2", x, padding=1))
            if f"{block}.downsample.0.weight" in entries:
                skip = norm(f"{block}.downsample.1", conv(f"{block}.downsample.0", skip, stride=stride))
                skip = fire(skip) if sew else skip
            x = fire(x) + skip if sew else fire(x + skip)
    return over_time(F.linear, x.mean((-2, -1)), entries["fc.weight"], entries["fc.bias"])


@pytest.mark.parametrize("neuron", ["lif", "relu"])
@pytest.mark.parametrize("kind", ["sew", "spiking"])
@pytest.mark.parametrize("depth", [18, 34])
def test_loaded_networks_compute_what_the_weights_compute_under_their_own_names(depth, kind, neuron):
    entries = state_dict(depth)
    model = small(f"{kind}_resnet{depth}", neuron=neuron, **(IF if neuron == "lif" else {}))
    x = torch.randn(T, B, 3, 32, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    fire = torch.relu if neuron == "relu" else lambda current: plain_lif(current, **IF)
    expected = plain_forward(entries, x, depth, sew=kind == "sew", fire=fire)
    assert not torch.allclose(model(x), expected)
    load_spikingjelly(model, entries)
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)


def test_images_are_still_normalised_by_a_network_that_does_so():
    model, plain = (small("sew_resnet18", **options, **IF) for options in ({"mean": [0.5] * 3, "std": [0.25] * 3}, {}))
    for network in (model, plain):
        load_spikingjelly(network, state_dict(18))
    x = torch.rand(B, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(model(x, timesteps=T), plain((x - 0.5) / 0.25, timesteps=T))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("fc.bias"), r"1 missing \(fc.bias\)$"),
        (
            lambda d: [d.pop(k) for k in list(d) if "layer4" in k],
            # 5 convolutions, each with the 5 entries of its batch-norm
            r"30 missing \(layer4.0.conv1.weight, layer4.0.bn1.weight, layer4.0.bn1.bias and 27 more\)$",
        ),
        (lambda d: d.update({"sn1.w": torch.tensor(0.0)}), r"1 unknown to this network \(sn1.w\)$"),
        (
            lambda d: d.update({"fc.weight": torch.zeros(1000, 32)}),
            r"1 of another shape \(fc.weight \[1000, 32\] for \[5, 32\]\)$",
        ),
        (
            lambda d: d.update({"model.conv1.weight": d.pop("conv1.weight")}),
            r"1 missing \(conv1.weight\); 1 unknown to this network \(model.conv1.weight\)$",
        ),
    ],
)
def test_what_does_not_match_is_refused_by_name_and_nothing_is_copied(change, message):
    entries = state_dict(18)
    change(entries)
    model = small("sew_resnet18")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="the state dict is not one of this network: " + message):
        load_spikingjelly(model, entries)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_numbers_that_are_not_finite_are_refused_by_name_and_nothing_is_copied():
    entries, model = state_dict(18), small("sew_resnet18")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    entries["layer1.0.bn1.running_var"][2] = torch.inf
    with pytest.raises(
        ValueError, match=r"the state dict holds 1 of \d+ numbers in layer1.0.bn1.running_var that are NaN"
    ):
        load_spikingjelly(model, entries)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg11", {}, "fit into sew_resnet18"),
        ("convnet", {}, "fit into sew_resnet18"),
        ("ms_resnet18", {}, "fit into sew_resnet18"),
        ("resnet34", {}, "fit into sew_resnet18"),
        ("sew_resnet34", {}, r"96 missing \(layer1.2.conv1.weight, "),
        ("resnet18", {}, r"1 of another shape \(conv1.weight \[4, 3, 7, 7\] for \[4, 3, 3, 3\]\)"),
        ("sew_resnet18", {"decay": "learned"}, r"20 missing \(stem.1.decay_logit, "),
        ("sew_resnet18", {"in_channels": 2}, r"1 of another shape \(conv1.weight \[4, 3, 7, 7\] for \[4, 2, 7, 7\]\)"),
        (
            "sew_resnet18",
            {"norm": "timestep_batch", "norm_timesteps": 4},
            r"40 of another shape \(bn1.running_mean \[4\] for \[4, 4\]",
        ),
    ],
)
def test_networks_of_another_layout_are_refused_by_name(name, options, message):
    with pytest.raises(ValueError, match=message):
        load_spikingjelly(small(name, **options), state_dict(18))
