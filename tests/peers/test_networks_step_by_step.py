"""SpikingJelly's and snnTorch's own networks, stepped with their state outside: what their own loops give, and no leak."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn

from spikedistill import from_snntorch, from_spikingjelly
from spikedistill.evaluation import AnytimeClassifier, count_operations, exit_times, record

pytestmark = pytest.mark.filterwarnings("ignore")
T, B = 5, 6


@pytest.fixture
def images():
    torch.manual_seed(0)
    return 2 * torch.rand(B, 1, 8, 8)


def check_steps(model, images, expected, state_of):
    """Against the library's own loop `expected` [T, B, C], from calls that begin with whatever is on the modules."""
    before = state_of()
    with torch.no_grad():
        assert torch.equal(model(images, T), expected)
        assert torch.equal(model(images[:2], T), model(images[:2], T)), "nothing stays from a call to the next"
        frames = torch.stack([images, 0 * images, images])
        state, logits = None, []
        for frame in frames:
            out, state = model.step(frame, state)
            model.step(images[:1])  # another stream in between
            logits.append(out)
        torch.testing.assert_close(model(frames), torch.stack(logits), rtol=0, atol=1e-6)
    assert all(a is b for a, b in zip(before, state_of(), strict=True)), "the modules hold what they held"
    assert expected.std() > 0
    assert any(not torch.equal(expected[0], later) for later in expected), "there is state, else nothing is shown"
    check_exits(model, images, expected)


def check_module(model, net, images):
    """The adapter is a module: it has the network's parameters, and a copy of it is right too."""
    assert [*model.parameters()] == [*net.parameters()]
    assert [*model.state_dict()] == [f"module.{name}" for name in net.state_dict()]
    copied = copy.deepcopy(model)
    with torch.no_grad():
        assert torch.equal(copied(images, T), model(images, T))


def check_exits(model, images, expected):
    """Samples that leave take their rows with them: the others go on as in the full batch."""
    total = expected.double().cumsum(0)
    margins = (total / torch.arange(1, T + 1).view(-1, 1, 1)).softmax(-1).topk(2, -1).values
    scores = (margins[..., 0] - margins[..., 1])[:-1]
    for threshold in (scores.flatten().median().item() + 1e-4, scores.max().item() * 0.9):
        out = AnytimeClassifier(model, "margin", min(1.0, threshold), T)(images)
        times = exit_times(expected, "margin", min(1.0, threshold))
        sure = (scores - threshold).abs().amin(0) > 1e-5
        assert torch.equal(out.exit_times[sure], times[sure])
        means = torch.stack([expected[:t, n].double().mean(0) for n, t in enumerate(out.exit_times.tolist())])
        torch.testing.assert_close(out.logits, means, rtol=0, atol=1e-5)


def spikingjelly_layers():
    return pytest.importorskip("spikingjelly.activation_based.layer")


SPIKINGJELLY = {
    "IF": lambda neuron, layer: neuron.IFNode(),
    "LIF": lambda neuron, layer: neuron.LIFNode(tau=2.0),
    "LIF, soft reset": lambda neuron, layer: neuron.LIFNode(tau=3.0, v_reset=None, decay_input=False),
    "LIF, other reset": lambda neuron, layer: neuron.LIFNode(tau=3.0, v_reset=0.25, v_threshold=0.75),
    "PLIF": lambda neuron, layer: neuron.ParametricLIFNode(init_tau=3.0),
    "QIF": lambda neuron, layer: neuron.QIFNode(tau=2.0, v_c=0.1),
    "EIF": lambda neuron, layer: neuron.EIFNode(tau=2.0),
    "Izhikevich": lambda neuron, layer: neuron.IzhikevichNode(),
    "KLIF": lambda neuron, layer: neuron.KLIFNode(),
    "adaptive, two memories": lambda neuron, layer: (
        neuron.CLIFNode() if hasattr(neuron, "CLIFNode") else neuron.IzhikevichNode()
    ),
    "synapse filter": lambda neuron, layer: nn.Sequential(neuron.IFNode(), layer.SynapseFilter(tau=3.0)),
    "learned synapse filter": lambda neuron, layer: nn.Sequential(
        neuron.IFNode(), layer.SynapseFilter(tau=3.0, learnable=True)
    ),
    "delay": lambda neuron, layer: nn.Sequential(neuron.IFNode(), layer.Delay(delay_steps=2)),
    "fed back": lambda neuron, layer: layer.ElementWiseRecurrentContainer(neuron.IFNode(), lambda y, x: x + 0.5 * y),
    "fed back through weights": lambda neuron, layer: nn.Sequential(
        layer.Flatten(), layer.LinearRecurrentContainer(neuron.LIFNode(), 512, 512)
    ),
    "batch-norm of every timestep": lambda neuron, layer: nn.Sequential(
        layer.BatchNormThroughTime2d(T, 8), neuron.LIFNode()
    ),
}


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("kind", SPIKINGJELLY)
def test_spikingjelly_step_by_step_is_its_own_loop(kind, mode, images):
    layer = spikingjelly_layers()
    from spikingjelly.activation_based import base, functional, neuron

    fires = SPIKINGJELLY[kind](neuron, layer)
    net = nn.Sequential(
        layer.Conv2d(1, 8, 3, padding=1), layer.BatchNorm2d(8), fires, layer.Flatten(), layer.Linear(512, 7)
    )
    nn.init.constant_(net[1].weight, 2.0)
    functional.set_step_mode(net, mode)
    net.eval()
    sequence = images.expand(T, *images.shape)
    with torch.no_grad():
        functional.reset_net(net)
        expected = net(sequence) if mode == "m" else torch.stack([net(x) for x in sequence])
        if kind == "batch-norm of every timestep":
            functional.reset_net(net)  # its count of timesteps would run over in a further call
        else:
            net(sequence[:1] if mode == "m" else images)  # what is left on the modules is of another call
    memories = [m for m in net.modules() if isinstance(m, base.MemoryModule)]
    model = from_spikingjelly(net)
    check_steps(model, images, expected, lambda: [value for m in memories for value in m.memories()])
    check_module(model, net, images)
    with record(model) as recording, torch.no_grad():
        model(images, T)
    assert all(spikes.shape[:2] == (T, B) for spikes in recording.spikes.values())
    assert recording.spikes


