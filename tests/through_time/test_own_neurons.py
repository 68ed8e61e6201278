"""A layer of neurons of one's own against a plain loop over timesteps that calls its `step`."""

import copy
from collections import Counter

import pytest
import torch
from own_neurons import NETWORKS, Adaptive, OwnLIF, Stochastic, Synaptic
from plain_lif import PRIMITIVES
from temporal_runs import outputs_and_gradients
from torch import nn
from torch.utils.checkpoint import checkpoint

from spikedistill import LIF, Delay, Recurrent, SpikingNeuron, UserError, lif, spike, temporal
from spikedistill.evaluation import AnytimeClassifier, compare_gradients, count_operations, record
from spikedistill.neurons import SURROGATES, uncompiled
from spikedistill.through_time import UnsupportedOperationError

f64 = torch.float64
T, B = 5, 3


def smooth(distance):
    """A spike whose gradient is autograd's own of the surrogate's primitive."""
    primitive = PRIMITIVES["sigmoid"](distance)
    return (distance >= 0).to(distance.dtype) + (primitive - primitive.detach())


class PlainLoop:
    """A copy of a network on plain tensors, layer by layer at one timestep after another.

    Args:
        cut: cut the gradient's path through the states of neurons.
    """

    def __init__(self, network, cut=False):
        self.network, self.cut = copy.deepcopy(network), cut
        for module in self.network.modules():
            if isinstance(module, LIF):
                module.forward = lambda x, module=module: self.advance(
                    module, x, OwnLIF(module.threshold, module.decay)
                )
            elif isinstance(module, SpikingNeuron):
                module.fire = smooth
                module.forward = lambda x, module=module: self.advance(module, x, module)
            elif isinstance(module, (Recurrent, Delay)):
                module.forward = lambda x, module=module: self.carry(module, x)

    def __call__(self, xs):
        self.state, outs = {}, []
        for x in xs:
            self.calls = Counter()
            outs.append(self.network(x))
        return torch.stack(outs)

    def place(self, module):
        self.calls[module] += 1
        return module, self.calls[module]

    def advance(self, module, x, neuron):
        place, neuron.fire = self.place(module), smooth
        spikes, state = neuron.step(x, self.state.get(place))
        self.state[place] = detached(state) if self.cut else state
        return spikes

    def carry(self, module, x):
        place = self.place(module)
        before = self.state.get(place, torch.zeros_like(x))
        self.state[place] = module.layer(x + module.feedback(before)) if isinstance(module, Recurrent) else x
        return self.state[place] if isinstance(module, Recurrent) else before


def detached(state):
    if isinstance(state, dict):
        return {name: part.detach() for name, part in state.items()}
    return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()


def build(name):
    torch.manual_seed(0)
    network = NETWORKS[name]().to(f64)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.05, 0.1)
            module.eval()
    return network


def make_input(kind="events"):
    shape = (B, 4) if kind == "static" else (T, B, 4)
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=f64)


