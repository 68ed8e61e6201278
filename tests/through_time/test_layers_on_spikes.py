"""Networks whose layers run on spikes against the same networks with dense layers.

Weights and images are multiples of 1/8, so that sums are exact in any order, and spikes are the same on both.
"""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spikedistill import LIF, create_model, mean_rate, temporal
from spikedistill.evaluation import record
from spikedistill.neurons import PackedSpikes, SpikesInBits
from spikedistill.neurons.loops import paths
from spikedistill.sparse import SpikeRows, current_choices, kernels, rows, sparse_layers
from spikedistill.sparse import waiting as waiting_room
from spikedistill.through_time import firing_rate
from spikedistill.through_time.features import outputs_of
from spikedistill.through_time.on_spikes import max_pooled

pytestmark = [
    pytest.mark.skipif(not kernels.available(), reason="needs a C++ compiler"),
    pytest.mark.filterwarnings("ignore"),
]
RULES = [
    ("bptt", {}),
    ("bptt", {"checkpoint": True}),
    ("sltt", {}),
    ("rate", {"segments": 1}),
    ("rate", {"segments": 2}),
]


class Block(nn.Module):
    """A residual block with a convolution in its shortcut."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, (3, 5), padding=(1, 2))
        self.across = nn.Conv2d(inputs, outputs, 1, stride)
        self.neurons = nn.ModuleList(LIF() for _ in range(2))

    def forward(self, x):
        return self.neurons[1](self.second(self.neurons[0](self.first(x))) + self.across(x))


class Network(nn.Module):
    """Convolutions of every kind on spikes: residual, grouped, after max-pooling, with bias and without; a linear layer."""

    def __init__(self, norm=nn.Identity):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), norm(16), LIF())
        self.block = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), norm(16))
        self.neuron = LIF()
        self.pooled = nn.Sequential(nn.MaxPool2d(2), Block(16, 24, 1), Block(24, 72, 2))
        self.grouped = nn.Sequential(nn.Conv2d(72, 24, 3, padding=1, groups=2), norm(24), LIF())
        self.hidden = nn.Sequential(nn.Linear(24 * 4 * 4, 20), LIF(), nn.Linear(20, 5))

    def forward(self, x):
        x = self.stem(x)
        x = self.neuron(self.block(x) + x)
        x = self.grouped(self.pooled(x))
        return self.hidden(x.flatten(1))


def exact(network, seed=0):
    """Weights whose sums float32 holds, and that let neurons fire."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                drawn = torch.randn(parameter.shape, generator=generator) * 2.5 * parameter[0].numel() ** -0.5
            else:
                drawn = 0.6 * torch.rand(parameter.shape, generator=generator)
            parameter.copy_((8 * drawn).round() / 8)
    return network


def images(*shape, seed=1):
    return torch.randint(0, 8, shape, generator=torch.Generator().manual_seed(seed)) / 8


@pytest.fixture(autouse=True)
def small_layers_too(monkeypatch):
    monkeypatch.setattr(paths, "MIN_ELEMENTS", 1)
    monkeypatch.setattr(waiting_room, "MIN_ELEMENTS", 1)


def trained(mode, network, x, timesteps, gradient, **options):
    """Logits, and the gradients of all parameters and of the input."""
    model = temporal(network, gradient=gradient, **options)
    network.zero_grad(set_to_none=True)
    x = x.clone().requires_grad_()
    with sparse_layers(mode) as choices:
        logits = model(x, timesteps=timesteps)
        logits.tanh().square().sum().backward()
    return choices, logits.detach(), [x.grad, *(parameter.grad for parameter in network.parameters())]


