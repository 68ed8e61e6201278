"""tdBN: where the weights of batch-norms start, and that nothing else is another."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from spikedistill import LIF, create_model, list_models
from spikedistill.models import load_model, save_model

T, B, CLASSES = 3, 4, 5
REFUSED = {"max_former", "ms_resnet18", "resnet34", "sdt", "sdt_8_512"}
# How many batch-norms the layout's blocks add: one a block, and one more where its shortcut has one. SEW adds spikes.
ADDED = {
    "cifar_resnet34": 16 + 3,
    "resnet18": 8 + 3,
    "resnet19": 8 + 2,
    "spiking_resnet18": 8 + 3,
    "spiking_resnet34": 16 + 3,
    "sew_resnet18": 0,
    "sew_resnet34": 0,
    "spikformer": 0,
    "spikformer_8_512": 0,
    "qkformer": 0,
    "qkformer_10_384": 0,
    "qkformer_10_768": 0,
    "convnet": 0,
    "vgg9": 0,
    "vgg11": 0,
    "vgg11_fc": 0,
    "vgg13": 0,
    "vggsnn": 0,
}


def small(name, norm="tdbn", **options):
    torch.manual_seed(0)
    return create_model(name, norm=norm, **({"num_classes": CLASSES, "width": 1 / 16} | options))


def weights(model):
    """The one value of every batch-norm's weights, by the batch-norm's name."""
    found = {}
    for name, module in model.module.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            (found[name],) = set(module.weight.tolist())
    return found


def images(side=32):
    return torch.randn(B, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_weights_of_a_residual_network_by_hand():
    # threshold 0.5: 0.5 / sqrt(2) = 0.353553 for the last batch-norm of a block and for that of its shortcut, 0.5 elsewhere
    added, alone = 0.353553, 0.5
    assert weights(small("resnet18", threshold=0.5)) == pytest.approx(
        {
            "stem.0.1": alone,
            "stages.0.0.body.0.1": alone,
            "stages.0.0.body.2.1": added,
            "stages.0.1.body.0.1": alone,
            "stages.0.1.body.2.1": added,
            "stages.1.0.body.0.1": alone,
            "stages.1.0.body.2.1": added,
            "stages.1.0.shortcut.1": added,
            "stages.1.1.body.0.1": alone,
            "stages.1.1.body.2.1": added,
            "stages.2.0.body.0.1": alone,
            "stages.2.0.body.2.1": added,
            "stages.2.0.shortcut.1": added,
            "stages.2.1.body.0.1": alone,
            "stages.2.1.body.2.1": added,
            "stages.3.0.body.0.1": alone,
            "stages.3.0.body.2.1": added,
            "stages.3.0.shortcut.1": added,
            "stages.3.1.body.0.1": alone,
            "stages.3.1.body.2.1": added,
        },
        abs=1e-6,
    )


def test_where_spikes_are_added_every_batch_norm_meets_a_threshold_alone():
    found = weights(small("sew_resnet18", threshold=0.5))
    assert {"stages.0.0.body.2.1", "stages.1.0.shortcut.1"} < found.keys()
    assert len(found) == 1 + 8 * 2 + 3
    assert set(found.values()) == {0.5}


@pytest.mark.parametrize("name", list_models())
def test_every_layout_adds_what_its_blocks_say_or_is_refused(name):
    if name in REFUSED:
        with pytest.raises(
            ValueError, match="adds up currents over its blocks before any threshold: use norm='batch', or"
        ):
            small(name)
        return
    found = weights(small(name, threshold=0.8))
    added = [value for value in found.values() if value == pytest.approx(0.8 / math.sqrt(2))]
    alone = [value for value in found.values() if value == pytest.approx(0.8)]
    assert len(added) == ADDED[name]
    assert len(added) + len(alone) == len(found)


def test_a_network_without_neurons_is_refused():
    with pytest.raises(ValueError, match="the ReLU twin has none: use norm='batch'"):
        small("resnet18", neuron="relu")


def test_the_threshold_is_one_where_the_network_is_not_told_another():
    assert sorted(set(weights(small("resnet18")).values())) == pytest.approx([math.sqrt(0.5), 1.0])


@pytest.mark.parametrize("layer", ["stages.1.0.body.0.1", "stages.1.0.body.2.1", "stages.1.0.shortcut.1"])
def test_its_outputs_are_those_of_the_papers_formula(layer):
    model, kept = small("resnet18", threshold=0.5).double(), []
    norm = model.module.get_submodule(layer)
    norm.register_forward_hook(lambda module, args, out: kept.append((args[0].over_time(), out.over_time())))
    model(images().double(), timesteps=T)
    ((x, y),) = kept
    alpha, threshold = 1.0 if "body.0" in layer else 2**-0.5, 0.5
    mean, var = x.mean((0, 1, 3, 4), keepdim=True), x.var((0, 1, 3, 4), correction=0, keepdim=True)
    assert x.std(0).max() > 0, "the case is one that changes over time"
    torch.testing.assert_close(y, alpha * threshold * (x - mean) / (var + 1e-5).sqrt(), rtol=1e-5, atol=1e-7)


def test_the_currents_of_neurons_spread_as_far_as_their_threshold():
    model, currents = small("convnet", threshold=0.7, width=1.0), []
    for module in model.modules():
        if isinstance(module, LIF):
            module.register_forward_pre_hook(lambda module, args: currents.append(args[0].over_time()))
    with torch.no_grad():
        model(images(), timesteps=T)
    assert len(currents) == 3
    for current in currents:
        assert current.std((0, 1, 3, 4)).mean() == pytest.approx(0.7, rel=0.02)


@pytest.mark.parametrize("name", ["resnet18", "sew_resnet18", "vgg9"])
def test_all_else_is_an_ordinary_batch_norm(name):
    ours, plain = small(name, threshold=0.5), small(name, "batch", threshold=0.5)
    differing = {key for key, value in plain.state_dict().items() if not torch.equal(ours.state_dict()[key], value)}
    assert differing == {f"module.{norm}.weight" for norm in weights(ours)}, "no other tensor, no other random draw"
    assert [type(module) for module in ours.modules()] == [type(module) for module in plain.modules()]
    plain.load_state_dict(ours.state_dict())
    outcomes = []
    for model in (ours, plain):
        trained = model(images(), timesteps=T)
        trained.square().sum().backward()
        outcomes.append((trained, model.eval()(images(), timesteps=T), *(p.grad for p in model.parameters())))
    for mine, same in zip(*outcomes, strict=True):
        assert torch.equal(mine, same)


@pytest.mark.parametrize("name", sorted(name for name, added in ADDED.items() if not added))
def test_at_threshold_one_without_additions_it_is_batch_as_the_page_declares(name):
    ours, plain = small(name).state_dict(), small(name, "batch").state_dict()
    assert all(torch.equal(ours[key], plain[key]) for key in plain)
    page = Path(__file__).parents[2] / "docs" / "methods" / "baselines.md"
    table = page.read_text().split("## Which are the same")[1].split("\n## ")[0]
    assert "| `--model.norm tdbn` at threshold 1, without sums of currents | `--model.norm batch` |\n" in table


def test_auxiliary_heads_stay_as_they_are():
    model = small("resnet18", threshold=0.5, branches=True)
    heads = [module for module in model.branches.modules() if isinstance(module, nn.BatchNorm2d)]
    assert heads
    assert all((norm.weight == 1).all() for norm in heads), "nothing in them has a threshold"
    assert weights(model) == weights(small("resnet18", threshold=0.5))


def test_a_saved_network_is_the_same_with_the_weights_it_learned(tmp_path):
    spec = {"name": "resnet18", "num_classes": CLASSES, "width": 1 / 16, "norm": "tdbn", "threshold": 0.5}
    model = create_model(**spec)
    model(images(), timesteps=T)
    with torch.no_grad():
        model.module.stem[0][1].weight.add_(torch.rand(4))
    save_model(model, spec, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert torch.equal(loaded(images(), timesteps=T), model.eval()(images(), timesteps=T))
