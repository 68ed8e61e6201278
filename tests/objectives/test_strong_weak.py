"""Strong2Weak and Weak2Strong: who teaches whom, ties, every variant and measure against the reference."""

import math

import numpy as np
import objectives_reference as reference
import pytest
import torch
from against_reference import batch, check_against

from spikedistill.objectives import strong2weak, timestep_scores, weak2strong

LOSSES = {"s2w": strong2weak, "w2s": weak2strong}
VARIANTS = ["pair", "ensemble_teacher", "ensemble_student", "cascade"]
MEASURES = ["confidence", "entropy", "margin", "accuracy", "loss"]
LN3 = math.log(3.0)


def learners(loss, Z, **options):
    """The timesteps that get a gradient."""
    logits = torch.tensor(Z, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(logits, **options), logits)
    return [s for s in range(len(Z)) if gradient[s].abs().max() > 1e-12]


def test_the_confident_timestep_teaches_the_unsure_one_without_a_tau_squared():
    # at tau = 2, (2 ln3, 0) is the strong (3/4, 1/4) and (0, 0) the weak (1/2, 1/2)
    logits = torch.tensor([[[0.0, 0.0]], [[2 * LN3, 0.0]]], dtype=torch.float64)
    assert strong2weak(logits).item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-13)
    assert weak2strong(logits).item() == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2), rel=1e-13)
    assert learners(strong2weak, logits.numpy()) == [0]
    assert learners(weak2strong, logits.numpy()) == [1]


def test_one_ranking_serves_the_whole_batch():
    # timestep 0 is surer of sample 0, timestep 1 much surer of sample 1: timestep 1 teaches both samples
    Z = np.array([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [4.0, 0.0]]])
    logits = torch.tensor(Z, requires_grad=True)
    (gradient,) = torch.autograd.grad(strong2weak(logits), logits)
    assert (gradient[0].abs().amax(-1) > 0).all()
    assert not gradient[1].any()


@pytest.mark.parametrize("S", [1, 2, 3, 5])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("direction", LOSSES)
def test_every_variant_agrees_with_the_reference(direction, variant, S):
    for seed in range(3):
        Z, y = batch(S=S, seed=seed)
        expected = reference.strong_weak(Z, reference.scores(Z, y, "confidence"), direction, variant)
        check_against(lambda z: LOSSES[direction](z, variant=variant), expected, Z)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("direction", LOSSES)
def test_every_measure_agrees_with_the_reference(direction, measure):
    for seed in range(3):
        Z, y = batch(seed=seed)
        strength = reference.scores(Z, y, measure)
        got = timestep_scores(torch.tensor(Z), torch.tensor(y), measure=measure)
        np.testing.assert_allclose(got.numpy(), strength, rtol=1e-12)
        expected = reference.strong_weak(Z, strength, direction, "cascade", tau=3.0)
        loss = LOSSES[direction]
        options = {"target": torch.tensor(y), "variant": "cascade", "measure": measure, "temperature": 3.0}
        check_against(lambda z: loss(z, **options), expected, Z)  # noqa: B023


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("divergence", ["kl", "mse", "standardized"])
@pytest.mark.parametrize("direction", LOSSES)
def test_every_divergence_agrees_with_the_reference(direction, divergence, variant):
    Z, y = batch()
    strength = reference.scores(Z, y, "confidence")
    expected = reference.strong_weak(Z, strength, direction, variant, divergence=divergence)
    check_against(lambda z: LOSSES[direction](z, variant=variant, divergence=divergence), expected, Z)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("strength", [[1, 1, 1, 1], [2, 1, 2, 1], [1, 2, 1, 2], [0, 0, 5, 0], [5, 5, 0, 5]])
@pytest.mark.parametrize("direction", LOSSES)
def test_ties_go_to_the_earlier_timestep(direction, strength, variant):
    Z, _ = batch()
    expected = reference.strong_weak(Z, strength, direction, variant)
    check_against(lambda z: LOSSES[direction](z, variant=variant, scores=torch.tensor(strength)), expected, Z)