@pytest.mark.parametrize(("gradient", "options"), RULES)
@pytest.mark.parametrize("sequence", [False, True])
def test_logits_are_equal_and_gradients_agree(gradient, options, sequence):
    network = exact(Network())
    x, timesteps = (images(4, 2, 3, 16, 16), None) if sequence else (images(2, 3, 16, 16), 4)
    _, expected, dense = trained("never", network, x, timesteps, gradient, **options)
    choices, found, sparse = trained("always", network, x, timesteps, gradient, **options)
    # under rate gradients, spikes without an image are not held in bits
    assert len(choices._latest) >= 9 - (gradient == "rate")
    assert not torch.equal(expected[:, 0], expected[:, 1])
    assert torch.equal(found, expected)
    for ours, theirs in zip(sparse, dense, strict=True):
        assert theirs.norm() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


@pytest.mark.parametrize("timesteps", [1, 3, 4, 8, 11])
def test_in_evaluation_logits_are_equal_at_every_timestep_and_in_a_stream(timesteps):
    model = temporal(exact(Network())).eval()
    x = images(2, 3, 16, 16)
    with torch.no_grad():
        with sparse_layers("never"):
            expected = model(x, timesteps=timesteps)
        with sparse_layers("always"):
            assert torch.equal(model(x, timesteps=timesteps), expected)
            state = None
            for t in range(timesteps):
                logits, state = model.step(x, state)
                assert torch.equal(logits, expected[t])
                if t == timesteps // 2:  # a sample leaves the batch
                    x, expected = x[1:], expected[:, 1:]
                    state = {key: value[1:] for key, value in state.items()}
    assert expected.std() > 0.1


def test_batch_norms_of_evaluation_are_computed_with_the_layers(monkeypatch):
    """Powers of two as statistics, so that their products are exact too; and no output of a layer is written to memory."""
    network = exact(Network(nn.BatchNorm2d)).eval()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eps = 0.25
            with torch.no_grad():
                norm.running_var.fill_(3.75)
                norm.running_mean.copy_(torch.randint(-4, 5, norm.running_mean.shape) / 8)
                norm.weight.fill_(1.5)
                norm.bias.copy_(torch.randint(0, 9, norm.bias.shape) / 8)
    model, x = temporal(network), images(2, 3, 16, 16)
    with torch.no_grad():
        with sparse_layers("never"):
            expected = model(x, timesteps=4)
        written = []
        forward = kernels.forward
        monkeypatch.setattr(kernels, "forward", lambda *given: written.append(given[3]) or forward(*given))
        with sparse_layers("always"):
            found = model(x, timesteps=4)
    assert torch.equal(found, expected)
    assert expected.std() > 0.1
    # the shortcuts, which are added to others; the grouped one; the linear layers, of which the last has no neurons after it
    assert [geometry.outputs for geometry in written].count(16) == 0
    assert len(written) <= 6


@pytest.mark.parametrize("samples", [1, 2])
def test_a_single_sample_is_read_in_rows_too(samples, monkeypatch):
    """PyTorch recognises the channels last by strides, which a batch of one leaves open."""
    monkeypatch.setattr(rows, "rows_of_bits", None)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), LIF(), nn.Conv2d(16, 8, 3), LIF(), nn.Conv2d(8, 4, 3)
    )
    model, x = temporal(exact(network)).eval(), images(samples, 3, 16, 16)
    with torch.no_grad(), sparse_layers("always"):
        model(x, timesteps=2)
        model.step(x)


def test_training_holds_spikes_in_bits_alone():
    network = exact(Network(nn.BatchNorm2d))
    with sparse_layers("always"), outputs_of(network, ["stem"]) as outputs:
        temporal(network)(images(2, 3, 16, 16), timesteps=4)
        held = outputs["stem"]._held
        assert isinstance(held, SpikesInBits)
        assert held.like.untyped_storage().nbytes() == 4
        assert isinstance(outputs["stem"]._packed, PackedSpikes)
        rate = firing_rate(outputs["stem"])
        assert rate == mean_rate(outputs["stem"]).mean() > 0
        (gradient,) = torch.autograd.grad(rate, network.stem[0].bias)
        assert gradient.norm() > 0


