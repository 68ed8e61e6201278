"""`Recurrent` and `Delay` against a plain loop over timesteps, whose layers keep their state themselves."""

import copy
from collections import Counter

import pytest
import torch
from plain_lif import PRIMITIVES
from temporal_runs import outputs_and_gradients
from torch import nn

from spikedistill import LIF, Delay, Recurrent, temporal
from spikedistill.evaluation import count_operations, record
from spikedistill.evaluation.anytime import AnytimeClassifier
from spikedistill.through_time import CompiledStep, UnsupportedOperationError
from spikedistill.through_time.features import outputs_of

f64 = torch.float64
T, B = 5, 3


class PlainLoop:
    """A copy of a network on plain tensors, one timestep after another.

    Args:
        cut: cut the gradient's path through each membrane, and no other.
    """

    def __init__(self, network, cut=False):
        self.network = copy.deepcopy(network)
        self.cut = cut
        plain = {LIF: self.fire, Recurrent: self.recur, Delay: self.delay, nn.Dropout: self.drop}
        for module in self.network.modules():
            if type(module) in plain:
                module.forward = lambda x, module=module: plain[type(module)](module, x)

    def __call__(self, xs):
        self.state, self.xs = {}, xs
        outs = []
        for x in xs:
            self.calls = Counter()
            outs.append(self.network(x))
        return torch.stack(outs)

    def place(self, module):
        """Of a module's state: one that is called twice in a timestep has two."""
        self.calls[module] += 1
        return module, self.calls[module]

    def fire(self, neuron, current):
        place = self.place(neuron)
        u = neuron.decay * self.state.get(place, 0.0) + current
        smooth = PRIMITIVES["sigmoid"](u - neuron.threshold)
        spikes = (u >= neuron.threshold).to(u.dtype) + (smooth - smooth.detach())
        membrane = u - neuron.threshold * spikes
        self.state[place] = membrane.detach() if self.cut else membrane
        return spikes

    def recur(self, module, x):
        place = self.place(module)
        shape = x.shape if module.shape is None else (len(x), *module.shape)
        y = self.state.get(place, torch.zeros(shape, dtype=x.dtype))
        self.state[place] = module.layer(x + module.feedback(y))
        return self.state[place]

    def delay(self, module, x):
        line = self.state.setdefault(self.place(module), [])
        line.append(x)
        return line[-1 - module.timesteps] if len(line) > module.timesteps else torch.zeros_like(x)

    def drop(self, module, x):
        place = self.place(module)
        if place not in self.state:
            self.state[place] = nn.functional.dropout(torch.ones_like(x), module.p, module.training)
        return x * self.state[place]


class CalledTwice(nn.Module):
    """One recurrent layer in two places, each with its own past."""

    def __init__(self):
        super().__init__()
        self.recurrent, self.late = Recurrent(LIF(threshold=0.4), nn.Linear(4, 4)), Delay(2)

    def forward(self, x):
        return self.late(self.recurrent(self.recurrent(x) + x)) + self.late(x)


class OnTheInput(nn.Module):
    """What carries a static input through time stands beside neurons that see it."""

    def __init__(self, carry):
        super().__init__()
        self.lif, self.carry = LIF(threshold=0.3), carry

    def forward(self, x):
        return self.lif(x * 0.5) + self.carry(x)


def convolutional():
    norm = nn.BatchNorm2d(2)
    nn.init.uniform_(norm.running_mean, -0.1, 0.1)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    layer = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), norm, LIF(threshold=0.3, decay=0.8))
    recurrent = Recurrent(layer, nn.Conv2d(2, 2, 3, padding=1))
    return nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 1), recurrent, nn.AvgPool2d(2), nn.Flatten())


def nested():
    inner = Recurrent(nn.Sequential(nn.Linear(4, 4), LIF(threshold=0.2)), nn.Linear(4, 4))
    return nn.Sequential(
        Recurrent(nn.Sequential(inner, Delay(1), nn.Linear(4, 4), LIF(threshold=0.1)), nn.Linear(4, 4))
    )


NETWORKS = {
    "neurons": lambda: nn.Sequential(nn.Linear(4, 6), Recurrent(LIF(threshold=0.4), nn.Linear(6, 6)), nn.Linear(6, 2)),
    "another shape": lambda: Recurrent(nn.Sequential(nn.Linear(4, 6), LIF(threshold=0.3)), nn.Linear(6, 4), shape=(6,)),
    "no neurons": lambda: Recurrent(nn.Tanh(), nn.Linear(4, 4, bias=False)),
    "convolutions, and batch-norm in eval mode": convolutional,
    "several": lambda: nn.Sequential(
        Recurrent(LIF(threshold=0.3), nn.Linear(4, 4)), nn.Linear(4, 4), Recurrent(LIF(threshold=0.1), nn.Linear(4, 4))
    ),
    "nested": nested,
    "a delayed feedback": lambda: Recurrent(LIF(threshold=0.3), nn.Sequential(Delay(2), nn.Linear(4, 4))),
    "dropout": lambda: Recurrent(nn.Sequential(nn.Dropout(0.4), LIF(threshold=0.2)), nn.Linear(4, 4)),
    "called twice": CalledTwice,
    "a delay of spikes": lambda: nn.Sequential(LIF(threshold=0.3), Delay(3), nn.Linear(4, 3), LIF(threshold=0.1)),
    "a delay of the input": lambda: OnTheInput(Delay(1)),
    "a recurrence on the input": lambda: OnTheInput(Recurrent(LIF(), nn.Linear(4, 4))),
    "a delay of nothing": lambda: nn.Sequential(Delay(0), nn.Linear(4, 3)),
    "a delay of more than T": lambda: nn.Sequential(nn.Linear(4, 3), Delay(T + 2), nn.Linear(3, 2)),
}


