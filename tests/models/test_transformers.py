"""Spiking transformers, each against a network written down by hand on `[T, B, ...]`, and what they share."""

import pytest
import torch
import torch.nn.functional as F
from plain_lif import plain_lif
from torch import nn

from spikedistill import LIF, UserError, create_model, register_neuron, temporal
from spikedistill.models.attention import SelfAttention, SpikeDrivenAttention, TokenAttention
from spikedistill.models.layers import DropPath
from spikedistill.neurons import SpikingNeuron
from spikedistill.through_time.features import outputs_of

f64 = torch.float64
T, B, CLASSES, THRESHOLD = 3, 2, 5, 0.6
# Parameters with as many classes as in the papers, by hand below, and the papers' millions.
PAPERS = {
    "spikformer": (10, 9.32),
    "spikformer_8_512": (1000, 29.68),
    "sdt": (100, 10.28),
    "sdt_8_512": (1000, 29.68),
    "qkformer": (100, 6.74),
    "qkformer_10_384": (1000, 16.47),
    "qkformer_10_768": (1000, 64.96),
    "max_former": (10, 6.57),
}
NAMES = list(PAPERS)
CURRENTS = {"sdt", "sdt_8_512", "max_former"}


class Plain:
    """Functions on `[T, B, C, H, W]` with the weights of a network, by their names.

    Args:
        network: whose weights they are; batch-norms take the statistics of the values, as in training.
    """

    def __init__(self, network):
        self.weights = dict(network.named_parameters())

    def conv(self, path, x, stride=1, groups=1):
        """Convolution and batch-norm."""
        weight, bias = self.weights[f"{path}.0.weight"], self.weights.get(f"{path}.0.bias")
        y = F.conv2d(x.flatten(0, 1), weight, bias, stride, weight.shape[-1] // 2, groups=groups)
        mean, var = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), correction=0, keepdim=True)
        scale, shift = (self.weights[f"{path}.1.{name}"].view(1, -1, 1, 1) for name in ("weight", "bias"))
        return ((y - mean) / (var + 1e-5).sqrt() * scale + shift).unflatten(0, x.shape[:2])

    def spikes(self, path, x, stride=1):
        return fire(self.conv(path, x, stride))

    def head(self, x):
        return F.linear(x, self.weights["head.weight"], self.weights["head.bias"])

    def mlp(self, path, x):
        """Two layers, from spikes to currents."""
        return self.conv(f"{path}.2", self.spikes(f"{path}.0", x))

    def qkv(self, path, x, names="qkv"):
        return [self.spikes(f"{path}.{name}.0", x) for name in names]

    def self_attention(self, path, x, heads):
        """softmax-free attention in the order (q k^T) v."""

        def tokens(s):  # [T, B, heads, N, d]
            return s.flatten(3).transpose(2, 3).unflatten(3, (heads, -1)).transpose(2, 3)

        q, k, v = (tokens(s) for s in self.qkv(path, x))
        mixed = torch.einsum("tbhnm,tbhmd->tbhnd", torch.einsum("tbhnd,tbhmd->tbhnm", q, k), v) / 8
        mixed = mixed.permute(0, 1, 2, 4, 3).reshape(x.shape)
        return self.conv(f"{path}.project", fire(mixed, THRESHOLD / 2))

    def spike_driven_attention(self, path, x, heads):
        q, k, v = (s.flatten(3).unflatten(2, (heads, -1)) for s in self.qkv(path, x))
        gate = fire(torch.einsum("tbhdn,tbhdn->tbhd", k, v), THRESHOLD / 2)
        return self.conv(f"{path}.project", torch.einsum("tbhdn,tbhd->tbhdn", q, gate).reshape(x.shape))

    def token_attention(self, path, x, heads):
        q, k = (s.flatten(3).unflatten(2, (heads, -1)) for s in self.qkv(path, x, "qk"))
        gate = fire(torch.einsum("tbhdn->tbhn", q), THRESHOLD / 2)
        return self.conv(f"{path}.project", torch.einsum("tbhdn,tbhn->tbhdn", k, gate).reshape(x.shape))


def fire(current, threshold=THRESHOLD):
    return plain_lif(current, threshold=threshold)


