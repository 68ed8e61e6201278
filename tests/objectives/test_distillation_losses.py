"""Distillation from a network and from the submodels: numbers by hand, an independent reference, gradients, edges."""

import math

import numpy as np
import objectives_reference as reference
import pytest
import torch
from against_reference import check_against

from spikedistill.objectives import head_tail_kd, logit_kd, prefix_kd, reliable, twkl, twsd, wsld

FROM_TEACHER = {"logit_kd": logit_kd, "twkl": twkl, "prefix_kd": prefix_kd}
LN3 = math.log(3.0)


def batch(S=4, B=6, C=3, seed=0):
    """Random logits and labels; with 3 classes some samples have right and wrong timesteps."""
    rng = np.random.default_rng(seed)
    return 2 * rng.standard_normal((S, B, C)), rng.integers(0, C, B), 2 * rng.standard_normal((S, B, C))


def test_kd_is_the_forward_kl_from_teacher_to_student_times_tau_squared():
    # at tau = 2 the teacher's logits (2 ln3, 0) give (3/4, 1/4), the student's (0, 0) give (1/2, 1/2):
    # KL(teacher || student) = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.130812; the reverse would be 0.143841
    student, teacher = torch.zeros(1, 1, 2, dtype=torch.float64), torch.tensor([[2 * LN3, 0.0]], dtype=torch.float64)
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    for loss in FROM_TEACHER.values():
        assert loss(student, teacher, temperature=2.0).item() == pytest.approx(expected, rel=1e-13)


def test_logit_kd_sees_the_mean_logits_where_twkl_sees_every_timestep():
    # the two timesteps (ln3, 0) and (0, ln3) cancel in the mean, so only the second loss is above 0:
    # KL((1/2,1/2) || (3/4,1/4)) = 1/2 ln(2/3) + 1/2 ln 2 = ln(4/3)/2 at tau = 1 for both
    logits = torch.tensor([[[LN3, 0.0]], [[0.0, LN3]]], dtype=torch.float64)
    uniform = torch.zeros(1, 2, dtype=torch.float64)
    assert logit_kd(logits, uniform, temperature=1.0).item() == pytest.approx(0.0, abs=1e-15)
    assert twkl(logits, uniform, temperature=1.0).item() == pytest.approx(math.log(4 / 3) / 2, rel=1e-13)
    # k=1 is the first timestep, k=2 is 0
    assert prefix_kd(logits, uniform, temperature=1.0).item() == pytest.approx(math.log(4 / 3) / 4, rel=1e-13)


@pytest.mark.parametrize("per_timestep", [False, True])
@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("name", FROM_TEACHER)
def test_distillation_from_a_network_agrees_with_the_reference(name, tau, per_timestep):
    Z, _, A = batch()
    A = A if per_timestep else A[0]
    expected = getattr(reference, name)(Z, A, tau)
    check_against(lambda z: FROM_TEACHER[name](z, torch.tensor(A), temperature=tau), expected, Z)


def test_a_soft_label_weighs_more_where_the_student_is_worse_on_the_label_than_the_teacher():
    # label 0; the student's mean logits (ln3, 0) give 3/4, the teacher's (0, 0) give 1/2: CE ln(4/3) and ln 2, so
    # w = 1 - exp(-ln(4/3) / ln 2) = 0.339684; KL(teacher || student) = 1/2 ln(2/3) + 1/2 ln 2 = ln(4/3)/2 at tau = 1
    logits = torch.tensor([[[2 * LN3, 0.0]], [[0.0, 0.0]]], dtype=torch.float64)
    uniform, label = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0])
    loss = wsld(logits, label, uniform, temperature=1.0)
    assert loss.item() == pytest.approx(0.339684 * math.log(4 / 3) / 2, rel=1e-5)
    # at tau = 2 the student's (2 ln3, 0) give (3/4, 1/4), but its CE is that of tau = 1: 9/10 on the label
    weight = 1 - math.exp(-math.log(10 / 9) / math.log(2))
    loss = wsld(2 * logits, label, uniform, temperature=2.0)
    assert loss.item() == pytest.approx(4 * weight * math.log(4 / 3) / 2, rel=1e-12)


