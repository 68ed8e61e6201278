"""What an addition to the library touches: counted in the sources, and done from outside, each in as few places as is promised."""

from dataclasses import dataclass

import pytest
import torch
from benchmarks.house import KINDS, House, to_markdown
from quick_runs import quick
from torch import nn

from spikedistill import LIF, Recurrent, create_model, list_models, load, temporal, train
from spikedistill.data import Dataset, Entry, TensorSamples, list_datasets, register_dataset
from spikedistill.models.layers import Layout, register_layout
from spikedistill.objectives import Objective, Term, create_objective, inputs, register_objective, sce
from spikedistill.recipes import list_recipes, recipe
from spikedistill.run_folder import RunFolder
from spikedistill.through_time import Rate, Rule, Sltt, UnsupportedOperationError
from spikedistill.through_time.call import Call
from spikedistill.through_time.unrolled import Unrolled
from spikedistill.training.inputs import PROVIDERS

HOUSE = House.of()
# From the ground floor upwards, as docs/architecture.md describes them.
GROUND = ("errors", "learned", "options", "registry", "recipe_name", "files", "arguments", "seeds", "stopping")
GROUND += ("renamed", "imports", "manifest", "from_python", "setting_types", "setting_errors", "config")
ROOMS = (
    *GROUND,
    "native",
    "neurons",
    "sparse",
    "through_time",
    "adapters",
    "models",
    "objectives",
    "data",
    "trained",
    "run_folder",
)
ROOMS += ("evaluation", "robustness", "exporting", "report", "training", "recipes", "comparisons", "cli")
# The entries to the package, and the modules that keep old names: they belong to no room.
DOORS = ("__init__.py", "__main__.py", "temporal.py", "training/__init__.py")


@pytest.mark.parametrize("kind", KINDS)
def test_an_addition_touches_as_few_files_as_is_promised(kind):
    names, most = KINDS[kind]
    found = HOUSE.naming(names)
    assert 1 <= len(found) <= most, found


def test_ideas_are_not_scattered_anew():
    """The numbers of the commit before which ideas became values were 81 and 9."""
    options = [chain for chain in HOUSE.chains() if chain.is_option]
    assert len(options) <= 70, options
    assert len(HOUSE.lif_equations()) <= 6, HOUSE.lif_equations()


def forbidden(house):
    """Imports of a room that lies above, of a room's private name, or of a private room."""
    found = []
    for path, module in house.imports():
        mine, (theirs, *inside) = path.split("/")[0].removesuffix(".py"), module.split(".")
        if path not in DOORS and mine != theirs:
            upward = ROOMS.index(theirs) > ROOMS.index(mine)
            private = any(name.startswith("_") for name in inside) or inside[:1] == ["loops"]
            found += [(path, module)] * (upward or private)
    return found


def test_a_room_imports_only_public_names_of_rooms_below_it():
    assert forbidden(HOUSE) == []
    wrong = {
        "neurons/a.py": "from ..models import f",
        "data/b.py": "def f():\n    from ..neurons.c import _g",
        "models/layouts/d.py": "from ...neurons.loops import g\nfrom ...training.run import fit\nfrom ..own import _h",
        "objectives/e.py": "from spikedistill.data import load\nfrom .. import errors\nfrom . import task",
    }
    assert forbidden(House(wrong)) == [
        ("neurons/a.py", "models.f"),
        ("data/b.py", "neurons.c._g"),
        ("models/layouts/d.py", "neurons.loops.g"),
        ("models/layouts/d.py", "training.run.fit"),
        ("objectives/e.py", "data.load"),
    ]


def test_what_is_counted():
    house = House(
        {
            "objectives/task.py": '"""Speaks of mine."""\ndef loss(logits, mine): return mine\ndef other(x): return loss(x, 1)',
            "one.py": 'def f(a: int, x): "mine"; return g(a=a, x=x)\ndef g(a, x): return K(a)',
            "two.py": "class K:\n    def __init__(self, a, mine=1): h(a, 2)\ndef h(b, a): return decay * v + current * gain",
            "three.py": "def mean(self): return self.decay * old + (1 - self.decay) * new, 1 + decay * x\nNAME = 'mine'",
            "loop.cpp": "// x\nu = neuron.decay * v_i + currents(t, i);",
        }
    )
    assert house.naming(("mine",)) == ["two.py", "three.py"]
    (chain,) = house.chains()
    assert (chain.parameter, chain.functions, chain.is_option) == ("a", ("one.f", "one.g", "two.K.__init__"), True)
    assert house.lif_equations() == ["loop.cpp:2", "two.py:h"]
    assert "| places where the LIF equation stands |  | 2 |" in to_markdown({"x": house})


def test_a_new_objective_is_one_function_and_has_recipes_and_options(tmp_path, fresh_names):
    def spread(logits, *, power):
        return logits.var(0).mean() ** power

    @register_objective
    def less_spread(weight: float = 0.1) -> Objective:
        """Cross-entropy, and timesteps that differ less."""
        return Objective("less-spread", [Term("sce", 1.0, sce), Term("spread", weight, spread, {"power": 2.0})])

    assert "digits-less-spread" in list_recipes()
    run = RunFolder(train(quick("digits-less-spread", out=tmp_path)))
    assert float(run.read_rows(run.metrics)[0]["loss/spread"]) > 0


