"""The layouts behind the names: channels, resolutions, neurons, parameters, and what each convolution takes in."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from spikedistill import LIF, create_model, list_models
from spikedistill.through_time.features import outputs_of

T, B, CLASSES = 4, 4, 10


@dataclass
class Layout:
    """What a network is, written down by hand.

    Attributes:
        convolutions: (channels, side) of every convolution's output in order of execution, for images of 32x32.
        inputs: what each of them takes in: "real", "spikes" (0 and 1), "counts" (sums of spikes) or "means" (of four spikes).
        neurons: layers of neurons.
    """

    convolutions: list[tuple[int, int]]
    inputs: list[str]
    neurons: int


# A block executes its two 3x3 convolutions and then, where it changes the shape, the 1x1 of its shortcut.
SAME, CHANGING = ["spikes"] * 2, ["spikes"] * 3
# Spike counts reach the first convolution of a block and its shortcut; a neuron stands before the second.
SEW_SAME, SEW_CHANGING = ["counts", "spikes"], ["counts", "spikes", "counts"]
# The shortcut carries currents.
PRE_SAME, PRE_CHANGING = ["spikes"] * 2, ["spikes"] * 2 + ["real"]

# Stages of 2, 2, 2, 2 and 3, 4, 6, 3 blocks behind a stem that leaves 8x8 of 32x32 pixels.
IMAGENET_18 = [(64, 16)] + [(64, 8)] * 4 + [(128, 4)] * 5 + [(256, 2)] * 5 + [(512, 1)] * 5
IMAGENET_34 = [(64, 16)] + [(64, 8)] * 6 + [(128, 4)] * 9 + [(256, 2)] * 13 + [(512, 1)] * 7
# The same stages behind a stem that keeps the resolution.
SMALL_18 = [(64, 32)] * 5 + [(128, 16)] * 5 + [(256, 8)] * 5 + [(512, 4)] * 5
SMALL_34 = [(64, 32)] * 7 + [(128, 16)] * 9 + [(256, 8)] * 13 + [(512, 4)] * 7

LAYOUTS = {
    # the stem's neurons, and two a block
    "resnet18": Layout(SMALL_18, ["real"] + ["spikes"] * 19, 1 + 8 * 2),
    "cifar_resnet34": Layout(SMALL_34, ["real"] + ["spikes"] * 35, 1 + 16 * 2),
    # the stem's, two for each of 3 + 3 + 2 blocks, and the hidden layer's
    "resnet19": Layout(
        [(128, 32)] * 7 + [(256, 16)] * 7 + [(512, 8)] * 5, ["real"] + ["spikes"] * 18, 1 + (3 + 3 + 2) * 2 + 1
    ),
    # two a block
    "resnet34": Layout(
        IMAGENET_34,
        ["real", *PRE_SAME * 3, *PRE_CHANGING, *PRE_SAME * 3, *PRE_CHANGING, *PRE_SAME * 5, *PRE_CHANGING, *PRE_SAME * 2],
        16 * 2,
    ),
    # two a block and the final one
    "ms_resnet18": Layout(
        SMALL_18, ["real", *PRE_SAME * 2, *(PRE_CHANGING + PRE_SAME) * 3], 8 * 2 + 1
    ),
    # the stem's, two a block, and those of the three shortcuts with a convolution
    "sew_resnet18": Layout(
        IMAGENET_18, ["real", *SAME, *SEW_SAME, *(SEW_CHANGING + SEW_SAME) * 3], 1 + 8 * 2 + 3
    ),
    "sew_resnet34": Layout(
        IMAGENET_34,
        ["real", *SAME, *SEW_SAME * 2, *SEW_CHANGING, *SEW_SAME * 3, *SEW_CHANGING, *SEW_SAME * 5, *SEW_CHANGING, *SEW_SAME * 2],
        1 + 16 * 2 + 3,
    ),
    "spiking_resnet18": Layout(IMAGENET_18, ["real"] + ["spikes"] * 19, 1 + 8 * 2),
    "spiking_resnet34": Layout(IMAGENET_34, ["real"] + ["spikes"] * 35, 1 + 16 * 2),
    "vgg9": Layout(
        [(64, 32), (128, 32), (256, 16), (256, 16), (512, 8), (512, 8), (512, 4), (512, 4)],
        ["real", "spikes", "means", "spikes", "means", "spikes", "means", "spikes"],
        8,
    ),
    "vgg11": Layout(
        [(64, 32), (128, 16), (256, 16), (512, 8), (512, 8), (512, 4), (512, 2), (512, 2)],
        ["real", "means", "spikes", "means", "spikes", "means", "means", "spikes"],
        8,
    ),
    # eight, and those of the two hidden layers
    "vgg11_fc": Layout(
        [(64, 32), (128, 16), (256, 16), (512, 8), (512, 8), (512, 8), (512, 4), (512, 4)],
        ["real", "means", "spikes", "means", "spikes", "spikes", "means", "spikes"],
        8 + 2,
    ),
    "vgg13": Layout(
        [(64, 32)] * 2 + [(128, 16)] * 2 + [(256, 8)] * 2 + [(512, 4)] * 2 + [(512, 2)] * 2,
        ["real", "spikes"] + ["means", "spikes"] * 4,
        10,
    ),
}  # fmt: skip
LAYOUTS["vggsnn"] = LAYOUTS["vgg9"]


def kind(values):
    """The narrowest of the kinds of input that all the values belong to."""
    if ((values == 0) | (values == 1)).all():
        return "spikes"
    if (values < 0).any():
        return "real"
    if (values == values.round()).all():
        return "counts"
    return "means" if (4 * values == (4 * values).round()).all() and values.max() <= 1 else "real"


def small(name, **options):
    torch.manual_seed(0)
    return create_model(name, **({"num_classes": CLASSES, "width": 1 / 16, "threshold": 0.5} | options))


def images(side=32):
    return torch.randn(B, 3, side, side, generator=torch.Generator().manual_seed(0))


def watch(model, layer):
    """Lists to be filled by the next forward pass: inputs [T, B, ...] and outputs [T, B, ...] of all layers of one kind."""
    inputs, outputs = [], []

    def keep(module, args, out):
        inputs.append(args[0].over_time())
        outputs.append(out.over_time())

    for module in model.modules():
        if isinstance(module, layer):
            module.register_forward_hook(keep)
    return inputs, outputs


def count(name, **options):
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name, **options).parameters())


# written down in test_transformers.py
TRANSFORMERS = {
    "max_former", "qkformer", "qkformer_10_384", "qkformer_10_768", "sdt", "sdt_8_512", "spikformer", "spikformer_8_512",
}  # fmt: skip


def test_every_network_has_its_layout_written_down():
    assert {*LAYOUTS, "convnet"} | TRANSFORMERS == set(list_models())


@pytest.mark.parametrize("name", LAYOUTS)
def test_channels_resolutions_and_neurons_are_those_of_the_layout(name):
    model = small(name)
    _, outputs = watch(model, nn.Conv2d)
    model(images(), timesteps=1)
    assert [(16 * out.shape[2], out.shape[3]) for out in outputs] == LAYOUTS[name].convolutions
    assert sum(isinstance(module, LIF) for module in model.modules()) == LAYOUTS[name].neurons


@pytest.mark.parametrize("name", LAYOUTS)
def test_convolutions_take_spikes_where_the_layout_says_so_and_nowhere_else(name):
    model = small(name)
    inputs, _ = watch(model, nn.Conv2d)
    with torch.no_grad():
        model(images(), timesteps=T)
    assert [kind(values) for values in inputs] == LAYOUTS[name].inputs


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_layer_is_silent_and_none_always_fires(name):
    model = small(name)
    _, spikes = watch(model, LIF)
    with torch.no_grad():
        model(images(), timesteps=T)
    assert all(0 < layer.mean() < 1 for layer in spikes)


def test_the_head_reads_mean_spikes_currents_or_spikes_as_the_layout_says():
    def head_inputs(name):
        model = small(name)
        inputs, _ = watch(model, nn.Linear)
        with torch.no_grad():
            model(images(), timesteps=T)
        return inputs

    # spikes of all positions into the first hidden layer, spikes of the hidden layers into the others
    every, *hidden = head_inputs("vgg11_fc")
    assert every.shape[2:] == (32 * 4 * 4,)
    assert [kind(values) for values in (every, *hidden)] == ["spikes"] * 3
    # global pooling of spikes: shares of 4x4 positions
    (shares,) = head_inputs("ms_resnet18")
    assert (shares * 16 == (shares * 16).round()).all()
    assert 0 <= shares.min() < shares.max() <= 1
    # no neuron before the pooling: currents
    (currents,) = head_inputs("resnet34")
    assert currents.min() < 0
    # shares of spikes into the hidden layer, its spikes into the last
    shares, spikes = head_inputs("resnet19")
    assert kind(spikes) == "spikes"
    assert kind(shares) != "spikes"
    assert (shares * 64 == (shares * 64).round()).all()


def conv_norm(inputs, outputs, kernel=3, bias=False):
    """Parameters of a convolution and its batch-norm."""
    return kernel**2 * inputs * outputs + bias * outputs + 2 * outputs


def stage(inputs, outputs, depth, bias=False):
    """Parameters of `depth` blocks of two 3x3 convolutions, with a 1x1 in the first shortcut where the channels change."""
    first = conv_norm(inputs, outputs, 3, bias) + conv_norm(outputs, outputs, 3, bias)
    projection = conv_norm(inputs, outputs, 1, bias) if inputs != outputs else 0
    return first + projection + (depth - 1) * 2 * conv_norm(outputs, outputs, 3, bias)


def stages(depths, bias=False):
    return sum(stage(i, o, d, bias) for i, o, d in zip((64, 64, 128, 256), (64, 128, 256, 512), depths, strict=True))


# 11,689,512 and 21,797,672 are also what the literature counts for ResNet-18 and ResNet-34 with 1000 classes;
# 11,220,132, 12,721,124 and 21,344,484 are what the released code of TWKD and ESD has with 100.
@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        # stem 9*3*128 + 256 = 3712; stages of 128, 256, 512 channels; head 512*256 + 256, 256*10 + 10
        (
            "resnet19", 10,
            conv_norm(3, 128) + stage(128, 128, 3) + stage(128, 256, 3) + stage(256, 512, 2) + 131_328 + 2_570,
        ),
        # stem 49*3*64 + 64 + 128; biases everywhere; head 512*1000 + 1000
        ("resnet34", 1000, conv_norm(3, 64, 7, True) + stages((3, 4, 6, 3), True) + 513_000),
        # one bias per channel of the 36 convolutions more than ResNet-34 without: 64 + 6*64 + 9*128 + 13*256 + 7*512 = 8512
        ("resnet34", 1000, 21_797_672 + 8_512),
        ("resnet34", 100, 21_344_484),
        ("resnet18", 100, 11_220_132),
        ("resnet19", 100, 12_721_124),
        # stem 9*3*64 + 128; head 512*100 + 100
        ("cifar_resnet34", 100, conv_norm(3, 64) + stages((3, 4, 6, 3)) + 51_300),
        # a stem of 3x3 in place of 7x7, and 900 classes fewer
        ("cifar_resnet34", 100, 21_797_672 - (49 - 9) * 3 * 64 - 513 * 900),
        ("cifar_resnet34", 100, 21_328_292),
        # stem 9*3*64 + 128; head 512*10 + 10
        ("ms_resnet18", 10, conv_norm(3, 64) + stages((2, 2, 2, 2)) + 5_130),
        # the same tensors as in a post-activation ResNet-18
        ("ms_resnet18", 10, 11_173_962),
        ("sew_resnet18", 1000, conv_norm(3, 64, 7) + stages((2, 2, 2, 2)) + 513_000),
        ("sew_resnet18", 1000, 11_689_512),
        ("spiking_resnet18", 1000, 11_689_512),
        ("sew_resnet34", 1000, 21_797_672),
        ("spiking_resnet34", 1000, 21_797_672),
        # a convolution with bias and its batch-norm: 9*i*o + 3*o; the linear layer over 2*2 positions: 4*512*10 + 10
        (
            "vgg9", 10,
            9 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 3 * 512 * 512)
            + 3 * (64 + 128 + 2 * 256 + 4 * 512)
            + 20_490,
        ),
        # 64, 128, 256, 512 x 5; the linear layer over the mean: 512*10 + 10
        (
            "vgg11", 10,
            9 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 4 * 512 * 512) + 3 * (64 + 128 + 256 + 5 * 512) + 5_130,
        ),
        # 64, 128, 256, 512 x 5; 512 channels of 4x4 and twice 4096 neurons before the last linear layer
        (
            "vgg11_fc", 100,
            9 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 4 * 512 * 512) + 3 * (64 + 128 + 256 + 5 * 512)
            + 8192 * 4096 + 4096 + 4096 * 4096 + 4096 + 409_700,
        ),
        ("vgg11_fc", 100, 61_745_764),
        # twice each of 64, 128, 256, 512, 512
        (
            "vgg13", 10,
            9 * (3 * 64 + 64**2 + 64 * 128 + 128**2 + 128 * 256 + 256**2 + 256 * 512 + 3 * 512**2)
            + 6 * (64 + 128 + 256 + 512 + 512)
            + 5_130,
        ),
    ],
)  # fmt: skip
def test_parameters_are_counted_by_hand(name, classes, expected):
    assert count(name, num_classes=classes) == expected


def test_vggsnn_on_event_frames_of_48x48_reads_4608_features():
    model = create_model("vggsnn", num_classes=10, in_channels=2, image_size=48)
    assert model.module.head.in_features == 4608  # 512 channels of 3x3
    model = small("vggsnn", in_channels=2, image_size=48)
    assert model(torch.rand(T, 2, 2, 48, 48)).shape == (T, 2, CLASSES)


def test_convolutions_have_a_bias_where_the_layout_says_so():
    with_bias = {
        name
        for name in list_models()
        if any(isinstance(m, nn.Conv2d) and m.bias is not None for m in small(name).modules())
    }
    assert with_bias == {"resnet34", "vgg9", "vgg11", "vgg11_fc", "vgg13", "vggsnn"} | TRANSFORMERS


def test_the_shortcuts_of_the_pre_activation_network_have_a_bias():
    shortcuts = [block.shortcut for stage in small("resnet34").module.stages for block in stage]
    convolutions = [shortcut[0] for shortcut in shortcuts if isinstance(shortcut, nn.Sequential)]
    assert [convolution.bias is not None for convolution in convolutions] == [True] * 3


def test_the_teacher_of_twkd_is_an_ordinary_resnet34_behind_a_stem_that_keeps_the_resolution():
    network = create_model("cifar_resnet34", num_classes=100, neuron="relu").module
    assert [len(stage) for stage in network.stages] == [3, 4, 6, 3]
    stem = network.stem[0][0]
    assert (stem.kernel_size, stem.stride, stem.padding) == ((3, 3), (1, 1), (1, 1))
    assert not any(isinstance(module, LIF | nn.MaxPool2d) for module in network.modules())
    assert not any(module.bias is not None for module in network.modules() if isinstance(module, nn.Conv2d))
    # activations come after the additions: what a block returns is never negative
    with torch.no_grad(), outputs_of(network, ["stages.0.1"]) as outputs:
        assert network(torch.randn(2, 3, 32, 32)).shape == (2, 100)
    assert outputs["stages.0.1"].min() == 0


def test_kaiming_networks_draw_their_convolutions_from_the_fan_out():
    torch.manual_seed(0)
    network = create_model("sew_resnet18", num_classes=10).module
    # 256 channels to 512; the deviation of so many draws is within 1 percent of sqrt(2 / (9 * 512))
    assert network.stages[3][0].body[0][0].weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)
    teacher = create_model("cifar_resnet34", num_classes=10, neuron="relu").module
    assert teacher.stages[3][0].body[0][0].weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)


@pytest.mark.parametrize(
    ("name", "smallest"), [("vgg9", 16), ("vggsnn", 16), ("vgg11", 16), ("vgg11_fc", 8), ("vgg13", 32)]
)
def test_images_that_pooling_leaves_nothing_of_are_refused_with_the_smallest_size(name, smallest):
    message = f"images of {smallest - 1}x{smallest - 1} .* too small for the poolings .* expected {smallest}x{smallest} or larger"
    with pytest.raises(ValueError, match=message):
        small(name, image_size=smallest - 1)
    model = small(name, image_size=smallest)
    assert model(images(smallest), timesteps=2).shape == (2, B, CLASSES)


def test_images_smaller_than_announced_are_refused_with_the_smallest_size():
    model = small("vgg11", image_size=32)
    assert model(images(48), timesteps=1).shape == (1, B, CLASSES)
    with pytest.raises(ValueError, match=r"images of 15x15 .* expected 16x16 or larger"):
        model(images(15), timesteps=1)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if "vgg" not in name])
def test_residual_networks_take_images_of_any_size(name):
    model = small(name)
    for side in (1, 7, 40):
        assert model(images(side), timesteps=2).shape == (2, B, CLASSES)


@pytest.mark.parametrize("name", list_models())
def test_what_the_last_stage_returns_is_classified_as_the_whole_network_does(name):
    model = create_model(name, num_classes=CLASSES, in_channels=3, image_size=32, width=0.125, neuron="relu").eval()
    layout, images = model.module, torch.rand(2, 3, 32, 32)
    last = [*layout.stage_channels][-1]
    with torch.no_grad(), outputs_of(layout, [last]) as outputs:
        logits = layout(images)
        torch.testing.assert_close(layout.classify(outputs[last]), logits, rtol=0, atol=0)
    assert outputs[last].ndim == 4


@pytest.mark.parametrize("name", list_models())
def test_networks_take_images_that_are_not_square(name):
    """Two shapes, one higher and one wider than the other, neither a multiple of the strides."""
    for size in ((35, 49), (50, 33)):
        x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
        model = small(name, image_size=size).eval()
        with torch.no_grad():
            logits, state = model(x, timesteps=2), None
            assert logits.shape == (2, 2, CLASSES)
            for t in range(2):  # one timestep at a time it is the same network
                step, state = model.step(x, state)
                torch.testing.assert_close(step, logits[t], atol=1e-4, rtol=1e-4)
        twin = create_model(name, num_classes=CLASSES, width=1 / 16, neuron="relu", image_size=size)
        assert twin(x, timesteps=1).shape == (1, 2, CLASSES)


@pytest.mark.parametrize("gradient", ["bptt", "sltt", "rate", "dsr"])
@pytest.mark.parametrize("name", ["convnet", "vgg9", "resnet18"])
def test_every_gradient_rule_trains_on_images_that_are_not_square(name, gradient):
    model = small(name, image_size=[16, 24], in_channels=2, gradient=gradient)
    frames = torch.rand(3, 2, 2, 16, 24, generator=torch.Generator().manual_seed(1)) * 4
    model(frames).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_heads_and_a_joint_ann_fit_images_that_are_not_square():
    x = torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    for name in ("convnet", "vgg9", "resnet18"):
        branched = small(name, image_size=(40, 56), branches=True)
        assert branched.heads(x, 2)[1].shape[1:] == (2, CLASSES)
        joint = small(name, image_size=(40, 56), joint=True)
        assert joint.heads(x, 2)[1].shape[1:] == (2, CLASSES)


def test_a_network_that_flattens_refuses_the_transposed_image_and_names_its_own_size():
    model = small("convnet", image_size=(16, 24))
    with pytest.raises(ValueError, match=r"expected \[B, 3, 16, 24\]"):
        model(torch.rand(2, 3, 24, 16), timesteps=1)
    for wrong in ((16, 24, 3), (16,), (0, 4), (16.0, 24), "ab"):
        with pytest.raises(ValueError, match="expected a whole number, at least 1 and at most 4096, or two"):
            create_model("convnet", num_classes=2, image_size=wrong)
