"""Heads that pull each other together: numbers by hand, an independent reference, gradients, who teaches whom."""

import math

import objectives_reference as reference
import pytest
import torch
from against_reference import batch, check_against

from spikedistill.objectives import mutual, twce, weighted_heads_ce

# two classes, one sample: softmax gives (3/4, 1/4) and (1/2, 1/2)
L3 = math.log(3.0)
SURE, UNSURE = [[L3, 0.0]], [[0.0, 0.0]]
LABEL = torch.tensor([0])
# KL(sure || unsure) + KL(unsure || sure) = Σ (p - q) ln(p / q) = 1/4 ln(3/2) - 1/4 ln(1/2) = ln(3)/4
BOTH = L3 / 4


def test_an_auxiliary_head_counts_less_in_the_mean_of_the_cross_entropies():
    # -ln(1/2) of the network's own, half of -ln(3/4) of each of two others, over 1 + 2/2
    heads = torch.tensor([SURE, SURE, UNSURE], dtype=torch.float64)
    assert weighted_heads_ce(heads, LABEL).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2, rel=1e-14)
    assert weighted_heads_ce(heads, LABEL, branch_weight=0.0).item() == pytest.approx(math.log(2), rel=1e-14)


def test_the_networks_own_head_and_the_others_meet_halfway_without_tau_squared():
    heads = torch.tensor([SURE, UNSURE], dtype=torch.float64)
    assert mutual(heads, temperature=1.0).item() == pytest.approx(BOTH / 2, rel=1e-14)
    assert mutual(5 * heads, temperature=5.0).item() == pytest.approx(BOTH / 2, rel=1e-14)
    # two auxiliary heads: a mean over four pairs, two of which are of equals
    heads = torch.tensor([SURE, UNSURE, UNSURE], dtype=torch.float64)
    assert mutual(heads, temperature=1.0).item() == pytest.approx(BOTH / 4, rel=1e-14)


def test_auxiliary_heads_are_pulled_to_the_networks_own_and_not_to_each_other():
    logits = torch.tensor([SURE, UNSURE, UNSURE], requires_grad=True)
    (gradient,) = torch.autograd.grad(mutual(logits, temperature=1.0), logits)
    # (p_s - p_q) / 4: of the first and the last towards each other, 1/4 apart
    assert gradient[:, 0, 0].tolist() == pytest.approx([0.25 / 4, 0.0, -0.25 / 4], abs=1e-7)


@pytest.mark.parametrize("S", [1, 2, 5])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_the_weighted_cross_entropy_agrees_with_the_reference(weight, S):
    Z, y = batch(S)
    expected = reference.weighted_heads_ce(Z, y, weight)
    check_against(lambda z: weighted_heads_ce(z, torch.tensor(y), branch_weight=weight), expected, Z)


@pytest.mark.parametrize("S", [2, 5])
@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_mutual_teaching_agrees_with_the_reference(tau, S):
    Z, _ = batch(S)
    check_against(lambda z: mutual(z, temperature=tau), reference.mutual(Z, tau), Z)


def test_gradients_agree_with_finite_differences():
    """Those of `mutual` cannot: differences see its teachers move, which are detached."""
    Z, y = batch(3, 2, 4)
    logits = torch.tensor(Z, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: weighted_heads_ce(z, torch.tensor(y)), logits)


def test_heads_of_equal_weight_are_timesteps_to_their_cross_entropy():
    Z, y = (torch.tensor(each) for each in batch())
    assert weighted_heads_ce(Z, y, branch_weight=1.0).item() == pytest.approx(twce(Z, y).item(), rel=1e-14)


def test_the_networks_own_head_alone_has_nobody_to_learn_from_but_a_graph():
    logits = torch.tensor([SURE], requires_grad=True)
    value = mutual(logits)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("weight", [-0.5, 1.5, "1"])
def test_a_weight_of_auxiliary_heads_outside_0_to_1_is_refused(weight):
    with pytest.raises(ValueError, match="branch_weight must lie between 0 and 1; got"):
        weighted_heads_ce(torch.zeros(2, 1, 2), LABEL, branch_weight=weight)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"temperature must lie between 0\.001 and 1,000,000"):
        mutual(torch.zeros(2, 1, 2), temperature=0.0)