def test_a_new_input_is_a_declaration_and_a_provider(monkeypatch, tmp_path, fresh_names):
    declared = inputs.Input(what="weighs samples", wanted="the mean of each image, [B]", example=lambda: torch.ones(1))
    monkeypatch.setitem(inputs.INPUTS, "brightness", declared)
    monkeypatch.setitem(PROVIDERS, "brightness", lambda at: at.inputs.mean((1, 2, 3)))

    def mean_brightness(logits, brightness):
        return brightness.mean() + 0 * logits.sum()

    @register_objective
    def brighter() -> Objective:
        return Objective("brighter", [Term("sce", 1.0, sce), Term("brightness", 1.0, mean_brightness)])

    objective = create_objective("brighter")
    with pytest.raises(ValueError, match="'brighter' weighs samples; got no brightness: pass the mean of each image"):
        objective(torch.zeros(2, 3, 4), torch.arange(3))
    run = RunFolder(train(quick("digits-brighter", out=tmp_path)))
    seen = float(run.read_rows(run.metrics)[0]["loss/brightness"])
    assert seen == pytest.approx(0.305, abs=0.01)  # the mean of digits


def test_a_new_network_is_one_function_and_has_a_twin_and_heads(fresh_names, tmp_path):
    class Two(Layout):
        def __init__(self, layers, sizes):
            super().__init__()
            self.first = nn.Sequential(layers.conv_norm(sizes.in_channels, 4), layers.neuron(4))
            self.second = nn.Sequential(layers.conv_norm(4, 8, stride=2), layers.neuron(8))
            self.stage_channels = {"first": 4, "second": 8}
            self.head = nn.Linear(8, sizes.num_classes)

        def forward(self, x):
            return self.classify(self.second(self.first(x)))

        def classify(self, x):
            return self.head(x.mean((2, 3)))

    @register_layout()
    def two(layers, sizes):
        return Two(layers, sizes)

    assert "two" in list_models()
    assert not any(isinstance(m, LIF) for m in create_model("two", num_classes=3, neuron="relu").modules())
    model = recipe("digits-esd").model.model_copy(update={"name": "two", "width": 1.0})
    run = train(quick("digits-esd", out=tmp_path, model=model))
    assert load(run)(torch.rand(2, 1, 8, 8), timesteps=2).shape == (2, 2, 10)


def test_a_new_data_set_is_one_entry_and_has_recipes(fresh_names, tmp_path):
    def load_stripes():
        images = torch.zeros(200, 1, 8, 8, dtype=torch.uint8)
        images[::2, :, ::2], images[1::2, :, :, ::2] = 255, 255
        train_, test = (TensorSamples(part, torch.arange(100) % 2) for part in images.split(100))
        kind = {"kind": "image", "channels": 1, "size": (8, 8), "mean": (0.5,), "std": (0.5,)}
        return Dataset(name="stripes", train=train_, test=test, classes=("lying", "standing"), **kind)

    usual = {"epochs": 2, "data.batch_size": 20, "model.width": 0.25, "optimizer.lr": 0.05}
    register_dataset(Entry(name="stripes", load=load_stripes, checked="all", page="these lines", usual=usual))
    assert "stripes" in list_datasets()
    assert "stripes-twsd" in list_recipes()
    run = RunFolder(train(recipe("stripes-sce").model_copy(update={"out": tmp_path})))
    assert run.config().data.batch_size == 20
    assert float(run.read_rows(run.metrics)[-1]["train_accuracy"]) > 0.9
    with pytest.raises(ValueError, match="data set 'stripes' is registered already"):
        register_dataset(Entry(name="stripes", load=load_stripes))


@dataclass(frozen=True)
class EveryMean(Rule):
    """Mean rates of segments that are one timestep long, which is SLTT by another way."""

    name = "every-mean"

    def signal(self, values, timesteps, module, *, still):
        return Rate(timesteps).signal(values, timesteps, module, still=still)


def test_a_new_gradient_rule_is_a_value_that_makes_a_signal():
    x, y = torch.randn(8, 6), torch.randint(3, (8,))
    gradients = []
    for rule in (EveryMean(), Sltt()):
        torch.manual_seed(0)
        network = temporal(nn.Sequential(nn.Linear(6, 16), LIF(), nn.Linear(16, 3)), gradient=rule)
        losses = []
        optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
        for _ in range(20):
            optimizer.zero_grad()
            loss = sce(network(x, timesteps=4), y)
            loss.backward()
            gradients.append(next(network.parameters()).grad.clone())
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0]
    torch.testing.assert_close(gradients[0], gradients[20])


class LastOnly(Unrolled):
    """Spikes whose gradient is that of the last timestep."""

    def fire(self, neuron):
        spikes = super().fire(neuron).over_time()
        return self._with(torch.cat([spikes[:-1].detach(), spikes[-1:]]))


@dataclass(frozen=True)
class LastTimestep(Rule):
    name = "last-timestep"

    def signal(self, values, timesteps, module, *, still):
        return LastOnly(values, Call(timesteps), self.name)


def test_a_new_gradient_rule_may_have_a_signal_of_its_own_which_recurrence_would_lose():
    x = torch.randn(4, 8, 6, requires_grad=True)  # [T, B, C]
    network = nn.Sequential(nn.Linear(6, 16), LIF(), nn.Linear(16, 3))
    temporal(network, gradient=LastTimestep())(x).sum().backward()
    assert x.grad[-1].abs().sum() > 0
    decayed = x.grad.clone()
    x.grad = None
    temporal(network)(x).sum().backward()
    # the last spikes depend on all currents, the others have no part in this gradient
    assert decayed[:-1].abs().sum() < x.grad[:-1].abs().sum()
    recurrent = temporal(nn.Sequential(Recurrent(LIF(), nn.Linear(6, 6))), gradient=LastTimestep())
    with pytest.raises(UnsupportedOperationError, match=r"'Recurrent' has no rule .* own signal"):
        recurrent(x)
    with torch.no_grad():
        assert recurrent(x).shape == x.shape