def test_evaluation_holds_spikes_in_rows_alone():
    network = exact(Network())
    with torch.no_grad(), sparse_layers("always"), outputs_of(network, ["stem"]) as outputs:
        temporal(network)(images(2, 3, 16, 16), timesteps=4)
        assert isinstance(outputs["stem"]._held, SpikeRows)


def test_what_watches_a_network_still_sees_spikes():
    model, x = temporal(exact(Network())).eval(), images(2, 3, 16, 16)
    found = {}
    for mode in ("never", "always"):
        with sparse_layers(mode), torch.no_grad():
            with record(model) as recording:
                model(x, timesteps=4)
            with FlopCounterMode(display=False) as counter:
                model(x, timesteps=4)
            with sparse_layers(mode), outputs_of(model.module, ["neuron"]) as outputs:
                model(x, timesteps=4)
                over_time = outputs["neuron"].over_time()
            found[mode] = recording, counter.get_total_flops(), over_time
    (mine, flops, spikes), (theirs, dense_flops, dense_spikes) = found["always"], found["never"]
    assert torch.equal(spikes, dense_spikes)
    assert flops == dense_flops > 0
    assert len(mine.spikes) == 8
    for layer, seen in mine.spikes.items():
        assert torch.equal(seen, theirs.spikes[layer])
        assert torch.equal(mine.currents[layer], theirs.currents[layer])
        assert 0.1 < seen.mean() < 0.7


def test_under_autocast_they_run_in_bfloat16():
    """One layer on the same spikes, because whole networks are chaotic in rounding."""
    network = exact(nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), LIF(), nn.Conv2d(16, 40, 3, padding=1)))
    x, found = images(2, 3, 12, 12), []
    for mode in ("never", "always"):
        network.zero_grad()
        with sparse_layers(mode), torch.autocast("cpu", torch.bfloat16):
            out = temporal(network)(x, timesteps=3)
        out.float().square().sum().backward()
        found.append((out.detach().clone(), network[2].weight.grad.clone(), network[0].weight.grad.clone()))
    assert found[1][0].dtype == torch.bfloat16
    for ours, theirs in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2 * theirs.abs().max().item())


@pytest.mark.parametrize("dims", [1, 2])
def test_layers_over_lines_too(dims):
    """Convolutions over [B, C, L], and linear layers of a network without images."""
    if dims == 1:
        network = nn.Sequential(nn.Conv1d(3, 16, 5), LIF(), nn.Conv1d(16, 7, 3, stride=2, dilation=2))
        x = images(2, 3, 40)
    else:
        network = nn.Sequential(nn.Linear(30, 50), LIF(), nn.Linear(50, 70), LIF(), nn.Linear(70, 4))
        x = images(3, 30)
    network = exact(network)
    _, expected, dense = trained("never", network, x, 4, "bptt")
    choices, found, sparse = trained("always", network, x, 4, "bptt")
    assert choices
    assert torch.equal(found, expected)
    for ours, theirs in zip(sparse, dense, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_weights_that_change_between_calls_are_read_anew():
    network = exact(Network())
    model, x = temporal(network).eval(), images(2, 3, 16, 16)
    with torch.no_grad(), sparse_layers("always"):
        before = model(x, timesteps=2)
        network.block[0].weight.data.neg_()
        found = model(x, timesteps=2)
    with torch.no_grad(), sparse_layers("never"):
        assert torch.equal(found, model(x, timesteps=2))
    assert not torch.equal(found, before)


def test_a_network_of_a_recipe_chooses_by_itself():
    """`resnet18` on images of 32 pixels has layers that are large enough; "auto" is the default outside of runs too."""
    model = temporal(create_model("resnet18", num_classes=10, image_size=32, width=0.25).module).eval()
    with torch.no_grad(), sparse_layers("auto"):
        model(torch.rand(4, 3, 32, 32), timesteps=4)
        assert current_choices()
        assert "sparse" in str(current_choices())


WITHOUT = """
import sys, torch
sys.path.insert(0, {folder!r})
from test_layers_on_spikes import Network, exact, images, trained
from spikedistill.sparse import kernels, sparse_layers
from spikedistill import temporal
network = exact(Network())
found = [trained(mode, network, images(2, 3, 16, 16), 4, "bptt")[1:] for mode in ("never", "always")]
assert torch.equal(found[0][0], found[1][0])
for ours, theirs in zip(found[0][1], found[1][1]):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())
with torch.no_grad(), sparse_layers("always") as choices:
    assert torch.equal(temporal(network).eval()(images(2, 3, 16, 16), timesteps=4), found[0][0])
print(kernels.available(), bool(choices), torch.backends.cpu.get_cpu_capability())
"""


@pytest.mark.parametrize(
    ("environment", "said"),
    [({"ATEN_CPU_CAPABILITY": "default"}, "True True"), ({"CXX": "/there/is/none"}, "False False")],
    ids=["plain x86-64", "no compiler"],
)
def test_on_a_plain_machine_and_without_a_compiler_all_runs(environment, said, tmp_path):
    code = WITHOUT.format(folder=os.path.dirname(__file__))
    given = os.environ | environment | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=given)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(said)


