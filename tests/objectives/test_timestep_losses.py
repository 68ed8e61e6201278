"""Timesteps that teach each other, and drawn ones: numbers by hand, limits, and what is a teacher."""

import math

import pytest
import torch

from spikedistill.objectives import adjacent, aligned_kd, all_pairs, logit_mse, right_sum, selective, tet_of_some, twce

# p = softmax: 3/4 and 1/4 for class 0, a half each for all zeros
L3 = math.log(3.0)
SURE, UNSURE = [[L3, 0.0]], [[0.0, 0.0]]
KL_SURE_TO_UNSURE = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # KL(sure || unsure), the unsure one learns
KL_UNSURE_TO_SURE = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)


def gradient(loss, logits):
    return torch.autograd.grad(loss, logits)[0]


def test_the_mean_squared_distance_from_a_level():
    # (4 + 1 + 0 + 1) / 4 and, from 0, (9 + 0 + 1 + 4) / 4
    logits = torch.tensor([[[3.0, 0.0]], [[1.0, 2.0]]])
    assert logit_mse(logits).item() == pytest.approx(1.5)
    assert logit_mse(logits, level=0.0).item() == pytest.approx(3.5)


def test_all_pairs_of_two_timesteps_are_both_directions():
    # two ordered pairs, tau = 1, one sample
    loss = all_pairs(torch.tensor([SURE, UNSURE]), temperature=1.0)
    assert loss.item() == pytest.approx((KL_SURE_TO_UNSURE + KL_UNSURE_TO_SURE) / 2, rel=1e-6)


def test_in_all_pairs_every_timestep_is_pulled_to_the_others():
    logits = torch.tensor([SURE, UNSURE, UNSURE], requires_grad=True)
    pull = gradient(all_pairs(logits, temperature=1.0), logits)[:, 0, 0]
    # of six pairs, two pull each: (p_s - p_q) / 6 = (3/4 - 1/2) / 6 twice, and once (1/2 - 3/4) / 6
    assert pull.tolist() == pytest.approx([0.5 / 6, -0.25 / 6, -0.25 / 6], rel=1e-5)


def test_adjacent_timesteps_learn_forward_alone():
    logits = torch.tensor([SURE, UNSURE, UNSURE], requires_grad=True)
    loss = adjacent(logits)
    # the second learns from the first, the third from the second, which is its like
    assert loss.item() == pytest.approx(KL_SURE_TO_UNSURE / 2, rel=1e-6)
    assert gradient(loss, logits)[:, 0, 0].tolist() == pytest.approx([0.0, -0.25 / 2, 0.0], abs=1e-7)


def test_the_first_timestep_is_moved_where_it_is_asked_for():
    logits = torch.tensor([SURE, UNSURE], requires_grad=True)
    assert gradient(adjacent(logits, teacher_grad=True), logits)[0].abs().max() > 0.01


@pytest.mark.parametrize("loss", [all_pairs, adjacent, selective])
def test_equal_timesteps_have_nothing_to_teach(loss):
    logits = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0)).repeat(4, 1, 1).requires_grad_()
    value = loss(logits)
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert gradient(value, logits).abs().max() < 1e-6


@pytest.mark.parametrize("loss", [all_pairs, adjacent, selective])
def test_a_single_timestep_has_no_loss_but_a_graph(loss):
    logits = torch.tensor([SURE], requires_grad=True)
    value = loss(logits)
    assert value.item() == 0
    assert gradient(value, logits).abs().max() < 1e-6


def test_the_sum_of_the_right_timesteps_teaches_all_and_the_student_is_not_softened():
    # label 0: timesteps 1 and 2 are right, q = 2 log 3 for class 0, p = 9/10 at tau 1; timestep 3 answers class 1
    logits = torch.tensor([SURE, SURE, [[0.0, L3]]])
    loss = right_sum(logits, torch.tensor([0]), temperature=1.0)
    of_right = -(0.9 * math.log(0.75) + 0.1 * math.log(0.25))
    of_wrong = -(0.9 * math.log(0.25) + 0.1 * math.log(0.75))
    assert loss.item() == pytest.approx((2 * of_right + of_wrong) / 3, rel=1e-6)
    # at tau 2: p = sqrt(9) / (sqrt(9) + 1) = 3/4, times tau²
    softer = right_sum(logits, torch.tensor([0]), temperature=2.0)
    of_right = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    of_wrong = -(0.75 * math.log(0.25) + 0.25 * math.log(0.75))
    assert softer.item() == pytest.approx(4 * (2 * of_right + of_wrong) / 3, rel=1e-6)