def test_a_teacher_without_doubt_on_the_label_leaves_its_soft_labels_whole_unless_the_student_has_none_either():
    certain, label = torch.tensor([[500.0, 0.0]]), torch.tensor([0])
    unsure = torch.tensor([[[LN3, 0.0]]])
    assert wsld(unsure, label, certain).item() == pytest.approx(logit_kd(unsure, certain, temperature=2.0).item())
    assert wsld(certain.unsqueeze(0), label, certain).item() == 0


@pytest.mark.parametrize("per_timestep", [False, True])
@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_weighted_soft_labels_agree_with_the_reference_with_no_gradient_in_their_weights(tau, per_timestep):
    Z, y, A = batch()
    A = A if per_timestep else A[0]
    expected = reference.wsld(Z, y, A, tau)
    check_against(lambda z: wsld(z, torch.tensor(y), torch.tensor(A), temperature=tau), expected, Z)


def test_gradients_of_weighted_soft_labels_agree_with_finite_differences_where_all_weights_are_1():
    # elsewhere finite differences see the weights move, which are constants to the gradient
    Z, y, A = batch()
    target, teacher = torch.tensor(y), torch.tensor(A[0])
    teacher[range(6), y] += 500
    logits = torch.tensor(Z, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: wsld(z, target, teacher, temperature=100.0), logits)


def test_forward_kl_weighs_as_much_as_the_head_is_off_and_reverse_kl_as_much_as_the_tail():
    # the teacher has (1/2, 1/4, 1/4), the student (1/2, 3/8, 1/8): they differ in the tail alone, so that reverse KL counts alone
    teacher = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
    student = torch.tensor([[[0.5, 0.375, 0.125]]], dtype=torch.float64).log()
    reverse = 0.375 * math.log(1.5) + 0.125 * math.log(0.5)
    assert head_tail_kd(student, teacher, temperature=1.0).item() == pytest.approx(reverse, rel=1e-12)
    # a head of 3/4 holds two classes, in which one half of the distance 1/8 + 1/8 lies
    forward = 0.25 * math.log(0.25 / 0.375) + 0.25 * math.log(0.25 / 0.125)
    both = (forward + reverse) / 2
    assert head_tail_kd(student, teacher, temperature=1.0, head=0.75).item() == pytest.approx(both, rel=1e-12)
    # and with everything in the head this is standard distillation
    whole = head_tail_kd(student, teacher, head=1.0, temperature=2.0)
    assert whole.item() == pytest.approx(logit_kd(student, teacher, temperature=2.0).item())
    assert head_tail_kd(teacher.unsqueeze(0), teacher).item() == 0
    torch.manual_seed(0)
    many, taught = 5 * torch.randn(1, 1000, 100), 5 * torch.randn(1000, 100)  # of which sums are above 1 by rounding
    torch.testing.assert_close(head_tail_kd(many, taught, head=1.0), logit_kd(many, taught), rtol=1e-6, atol=0)


@pytest.mark.parametrize("per_timestep", [False, True])
@pytest.mark.parametrize(("tau", "head"), [(1.0, 0.5), (2.0, 0.7), (0.5, 0.0)])
def test_distillation_by_head_and_tail_agrees_with_the_reference_with_no_gradient_in_its_weights(
    tau, head, per_timestep
):
    Z, _, A = batch(C=5)
    A = A if per_timestep else A[0]
    expected = reference.head_tail_kd(Z, A, tau, head)
    check_against(lambda z: head_tail_kd(z, torch.tensor(A), temperature=tau, head=head), expected, Z)


@pytest.mark.parametrize("S", [1, 2, 5])
@pytest.mark.parametrize("teacher", ["ensemble", "correct", "correct_masked"])
def test_self_distillation_agrees_with_the_reference(teacher, S):
    for seed in range(5):
        Z, y, _ = batch(S=S, seed=seed)
        expected = reference.twsd(Z, y, teacher, 3.0)
        check_against(lambda z, y=y: twsd(z, torch.tensor(y), teacher=teacher), expected, Z)


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_reliable_agrees_with_the_reference(tau):
    for seed in range(5):
        Z, y, _ = batch(seed=seed)
        check_against(lambda z, y=y: reliable(z, torch.tensor(y), temperature=tau), reference.reliable(Z, y, tau), Z)


def test_the_reference_batches_hold_samples_with_no_some_and_all_timesteps_right():
    Z, y, _ = batch()
    right = {int(n) for n in (Z.argmax(-1) == y).sum(0)}
    assert 0 in right
    assert right & {1, 2, 3}