@pytest.mark.parametrize("kind", ["static", "events"])
@pytest.mark.parametrize("rule", ["bptt", "checkpoint", "sltt"])
@pytest.mark.parametrize("name", NETWORKS)
def test_values_and_all_gradients_are_those_of_the_plain_loop(name, rule, kind):
    network, x = build(name), make_input(kind)
    options = {"gradient": "bptt", "checkpoint": True} if rule == "checkpoint" else {"gradient": rule}
    model, plain = temporal(network, **options), PlainLoop(network, cut=rule == "sltt")
    if rule == "sltt" and any(isinstance(module, Synaptic) for module in network.modules()):
        # its spikes depend on the state before only, whose gradient is cut
        with pytest.raises(UserError, match=r"^Synaptic\.step of layer '\d' returned spikes without a gradient"):
            outputs_and_gradients(network, lambda x: model(x, T if kind == "static" else None), x)
        return
    out, gradients = outputs_and_gradients(network, lambda x: model(x, T if kind == "static" else None), x)
    expected, expected_gradients = outputs_and_gradients(plain.network, lambda x: plain(x.expand(T, B, 4)), x)
    assert out.unique().numel() > 1
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    assert gradients.keys() == expected_gradients.keys()
    for key, gradient in expected_gradients.items():
        if gradient is None:  # of a parameter that acts on the state only, where the path through it is cut
            assert rule == "sltt"
            assert gradients[key] is None
        else:
            torch.testing.assert_close(gradients[key], gradient, rtol=0, atol=1e-12, msg=key)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_timestep_at_a_time_gives_the_same_and_keeps_rows_of_samples(name):
    network, x = build(name).eval(), make_input()
    model = temporal(network)
    with torch.no_grad():
        torch.manual_seed(3)
        expected, state = PlainLoop(network)(x), None
        torch.manual_seed(3)
        for t in range(T):
            y, state = model.step(x[t], state)
            torch.testing.assert_close(y, expected[t], rtol=0, atol=1e-12)
            assert all(len(rows) == B for rows in state.values())
        if not any(isinstance(module, Stochastic) for module in network.modules()):
            for still in (False, True):
                state, whole = None, model(x[0], T)
                for t in range(T):
                    y, state = model.step(x[0], state, still=still)
                    torch.testing.assert_close(y, whole[t], rtol=0, atol=1e-12)


def test_the_state_lies_under_the_paths_of_layers_and_the_names_of_its_parts():
    def keys(name):
        return set(temporal(build(name).eval()).step(make_input("static"))[1])

    assert keys("lif") == {"1"}
    assert keys("adaptive") == {"1.v", "1.rise"}
    assert keys("synaptic") == {"1.0", "1.1", "3.0", "3.1"}
    assert keys("the network itself") == {"v", "rise"}
    assert keys("called twice") == {"neuron.v", "neuron.rise", "neuron#1.v", "neuron#1.rise"}
    assert keys("inside a recurrence") == {"0", "0.layer.1.v", "0.layer.1.rise", "0.layer.3", "1"}


@pytest.mark.parametrize("rule", ["bptt", "sltt"])
def test_lif_written_out_is_lif_to_the_bit(rule):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), LIF(threshold=0.4), nn.Linear(6, 5), LIF(threshold=0.2, decay=0.9))
    own = copy.deepcopy(network)
    own[1], own[3] = OwnLIF(0.4), OwnLIF(0.2, 0.9)
    with uncompiled():
        found, expected = (
            outputs_and_gradients(n.to(f64), temporal(n, gradient=rule), make_input()) for n in (own, network)
        )
    assert torch.equal(found[0], expected[0])
    for key, gradient in expected[1].items():
        assert torch.equal(found[1][key], gradient), key


def test_a_lif_with_a_step_of_its_own_runs_by_it():
    class Inverted(LIF):
        def step(self, current, state):
            return super().step(-current, state)

    x = make_input() - 1
    assert torch.equal(temporal(Inverted())(x), lif(-x))
    layer, state = LIF(decay=0.9), None
    steps = []
    for current in x:
        spikes, state = layer.step(current, state)
        steps.append(spikes)
    assert torch.equal(torch.stack(steps), lif(x, decay=0.9))


def test_states_stay_in_float32_under_autocast_and_spikes_have_the_dtype_of_the_currents():
    seen = []

    class Watched(OwnLIF):
        def step(self, current, state):
            seen.append(current.dtype)
            return super().step(current, state)

    model, x = temporal(nn.Sequential(nn.Linear(4, 6), Watched(), nn.Linear(6, 2)).eval()), make_input().float()
    with torch.autocast("cpu", torch.bfloat16):
        assert model(x).dtype == torch.bfloat16
        assert model.step(x[0])[1]["1"].dtype == torch.float32
    assert set(seen) == {torch.float32}


