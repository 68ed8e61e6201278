"""Networks that are not from this library: anything with `step(x, state) -> (logits, state)`."""

import json
import math
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from spikedistill import LIF, Recurrent, evaluate, temporal
from spikedistill.data import load_dataset
from spikedistill.evaluation import AnytimeClassifier, count_operations, energy, exit_times, record
from spikedistill.evaluation.results import Results
from spikedistill.through_time import Steps, logits_over_time

Pair = namedtuple("Pair", "u rest")


@dataclass
class Membranes:
    u: torch.Tensor
    nothing: None = None


NESTINGS = {
    "tensor": (lambda u: u, lambda state: state),
    "dict": (lambda u: {"u": u}, lambda state: state["u"]),
    "OrderedDict": (lambda u: OrderedDict(a=[u, None]), lambda state: state["a"][0]),
    "tuples and lists": (lambda u: ((), [u]), lambda state: state[1][0]),
    "named tuple": (lambda u: Pair(u, {}), lambda state: state.u),
    "dataclass": (lambda u: (Membranes(u), None), lambda state: state[0].u),
}


class Integrator:
    """Not a module: class 0 gets the spikes of a neuron that integrates the input, class 1 gets 0.25."""

    def __init__(self, nesting="tensor"):
        self.put, self.take = NESTINGS[nesting]
        self.rows = []

    def step(self, x, state=None):
        self.rows.append(len(x))
        u = x.flatten(1) + (0.0 if state is None else self.take(state))
        spikes = (u >= 1).float()
        return torch.cat([spikes, torch.full_like(spikes, 0.25)], 1), self.put(u - spikes)


X = torch.tensor([1.0, 0.5, 0.25]).view(3, 1, 1, 1)


@pytest.mark.parametrize("nesting", NESTINGS)
def test_samples_leave_the_batch_with_their_rows_of_any_nesting(nesting):
    # As worked by hand in test_anytime: currents 1, 0.5 and 0.25 fire first at timesteps 1, 2 and 4.
    network = Integrator(nesting)
    assert isinstance(network, Steps)
    classifier = AnytimeClassifier(network, "stability", 2, 4)
    classifier(X)  # the first batch is also tried for hidden state
    network.rows.clear()
    out = classifier(X)
    assert out.exit_times.tolist() == [2, 3, 2]
    assert out.predictions.tolist() == [0, 0, 1]
    assert out.logits[:, 0].tolist() == [1.0, pytest.approx(1 / 3), 0.0]
    assert network.rows == [3, 3, 1]
    logits = logits_over_time(network, X, 4)
    assert logits[:, :, 0].T.tolist() == [[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]
    assert exit_times(logits, "stability", 2).tolist() == [2, 3, 2]
    frames = torch.stack([X, 0 * X, X])
    assert AnytimeClassifier(network, "margin", math.inf, 9)(frames).exit_times.tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("shape", "sequence"), [((6, 5), False), ((4, 6, 5), True), ((6, 2, 5), False), ((4, 6, 2, 5), True)]
)
def test_inputs_that_are_no_images_say_whether_time_is_their_first_axis(shape, sequence):
    class Sum:
        def step(self, x, state=None):
            u = x.flatten(1).sum(1, keepdim=True) + (0 if state is None else state)
            return torch.cat([u, -u], 1), u

    x = torch.rand(shape)
    out = AnytimeClassifier(Sum(), "margin", math.inf, 4, sequence=sequence)(x)
    torch.testing.assert_close(out.logits, logits_over_time(Sum(), x, None if sequence else 4).double().mean(0))
    if len(shape) < 4:
        with pytest.raises(ValueError, match="for any other input say sequence=True or sequence=False"):
            AnytimeClassifier(Sum(), "margin", math.inf, 4)(x)


class Kept(Integrator):
    """Its membrane stays on it."""

    def __init__(self):
        super().__init__()
        self.u = 0.0

    def step(self, x, state=None):
        out, self.u = super().step(x, self.u)
        return out, None