def test_among_equals_the_first_is_strongest_and_weakest_and_the_cascade_runs_in_time_order():
    Z, _ = batch()
    two_strong, two_weak, tied = torch.tensor([3, 9, 9, 5]), torch.tensor([9, 3, 5, 3]), torch.ones(4)
    # the teacher is timestep 1 (not 2), the student timestep 0; then the student is timestep 1 (not 3)
    assert learners(weak2strong, Z, scores=two_strong) == [1]
    assert learners(strong2weak, Z, scores=two_weak) == [1]
    assert learners(strong2weak, Z, scores=tied) == []  # its own teacher
    assert learners(strong2weak, Z, scores=tied, variant="cascade") == [1, 2, 3]
    assert learners(weak2strong, Z, scores=tied, variant="cascade") == [0, 1, 2]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("loss", LOSSES.values())
def test_identical_timesteps_teach_each_other_nothing(loss, variant):
    logits = torch.randn(1, 5, 4, dtype=torch.float64).repeat(4, 1, 1).requires_grad_()
    value = loss(logits, variant=variant)
    value.backward()
    assert abs(value.item()) < 1e-14
    assert logits.grad.abs().max() < 1e-14


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("divergence", ["kl", "mse", "standardized"])
@pytest.mark.parametrize("loss", LOSSES.values())
def test_a_single_timestep_gives_a_zero_that_can_be_differentiated(loss, divergence, variant):
    logits = torch.randn(1, 5, 4, dtype=torch.float64, requires_grad=True)
    value = loss(logits, variant=variant, divergence=divergence)
    value.backward()
    assert value.item() == 0
    assert logits.grad.abs().max() < 1e-15


def test_given_scores_override_the_measure():
    Z, _ = batch(S=3)
    assert learners(strong2weak, Z, scores=torch.tensor([0.2, 0.1, 0.3])) == [1]
    assert learners(strong2weak, Z, scores=torch.tensor([0.1, 0.2, 0.3])) == [0]


@pytest.mark.parametrize("measure", [*MEASURES, "random", "first_to_last", "last_to_first"])
def test_scores_computed_apart_rank_as_the_loss_does(measure):
    Z, y = batch()
    logits, y = torch.tensor(Z), torch.tensor(y)
    torch.manual_seed(5)
    scores = timestep_scores(logits, y, measure=measure)
    torch.manual_seed(5)
    inside = strong2weak(logits, target=y, measure=measure, variant="cascade")
    assert torch.equal(inside, strong2weak(logits, scores=scores, variant="cascade"))


def test_scores_carry_no_gradient():
    logits = torch.randn(3, 4, 5, requires_grad=True)
    assert not timestep_scores(logits).requires_grad


def test_scores_by_hand():
    # softmax(ln 3, 0) = (3/4, 1/4) and softmax(0, 0) = (1/2, 1/2); both samples labelled 0
    logits = torch.tensor([[[LN3, 0.0], [0.0, 0.0]], [[0.0, LN3], [0.0, LN3]]], dtype=torch.float64)
    label = torch.tensor([0, 0])
    hand = {
        "confidence": [(0.75 + 0.5) / 2, 0.75],
        "entropy": [-(math.log(4) - 0.75 * LN3 + math.log(2)) / 2, -(math.log(4) - 0.75 * LN3)],
        "margin": [(0.5 + 0.0) / 2, 0.5],
        "accuracy": [1.0, 0.0],  # of equal logits the first class is the answer
        "loss": [(math.log(0.75) + math.log(0.5)) / 2, math.log(0.25)],
        "first_to_last": [0.0, -1.0],
        "last_to_first": [0.0, 1.0],
    }
    for measure, expected in hand.items():
        got = timestep_scores(logits, label, measure=measure)
        torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), msg=measure)


def test_first_to_last_and_last_to_first_name_teacher_and_student():
    Z, _ = batch()
    assert learners(strong2weak, Z, measure="first_to_last") == [3]
    assert learners(strong2weak, Z, measure="last_to_first") == [0]
    assert learners(strong2weak, Z, measure="last_to_first", variant="cascade") == [0, 1, 2]
    with pytest.raises(ValueError, match=r"'first_to_last' fixes which timestep teaches.*use strong2weak"):
        weak2strong(torch.tensor(Z), measure="first_to_last")