def test_spikingjelly_networks_in_step_mode_m_end_as_they_like(images):
    """A plain linear layer behind the neurons, a mean over time at the end, containers whose insides are in step mode s."""
    layer = spikingjelly_layers()
    from spikingjelly.activation_based import functional, neuron

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = layer.SeqToANNContainer(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8))
            self.fires = neuron.LIFNode(step_mode="m")
            self.inner = layer.MultiStepContainer(nn.Flatten(), neuron.IFNode())
            self.head = nn.Linear(512, 7)

        def forward(self, x):
            return self.head(self.inner(self.fires(self.body(x)))).mean(0)

    net = Mean().eval()
    nn.init.constant_(net.body[1].weight, 3.0)
    model = from_spikingjelly(net)
    assert model.step_mode == "m"
    with torch.no_grad():
        found = model(images, T)
        for k in range(1, T + 1):
            functional.reset_net(net)
            expected = net(images.expand(k, *images.shape))
            torch.testing.assert_close(found[:k].mean(0), expected, rtol=0, atol=1e-6)
    check_exits(model, images, found)
    for one in (images, images[:1]):
        counts = count_operations(model, [one], T)
        assert {row.layer: row.dense_macs[0] for row in counts.layers} == {"body.0": 64 * 72, "head": 512 * 7}
        assert {row.layer: row.neurons for row in counts.neurons} == {"fires": 512, "inner.1": 512}
        head = counts.layers[1]
        assert head.two_valued
        with record(model) as recording, torch.no_grad():
            model(one, T)
        spikes = recording.spikes["inner.1"].flatten(2)
        assert head.effective_acs == pytest.approx((7 * spikes.double().sum(2).mean(1)).tolist())


def test_what_spikingjelly_cannot_step_is_refused_by_name(images):
    layer = spikingjelly_layers()
    from spikingjelly.activation_based import functional, neuron

    for part in (neuron.PSN(T=T), layer.TemporalWiseAttention(T=T, reduction=1)):
        net = nn.Sequential(layer.Conv2d(1, 8, 3, step_mode="m"), neuron.IFNode(step_mode="m"), part)
        with pytest.raises(
            ValueError, match=f"layer '2' is a {type(part).__name__}, which needs all timesteps at once"
        ):
            from_spikingjelly(net)
    mixed = nn.Sequential(neuron.IFNode(), neuron.IFNode(step_mode="m"))
    with pytest.raises(ValueError, match="some modules are in step mode 's' and some in 'm'"):
        from_spikingjelly(mixed)
    with pytest.raises(ValueError, match="a Linear without neurons of SpikingJelly came"):
        from_spikingjelly(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"takes a torch.nn.Module, got a str"):
        from_spikingjelly("net")
    with pytest.raises(ValueError, match="step_mode is 'x', expected 's' or 'm'"):
        from_spikingjelly(mixed, step_mode="x")
    sliding = nn.Sequential(layer.Flatten(), neuron.SlidingPSN(k=2), layer.Linear(64, 7)).eval()
    functional.set_step_mode(sliding, "m")
    with pytest.raises(ValueError, match="gives other outputs for timesteps one by one than for all at once"):
        from_spikingjelly(sliding).step(images)
    gated = nn.Sequential(layer.Conv2d(1, 8, 3), neuron.GatedLIFNode(T=T, inplane=8)).eval()
    functional.set_step_mode(gated, "m")
    with pytest.raises(ValueError, match=r"the network fails on one timestep or on two \(IndexError: "):
        from_spikingjelly(gated).step(images)
    functional.set_step_mode(sliding, "s")
    with pytest.raises(ValueError, match=r"layer memory '1.queue' is \[384\] for 6 samples"):
        from_spikingjelly(sliding).step(images)
    joined = from_spikingjelly(nn.Sequential(nn.Flatten(0), neuron.IFNode()))
    with pytest.raises(
        ValueError, match=r"layer memory '1.v' is \[384\] for 6 samples, so samples cannot leave the batch"
    ):
        joined.step(images)