class Late(Kept):
    """Nothing can be seen of its membrane at the first timestep, not even in the second pass."""

    def step(self, x, state=None):
        out, _ = super().step(0.3 * x)
        return out, None


def returns(value):
    class Returns:
        def step(self, x, state=None):
            return value(x)

    return Returns()


def logits_of(x):
    return torch.zeros(len(x), 3)


REFUSED = {
    "state kept": (Kept(), "the network keeps state on itself, or draws random numbers"),
    "state kept late": (Late(), "the network keeps state on itself"),
    "random": (returns(lambda x: (torch.rand(len(x), 3), None)), "draws random numbers"),
    "a number as state": (
        returns(lambda x: (logits_of(x), {"t": 3})),
        r"the state has 3 at 't', expected tensors with a row",
    ),
    "a scalar as state": (
        returns(lambda x: (logits_of(x), [torch.tensor(0.0)])),
        "the state has a number at '0', expected",
    ),
    "other rows": (
        returns(lambda x: (logits_of(x), {"u": [torch.zeros(2)]})),
        r"layer 'u.0' keeps 2 rows of state for 3 samples",
    ),
    "no pair": (returns(logits_of), r"step returned a Tensor, expected two values: logits \[B, C\] and the state"),
    "three": (returns(lambda x: (logits_of(x), 0, 0)), "step returned a tuple of 3, expected two values"),
    "logits over time": (
        returns(lambda x: (torch.zeros(4, len(x), 3), None)),
        r"returned \[4, 3, 3\] for a timestep of 3 samples",
    ),
    "one class": (
        returns(lambda x: (torch.zeros(len(x), 1), None)),
        r"expected logits \[B, C\] = \[3, C\] of 2 classes or more",
    ),
    "logits of others": (
        returns(lambda x: (torch.zeros(2, 3), None)),
        r"returned \[2, 3\] for a timestep of 3 samples",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_network_whose_samples_cannot_leave_is_refused_in_one_line(kind):
    network, message = REFUSED[kind]
    for call in (
        lambda: AnytimeClassifier(network, "confidence", 0.9, 4)(X),
        lambda: evaluate(network, [(X, torch.tensor([0, 0, 1]))], timesteps=4),
    ):
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_what_has_no_step_or_cannot_be_compiled_is_refused():
    for call in (
        lambda: AnytimeClassifier(nn.Linear(2, 2), "confidence", 0.9, 4),
        lambda: evaluate(nn.Linear(2, 2), [(X, torch.zeros(3).long())], timesteps=2),
        lambda: count_operations(nn.Linear(2, 2), [X], 2),
        lambda: record(nn.Linear(2, 2)).__enter__(),
    ):
        with pytest.raises(
            ValueError, match="model is a Linear, expected a network from load, create_model or temporal"
        ):
            call()
    with pytest.raises(ValueError, match=r"compiled=True compiles networks from load.* and this is a Integrator"):
        AnytimeClassifier(Integrator(), "confidence", 0.9, 4, compiled=True)


class Fire(nn.Module):
    def forward(self, u):
        return (u >= 1).to(u.dtype)


class Plain(nn.Module):
    """The same as `twin`, with a soft reset, written for one timestep; or, with `wrapped`, as an object that is no module."""

    def __init__(self, layers):
        super().__init__()
        self.first, self.fire, self.last = layers[0], Fire(), layers[3]

    def step(self, x, state=None):
        u = self.first(x) + (0.0 if state is None else 0.5 * state["u"])
        spikes = self.fire(u)
        return self.last(spikes.flatten(1)), {"u": u - spikes}


class Wrapped:
    def __init__(self, network):
        self.network = network

    def step(self, x, state=None):
        return self.network.step(x, state)


@pytest.fixture
def twins():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1, bias=False), LIF(decay=0.5), nn.Flatten(), nn.Linear(144, 3)]
    layers[0].weight.data *= 4
    return temporal(nn.Sequential(*layers)).eval(), Plain(layers)