def pool(x):
    """The largest of 3x3 values at every second place."""
    padded = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
    height, width = -(-x.shape[-2] // 2), -(-x.shape[-1] // 2)
    windows = [padded[..., i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2] for i in range(3) for j in range(3)]
    return (
        torch.stack(windows).max(0).values
    )  # of equal ones the gradient goes to the first, as in PyTorch's own pooling


def spikformer(net, x, depth, heads, pools):
    place = 0
    for halved in pools:
        x = net.spikes(f"stages.0.{place}", x)
        x = pool(x) if halved else x
        place += 2 + halved
    x = x + net.spikes(f"stages.0.{place}.body.0", x)
    for stage in (1, 2):
        for index in range(depth // 2):
            path = f"stages.{stage}.{index}"
            x = x + fire(net.self_attention(f"{path}.0.body.0", x, heads))
            x = x + fire(net.mlp(f"{path}.1.body.0", x))
    return net.head(x.mean((3, 4)))


def sdt(net, x, depth, heads, pools):
    place = 0
    for number, halved in enumerate(pools):
        x = net.conv(f"stages.0.{place}", x)
        x = fire(x) if number < 3 else x
        x = pool(x) if halved else x
        place += 1 + (number < 3) + halved
    x = x + net.conv(f"stages.0.{place}.body.1", fire(x))
    for stage in (1, 2):
        for index in range(depth // 2):
            path = f"stages.{stage}.{index}"
            x = x + net.spike_driven_attention(f"{path}.0.body.1", fire(x), heads)
            x = x + net.mlp(f"{path}.1.body.1", fire(x))
    return net.head(fire(x.mean((3, 4))))


def qkformer(net, x, depths, heads, first, later):
    for stage, depth in enumerate(depths):
        x = (later if stage else first)(net, f"stages.{stage}.0", x)
        for index in range(1, depth + 1):
            path = f"stages.{stage}.{index}"
            attend = net.self_attention if stage == 2 else net.token_attention
            x = x + fire(attend(f"{path}.0.body.0", x, heads))
            x = x + fire(net.mlp(f"{path}.1.body.0", x))
    return net.head(x.mean((3, 4)))


def split_at_once(net, path, x):
    x = net.spikes(f"{path}.first.0", x)
    return net.spikes(f"{path}.body.0", x) + net.spikes(f"{path}.shortcut.0", x)


def split_and_pool_last(net, path, x):
    y = net.spikes(f"{path}.body.0.0", x)
    return fire(pool(net.conv(f"{path}.body.1.0", y))) + net.spikes(f"{path}.shortcut.0", x, 2)


def split_and_pool_first(net, path, x):
    y = fire(pool(net.conv(f"{path}.body.0.0", x)))
    return net.spikes(f"{path}.body.1.0", y) + net.spikes(f"{path}.shortcut.0", x, 2)


def pool_and_split(net, path, x):
    return split_and_pool_first(net, f"{path}.1", fire(pool(net.conv(f"{path}.0.0", x))))


def max_former(net, x):
    s = net.spikes("stages.0.0.first.0", x)
    x = net.conv("stages.0.0.body", s) + net.conv("stages.0.0.shortcut", s)
    x = x + net.mlp("stages.0.1.0.body.1", fire(x))
    for stage, blocks in ((1, 1), (2, 2)):
        path = f"stages.{stage}"
        s = fire(x)
        y = fire(pool(net.conv(f"{path}.0.body.0.0", s)))
        x = net.conv(f"{path}.0.body.1", y) + pool(net.conv(f"{path}.0.shortcut.0", s))
        for index in range(1, blocks + 1):
            s, body = fire(x), f"{path}.{index}.0.body.1"
            x = x + (net.conv(body, s, groups=s.shape[2]) if stage == 1 else net.self_attention(body, s, 8))
            x = x + net.mlp(f"{path}.{index}.1.body.1", fire(x))
    return net.head(fire(x.mean((3, 4))))


SMALL, LARGE = (0, 0, 1, 1), (1, 1, 1, 1)
REFERENCES = {
    "spikformer": lambda net, x: spikformer(net, x, 4, 12, SMALL),
    "spikformer_8_512": lambda net, x: spikformer(net, x, 8, 8, LARGE),
    "sdt": lambda net, x: sdt(net, x, 2, 8, SMALL),
    "sdt_8_512": lambda net, x: sdt(net, x, 8, 8, LARGE),
    "qkformer": lambda net, x: qkformer(net, x, (1, 1, 2), 8, split_at_once, split_and_pool_last),
    "qkformer_10_384": lambda net, x: qkformer(net, x, (1, 2, 7), 6, pool_and_split, split_and_pool_first),
    "qkformer_10_768": lambda net, x: qkformer(net, x, (1, 2, 7), 12, pool_and_split, split_and_pool_first),
    "max_former": max_former,
}


def small(name, **options):
    torch.manual_seed(0)
    side = 32 if name.endswith(("_512", "_384", "_768")) else 10
    defaults = {"num_classes": CLASSES, "image_size": side, "width": 1 / 16, "threshold": THRESHOLD}
    return create_model(name, **(defaults | options))


def images(name, *leading):
    side = (36, 28) if name.endswith(("_512", "_384", "_768")) else (10, 12)
    return torch.randn(*leading, 3, *side, generator=torch.Generator().manual_seed(1), dtype=f64)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_gradients_are_those_of_a_network_written_by_hand(name):
    model = small(name).double()
    with torch.no_grad():
        for parameter in model.parameters():  # scales and shifts that are not 1 and 0, and weights that matter
            parameter.add_(torch.randn_like(parameter) * 0.2)
    x, found = images(name, T, B), []
    for call in (lambda x: model(x), lambda x: REFERENCES[name](Plain(model.module), x)):
        model.zero_grad()
        given = x.clone().requires_grad_()
        out = call(given)
        (out * torch.linspace(-2, 3, out.numel(), dtype=f64).cos().view(out.shape)).sum().backward()
        found.append((out.detach(), [given.grad, *(p.grad for p in model.parameters())]))
    (ours, gradients), (plain, expected) = found
    assert ours.std(0).max() > 0, "a case in which nothing fires shows nothing"
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-10)
    scale = max(gradient.norm() for gradient in expected)
    for mine, theirs in zip(gradients, expected, strict=True):
        assert (mine - theirs).norm() <= 1e-8 * scale


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_of_the_papers(name):
    classes, millions = PAPERS[name]
    with torch.device("meta"):
        found = sum(p.numel() for p in create_model(name, num_classes=classes).parameters())
    # papers round or cut
    assert millions - 0.005 <= found / 1e6 < millions + 0.01


def conv_norm(inputs, outputs, kernel=1, bias=False):
    return inputs * outputs * kernel**2 + bias * outputs + 2 * outputs


def test_parameters_of_spikformer_by_hand():
    embedding = sum(conv_norm(i, o, 3) for i, o in ((3, 48), (48, 96), (96, 192), (192, 384), (384, 384)))
    attention = 4 * conv_norm(384, 384, bias=True)
    layers = conv_norm(384, 1536, bias=True) + conv_norm(1536, 384, bias=True)
    assert embedding + 4 * (attention + layers) + 384 * 10 + 10 == 9_324_730
    with torch.device("meta"):
        assert sum(p.numel() for p in create_model("spikformer", num_classes=10).parameters()) == 9_324_730


@pytest.mark.parametrize("name", NAMES)
def test_convolutions_behind_residuals_of_currents_take_spikes_only(name):
    """Where spikes are added, a block returns counts; where currents are, every convolution but the first takes 0 and 1."""
    model, seen = small(name), []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, args, out: seen.append(args[0].over_time().unique()))
    with torch.no_grad():
        model(images(name, T, B).float())
    binary = [set(values.tolist()) <= {0.0, 1.0} for values in seen[1:]]
    counts = [bool((values == values.round()).all() and values.min() >= 0) for values in seen[1:]]
    assert all(counts)
    assert all(binary) == (name in CURRENTS)


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_as_many_as_the_papers_say(name):
    """Of images of 32x32, or of 224x224 for ImageNet."""
    side, tokens = {
        "spikformer": (32, [8, 8, 8]), "sdt": (32, [8, 8, 8]), "qkformer": (32, [32, 16, 8]), "max_former": (32, [32, 16, 8]),
    }.get(name, (224, [56, 28, 14] if "qkformer" in name else [14, 14, 14]))  # fmt: skip
    model = create_model(name, num_classes=2, width=1e-6, neuron="relu")
    stages = [*model.module.stage_channels]
    with torch.no_grad(), outputs_of(model.module, stages) as outputs:
        model.module(torch.zeros(1, 3, side, side))
    assert [outputs[stage].shape[-2:] for stage in stages] == [(count, count) for count in tokens]


def test_attention_mixes_tokens_and_no_samples():
    for kind in (SelfAttention, TokenAttention, SpikeDrivenAttention):
        model = small({SelfAttention: "spikformer", TokenAttention: "qkformer", SpikeDrivenAttention: "sdt"}[kind])
        assert any(isinstance(module, kind) for module in model.modules())
        model = model.double().eval()
        x = images("sdt", 3)
        with torch.no_grad():
            whole = model(x, timesteps=T)
            one = model(x[:1], timesteps=T)
        torch.testing.assert_close(whole[:, :1], one, rtol=0, atol=1e-10)


@pytest.mark.parametrize("threshold", [0.8, "learned", "learned:0.8", "learned_per_channel:0.8"])
def test_neurons_of_an_attention_have_half_of_the_threshold(threshold):
    model = small("qkformer", threshold=threshold)
    start = 1.0 if threshold == "learned" else 0.8
    halved = [m.neuron for m in model.modules() if isinstance(m, SelfAttention | TokenAttention)]
    for neuron in (m for m in model.modules() if isinstance(m, LIF)):
        expected = start / 2 if neuron in halved else start
        assert neuron.threshold == pytest.approx(expected)
        if neuron.log_threshold is not None:
            torch.testing.assert_close(neuron.log_threshold.exp(), torch.full_like(neuron.log_threshold, expected))
    assert len(halved) == 4


def test_a_threshold_that_half_of_which_fires_at_rest_is_refused():
    with pytest.raises(UserError, match=r"reaches the threshold 0\.5"):
        small("sdt", threshold=1.0, v_init=1.2)


def test_registered_neurons_need_a_threshold_of_which_there_is_a_half(fresh_names):
    @register_neuron("with-threshold")
    class WithThreshold(SpikingNeuron):
        def __init__(self, threshold: float = 0.4) -> None:
            super().__init__()
            self.threshold = threshold

        def step(self, current, state):
            return (current >= self.threshold).to(current.dtype) + 0 * current, torch.zeros_like(current)

    @register_neuron("without-threshold")
    class WithoutThreshold(SpikingNeuron):
        def __init__(self) -> None:
            super().__init__()

        def step(self, current, state):
            return (current >= 1).to(current.dtype) + 0 * current, torch.zeros_like(current)

    options = {"num_classes": 2, "width": 1 / 16}
    model = create_model("sdt", neuron="with-threshold", **options)
    assert {m.neuron.threshold for m in model.modules() if isinstance(m, SpikeDrivenAttention)} == {0.2}
    with pytest.raises(UserError, match=r"0\.5 of the threshold of all others, and a WithoutThreshold has none: set"):
        create_model("sdt", neuron="without-threshold", **options)


@pytest.mark.parametrize("name", ["spikformer", "sdt", "qkformer", "max_former"])
def test_stochastic_depth_leaves_out_more_bodies_of_deeper_blocks(name):
    model = small(name, drop_path=0.3)
    rates = [module.p for module in model.modules() if isinstance(module, DropPath)]
    blocks = 2 if name == "sdt" else 4
    # two bodies a block, none dropped in the first
    assert rates == pytest.approx([0.3 * place / (blocks - 1) for place in range(1, blocks) for _ in range(2)])
    plain = small(name)
    assert [*model.state_dict()] == [*plain.state_dict()]
    plain.load_state_dict(model.state_dict())
    x = images(name, B).float()
    with torch.no_grad():
        assert torch.equal(model.eval()(x, timesteps=T), plain.eval()(x, timesteps=T)), (
            "nothing is dropped in evaluation"
        )


@pytest.mark.parametrize("gradient", ["bptt", "rate"])
def test_a_body_is_left_out_at_all_timesteps_of_a_sample_or_at_none(gradient):
    torch.manual_seed(0)
    drop = DropPath(0.4)

    class Dropped(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = drop

        def forward(self, x):
            return self.drop(x + 1)

    x = torch.rand(T, 4000, 2, 1, 1)
    y = temporal(Dropped(), gradient=gradient)(x)
    kept = y[0, :, 0, 0, 0] != 0
    assert kept.float().mean().item() == pytest.approx(0.6, abs=0.03)
    torch.testing.assert_close(y, kept.view(1, -1, 1, 1, 1) * (x + 1) / 0.6)
    with pytest.raises(RuntimeError, match="runs one timestep"):
        temporal(Dropped()).train().step(x[0])


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan"), "0.1"])
def test_shares_that_are_none_are_refused(value):
    with pytest.raises(UserError, match="expected a share of samples, at least 0 and below 1"):
        small("sdt", drop_path=value)


def test_stochastic_depth_of_another_network_is_refused():
    with pytest.raises(UserError, match="drop_path leaves out bodies of a transformer's blocks, and resnet18 is none"):
        create_model("resnet18", num_classes=2, drop_path=0.1)


@pytest.mark.parametrize("name", ["spikformer", "sdt", "qkformer", "max_former"])
def test_heads_for_self_distillation_and_a_joint_ann(name):
    x = images(name, B).float()
    branched = small(name, branches=True)
    logits, heads = branched.heads(x, T)
    assert (logits.shape, heads.shape) == ((T, B, CLASSES), (3, B, CLASSES))
    heads.square().sum().backward()
    assert all(p.grad is not None for p in branched.parameters())
    joint = small(name, joint=True, image_size=32)
    assert joint.heads(torch.rand(B, 3, 32, 32), T)[1].shape == (6, B, CLASSES)