@pytest.mark.parametrize("loss", [reliable, lambda z, y: twsd(z, y, teacher="correct_masked")])
def test_where_no_submodel_is_right_the_reliable_loss_is_0_with_zero_gradient(loss):
    logits = torch.tensor([[[2.0, 0.0, 1.0]], [[0.0, -3.0, 4.0]]], requires_grad=True)
    value = loss(logits, torch.tensor([1]))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_where_no_timestep_is_right_the_correct_teacher_is_uniform():
    Z = np.array([[[2.0, 0.0, 1.0]], [[0.0, -3.0, 4.0]]])
    expected = reference.twkl(Z, np.zeros((1, 3)), 3.0)
    check_against(lambda z: twsd(z, torch.tensor([1]), teacher="correct"), expected, Z)


@pytest.mark.parametrize("teachers", ["reliable", "unreliable", "all"])
def test_who_teaches_agrees_with_the_reference(teachers):
    for seed in range(5):
        Z, y, _ = batch(seed=seed)
        expected = reference.reliable(Z, y, teachers=teachers)
        check_against(lambda z, y=y: reliable(z, torch.tensor(y), teachers=teachers), expected, Z)


@pytest.mark.parametrize("loss", [reliable, lambda z, y, **more: twsd(z, y, teacher="correct_masked", **more)])
def test_the_mean_over_processes_is_the_loss_of_the_whole_batch(loss):
    """One process holds two samples of which one has a right submodel, the other two with one each; a third holds none."""
    Z, _, _ = batch(B=6, seed=2)
    y = Z[0].argmax(-1)
    y[[1, 4, 5]] = 3 - y[[1, 4, 5]] - Z[-1, [1, 4, 5]].argmax(-1) if Z.shape[-1] > 3 else y[[1, 4, 5]]
    taught = lambda z, t: (z.argmax(-1) == t).any(0).sum().double()  # noqa: E731
    logits, target = torch.tensor(Z, requires_grad=True), torch.tensor(y)
    whole = torch.autograd.grad(loss(logits, target), logits)[0]
    average = lambda own: taught(logits, target) / 3  # noqa: E731
    shares = [loss(logits[:, i : i + 2], target[i : i + 2], average=average) for i in (0, 2, 4)]
    torch.testing.assert_close(torch.autograd.grad(sum(shares) / 3, logits)[0], whole, rtol=1e-12, atol=1e-14)


def test_samples_without_a_right_submodel_do_not_dilute_the_others():
    Z, y, _ = batch(B=1, seed=3)
    y[:] = Z[0].argmax(-1)  # the first timestep is right
    alone = reliable(torch.tensor(Z), torch.tensor(y))
    lost = np.tile(np.array([5.0, 0.0, -5.0]), (len(Z), 1, 1))  # always class 0, labelled 2
    joined = reliable(torch.tensor(np.concatenate([Z, lost], 1)), torch.tensor([*y, 2]))
    assert joined.item() == pytest.approx(alone.item(), rel=1e-13)


def test_equal_timesteps_have_nothing_to_learn_from_their_ensemble():
    logits = torch.randn(1, 5, 4, dtype=torch.float64).repeat(3, 1, 1).requires_grad_()
    value = twsd(logits)
    value.backward()
    assert abs(value.item()) < 1e-14
    assert logits.grad.abs().max() < 1e-14


def test_a_teacher_gets_exactly_no_gradient_unless_asked():
    Z, _, A = batch()
    for loss in FROM_TEACHER.values():
        logits, teacher = torch.tensor(Z, requires_grad=True), torch.tensor(A[0], requires_grad=True)
        assert torch.autograd.grad(loss(logits, teacher), teacher, allow_unused=True)[0] is None
        (gradient,) = torch.autograd.grad(loss(logits, teacher, teacher_grad=True), teacher)
        assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize(("teacher", "changes"), [("ensemble", False), ("correct", True), ("correct_masked", True)])
def test_a_self_teacher_gets_gradient_only_when_asked(teacher, changes):
    # the ensemble's is 0 in any case: softmax(mean logits) minimises mean_t KL(q || p_t) over all q
    Z, y, _ = batch()
    logits, y = torch.tensor(Z, requires_grad=True), torch.tensor(y)
    (default,) = torch.autograd.grad(twsd(logits, y, teacher=teacher), logits)
    (with_teacher,) = torch.autograd.grad(twsd(logits, y, teacher=teacher, teacher_grad=True), logits)
    assert ((default - with_teacher).abs().max() > 1e-3) == changes