SNNTORCH = {
    "Leaky": lambda snn, **o: snn.Leaky(beta=0.8, **o),
    "Leaky, reset to zero": lambda snn, **o: snn.Leaky(beta=0.8, reset_mechanism="zero", **o),
    "Leaky, no reset, learned": lambda snn, **o: snn.Leaky(
        beta=torch.full((20,), 0.8), reset_mechanism="none", learn_beta=True, learn_threshold=True, **o
    ),
    "Leaky, reset at once": lambda snn, **o: snn.Leaky(beta=0.8, reset_delay=False, **o),
    "Lapicque": lambda snn, **o: snn.Lapicque(beta=0.8, **o),
    "Synaptic": lambda snn, **o: snn.Synaptic(alpha=0.7, beta=0.8, **o),
    "Alpha": lambda snn, **o: snn.Alpha(alpha=0.8, beta=0.7, **o),
    "RLeaky": lambda snn, **o: snn.RLeaky(beta=0.8, linear_features=20, **o),
    "RLeaky, one to one": lambda snn, **o: snn.RLeaky(beta=0.8, all_to_all=False, V=0.5, **o),
    "RSynaptic": lambda snn, **o: snn.RSynaptic(alpha=0.7, beta=0.8, linear_features=20, **o),
    "SLSTM": lambda snn, **o: snn.SLSTM(20, 20, threshold=0.05, **o),
}


@pytest.mark.parametrize("logits", ["spikes", "membranes"])
@pytest.mark.parametrize("kind", SNNTORCH)
def test_snntorch_step_by_step_is_its_own_loop(kind, logits, images):
    snn = pytest.importorskip("snntorch")
    from snntorch import utils

    hidden = SNNTORCH[kind](snn, init_hidden=True)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 20), hidden, nn.Linear(20, 7), snn.Leaky(beta=0.9, init_hidden=True)
    )
    net[1].weight.data *= 4
    net[3].weight.data *= 4
    net.eval()
    with torch.no_grad():
        utils.reset(net)
        expected = []
        for _ in range(T):
            spikes = net(images)
            expected.append(spikes if logits == "spikes" else net[4].mem.clone())
    model = from_snntorch(net, logits=logits)
    neurons = (net[2], net[4])
    check_steps(model, images, torch.stack(expected), lambda: [b for n in neurons for b in n.buffers(recurse=False)])
    check_module(model, net, images)
    with record(model) as recording, torch.no_grad():
        model(images, T)
    assert {path: spikes.shape for path, spikes in recording.spikes.items()} == {"2": (T, B, 20), "4": (T, B, 7)}
    if logits == "spikes":
        assert torch.equal(recording.spikes["4"], torch.stack(expected))
    counts = count_operations(model, [images], T)
    assert [row.layer for row in counts.layers][:1] == ["1"]
    assert [row.neurons for row in counts.neurons] == [20, 7]


