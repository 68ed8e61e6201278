"""An ANN beside the network: what the two share, whose logits come out, and that the network alone is left afterwards."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from spikedistill import LIF, create_model, temporal
from spikedistill.models import Joint, load_model, save_model
from spikedistill.models.joint import SharedFactors

SIZES = {"num_classes": 5, "in_channels": 2, "image_size": 8, "width": 0.25}
STATISTICS = {"mean": [0.4, 0.5], "std": [0.2, 0.3]}


def joint(**options):
    torch.manual_seed(0)
    return create_model("convnet", **SIZES, joint=True, **options)


def test_a_weight_is_made_of_its_singular_values_at_every_position_of_the_kernel():
    weight = torch.zeros(2, 2, 1, 2, dtype=torch.float64)
    weight[:, :, 0, 0] = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    weight[:, :, 0, 1] = torch.tensor([[0.0, 5.0], [1.0, 0.0]])
    factors = SharedFactors(weight)
    values = factors.right_inverse(weight)
    torch.testing.assert_close(values, torch.tensor([[[3.0, 2.0], [5.0, 1.0]]], dtype=torch.float64))
    torch.testing.assert_close(factors(values), weight)
    # the second position's larger value alone: from the second channel to the first
    some = torch.tensor([[[0.0, 0.0], [10.0, 0.0]]], dtype=torch.float64)
    expected = torch.zeros_like(weight)
    expected[0, 1, 0, 1] = 10
    torch.testing.assert_close(factors(some), expected)


@pytest.mark.parametrize("shape", [(4, 2, 3, 3), (2, 6, 1, 1), (3, 3, 5, 2)])
def test_any_weight_comes_back(shape):
    weight = torch.randn(shape, dtype=torch.float64)
    factors = SharedFactors(weight)
    torch.testing.assert_close(factors(factors.right_inverse(weight)), weight)


def convolutions(model):
    """Pairs of convolutions, the network's and the ANN's, exits' among them."""
    ours = [m for part in (model.module, model.branches) for m in part.modules() if isinstance(m, nn.Conv2d)]
    twins = [m for part in (model.twin, model.twin_branches) for m in part.modules() if isinstance(m, nn.Conv2d)]
    return list(zip(ours, twins, strict=True))


def test_both_networks_start_alike_and_share_singular_vectors_but_not_values():
    torch.manual_seed(0)
    alone = create_model("convnet", **SIZES)
    model = joint()
    pairs = convolutions(model)
    assert len(pairs) == 3 + 2 * 3
    for ours, twin in pairs:
        torch.testing.assert_close(ours.weight, twin.weight)
        (of_ours,), (of_twin,) = ours.parametrizations.weight, twin.parametrizations.weight
        assert of_ours is of_twin
        assert ours.parametrizations.weight.original is not twin.parametrizations.weight.original
    plain = [m.weight for m in alone.modules() if isinstance(m, nn.Conv2d)]
    for (ours, _), weight in zip(pairs[:3], plain, strict=True):
        torch.testing.assert_close(ours.weight, weight)
    assert not any(isinstance(m, LIF) for part in (model.twin, model.twin_branches) for m in part.modules())
    vectors = [p for name, p in model.named_parameters(remove_duplicate=False) if name.endswith((".left", ".right"))]
    assert len(vectors) == 2 * 2 * len(pairs)
    assert len({id(p) for p in vectors}) == 2 * len(pairs), "each is in two places"


