"""Auxiliary heads: where they sit, what they are made of, and that nothing but training knows of them."""

import pytest
import torch
from torch import nn

from spikedistill import LIF, create_model, temporal
from spikedistill.errors import UserError
from spikedistill.models import Branched, load_model, save_model
from spikedistill.objectives import create_objective
from spikedistill.through_time.features import outputs_of

# heads of each layout, the network's own among them: one a stage
HEADS = {
    "convnet": 3,
    "resnet18": 4,
    "resnet19": 3,
    "resnet34": 4,
    "vgg9": 4,
    "vgg11": 5,
    "vgg11_fc": 4,
    "vgg13": 5,
    "ms_resnet18": 4,
}


def branched(name, **options):
    torch.manual_seed(0)
    defaults = {
        "num_classes": 5,
        "image_size": 32,
        "width": 0.1,
        "gradient": "rate",
        "branches": True,
        "threshold": 0.5,
    }
    return create_model(name, **(defaults | options))


@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("gradient", ["bptt", "rate"])
@pytest.mark.parametrize(("name", "heads"), HEADS.items())
def test_every_stage_has_a_head_and_every_parameter_learns(name, heads, gradient, events):
    model = branched(name, gradient=gradient)
    x = torch.rand(3, 2, 3, 32, 32) if events else torch.rand(2, 3, 32, 32)
    logits, of_heads = model.heads(x, None if events else 3)
    assert logits.shape == (3, 2, 5)
    assert of_heads.shape == (heads, 2, 5)
    torch.testing.assert_close(of_heads[-1], logits.mean(0))
    create_objective("esd")(of_heads, torch.tensor([1, 4])).total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_in_bf16_the_networks_own_head_is_a_mean_in_float32():
    model = branched("convnet")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits, heads = model.heads(torch.rand(2, 3, 32, 32), 3)
    assert logits.dtype == torch.bfloat16
    assert torch.equal(heads[-1], logits.float().mean(0))


@pytest.mark.parametrize("side", [28, 32, 48])
def test_heads_fit_every_size_of_image(side):
    heads = branched("resnet18", in_channels=2).heads(torch.rand(3, 2, 2, side, side))[1]
    assert heads.shape == (4, 2, 5)


def test_a_branch_of_resnet18_has_the_parameters_of_its_layout():
    def block(a, b):
        # depthwise 3x3 and pointwise 1x1 twice, a batch-norm after each pointwise; conv1x1 and batch-norm beside them
        return (9 * a + a * a + 2 * a) + (9 * a + a * b + 2 * b) + (a * b + 2 * b)

    model = create_model("resnet18", num_classes=100, branches=True)
    head = 512 * 100 + 100
    expected = [
        block(64, 128) + block(128, 256) + block(256, 512) + head,
        block(128, 256) + block(256, 512) + head,
        block(256, 512) + head,
    ]
    assert [sum(p.numel() for p in branch.parameters()) for branch in model.branches] == expected
    assert model.layers == ("stages.0", "stages.1", "stages.2")


def test_branches_of_the_imagenet_network_have_a_residual_block_behind_each():
    def residual(c):
        return 2 * (9 * c * c + 2 * c)

    plain, deep = (
        sum(p.numel() for p in create_model(name, num_classes=10, branches=True).branches[2].parameters())
        for name in ("resnet18", "resnet34")
    )
    assert deep - plain == residual(512)


def test_branches_of_the_imagenet_network_are_drawn_as_its_convolutions_are_and_others_by_pytorch():
    torch.manual_seed(0)
    deep, plain = (create_model(name, num_classes=10, branches=True).branches[2] for name in ("resnet34", "resnet18"))
    # the residual block's 3x3 convolutions of 512 channels, and a block's second pointwise one, 256 to 512
    fan_out = [(deep[1].body[0], 9 * 512), (deep[1].body[3], 9 * 512), (deep[0].body[5], 512)]
    for convolution, fan in fan_out:
        assert convolution.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.01)
    # uniform within 1 / sqrt(fan_in)
    assert plain[0].body[5].weight.std().item() == pytest.approx((1 / (3 * 256)) ** 0.5, rel=0.01)


def test_each_head_reads_the_mean_rate_of_its_stage_and_sends_its_gradient_there():
    model = branched("convnet", image_size=8, width=0.5).double()
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    with outputs_of(model.module, ["features.1"]) as outputs:
        model(x, timesteps=4)
    rate = outputs["features.1"].over_time().mean(0)
    heads = model.heads(x, 4)[1]
    torch.testing.assert_close(heads[0], model.branches[0](rate))
    first, second = (block[0].weight for block in (model.module.features[0], model.module.features[2]))
    gradients = torch.autograd.grad(heads[0].sum(), [first, second])
    assert gradients[0].norm() > 0
    assert not gradients[1].any(), "what comes after the stage has no part in its head"


def test_the_network_is_the_same_with_and_without_branches(tmp_path):
    """Drawn alike from the same seed; called alike; kept in the same file, from which a plain network comes."""
    plain, model = branched("resnet18", branches=False), branched("resnet18")
    assert isinstance(model, Branched)
    x = torch.rand(2, 3, 32, 32)
    for mode in (True, False):
        torch.testing.assert_close(model.train(mode)(x, timesteps=3), plain.train(mode)(x, timesteps=3))
    spec = {"name": "resnet18", "num_classes": 5, "width": 0.1, "threshold": 0.5}
    save_model(model, spec, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert not isinstance(loaded, Branched)
    assert torch.equal(loaded(x, timesteps=3), model(x, timesteps=3).detach())
    logits, state = model.step(x)
    assert torch.equal(logits, loaded.step(x)[0])
    assert len(state) == sum(isinstance(module, LIF) for module in model.modules())


def test_heads_can_be_put_on_any_network():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), LIF(threshold=0.3), nn.Flatten(), nn.Linear(144, 3))
    head = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    heads = Branched(temporal(network, gradient="rate"), {"1": head}).heads(torch.rand(2, 1, 8, 8), 4)[1]
    assert heads.shape == (2, 2, 3)


def test_a_layer_that_there_is_not_is_named_with_those_like_it():
    network = temporal(nn.Sequential(nn.Conv2d(1, 4, 3), LIF()))
    with pytest.raises(ValueError, match=r"the network has no layer 'stages.9'"):
        Branched(network, {"stages.9": nn.Flatten()})
    with (
        pytest.raises(ValueError, match=r"no layer 'stages.7': did you mean 'stages.3' or"),
        outputs_of(branched("resnet18").module, ["stages.7"]),
    ):
        pass


def test_looking_at_outputs_leaves_nothing_behind():
    model = branched("convnet")
    model.heads(torch.rand(2, 3, 32, 32), 2)
    assert not any(module._forward_hooks for module in model.modules())


def test_fewer_branches_are_those_behind_the_deepest_stages():
    whole, one = (create_model("resnet18", num_classes=10, branches=True, branch_count=count) for count in (None, 1))
    assert one.layers == whole.layers[-1:]
    assert len(one.branches) == 1
    assert one.heads(torch.rand(2, 3, 32, 32), 2)[1].shape == (2, 2, 10)
    with pytest.raises(UserError, match="branch_count is 4, expected 1 to 3"):
        create_model("resnet18", num_classes=10, branches=True, branch_count=4)