def test_a_random_pair_follows_torchs_generator_and_reaches_every_pair():
    Z, _ = batch(S=3)
    logits = torch.tensor(Z)
    draws = []
    for seed in [*range(60), 0]:
        torch.manual_seed(seed)
        draws.append(round(strong2weak(logits, measure="random").item(), 12))
    assert draws[0] == draws[-1]
    assert len(set(draws)) == 6  # ordered pairs of three timesteps


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("loss", LOSSES.values())
def test_the_teacher_gets_gradient_only_when_asked(loss, variant):
    Z, _ = batch()
    logits, scores = torch.tensor(Z, requires_grad=True), torch.tensor([4, 3, 2, 1])
    (default,) = torch.autograd.grad(loss(logits, scores=scores, variant=variant), logits)
    (both,) = torch.autograd.grad(loss(logits, scores=scores, variant=variant, teacher_grad=True), logits)
    students = {"pair": 1, "ensemble_teacher": 1, "ensemble_student": 3, "cascade": 3}[variant]
    assert (default.flatten(1).abs().amax(-1) > 0).sum() == students
    assert (both.flatten(1).abs().amax(-1) > 0).sum() == (2 if variant == "pair" else 4)


@pytest.mark.parametrize("divergence", ["kl", "mse", "standardized"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_agree_with_finite_differences(variant, divergence):
    Z, _ = batch(S=3, B=2)
    options = {"variant": variant, "divergence": divergence, "scores": torch.tensor([2, 3, 1]), "teacher_grad": True}
    logits = torch.tensor(Z, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: strong2weak(z, **options), logits)
    assert torch.autograd.gradcheck(lambda z: weak2strong(z, **options), logits)


def test_standardised_logits_forget_shift_and_scale():
    Z, _ = batch(S=2)
    scores = torch.tensor([2, 1])
    once = strong2weak(torch.tensor(Z), divergence="standardized", scores=scores)
    other = torch.tensor([[[30.0]], [[0.5]]]) * torch.tensor(Z) + torch.tensor([[[7.0]], [[-1.0]]])
    assert strong2weak(other, divergence="standardized", scores=scores).item() == pytest.approx(once.item(), rel=1e-3)


def test_constant_logits_can_be_standardised():
    logits = torch.tensor([[[1.0, 1.0, 1.0]], [[1.0, 2.0, 3.0]]], requires_grad=True)
    strong2weak(logits, divergence="standardized").backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("option", "known"),
    [("variant", "pair, ensemble_teacher"), ("measure", "confidence, entropy, margin"), ("divergence", "kl, mse")],
)
@pytest.mark.parametrize("loss", LOSSES.values())
def test_an_unknown_name_is_refused_with_the_known_ones(loss, option, known):
    for S in (1, 3):
        with pytest.raises(ValueError, match=f"unknown {option} 'none': choose one of {known}"):
            loss(torch.zeros(S, 2, 4), **{option: "none"})


@pytest.mark.parametrize("measure", ["accuracy", "loss"])
def test_a_measure_of_labels_needs_labels(measure):
    with pytest.raises(ValueError, match=r"target must be int64 class indices .* got NoneType"):
        strong2weak(torch.zeros(3, 2, 4), measure=measure)


@pytest.mark.parametrize("scores", [torch.zeros(2), torch.zeros(3, 2), [1, 2, 3]])
def test_scores_of_another_shape_are_refused(scores):
    with pytest.raises(ValueError, match=r"scores must hold one strength per submodel, shape \[3\]"):
        strong2weak(torch.zeros(3, 2, 4), scores=scores)


@pytest.mark.parametrize("temperature", [0.0, -2.0, math.nan])
def test_a_temperature_that_is_no_positive_number_is_refused(temperature):
    for loss in LOSSES.values():
        with pytest.raises(ValueError, match=r"temperature must lie between 0\.001 and 1,000,000"):
            loss(torch.zeros(3, 2, 4), temperature=temperature)