def test_samples_that_are_done_leave_the_batch():
    network = nn.Sequential(nn.Flatten(), build("adaptive").float().eval())
    model, x = temporal(network), make_input("static").float().view(B, 1, 2, 2)
    answers = AnytimeClassifier(model, "confidence", 0.55, T)(x)
    with torch.no_grad():
        means = model(x, T).cumsum(0) / torch.arange(1, T + 1).view(-1, 1, 1)
    done = means.softmax(-1).amax(-1) >= 0.55
    done[-1] = True
    assert answers.exit_times.tolist() == (done.int().argmax(0) + 1).tolist()
    assert len(set(answers.exit_times.tolist())) > 1
    with pytest.raises(UserError, match=r"the state of '1\.1\.v' is of 2 samples, the input of 3"):
        model.step(x, {key: rows[:2] for key, rows in model.step(x)[1].items()})


def test_many_parts_of_a_state_keep_their_order_whatever_that_of_the_keys():
    class Line(SpikingNeuron):
        """Delays by twelve timesteps."""

        def step(self, current, state):
            line = (torch.zeros_like(current),) * 12 if state is None else state
            return spike(line[0] - 0.5), (*line[1:], current)

    model, x = temporal(Line()).eval(), torch.rand(14, 2, 1)
    outs, state = [], None
    for t in range(14):
        out, state = model.step(x[t], state)
        outs.append(out)
        state = {key: state[key] for key in sorted(state)}
    expected = torch.cat([torch.zeros(12, 2, 1), (x[:2] >= 0.5).float()])
    assert torch.equal(torch.stack(outs), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@torch.no_grad()
def test_a_network_of_them_compiles_as_a_whole_and_so_does_a_step():
    model, x = temporal(build("adaptive")).eval(), make_input("static")
    compiled, step = (torch.compile(f, fullgraph=True, backend="aot_eager") for f in (model, model.step))
    expected, state = model(x, 3), None
    torch.testing.assert_close(compiled(x, 3), expected, rtol=0, atol=1e-12)
    for t in range(3):
        y, state = step(x, state)
        torch.testing.assert_close(y, expected[t], rtol=0, atol=1e-12)
    assert set(state) == {"1.v", "1.rise"}


def test_a_checkpoint_draws_again_what_it_drew():
    class Checkpointed(nn.Module):
        def __init__(self, part):
            super().__init__()
            self.part = part

        def forward(self, x):
            return checkpoint(self.part, x, use_reentrant=False)

    network, x = build("stochastic"), make_input()
    (out, gradients), (again, others) = (
        outputs_and_gradients(network, temporal(n), x) for n in (network, nn.Sequential(Checkpointed(network)))
    )
    assert torch.equal(out, again)
    assert all(torch.equal(gradient, others[name]) for name, gradient in gradients.items())


def test_draws_of_a_neuron_are_new_at_each_timestep_and_depend_on_the_seed_alone():
    model, x = temporal(build("stochastic")), make_input("static")

    def outputs(seed):
        torch.manual_seed(seed)
        return model(x, 20)

    assert torch.equal(outputs(1), outputs(1))
    assert not torch.equal(outputs(1), outputs(2))
    assert len(outputs(1).unique(dim=0)) > 5
    # what other layers draw is refused as before, also beside such a neuron
    with pytest.raises(UnsupportedOperationError, match=r"'rand' draws random numbers in step\(\)"):
        temporal(nn.Sequential(Noisy(), Stochastic()).eval()).step(x)
    with pytest.raises(UnsupportedOperationError, match="'rand' draws random numbers inside a Recurrent"):
        temporal(Recurrent(nn.Sequential(Stochastic(), Noisy(), Stochastic()), nn.Linear(4, 4).to(f64)))(x, 3)


class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.rand(x.shape, dtype=x.dtype)


@pytest.mark.parametrize("options", [{"gradient": "rate"}, {"gradient": "rate", "chunk": 2}, {"gradient": "dsr"}])
def test_rules_that_are_derived_for_lif_refuse_them_by_name(options):
    with pytest.raises(UserError, match=r"derived for LIF .*layer '1' is a Adaptive .*use gradient='bptt' or 'sltt'"):
        temporal(build("adaptive"), **options)
    model = temporal(nn.Sequential(nn.Linear(4, 4)).to(f64), **options)
    model.module.append(Adaptive(4))
    with pytest.raises(UnsupportedOperationError, match=r"'Adaptive' has no rule .*use gradient='bptt' or 'sltt'"):
        model(make_input())


def test_they_are_recorded_and_counted():
    model, x = temporal(build("convolutions, and LIF beside").eval()), make_input()
    with record(model) as recording:
        model(x)
    shapes = {path: tuple(spikes.shape) for path, spikes in recording.spikes.items()}
    assert shapes == {"3": (T, B, 2, 2, 2), "5": (T, B, 2, 2, 2), "8": (T, B, 2)}
    assert all(0 <= float(rate.mean()) <= 1 for rate in recording.rates.values())
    assert set(recording.thresholds) == {"5"}
    with pytest.raises(UserError, match=r"layer '3' is no LIF layer .* membranes are not known"):
        recording.membranes("3")
    assert recording.membranes("5").shape == (T, B, 2, 2, 2)
    counts = count_operations(model, [x])
    assert [row.layer for row in counts.neurons] == ["3", "5", "8"]
    assert counts.neurons[0].spikes == pytest.approx(recording.spikes["3"].flatten(2).sum(2).mean(1).tolist())


def of(step, **attributes):
    """A layer with this step, between two others."""
    kind = type("Mine", (SpikingNeuron,), {"step": step})
    layer = kind()
    for name, value in attributes.items():
        setattr(layer, name, value)
    return nn.Sequential(nn.Linear(4, 4), layer, nn.Linear(4, 2))


def keeps(self, current, state):
    self.v = current + (0 if self.v is None else self.v)
    return spike(self.v - 1), current


def keeps_in_a_list(self, current, state):
    self.seen[0] = current
    return spike(current - 1), current


def writes_to_a_buffer(self, current, state):
    self.total += current.sum()
    return spike(current - 1), current


def writes_to_its_current(self, current, state):
    spikes = spike(current - 1)
    with torch.no_grad():
        current += 1
    return spikes, current


def writes_to_its_state(self, current, state):
    if state is None:
        return spike(current - 1), current.detach().clone()
    return spike(current - 1), state.mul_(0.5)


def one_part_more(self, current, state):
    return spike(current - 1), {"v": current} if state is None else {"v": current, "w": current}


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            of(lambda self, x, s: spike(x - 1)),
            r"returned a tensor \[3, 4\], expected two values: the spikes and the state",
        ),
        (of(lambda self, x, s: (spike(x - 1), x, x)), "returned a tuple of 3, expected two values"),
        (
            of(lambda self, x, s: (1.0, x)),
            r"returned 1\.0 as the spikes, expected a tensor of the currents' shape \[3, 4\]",
        ),
        (of(lambda self, x, s: (spike(x - 1).sum(1), x)), r"returned a tensor \[3\] as the spikes, .* \[3, 4\]"),
        (
            of(lambda self, x, s: (x >= 1, x)),
            r"returned spikes of torch\.bool, expected .* torch\.float32: spikedistill\.spike",
        ),
        (
            of(lambda self, x, s: ((x >= 1).float(), x)),
            r"returned spikes without a gradient.*spikedistill\.spike\(u - threshold\)",
        ),
        (
            of(lambda self, x, s: (spike(x - 1), None)),
            "returned None as the state, expected a tensor, a tuple of tensors",
        ),
        (of(lambda self, x, s: (spike(x - 1), ())), "returned a tuple of 0 as the state, which is empty"),
        (of(lambda self, x, s: (spike(x - 1), [x])), "returned a list of 1 as the state"),
        (of(lambda self, x, s: (spike(x - 1), {"a b": x})), "returned a dict of 1 as the state"),
        (of(lambda self, x, s: (spike(x - 1), (x, 3))), "returned 3 as part '1' of the state of 3 samples"),
        (of(lambda self, x, s: (spike(x - 1), x.sum())), r"returned a tensor \[\] as the state of 3 samples"),
        (of(lambda self, x, s: (spike(x - 1), {"v": x[:2]})), r"returned a tensor \[2, 4\] as part 'v' of the state"),
        (
            of(writes_to_its_current),
            "changed its current or its state in place.*: make new tensors, as u",
        ),
        (of(writes_to_its_state), "changed its current or its state in place"),
        (of(one_part_more), "returned a state of 'v', 'w', and of 'v' at the timestep before: expected the same parts"),
        (of(keeps, v=None), r"changed self\.v: a layer keeps no state on itself, so return it"),
        (of(keeps_in_a_list, seen=[None]), r"changed self\.seen\[0\]"),
        (of(lambda self, x, s: (self.__dict__.update(new=x), (spike(x - 1), x))[1]), r"changed self\.new"),
    ],
)
def test_what_a_step_gets_wrong_is_said_in_one_line_that_names_the_layer(network, message):
    calls = [lambda: temporal(network)(torch.ones(3, 4), 3), lambda: streamed(network)]
    for call in calls[: 1 if "gradient" in message else 2]:
        with pytest.raises(UserError, match=r"^Mine\.step of layer '1' " + message) as raised:
            call()
        assert "\n" not in str(raised.value)