def test_what_the_ann_learns_moves_the_shared_vectors_and_nothing_else_of_the_network():
    model = joint()
    model.heads(torch.rand(4, 2, 8, 8), 3)[1][2].square().sum().backward()  # the ANN's own logits
    touched = {name for name, p in model.module.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched
    assert all(name.endswith((".left", ".right")) for name in touched)
    assert model.twin.head.weight.grad.abs().max() > 0


@pytest.mark.parametrize("kind", ["image", "events"])
def test_heads_are_the_exits_of_the_ann_and_then_those_of_the_network(kind):
    model = joint(threshold=0.3).eval()
    x = torch.rand(4, 2, 8, 8) if kind == "image" else torch.rand(3, 4, 2, 8, 8)
    T = 3 if kind == "image" else None
    with torch.no_grad():
        logits, heads = model.heads(x, T)
        assert logits.shape == (3, 4, 5)
        assert heads.shape == (6, 4, 5)
        torch.testing.assert_close(logits, model(x, T))
        torch.testing.assert_close(heads[5], logits.mean(0))
        images = x if kind == "image" else x.mean(0)
        torch.testing.assert_close(heads[2], model.twin(images))
        for place, stop in ((0, 2), (1, 4)):  # behind the first block of three layers in two, and the second
            torch.testing.assert_close(heads[place], model.twin_branches[place](model.twin.features[:stop](images)))
            alone = temporal(nn.Sequential(model.module.features[:stop], model.branches[place])).eval()
            torch.testing.assert_close(heads[3 + place], alone(x, timesteps=T).mean(0))
    assert heads[3:5].abs().max() > 0


def test_the_exits_of_resnet18_are_those_of_the_released_code():
    model = create_model("resnet18", num_classes=10, joint=True)
    assert model.layers == ("stages.0", "stages.1", "stages.2")
    for inputs, shrink, head in zip((64, 128, 256), (8, 4, 2), model.branches, strict=True):
        found = [
            (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for m in head if isinstance(m, nn.Conv2d)
        ]
        assert found == [(inputs, 128, 1, 1), (128, 128, shrink, shrink), (128, 512, 1, 1)]
        assert all(isinstance(m, kind) for m, kind in zip(head, [nn.Conv2d, nn.BatchNorm2d, LIF] * 3, strict=False))
        assert (head[-1].in_features, head[-1].out_features) == (512, 10)


@pytest.mark.parametrize("gradient", ["bptt", "sltt", "rate", "dsr"])
def test_everything_learns_under_every_rule(gradient):
    model = joint(gradient=gradient, threshold=0.3, **STATISTICS)
    model.heads(torch.rand(8, 2, 8, 8), 3)[1].square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []


def test_what_is_saved_is_the_network_alone(tmp_path):
    model = joint(**STATISTICS)
    with torch.no_grad():  # as after training: values that differ, vectors that are no longer orthogonal
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    spec = {"name": "convnet", **SIZES, **STATISTICS, "joint": True}
    save_model(model, spec, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert not isinstance(loaded, Joint)
    assert not any(parametrize.is_parametrized(m) for m in loaded.modules())
    x = torch.rand(3, 2, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x, 4), model.eval()(x, 4))


@pytest.mark.parametrize(
    "options",
    [{"branches": True}, {"neuron": "relu"}, {"norm": "tdbn"}, {"norm": "timestep_batch", "norm_timesteps": 4}],
)
def test_a_joint_network_of_another_kind_is_refused(options):
    with pytest.raises(
        ValueError, match="a joint network is one of spiking neurons with an ANN alongside; got branches="
    ):
        joint(**options)


def test_images_that_are_too_small_for_the_exits_are_refused():
    for name, smallest in (("sew_resnet18", 29), ("convnet", 4)):
        with pytest.raises(
            ValueError,
            match=rf"{smallest + 7}x{smallest - 1} are too small .* expected {smallest}x{smallest} or larger",
        ):
            create_model(name, num_classes=3, image_size=(smallest + 7, smallest - 1), joint=True, width=0.1)
        assert create_model(name, num_classes=3, image_size=smallest, joint=True, width=0.1).training


def test_a_network_with_its_channels_last_has_weights_of_that_layout():
    model = create_model("resnet18", num_classes=3, joint=True, width=0.1).to(memory_format=torch.channels_last)
    conv = model.module.stages[0][0].body[0][0]
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert not conv.weight.is_contiguous()
    assert model.module.stem[0][0].weight.shape[2:] == (3, 3)
