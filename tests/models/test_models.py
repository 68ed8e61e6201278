"""Every network of the registry, and the messages of `create_model`."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from spikedistill import LIF, create_model, list_models
from spikedistill.models import Normalize, load_model, save_model
from spikedistill.models.attention import SelfAttention, SpikeDrivenAttention, TokenAttention

ATTENTIONS = SelfAttention, SpikeDrivenAttention, TokenAttention
B, CLASSES = 2, 5
RULES = [("bptt", 1), ("sltt", 1), ("rate", 1), ("rate", "T")]


def side(name):
    """A small image that every pooling of the layout leaves something of."""
    return 32 if name.startswith("vgg") or name.endswith("_8_512") else 8


def small(name, **options):
    torch.manual_seed(0)
    defaults = {"num_classes": CLASSES, "in_channels": 2, "image_size": side(name), "width": 0.1}
    return create_model(name, **(defaults | options))


def images(*leading, name="convnet"):
    size = side(name)
    return torch.randn(*leading, 2, size, size, generator=torch.Generator().manual_seed(0))


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_models_are_listed_in_order():
    assert list_models() == sorted(list_models())
    assert {"convnet", "resnet18"} <= set(list_models())


@pytest.mark.parametrize("kind", ["static", "events"])
@pytest.mark.parametrize("T", [1, 4])
@pytest.mark.parametrize(("gradient", "segments"), RULES)
@pytest.mark.parametrize("name", list_models())
def test_runs_and_every_parameter_learns(name, gradient, segments, T, kind):
    model = small(name, gradient=gradient, segments=T if segments == "T" else segments, threshold=0.4)
    logits = model(images(B, name=name), timesteps=T) if kind == "static" else model(images(T, B, name=name))
    assert logits.shape == (T, B, CLASSES)
    assert logits.isfinite().all()
    logits.square().sum().backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
    assert next(model.parameters()).grad.norm() > 0


@pytest.mark.parametrize("name", list_models())
def test_the_state_dict_round_trips(name):
    model, other = small(name, decay="learned"), small(name, decay="learned")
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) / 4)
    other.load_state_dict(model.state_dict())
    x = images(B, name=name)
    assert torch.equal(model.eval()(x, timesteps=3), other.eval()(x, timesteps=3))


@pytest.mark.parametrize("name", list_models())
def test_streams(name):
    model = small(name, threshold=0.4).double().eval()
    x, state, steps = images(B, name=name).double(), None, []
    with torch.no_grad():
        for _ in range(4):
            logits, state = model.step(x, state)
            steps.append(logits)
        torch.testing.assert_close(torch.stack(steps), model(x, timesteps=4), rtol=0, atol=1e-10)
    assert len(state) == sum(isinstance(module, LIF) for module in model.modules())


def test_resnet18_has_the_parameters_of_its_layout():
    stem = 64 * 3 * 9 + 2 * 64
    # a block: two 3x3 convolutions without bias and two batch-norms; where the shape changes, a 1x1 convolution and its batch-norm
    stage1 = 2 * (2 * 64 * 64 * 9 + 2 * 2 * 64)
    stage2 = (64 * 128 * 9 + 128 * 128 * 9 + 4 * 128 + 64 * 128 + 2 * 128) + (2 * 128 * 128 * 9 + 4 * 128)
    stage3 = (128 * 256 * 9 + 256 * 256 * 9 + 4 * 256 + 128 * 256 + 2 * 256) + (2 * 256 * 256 * 9 + 4 * 256)
    stage4 = (256 * 512 * 9 + 512 * 512 * 9 + 4 * 512 + 256 * 512 + 2 * 512) + (2 * 512 * 512 * 9 + 4 * 512)
    head = 512 * 10 + 10
    assert stem + stage1 + stage2 + stage3 + stage4 + head == 11_173_962
    model = create_model("resnet18", num_classes=10)
    assert count(model) == 11_173_962
    # the stem's, and two a block
    assert sum(isinstance(module, LIF) for module in model.modules()) == 1 + 8 * 2
    assert not any(isinstance(module, nn.MaxPool2d) for module in model.modules())


def sides_of_convolutions(model):
    """Height of every convolution's output for an 8x8 image, in the order of their calls."""
    sides = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, args, out: sides.append(out.shape[-1]))
    model(images(B), timesteps=1)
    return sides


def test_resnet18_halves_the_resolution_three_times():
    # the stem and 4 convolutions at 8x8, then 5 at each of 4x4, 2x2 and 1x1
    assert sides_of_convolutions(small("resnet18", neuron="relu")) == [8] * 5 + [4] * 5 + [2] * 5 + [1] * 5


def test_convnet_halves_the_resolution_twice():
    assert sides_of_convolutions(small("convnet", neuron="relu")) == [8, 4, 2]


def test_convnet_has_the_parameters_of_its_layout():
    # 28 -> 28 -> 14 -> 7
    blocks = (1 * 16 * 9 + 2 * 16) + (16 * 32 * 9 + 2 * 32) + (32 * 64 * 9 + 2 * 64)
    assert count(create_model("convnet", num_classes=10, in_channels=1, image_size=28)) == blocks + 64 * 7 * 7 * 10 + 10