def test_a_networks_records_operations_and_energy_are_those_of_its_twin(twins):
    ours, plain = twins
    x = torch.rand(5, 7, 2, 6, 6)  # frames, so that our stem is not computed once
    with record(ours) as expected:
        logits = ours(x)
    with record(plain, spiking=(Fire,)) as found:
        torch.testing.assert_close(logits_over_time(plain, x), logits)
    assert torch.equal(found.spikes["fire"], expected.spikes["1"])
    assert 0.05 < found.rates["fire"].mean() < 0.95
    torch.testing.assert_close(found.rates["fire"], expected.rates["1"])
    counts, twin = count_operations(plain, [x[:, :4], x[:, 4:]], spiking=(Fire,)), count_operations(ours, [x])
    for mine, theirs, name in zip(counts.layers, twin.layers, ("first", "last"), strict=True):
        assert mine.layer == name
        for part in ("two_valued", "constant", "effective_acs", "effective_macs", "dense_macs", "weights", "inputs"):
            assert getattr(mine, part) == pytest.approx(getattr(theirs, part)), (name, part)
    assert counts.layers[1].two_valued
    assert counts.neurons[0].spikes == pytest.approx(twin.neurons[0].spikes)
    assert counts.uncounted_macs == 0
    assert energy(counts).total_pj == pytest.approx(energy(twin).total_pj)
    assert plain.step.__func__ is Plain.step, "the step is the network's own again"
    with pytest.raises(
        ValueError, match="layer 'fire' is no LIF layer of this library, so its membranes are not known"
    ):
        found.membranes("fire")


def test_a_network_of_ours_inside_an_object_of_another_kind_is_seen_with_its_membranes(twins):
    ours, _ = twins
    x = torch.rand(3, 4, 2, 6, 6)
    with record(ours) as expected:
        ours(x)
    wrapped = Wrapped(ours)
    with record(wrapped) as found:
        logits_over_time(wrapped, x)
    assert torch.equal(found.spikes["network.1"], expected.spikes["1"])
    torch.testing.assert_close(found.membranes("network.1"), expected.membranes("1"))
    assert count_operations(wrapped, [x]).neurons[0].spikes == count_operations(ours, [x]).neurons[0].spikes


def test_a_layer_of_ours_that_runs_in_a_recurrent_is_seen_once_per_step():
    model = temporal(nn.Sequential(Recurrent(LIF(), nn.Linear(4, 4)), nn.Linear(4, 2))).eval()
    x, wrapped = 2 * torch.rand(3, 5, 4), Wrapped(model)
    with record(model) as expected:
        model(x)
    with record(wrapped) as found:
        logits_over_time(wrapped, x)
    assert torch.equal(found.spikes["network.0.layer"], expected.spikes["0.layer"])


def test_a_recording_of_steps_holds_one_pass_of_one_batch(twins):
    _, plain = twins
    x = torch.rand(4, 2, 6, 6)
    with record(plain, spiking=(Fire,)) as recording:
        _, state = plain.step(x)
        assert recording.spikes["fire"].shape == (1, 4, 4, 6, 6)
        plain.step(x, state)
        assert recording.spikes["fire"].shape == (2, 4, 4, 6, 6)
        with pytest.raises(ValueError, match="called a second time"):
            plain.step(x)
        with pytest.raises(ValueError, match=r"layer 'fire' ran inside record\(...\), and not in model.step"):
            plain.fire(x)
        recording.clear()
        _, state = plain.step(x)
        plain.step(x[:2], {"u": state["u"][:2]})
        with pytest.raises(ValueError, match=r"had \[4, 2\] samples at its timesteps, expected one number"):
            _ = recording.spikes
    plain.step(x)
    with pytest.raises(ValueError, match="no layer of this Plain is known to fire: name the types of its neurons"):
        record(plain).__enter__()
    with pytest.raises(ValueError, match="expected types of modules, such as"):
        record(plain, spiking=(7,)).__enter__()


