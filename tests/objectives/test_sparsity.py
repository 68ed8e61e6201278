"""The penalty on spikes: worked by hand, in training, and refused where it means nothing."""

import pytest
import torch
from quick_runs import quick

from spikedistill import UserError, train
from spikedistill.config import Config
from spikedistill.evaluation.results import read_results
from spikedistill.objectives import Objective, Term, firing, sce
from spikedistill.run_folder import RunFolder
from spikedistill.training.combinations import objective_of

LOGITS, TARGET = torch.zeros(2, 3, 4), torch.tensor([0, 1, 2])


def test_by_hand():
    """(max(0, .3 - .1) + max(0, .05 - .1) + max(0, .2 - .1)) / 3 = .1; each layer above the target has the gradient 1/3."""
    rates = torch.tensor([0.3, 0.05, 0.2], requires_grad=True)
    loss = firing(LOGITS, firing_rates=rates, target_rate=0.1)
    assert loss.item() == pytest.approx(0.1)
    loss.backward()
    assert rates.grad.tolist() == pytest.approx([1 / 3, 0, 1 / 3])
    assert firing(LOGITS, firing_rates=torch.tensor([0.5, 0.1])).item() == pytest.approx(0.3)


def test_as_a_term_of_an_objective():
    objective = Objective("mine", [Term("sce", 1.0, sce), Term("firing", 2.0, firing, {"target_rate": 0.25})])
    assert objective.needs_firing_rates
    assert str(objective) == "1 sce + 2 firing, over timesteps"
    value = objective(LOGITS, TARGET, firing_rates=torch.tensor([0.75]))
    assert value.total.item() == pytest.approx(torch.tensor(4.0).log().item() + 1)
    with pytest.raises(UserError, match="learns to fire less; got no firing_rates: pass the mean rate of each layer"):
        objective(LOGITS, TARGET)


@pytest.mark.parametrize("rates", [[0.5], torch.zeros(2, 2), torch.zeros(0)])
def test_other_rates_are_refused(rates):
    with pytest.raises(UserError, match=r"a tensor \[L\] with a rate for each layer of neurons"):
        firing(LOGITS, firing_rates=rates)


def test_a_target_outside_0_to_1_is_refused():
    with pytest.raises(UserError, match="target_rate must lie between 0 and 1; got 2"):
        firing(LOGITS, firing_rates=torch.zeros(1), target_rate=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"objective": {"firing_target": 0.1}},
            "--objective.firing-target 0.1 has no penalty that it is the target of",
        ),
        (
            {"objective": {"firing_weight": 1.0}, "model": {"neuron": "relu"}},
            "--model.neuron relu has none: leave it out",
        ),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        objective_of(Config(recipe="digits-sce", **changes))


@pytest.mark.parametrize("gradient", ["bptt", "rate"])
def test_it_makes_networks_fire_less(gradient, tmp_path):
    """Every layer ends nearer to the target than without, and what is said of the loss names the penalty."""
    rates = {}
    for weight in (0.0, 20.0):
        config = quick("digits-sce", out=tmp_path / str(weight), epochs=3, gradient=gradient)
        options = config.objective.model_copy(
            update={"firing_weight": weight, "firing_target": 0.02 if weight else 0.0}
        )
        run = train(config.model_copy(update={"objective": options}))
        found = read_results(RunFolder(run))
        rates[weight] = [sum(layer.rates) for layer in found.last.firing_rates]
    assert all(less < more for less, more in zip(rates[20.0], rates[0.0], strict=True))
    assert sum(rates[20.0]) < 0.7 * sum(rates[0.0])
    page = RunFolder(run).report.read_text()
    assert "Training added 20 times what lies above a target of 0.02" in page