def streamed(network):
    model, state = temporal(network).eval(), None
    for _ in range(3):
        _, state = model.step(torch.ones(3, 4), state)


def test_what_a_step_gets_wrong_elsewhere():
    writer = of(writes_to_a_buffer)
    writer[1].register_buffer("total", torch.zeros(()))
    with pytest.raises(UserError, match=r"changed self\.total"):
        temporal(writer)(torch.ones(3, 4), 3)
    with pytest.raises(UserError, match=r"got currents of torch\.int64: convert the network's input, x\.float\(\)"):
        temporal(OwnLIF())(torch.ones(3, 4, dtype=torch.int64), 2)
    with pytest.raises(UserError, match=r"OwnLIF got a tensor \[3, 4\].*temporal\(\.\.\.\), or call .*OwnLIF\.step"):
        OwnLIF()(torch.ones(3, 4))
    with pytest.raises(TypeError, match=r"abstract method '?step"):
        type("Empty", (SpikingNeuron,), {})()
    hidden, network = OwnLIF(), nn.Module()
    network.forward = lambda x: hidden(x)
    with pytest.raises(UserError, match="no submodule of the network"):
        temporal(network.eval()).step(torch.ones(3, 4))
    recurrent = temporal(Recurrent(of(lambda self, x, s: ((x >= 1).float(), x))[:2], nn.Linear(4, 4)))
    with pytest.raises(UserError, match=r"Mine\.step of layer 'layer\.1' returned spikes without a gradient"):
        recurrent(torch.ones(3, 4), 3)


def test_gradient_rules_are_compared_as_far_as_they_know_the_neurons():
    rows = compare_gradients(temporal(build("convolutions, and LIF beside")), make_input(), torch.arange(B) % 2)
    assert {row["rule"] for row in rows} == {"sltt", *(f"bptt with {name}" for name in SURROGATES if name != "sigmoid")}
    rows = compare_gradients(temporal(build("adaptive")), make_input(), torch.arange(B) % 2)
    assert {row["rule"] for row in rows} == {"sltt"}
    assert 0 < rows[-1]["cosine"] < 1


@pytest.mark.parametrize("distance", [torch.arange(3), 0.5])
def test_spike_refuses_what_has_no_gradient(distance):
    with pytest.raises(UserError, match=r"spike got a .*expected a floating-point tensor u - threshold"):
        spike(distance)
    assert spike(torch.tensor([-0.1, 0.0, 0.1]), "arctan").tolist() == [0, 1, 1]