@pytest.mark.parametrize("image_size", [8, 9, 10, 11, 28])
def test_convnet_fits_every_image_size(image_size):
    model = create_model("convnet", num_classes=3, in_channels=1, image_size=image_size, width=0.1)
    assert model(torch.randn(2, 1, image_size, image_size), timesteps=2).shape == (2, 2, 3)


def test_width_scales_every_hidden_layer_and_leaves_one_channel_at_least():
    blocks = (1 * 8 * 9 + 2 * 8) + (8 * 16 * 9 + 2 * 16) + (16 * 32 * 9 + 2 * 32)
    half = create_model("convnet", num_classes=10, in_channels=1, image_size=28, width=0.5)
    assert count(half) == blocks + 32 * 7 * 7 * 10 + 10
    for name in list_models():
        assert small(name, width=1e-6)(images(B, name=name), timesteps=2).shape == (2, B, CLASSES)


@pytest.mark.parametrize("name", list_models())
def test_the_relu_twin_has_the_same_layout_and_nothing_that_spikes(name):
    snn, ann = small(name), small(name, neuron="relu")
    assert count(snn) == count(ann)
    assert [tuple(p.shape) for p in snn.parameters()] == [tuple(p.shape) for p in ann.parameters()]
    assert not any(isinstance(module, LIF) for module in ann.modules())
    logits = ann.eval()(images(B, name=name), timesteps=3)
    # every timestep of an ANN is the same
    torch.testing.assert_close(logits, ann.module(images(B, name=name)).expand(3, B, CLASSES))


@pytest.mark.parametrize("name", list_models())
def test_the_relu_twin_of_a_static_image_learns_under_every_rule(name):
    gradients = []
    for gradient in ("bptt", "sltt", "rate", "dsr"):
        model = small(name, neuron="relu", gradient=gradient).double()
        model(images(B, name=name).double(), timesteps=3).square().mean(0).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", list_models())
def test_lif_options_reach_every_neuron(name):
    options = {"decay": 0.2, "threshold": 0.7, "v_reset": 0.0, "detach_reset": True, "surrogate": "arctan"}
    model = small(name, **options)
    neurons = [module for module in model.modules() if isinstance(module, LIF)]
    # those of an attention have half of the network's threshold
    halved = {module.neuron for module in model.modules() if isinstance(module, ATTENTIONS)}
    assert neurons
    for neuron in neurons:
        assert vars(neuron).items() >= (options | ({"threshold": 0.35} if neuron in halved else {})).items()
    learned = [m for m in small(name, v_init="learned", decay="learned").modules() if isinstance(m, LIF)]
    assert all(isinstance(m.v_init, nn.Parameter) and isinstance(m.decay_logit, nn.Parameter) for m in learned)
    assert {len(m.v_init) for m in learned} != {1}