def build(name):
    torch.manual_seed(0)
    network = NETWORKS[name]().to(f64)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network


def make_input(kind):
    shape = (B, 4) if kind == "static" else (T, B, 4)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=f64)


def sequence_of(x):
    return x if x.ndim == 3 else x.expand(T, B, 4)


@pytest.mark.parametrize("kind", ["static", "events"])
@pytest.mark.parametrize("rule", ["bptt", "checkpoint", "sltt"])
@pytest.mark.parametrize("name", NETWORKS)
def test_values_and_all_gradients_are_those_of_the_plain_loop(name, rule, kind):
    network, x = build(name), make_input(kind)
    options = {"gradient": "bptt", "checkpoint": True} if rule == "checkpoint" else {"gradient": rule}
    model, plain = temporal(network, **options), PlainLoop(network, cut=rule == "sltt")
    out, gradients = outputs_and_gradients(network, lambda x: model(x, T if kind == "static" else None), x)
    expected, expected_gradients = outputs_and_gradients(plain.network, lambda x: plain(sequence_of(x)), x)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    assert gradients.keys() == expected_gradients.keys()
    for key, gradient in expected_gradients.items():
        gradient = torch.zeros_like(gradients[key]) if gradient is None else gradient
        torch.testing.assert_close(gradients[key], gradient, rtol=0, atol=1e-12, msg=key)


@pytest.mark.parametrize("gradient", ["bptt", "sltt", "rate", "dsr"])
@pytest.mark.parametrize("name", NETWORKS)
def test_without_gradients_every_rule_runs_it_also_one_step_at_a_time(name, gradient):
    network, x = build(name).eval(), make_input("events")
    model = temporal(network, gradient=gradient)
    with torch.no_grad():
        expected = PlainLoop(network)(x)
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
        state = None
        for t in range(T):
            y, state = model.step(x[t], state)
            torch.testing.assert_close(y, expected[t], rtol=0, atol=1e-12)
            assert all(len(rows) == B for rows in state.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_still_input_changes_nothing(name):
    model, x = temporal(build(name).eval()), make_input("static")
    with torch.no_grad():
        expected, state = model(x, T), None
        for t in range(T):
            y, state = model.step(x, state, still=True)
            torch.testing.assert_close(y, expected[t], rtol=0, atol=1e-12)


def test_the_state_of_a_step_is_under_the_paths_of_its_modules():
    _, state = temporal(build("nested").eval()).step(make_input("static"))
    assert set(state) == {"0", "0.layer.0", "0.layer.0.layer.1", "0.layer.1", "0.layer.3"}


@pytest.mark.parametrize("name", ["neurons", "nested", "a delay of spikes"])
def test_samples_that_are_done_can_leave(name):
    network, x = build(name).eval(), make_input("events")
    model, keep = temporal(network), torch.tensor([2, 0])
    with torch.no_grad():
        whole, (_, state) = model(x), model.step(x[0])
        state = {key: rows[keep] for key, rows in state.items()}
        for t in range(1, T):
            y, state = model.step(x[t, keep], state)
            torch.testing.assert_close(y, whole[t, keep], rtol=0, atol=1e-12)
        with pytest.raises(
            ValueError, match=r"the state of '.*' is of 2 samples, the input of 3|the state is \[2, .*\[3, "
        ):
            model.step(x[0], state)


def test_a_compiled_step_and_early_exit_take_them():
    model, x = temporal(build("nested").float().eval()), make_input("static").float()
    step, state = CompiledStep(model), None
    with torch.no_grad():
        expected = model(x, T)
    for t in range(3):
        y, state = step(x, state)
        torch.testing.assert_close(y, expected[t])
    answers = AnytimeClassifier(temporal(nn.Sequential(nn.Flatten(), model.module)), "confidence", 0.3, T)(
        x.view(B, 1, 2, 2)
    )
    means = expected.cumsum(0) / torch.arange(1, T + 1).view(-1, 1, 1)
    done = means.softmax(-1).amax(-1) >= 0.3
    done[-1] = True
    assert answers.exit_times.tolist() == (done.int().argmax(0) + 1).tolist()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_network_compiles_as_a_whole():
    model, x = temporal(build("neurons")), make_input("static")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, 3), model(x, 3), rtol=0, atol=1e-12)