def test_objects_that_take_no_attributes_are_watched_or_refused(twins):
    ours, _ = twins
    x = torch.rand(3, 4, 2, 6, 6)

    @dataclass(frozen=True)
    class Frozen:
        network: object

        def step(self, x, state=None):
            return self.network.step(x, state)

    class Slots:
        __slots__ = ("network",)
        step = Wrapped.step

    frozen, slots = Frozen(ours), Slots()
    slots.network = ours
    with record(frozen) as recording:
        logits_over_time(frozen, x)
    assert recording.spikes["network.1"].shape == (3, 4, 4, 6, 6)
    assert "step" not in vars(frozen)
    torch.testing.assert_close(logits_over_time(slots, x), ours(x))
    with pytest.raises(ValueError, match="no layer of this Slots is known to fire"):
        record(slots).__enter__()


def test_a_layer_called_twice_has_two_entries_and_one_that_is_skipped_is_not_counted():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def step(self, x, state=None):
            return self.layer(self.layer(x)), torch.zeros(len(x))

    class Skips(Twice):
        def step(self, x, state=None):
            return (self.layer(x) if state is None else x), torch.zeros(len(x))

    x = torch.rand(2, 3)
    assert [row.layer for row in count_operations(Twice(), [x], 3).layers] == ["layer", "layer#1"]
    with pytest.raises(ValueError, match="layer 'layer' ran at 1 of 3 timesteps"):
        count_operations(Skips(), [x], 3)
    with pytest.raises(ValueError, match="no convolution or linear layer of a Integrator ran"):
        count_operations(Integrator(), [X], 3)


def test_evaluation_of_a_network_is_that_of_its_logits_with_rates_and_energy(twins, tmp_path):
    ours, plain = twins
    x, y = torch.rand(60, 2, 6, 6), torch.randint(3, (60,))
    loader = [(x[:32], y[:32]), (x[32:], y[32:])]
    found = evaluate(plain, iter(loader), timesteps=3, heldout=loader, spiking=(Fire,), out=tmp_path / "theirs")
    twin = evaluate(ours, torch.utils.data.TensorDataset(x, y), timesteps=3, heldout=loader, batch_size=32)
    by_logits = evaluate(
        logits_over_time(ours, x, 3).detach().numpy(), y.numpy(), heldout=(logits_over_time(ours, x, 3), y)
    )
    for other in (twin, by_logits):
        for kind in ("ensemble", "single", "calibrated"):
            for mine, theirs in zip(found["last"][kind], other["last"][kind], strict=True):
                assert mine == pytest.approx(theirs, abs=1e-5)
    assert found["last"]["firing_rates"][0]["rates"] == pytest.approx(twin["last"]["firing_rates"][0]["rates"])
    assert len(found["deployment"]["energy"]["total_pj"]) == 3
    assert by_logits["deployment"]["energy"] is None
    assert set(found["deployment"]["policies"]) == set(by_logits["deployment"]["policies"])
    assert evaluate(plain, loader, timesteps=3, energy=False)["deployment"]["energy"] is None
    assert json.loads((tmp_path / "theirs" / "results.json").read_text()) == found
    written = load_file(tmp_path / "theirs" / "logits.safetensors")
    assert evaluate(written["logits"], written["targets"])["last"]["ensemble"] == found["last"]["ensemble"]
    Results.model_validate(found).check()


class Normed(nn.Module):
    """A network whose batch-norm learns statistics in training mode only."""

    def __init__(self):
        super().__init__()
        self.last, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)

    def step(self, x, state=None):
        return self.norm(self.last(x)), None


class Around:
    """Not a module, with one inside."""

    def __init__(self, inside):
        self.inside = inside

    def step(self, x, state=None):
        return self.inside.step(x, state)


def test_evaluation_runs_in_eval_mode_and_leaves_every_mode_as_it_was():
    network = Normed()
    network.last.eval()
    before = network.norm.running_mean.clone()
    for model in (network, Around(network)):
        evaluate(model, [(torch.rand(8, 3), torch.arange(8) % 2)], timesteps=2)
        assert [part.training for part in (network, network.last, network.norm)] == [True, False, True]
        assert torch.equal(network.norm.running_mean, before)