def test_normalisation_is_part_of_the_network():
    mean, std = (0.2, 0.4), (0.5, 0.25)
    plain, normalising = small("convnet"), small("convnet", mean=mean, std=std)
    # the statistics are saved with the weights
    assert isinstance(normalising.module[0], Normalize)
    with pytest.raises(ValueError, match=r"got images of torch\.uint8, expected .* in \[0, 1\]: divide bytes by 255"):
        normalising(torch.zeros(1, 2, 8, 8, dtype=torch.uint8), timesteps=2)
    assert count(plain) == count(normalising)
    assert {k for k in normalising.state_dict() if "normalize" in k} == {
        "module.normalize.mean",
        "module.normalize.std",
    }
    x = images(B)
    shifted = torch.stack([(x[:, 0] - 0.2) / 0.5, (x[:, 1] - 0.4) / 0.25], 1)
    torch.testing.assert_close(normalising(x, timesteps=3), plain(shifted, timesteps=3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "convent"},
            "no model is called 'convent': did you mean 'convnet'\\?",
        ),
        ({"name": "xyz"}, "no model is called 'xyz': choose one of cifar_resnet34, convnet, "),
        ({"width": 0.0}, "width is 0.0, expected a positive factor"),
        ({"width": -1.0}, "width is -1.0, expected a positive factor"),
        ({"width": math.nan}, "width is nan, expected a positive factor"),
        ({"width": math.inf}, "width is inf, expected a positive factor such as 0.25 or 1.0, at most 64"),
        ({"width": 1e9}, "width is 1000000000.0, expected a positive factor"),
        ({"num_classes": 0}, "num_classes is 0, expected a whole number, at least 1 and at most 1000000"),
        (
            {"num_classes": 10**12},
            "num_classes is 1000000000000, expected a whole number, at least 1 and at most 1000000",
        ),
        ({"in_channels": 0}, "in_channels is 0, expected a whole number"),
        ({"in_channels": 2.5}, "in_channels is 2.5, expected a whole number"),
        ({"image_size": 0}, "image_size is 0, expected a whole number"),
        ({"image_size": 10**9}, "image_size is 1000000000, expected a whole number, at least 1 and at most 4096"),
        (
            {"norm": "timestep_batch", "norm_timesteps": 10**9},
            "norm_timesteps is 1000000000, expected the number of timesteps",
        ),
        ({"threshold": math.inf}, "threshold is inf, expected a positive number"),
        ({"v_init": math.nan}, "v_init is nan, expected a number"),
        ({"v_reset": math.inf}, "v_reset is inf, expected a number"),
        ({"decay": math.nan}, "decay is nan, expected 0"),
        ({"mean": (math.nan, 0.5, 0.5), "std": (1, 1, 1)}, "each must be finite, and each std above 0"),
        ({"mean": (0.5, 0.5, 0.5), "std": (1, 0, 1)}, "each must be finite, and each std above 0"),
        ({"neuron": "izhikevich"}, "no neuron is called 'izhikevich': choose one of lif, relu"),
        ({"neuron": "relu", "decay": 0.5}, "neuron='relu' takes no options of LIF, such as decay"),
        ({"tau": 2.0}, "neither create_model nor LIF takes tau; LIF takes decay, threshold, v_reset"),
        ({"decay": 3.0}, "decay is 3.0, expected 0"),
        ({"surrogate": "box"}, "no surrogate is called 'box'"),
        ({"gradient": "rtrl"}, "gradient is 'rtrl', expected one of bptt, sltt, rate, dsr"),
        ({"segments": 2}, "segments=2 only means something under gradient='rate'"),
        (
            {"gradient": "rate", "segments": 0},
            "segments=0: expected how many segments of time, 1 or more, or the length of each",
        ),
        ({"gradient": "rate", "segments": math.nan}, "segments=nan: expected how many segments"),
        ({"gradient": "rate", "segments": (2, 0)}, "segments=\\(2, 0\\): expected how many segments"),
        ({"gradient": "rate", "chunk": math.nan}, "chunk=nan with gradient='rate': expected the timesteps"),
        ({"gradient": "rate", "chunk": 0}, "chunk=0 with gradient='rate': expected the timesteps"),
        ({"recompute": False}, "recompute=False only means something under gradient='rate'"),
        ({"mean": (0.5, 0.5, 0.5)}, "give both, a number for each of the 3 channels, or neither"),
        ({"mean": (0.5,), "std": (0.5,)}, "give both, a number for each of the 3 channels, or neither"),
    ],
)
def test_what_cannot_be_built_is_refused_with_what_was_expected(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model(**({"name": "convnet", "num_classes": 10} | arguments))


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize(
    ("leading", "channels", "timesteps", "message"),
    [
        ((B,), 2, 0, "timesteps is 0, expected 1 or more"),
        ((3, B), 2, 3, r"got an input \[3, 2, 2, .*\] with timesteps=3; expected \[B, 2, "),
        ((B,), 2, None, r"got an input \[2, 2, .*\] with timesteps=None; expected \[B, 2, "),
        ((B,), 3, 3, r"got an input \[2, 3, .*\] .*; expected \[B, 2, .*\] with timesteps=T, or \[T, B, 2, "),
        ((3, B), 1, None, r"expected .* or \[T, B, 2, .*\] without timesteps"),
        ((0, B), 2, None, "with T >= 1"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_what_was_expected(name, leading, channels, timesteps, message):
    with pytest.raises(ValueError, match=message):
        small(name)(torch.zeros(*leading, channels, side(name), side(name)), timesteps=timesteps)


def test_images_of_another_size_are_refused_where_the_head_is_flat():
    with pytest.raises(ValueError, match=r"got an input \[2, 2, 12, 12\] .*; expected \[B, 2, 8, 8\] with timesteps=T"):
        small("convnet")(torch.zeros(2, 2, 12, 12), timesteps=2)
    assert small("resnet18")(torch.zeros(2, 2, 12, 12), timesteps=2).shape == (2, 2, CLASSES)


@pytest.mark.parametrize("name", list_models())
def test_a_saved_model_is_the_same_network(name, tmp_path):
    spec = {
        "name": name,
        "num_classes": 3,
        "in_channels": 2,
        "image_size": side(name),
        "width": 0.1,
        "gradient": "rate",
    }
    spec |= {"mean": [0.1, 0.2], "std": [1.0, 2.0], "decay": "learned"}
    model = create_model(**spec)
    model(images(B, name=name), timesteps=2)  # moves the running statistics
    save_model(model, spec, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert not loaded.training
    assert loaded.rule.name == "bptt", "how it was trained is not part of the network"
    assert torch.equal(loaded(images(B, name=name), timesteps=3), model.eval()(images(B, name=name), timesteps=3))


def test_files_that_hold_no_model_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist: train a model first"):
        load_model(tmp_path / "missing.safetensors")
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"not a model")
    with pytest.raises(ValueError, match="is no complete safetensors file"):
        load_model(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="does not say which network it holds"):
        load_model(path)
    spec = {"name": "convnet", "num_classes": 3, "in_channels": 2, "image_size": 8, "width": 0.1}
    save_file({"weight": torch.zeros(2)}, path, metadata={"spikedistill": json.dumps(spec)})
    with pytest.raises(ValueError, match=r"holds the weights of another network: features\.0\.0\.weight is none there"):
        load_model(path)