def test_snntorch_networks_that_pass_their_states_are_stepped_as_they_are(images):
    snn = pytest.importorskip("snntorch")

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.lif1 = nn.Linear(64, 20), snn.Leaky(beta=0.8)
            self.second, self.lif2 = nn.Linear(20, 7), snn.Synaptic(alpha=0.7, beta=0.8)
            self.first.weight.data *= 4
            self.second.weight.data *= 4

        def run(self, x, mem1, syn2, mem2):
            spk1, mem1 = self.lif1(self.first(x.flatten(1)), mem1)
            return (self.lif2(self.second(spk1), syn2, mem2), mem1)

    class OutputFirst(Net):
        def forward(self, x, mem1, syn2, mem2):
            (spk2, syn2, mem2), mem1 = self.run(x, mem1, syn2, mem2)
            return spk2, mem1, syn2, mem2

    class OutputLast(Net):
        def forward(self, x, mem1=None, syn2=None, mem2=None, timesteps=25):
            (spk2, syn2, mem2), mem1 = self.run(x, mem1, syn2, mem2)
            return mem1, syn2, mem2, spk2

    class Nested(Net):
        def forward(self, x, state):
            (spk2, syn2, mem2), mem1 = self.run(x, state["mem1"], *state["second"])
            return spk2, {"mem1": mem1, "second": (syn2, mem2)}

    empty = torch.zeros(0)
    for kind, options in (
        (OutputFirst, {}),
        (OutputLast, {"output": -1}),
        (Nested, {"initial": ({"mem1": empty, "second": (empty, empty)},)}),
    ):
        torch.manual_seed(1)
        net = kind().eval()
        mem1 = syn2 = mem2 = torch.zeros(0)
        spikes, membranes = [], []
        with torch.no_grad():
            for _ in range(T):
                (spk2, syn2, mem2), mem1 = net.run(images, mem1, syn2, mem2)
                spikes.append(spk2)
                membranes.append(mem2)
        for logits, expected in (("spikes", spikes), ("membranes", membranes)):
            model = from_snntorch(net, logits=logits, **options)
            check_steps(
                model, images, torch.stack(expected), lambda net=net: [*net.lif1.buffers(), *net.lif2.buffers()]
            )


def test_what_snntorch_cannot_step_is_refused_in_one_line(images):
    snn = pytest.importorskip("snntorch")
    hidden = snn.Leaky(beta=0.5, init_hidden=True)

    class Loops(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif = hidden

        def forward(self, x):
            return torch.stack([self.lif(x.flatten(1)) for _ in range(3)])

    class Short(Loops):
        def forward(self, x, mem):
            return self.lif(x.flatten(1))

    calls = {
        r"returned \[3, 6, 64\] for a timestep of 6 samples": lambda: from_snntorch(Loops())(images, 2),
        "the network took 1 states and returned a Tensor": lambda: from_snntorch(Short()).step(images),
        "a Linear without neurons of snnTorch came": lambda: from_snntorch(nn.Linear(2, 2)),
        "takes a torch.nn.Module, got a int": lambda: from_snntorch(3),
        "logits is 'rates', expected 'spikes' or 'membranes'": lambda: from_snntorch(hidden, logits="rates"),
        "expected a network that ends with neurons": lambda: from_snntorch(
            nn.Sequential(nn.Flatten(), hidden, nn.Linear(64, 3)), logits="membranes"
        ).step(images),
    }
    if hasattr(snn, "LeakyParallel"):
        parallel = nn.Sequential(hidden, snn.LeakyParallel(4, 4))
        calls["layer '1' is a LeakyParallel, which needs all timesteps at once"] = lambda: from_snntorch(parallel)
    for message, call in calls.items():
        with warnings.catch_warnings(), pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("peer", ["spikingjelly", "snntorch"])
def test_a_state_of_another_network_or_batch_is_refused(peer, images):
    """The libraries would broadcast it, or begin anew."""
    library = pytest.importorskip(peer)
    if peer == "snntorch":
        model = from_snntorch(nn.Sequential(nn.Flatten(), library.Leaky(beta=0.5, init_hidden=True)).eval())
    else:
        layer = spikingjelly_layers()
        from spikingjelly.activation_based import neuron

        model = from_spikingjelly(nn.Sequential(layer.Flatten(), neuron.IFNode()).eval())
    _, state = model.step(images)
    with pytest.raises(ValueError, match=r"the state has 6 rows at '.*' for 1 samples, expected one for each"):
        model.step(images[:1], state)
    for other in ({"7.v": images}, [images], {}):
        with pytest.raises(ValueError, match="pass what the previous step of this network returned, or None"):
            model.step(images, other)


def test_a_deltaleaky_starts_with_none(images):
    snn = pytest.importorskip("snntorch")
    if not hasattr(snn, "DeltaLeaky"):
        pytest.skip("a neuron of later versions")

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.lif = nn.Linear(64, 7), snn.DeltaLeaky(delta_threshold=0.05, beta=0.8, init_hidden=True)

        def forward(self, x):
            return self.lif(self.layer(x.flatten(1)))

    net = Net().eval()
    with torch.no_grad():
        expected = torch.stack([net(images)[0] for _ in range(T)])
        net.lif.reset_mem()
        model = from_snntorch(net)
        assert torch.equal(model(images, T), expected)
        assert torch.equal(model(images[:2], T), model(images, T)[:, :2])
        assert net.lif.mem is None
    assert AnytimeClassifier(model, "margin", math.inf, T)(images).exit_times.tolist() == [T] * B
    snn.SpikingNeuron.instances.remove(net.lif)  # whose memory of None fails in utils.reset of any other network