def test_where_no_timestep_is_right_the_target_is_uniform():
    logits = torch.tensor([SURE], requires_grad=True)
    loss = right_sum(logits, torch.tensor([1]), temperature=1.0)
    assert loss.item() == pytest.approx(-(0.5 * math.log(0.75) + 0.5 * math.log(0.25)), rel=1e-6)
    assert gradient(loss, logits)[0, 0].tolist() == pytest.approx([0.25, -0.25], rel=1e-6)


def test_gradients_flow_through_the_sum_unless_it_is_detached():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    target = logits[0].argmax(-1)
    assert torch.autograd.gradcheck(lambda z: right_sum(z, target), logits)
    detached = gradient(right_sum(logits, target, teacher_grad=False), logits)
    assert (gradient(right_sum(logits, target), logits) - detached).abs().max() > 1e-3


def test_drawn_timesteps_are_heard_and_the_others_are_not():
    target = torch.tensor([0, 1])
    heard = set()
    for seed in range(12):
        torch.manual_seed(seed)
        logits = torch.randn(4, 2, 3, requires_grad=True)
        moved = gradient(tet_of_some(logits, target, k=2), logits).abs().amax((1, 2)) > 0
        assert moved.sum() == 2
        heard |= set(moved.nonzero().flatten().tolist())
    assert heard == {0, 1, 2, 3}


def test_the_draw_is_right_on_average():
    logits, target = torch.randn(3, 2, 4), torch.tensor([0, 3])
    torch.manual_seed(0)
    drawn = [tet_of_some(logits, target, k=1, mse_weight=0.0).item() for _ in range(600)]
    each = [twce(logits[t : t + 1], target).item() for t in range(3)]
    assert {min(each, key=lambda value: abs(value - loss)) for loss in drawn} == set(each)
    assert sum(drawn) / 600 == pytest.approx(sum(each) / 3, abs=0.15)


def test_a_wrong_timestep_is_taught_as_if_it_found_label_and_answer_alike():
    # label 0, answer 1: its 3 becomes 1; class 2 stays. The teacher's 5 and 1 become 1.
    logits = torch.tensor([[[1.0, 3.0, 0.0]]], requires_grad=True)
    loss = aligned_kd(logits, torch.tensor([0]), torch.tensor([[5.0, 1.0, 0.5]]), temperature=1.0)
    p, r = torch.tensor([1.0, 1.0, 0.5]).softmax(0), torch.tensor([1.0, 1.0, 0.0]).softmax(0)
    assert loss.item() == pytest.approx((p * (p / r).log()).sum().item(), rel=1e-5)
    # both places learn through the label's logit
    assert gradient(loss, logits)[0, 0].tolist() == pytest.approx([2 * (r - p)[0].item(), 0.0, (r - p)[2].item()])


def test_a_right_timestep_is_taught_as_it_is():
    logits, teacher = torch.tensor([[[3.0, 1.0, 0.0]]]), torch.tensor([[0.0, 5.0, 1.0]])
    p, r = teacher[0].softmax(0), logits[0, 0].softmax(0)
    loss = aligned_kd(logits, torch.tensor([0]), teacher, temperature=1.0)
    assert loss.item() == pytest.approx((p * (p / r).log()).sum().item(), rel=1e-5)


def test_of_two_timesteps_each_is_the_others_whole_mixture():
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert selective(logits).item() == pytest.approx(all_pairs(logits, temperature=3.0).item(), rel=1e-5)


def test_a_sure_timestep_of_the_same_direction_weighs_more_in_the_mixture():
    # for timestep 1: timestep 2 points its way and is sure, timestep 3 points the other way
    logits = torch.tensor([[[1.0, 0.0]], [[6.0, 0.0]], [[-6.0, 0.0]]], requires_grad=True)
    assert gradient(selective(logits), logits)[0, 0, 0] < 0, "it is pulled towards the second"


def right(logits, temperature):
    return right_sum(logits, torch.tensor([0]), temperature=temperature)


@pytest.mark.parametrize("loss", [all_pairs, adjacent, selective, right])
def test_a_temperature_of_zero_is_refused(loss):
    with pytest.raises(ValueError, match=r"temperature must lie between 0\.001 and 1,000,000"):
        loss(torch.tensor([SURE, UNSURE]), temperature=0.0)