def test_nothing_is_kept_between_calls_and_the_weights_are_all_there_is_to_save():
    network, x = build("nested"), make_input("events")
    model, other = temporal(network), temporal(NETWORKS["nested"]().to(f64))
    other.load_state_dict(model.state_dict())
    first = model(x)
    for twin in (model, copy.deepcopy(model), other):
        assert torch.equal(twin(x), first)
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize(
    "options",
    [{"gradient": "rate"}, {"gradient": "rate", "chunk": 2}, {"gradient": "dsr"}],
    ids=["rate", "chunk", "dsr"],
)
@pytest.mark.parametrize(("name", "layer"), [("neurons", "Recurrent"), ("a delay of spikes", "Delay")])
def test_under_rules_of_mean_rates_they_are_refused_by_name(name, layer, options):
    model = temporal(build(name), **options)
    with pytest.raises(UnsupportedOperationError, match=f"^'{layer}' has no rule .*use gradient='bptt' or 'sltt'"):
        model(make_input("events"))


def test_batch_norm_in_training_inside_one_is_refused_by_name():
    network = build("convolutions, and batch-norm in eval mode").train()
    for x, timesteps in ((make_input("static"), T), (make_input("events"), None)):
        with pytest.raises(
            UnsupportedOperationError, match=r"^'batch_norm' .* inside a Recurrent .* statistics of all timesteps"
        ):
            temporal(network)(x, timesteps)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Recurrent(LIF(), nn.Linear(3, 3))(torch.zeros(2, 3)), r"Recurrent got a tensor \[2, 3\].*temporal"),
        (lambda: Delay(1)(torch.zeros(4, 2, 3)), r"Delay got a tensor \[4, 2, 3\].*temporal"),
        (lambda: Delay(1)([1]), "Delay got a list"),
        (lambda: Delay(-1), "Delay of -1: expected a whole number"),
        (lambda: Delay(1.0), r"Delay of 1\.0: expected a whole number"),
        (lambda: Recurrent(LIF(), torch.relu), "feedback is .*expected a torch.nn.Module"),
        (
            lambda: temporal(Recurrent(nn.Linear(3, 8), nn.Linear(8, 3)))(torch.zeros(2, 3), 2),
            r"the feedback of a Recurrent failed on \[2, 3\].*shape=",
        ),
        (
            lambda: temporal(Recurrent(nn.Linear(3, 8), nn.Identity()))(torch.zeros(2, 3), 2),
            r"the layer of a Recurrent returned samples \[8\], its feedback was given \[3\]",
        ),
    ],
)
def test_what_they_cannot_take_is_refused_with_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_their_operations_are_counted_at_every_timestep():
    model, x = temporal(build("neurons").eval()), make_input("events")
    counts = count_operations(model, [x, x + 0.1])
    rows = {row.layer: row for row in counts.layers}
    assert {path: row.dense_macs for path, row in rows.items()} == {
        "0": [24] * T,
        "1.feedback": [36] * T,
        "2": [12] * T,
    }
    assert counts.uncounted_macs == 0
    # the feedback takes zeros, then the spikes of the timestep before; the head takes those of this one
    spikes = counts.neurons[0].spikes
    assert rows["1.feedback"].effective_acs == pytest.approx([0.0, *[6 * n for n in spikes[:-1]]])
    assert rows["2"].effective_acs == pytest.approx([2 * n for n in spikes])
    assert sum(spikes) > 0


def test_neurons_inside_are_recorded_over_all_timesteps_and_features_are_those_of_the_whole():
    network, x = build("neurons"), make_input("events")
    model = temporal(network)
    with record(model) as recording, outputs_of(network, ["1"]) as outputs:
        model(x)
    assert list(recording.spikes) == ["1.layer"]
    assert recording.spikes["1.layer"].shape == (T, B, 6)
    assert torch.equal(recording.spikes["1.layer"], outputs["1"].over_time().detach())
    assert torch.equal(recording.spikes["1.layer"] == 1, recording.membranes("1.layer") >= 0.4)
    with outputs_of(network, ["1.layer"]), pytest.raises(ValueError, match=r"'1\.layer' is inside a Recurrent"):
        model(x)


def test_checkpoints_go_around_a_whole_recurrent_and_are_refused_around_its_neurons():
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self, part):
            super().__init__()
            self.part = part

        def forward(self, x):
            return checkpoint(self.part, x, use_reentrant=False)

    network, x = build("dropout"), make_input("events")
    expected = outputs_and_gradients(network, temporal(network), x)
    around = Checkpointed(network)
    out, gradients = outputs_and_gradients(around, temporal(around), x)
    assert torch.equal(out, expected[0])
    for key, gradient in expected[1].items():
        torch.testing.assert_close(gradients[f"part.{key}" if key else key], gradient, rtol=0, atol=1e-12)
    for inside in (nn.Sequential(nn.Linear(4, 4), LIF()), nn.Sequential(nn.Dropout(), nn.Linear(4, 4))):
        refused = temporal(Recurrent(Checkpointed(inside), nn.Linear(4, 4)).to(f64))
        with pytest.raises(
            (ValueError, UnsupportedOperationError), match=r"checkpoint.* around (a|the) whole Recurrent"
        ):
            refused(x).sum().backward()
