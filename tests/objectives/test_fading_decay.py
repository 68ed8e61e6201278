"""Weight decay that fades over the timesteps: worked by hand, against its equation, and in training."""

import math

import numpy as np
import objectives_reference as reference
import pytest
import torch
from quick_runs import quick

from spikedistill import UserError, train
from spikedistill.data import list_datasets, usual_settings
from spikedistill.objectives import create_objective, fading_decay, label_mse
from spikedistill.recipes import recipe
from spikedistill.run_folder import RunFolder
from spikedistill.training.inputs import weights_of
from spikedistill.training.module import DistillationModule
from spikedistill.training.plan import make_plan


def logits_of(timesteps):
    return torch.zeros(timesteps, 1, 2)


def test_by_hand():
    """With e^delta = 2: 1 + 4 at t=0, 1/2 + 4/3 at t=1; the gradients are 2w, and there 3/4 and -8/9."""
    weights = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    penalty = fading_decay(logits_of(2), weights=[weights], delta=math.log(2), epsilon=0.0)
    assert penalty.item() == pytest.approx((5 + 1 / 2 + 4 / 3) / 2, rel=1e-12)
    penalty.backward()
    assert weights.grad.tolist() == pytest.approx([(2 + 3 / 4) / 2, (-4 - 8 / 9) / 2], rel=1e-12)


def test_the_distance_from_the_labels_by_hand():
    """(1 - 1, 3 - 0), (0 - 0, 2 - 1): (0 + 9 + 0 + 1) / 4."""
    assert label_mse(torch.tensor([[[1.0, 3.0], [0.0, 2.0]]]), torch.tensor([0, 1])).item() == 2.5


@pytest.mark.parametrize("delta", [0.25, 0.5, 3.0])
@pytest.mark.parametrize("timesteps", [1, 6])
def test_value_and_gradient_are_those_of_the_equation(delta, timesteps):
    dice = np.random.default_rng(0)
    weights = [dice.standard_normal((4, 3)), 10 * dice.standard_normal(5), np.zeros(2)]
    ours = [torch.tensor(w, requires_grad=True) for w in weights]
    found = fading_decay(logits_of(timesteps), weights=ours, delta=delta)
    value, gradients = reference.fading_decay(weights, timesteps, delta)
    assert found.item() == pytest.approx(value, rel=1e-12)
    for mine, expected in zip(torch.autograd.grad(found, ours), gradients, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-11, atol=1e-14)


def test_the_gradient_is_that_of_finite_differences():
    weights = torch.linspace(-2, 2, 8, dtype=torch.float64, requires_grad=True)  # without 0, where |w| has a kink
    assert torch.autograd.gradcheck(lambda w: fading_decay(logits_of(4), weights=[w]), weights)


def test_without_fading_it_is_plain_weight_decay():
    weights = torch.randn(7, 3, dtype=torch.float64)
    assert fading_decay(logits_of(5), weights=[weights], delta=0.0).item() == pytest.approx(
        weights.square().sum().item()
    )


def test_it_is_weaker_the_more_timesteps_there_are():
    weights = [torch.randn(20)]
    penalties = [fading_decay(logits_of(S), weights=weights).item() for S in (1, 2, 4, 8)]
    assert penalties == sorted(penalties, reverse=True)
    assert penalties[0] > 1.5 * penalties[-1]


def test_thousands_of_timesteps_stay_finite():
    weights = torch.tensor([0.0, 1e-30, 5.0, -1e4], requires_grad=True)
    penalty = fading_decay(logits_of(9000), weights=[weights], delta=0.5)
    penalty.backward()
    assert penalty.isfinite()
    assert weights.grad.isfinite().all()


@pytest.mark.parametrize("weights", [[], [1.0], [torch.ones(2, dtype=torch.int64)]])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(UserError, match="weights must be floating-point tensors, 1 or more"):
        fading_decay(logits_of(2), weights=weights)
    with pytest.raises(
        UserError, match=r"'trt' keeps the weights .* got no weights: pass its weights as a list of tensors"
    ):
        create_objective("trt")(logits_of(2), torch.tensor([0]))


def test_training_passes_all_parameters_but_biases():
    module = DistillationModule(make_plan(quick("digits-trt")))
    named = dict(module.network.named_parameters())
    biases = [parameter for name, parameter in named.items() if name.endswith("bias")]
    found = weights_of(module.network)
    assert biases
    assert len(found) == len(named) - len(biases)
    assert not {id(bias) for bias in biases} & {id(weight) for weight in found}
    assert any(weight.ndim == 1 for weight in found), "the scales of batch-norm are weights"


def test_a_run_keeps_its_weights_smaller(tmp_path):
    sizes = {}
    for lam in (0.0, 0.1):
        config = quick("digits-trt", out=tmp_path / str(lam), epochs=3)
        options = config.objective.options | {"lam": lam}
        config = config.model_copy(update={"objective": config.objective.model_copy(update={"options": options})})
        rows = RunFolder(train(config)).read_rows(RunFolder(config.run_folder).metrics)
        sizes[lam] = [float(row["loss/fading_decay"]) for row in rows]
    assert sizes[0.1][-1] < 0.7 * sizes[0.0][-1]
    assert sizes[0.1] == sorted(sizes[0.1], reverse=True)


def test_recipes_have_the_weights_that_the_code_has_for_their_kind_of_data():
    events = {"nmnist", "cifar10_dvs", "dvs_gesture", "ncaltech101", "event_folder", "event_frames"}
    for name in list_datasets():
        if usual_settings(name) is not None:
            expected = (0.001, 5e-5, 0.5) if name in events else (0.05, 1e-5, 0.25)
            assert tuple(recipe(f"{name}-trt").objective.options.values()) == expected, name