def test_spikes_on_another_device_are_not_pooled_in_bits():
    """There are no such functions on a GPU; a tensor without values stands for one."""
    packed = PackedSpikes(2, torch.zeros(1, 2, 8, 4, 4, dtype=torch.uint8))
    with sparse_layers("always"):
        assert max_pooled(packed, torch.float32, 2) is not None
        assert max_pooled(PackedSpikes(2, packed.bits.to("meta")), torch.float32, 2) is None


def test_second_order_gradients_are_refused():
    network = exact(nn.Sequential(nn.Conv2d(3, 8, 3), LIF(), nn.Conv2d(8, 4, 3)))
    with sparse_layers("always"):
        out = temporal(network)(images(1, 3, 8, 8), timesteps=2)
    with pytest.raises(RuntimeError, match="second-order gradients of a layer that keeps its input spikes in bits"):
        torch.autograd.grad(out.sum(), network[2].weight, create_graph=True)


def test_dense_layers_take_over_above_the_crossover(monkeypatch):
    """The spikes are unpacked, and logits stay as they are."""
    from spikedistill.sparse import choice

    monkeypatch.setattr(choice, "SMALLEST", 1)
    monkeypatch.setattr(choice, "crossover", lambda *_: -1.0)
    network, x = exact(Network()), images(2, 3, 16, 16)
    _, expected, dense = trained("never", network, x, 4, "bptt")
    choices, found, sparse = trained("auto", network, x, 4, "bptt")
    assert "sparse at" not in str(choices)
    assert torch.equal(found, expected)
    for ours, theirs in zip(sparse, dense, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())
    with torch.no_grad(), sparse_layers("auto"):
        assert torch.equal(temporal(network).eval()(x, timesteps=4), expected)


NARROW = """
import torch
from spikedistill import create_model
from spikedistill.training.allocator import keep_freed_memory

keep_freed_memory()  # what is written beyond a tensor then lies in another
torch.manual_seed(0)
for neuron, T in (("relu", 1), ("lif", 1), ("lif", 3)):
    network = create_model("resnet18", neuron=neuron, num_classes=10, image_size=32, width=0.125)
    images, labels = torch.rand(125, 3, 32, 32), torch.arange(125) % 10
    for _ in range(6):
        torch.nn.functional.cross_entropy(network(images, T).mean(0), labels).backward()
    assert all(weight.grad.isfinite().all() for weight in network.parameters())
print("whole")
"""


def test_narrow_networks_train_on_odd_batches():
    """PyTorch's gradient of a 1x1 convolution with a stride breaks memory if fewer than 16 channels are last."""
    done = subprocess.run([sys.executable, "-c", NARROW], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr[-500:]