def test_a_network_on_a_data_set_takes_its_test_samples_and_class_names():
    class Guess:
        def step(self, x, state=None):
            return x.flatten(1)[:, 10:20], None

    digits = load_dataset("digits")
    found = evaluate(Guess(), digits, timesteps=2)
    assert (found["samples"], found["dataset"], found["classes"]) == (len(digits.test), "digits", list(digits.classes))
    assert "firing_rates" not in found["last"]


Y = torch.tensor([0, 0, 1])
WRONG = {
    "no labels": (
        lambda: evaluate(torch.rand(2, 3, 4)),
        r"logits came without labels, expected evaluate\(logits, labels\)",
    ),
    "no data": (lambda: evaluate(Integrator()), "a network came without data, expected evaluate"),
    "timesteps of logits": (
        lambda: evaluate(torch.rand(2, 3, 4), Y, timesteps=2),
        "timesteps came for logits, which takes only",
    ),
    "root of a network": (lambda: evaluate(Integrator(), [], root="x"), "root came for a network"),
    "timesteps of a run": (
        lambda: evaluate("runs/none", timesteps=2),
        "timesteps came for a run folder, which takes only root, batch_size",
    ),
    "integer logits": (lambda: evaluate(torch.zeros(2, 3, 4).long(), Y), "expected floating-point logits"),
    "objects": (lambda: evaluate(np.array([None]), Y), "got an array of object, expected logits"),
    "float labels": (lambda: evaluate(torch.rand(2, 3, 4), Y.float()), "expected integer labels"),
    "many labels": (lambda: evaluate(torch.rand(2, 3, 4), torch.zeros(4).long()), r"expected integer target \[3\]"),
    "label 4": (lambda: evaluate(torch.rand(2, 3, 4), Y + 3), "label 4 at place 2 of the batch is no class"),
    "classes": (lambda: evaluate(torch.rand(2, 3, 4), Y, classes=["a"]), "got 1 class names for logits"),
    "heldout": (
        lambda: evaluate(torch.rand(2, 3, 4), Y, heldout=(torch.rand(3, 3, 4), Y)),
        "expected held-out logits of the same",
    ),
    "no batch": (lambda: evaluate(Integrator(), [], timesteps=2), "the data held no batch"),
    "no loader": (lambda: evaluate(Integrator(), X, timesteps=2), "data is a Tensor, expected batches of"),
    "no pairs": (lambda: evaluate(Integrator(), [X], timesteps=2), "batch 0 is a Tensor, expected"),
    "other lengths": (
        lambda: evaluate(Integrator(), [(X, Y[:2])], timesteps=2),
        r"inputs \[3, 1, 1, 1\] and targets \[2\]",
    ),
    "time second": (
        lambda: evaluate(Integrator(), [(torch.rand(3, 5, 1, 1), Y)]),
        r"expected inputs \[T, B, ...\].* inputs.transpose\(0, 1\) puts time first",
    ),
    "bytes": (
        lambda: evaluate(Integrator(), [(X.byte(), Y)], timesteps=2),
        "images of 0 to 255 are divided by 255 first",
    ),
    "NaN": (lambda: evaluate(Integrator(), [(X / 0 * 0, Y)], timesteps=2), "NaN or infinite"),
    "batch size": (lambda: evaluate(Integrator(), [(X, Y)], timesteps=2, batch_size=2), "come in batches already"),
    "frames of images": (lambda: evaluate(Integrator(), load_dataset("digits")), "images are shown for timesteps=T"),
    "T=0": (lambda: evaluate(Integrator(), [(X, Y)], timesteps=0), "timesteps is 0, expected 1 or more"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_evaluated_is_refused_in_one_line(kind):
    call, message = WRONG[kind]
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_the_folder_of_a_run_is_not_written_into(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="is the folder of a run"):
        evaluate(torch.rand(2, 3, 4), Y, out=tmp_path)