@pytest.mark.parametrize("name", FROM_TEACHER)
def test_gradients_of_student_and_teacher_agree_with_finite_differences(name):
    Z, _, A = batch(S=3, B=2)
    inputs = torch.tensor(Z, requires_grad=True), torch.tensor(A[0], requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, a: FROM_TEACHER[name](z, a, teacher_grad=True), inputs)


@pytest.mark.parametrize("teacher", ["ensemble", "correct", "correct_masked"])
def test_gradients_of_self_distillation_agree_with_finite_differences(teacher):
    Z, y, _ = batch(S=3, B=3)
    loss = lambda z: twsd(z, torch.tensor(y), teacher=teacher, teacher_grad=True)  # noqa: E731
    assert torch.autograd.gradcheck(loss, torch.tensor(Z, requires_grad=True))


def test_at_a_large_temperature_kd_is_half_the_mean_squared_difference_of_centred_logits():
    # tau² KL -> Σ_c (ds_c - dq_c)² / (2C), d = logits minus their mean over classes
    Z, _, A = batch(S=1, B=1, C=6)
    difference = (Z - Z.mean(-1, keepdims=True) - A + A.mean(-1, keepdims=True))[0, 0]
    value = twkl(torch.tensor(Z), torch.tensor(A[0]), temperature=1e4)
    assert value.item() == pytest.approx((difference**2).sum() / 12, rel=1e-3)


@pytest.mark.parametrize("name", FROM_TEACHER)
def test_scaling_logits_and_temperature_together_leaves_only_the_square_of_the_scale(name):
    Z, _, A = batch()
    loss = FROM_TEACHER[name]
    once = loss(torch.tensor(Z), torch.tensor(A[0]), temperature=2.0)
    scaled = loss(5 * torch.tensor(Z), 5 * torch.tensor(A[0]), temperature=10.0)
    assert scaled.item() == pytest.approx(25 * once.item(), rel=1e-12)


def test_a_class_that_the_teacher_masks_with_minus_infinity_adds_nothing():
    logits = torch.tensor([[[1.0, 2.0, 3.0]]], dtype=torch.float64, requires_grad=True)
    masked = torch.tensor([[0.5, 1.0, -math.inf]], dtype=torch.float64, requires_grad=True)
    value = twkl(logits, masked, temperature=1.0, teacher_grad=True)
    value.backward()
    q, p = reference.softmax(np.array([0.5, 1.0])), reference.softmax(np.array([1.0, 2.0, 3.0]))
    assert value.item() == pytest.approx(sum(q[c] * math.log(q[c] / p[c]) for c in range(2)), rel=1e-13)
    np.testing.assert_allclose(logits.grad[0, 0], p - np.append(q, 0), rtol=1e-12)
    assert masked.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(6, 4), (5, 3), (2, 6, 3), (3,)])
def test_a_teacher_of_another_shape_is_refused(shape):
    for loss in FROM_TEACHER.values():
        with pytest.raises(ValueError, match=r"teacher_logits must be floating point \[6, 3\] or \[4, 6, 3\]"):
            loss(torch.zeros(4, 6, 3), torch.zeros(shape))


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf, "3"])
def test_a_temperature_that_is_no_positive_number_is_refused(temperature):
    logits, target = torch.zeros(2, 3, 4), torch.zeros(3, dtype=torch.int64)
    calls = [lambda loss=loss: loss(logits, logits, temperature=temperature) for loss in FROM_TEACHER.values()]
    calls += [lambda: twsd(logits, temperature=temperature), lambda: reliable(logits, target, temperature=temperature)]
    calls.append(lambda: wsld(logits, target, logits, temperature=temperature))
    for call in calls:
        with pytest.raises(ValueError, match=r"temperature must lie between 0\.001 and 1,000,000"):
            call()


def test_an_unknown_self_teacher_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown teacher 'mean': choose one of ensemble, correct, correct_masked"):
        twsd(torch.zeros(2, 3, 4), teacher="mean")


def test_a_teacher_of_right_timesteps_needs_labels():
    with pytest.raises(ValueError, match=r"target must be int64 class indices .* got NoneType"):
        twsd(torch.zeros(2, 3, 4), teacher="correct")
