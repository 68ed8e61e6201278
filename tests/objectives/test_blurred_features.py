"""Blurred features: numbers by hand, what is missing of them, an independent reference, gradients."""

import numpy as np
import objectives_reference as reference
import pytest
import torch

from spikedistill.objectives import blurred_distance
from spikedistill.training.features import generator

LOGITS = torch.zeros(3, 2, 4)
STUDENT, TEACHER = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])


def test_blurred_features_are_compared_with_a_teacher_of_the_same_largest_value():
    # one sample, two channels, none missing; the teacher's largest value 4 becomes 1: (1/2, 1)
    student, teacher = [torch.tensor([[[1.0]], [[0.5]]]).unsqueeze(0)], [torch.tensor([[[2.0]], [[4.0]]]).unsqueeze(0)]
    logits = torch.zeros(3, 1, 4)
    assert blurred_distance(logits, student, teacher, mask=0.0).item() == pytest.approx(0.5**2 + 0.5**2)
    # doubled by what generates: 2 - 1/2 and 1 - 1
    assert blurred_distance(logits, student, teacher, [lambda f: 2 * f], mask=0.0).item() == pytest.approx(1.5**2)
    # all missing: 1/2 and 1
    assert blurred_distance(logits, student, teacher, mask=1.0).item() == pytest.approx(0.5**2 + 1)


def test_a_silent_teacher_stays_silent_and_beside_a_silent_student_every_teacher_is():
    # 1 + 4 in two samples of the student, 1 + 1 of the teacher, whose largest value becomes 0
    assert blurred_distance(LOGITS, [STUDENT], [torch.zeros(2, 2)], mask=0.0).item() == pytest.approx(5 / 2)
    assert blurred_distance(LOGITS, [torch.zeros(2, 2)], [TEACHER], mask=0.0).item() == 0


def test_whole_channels_are_missing_of_each_sample_for_itself_and_the_others_are_not_scaled_up():
    seen = []

    def look(features):
        seen.append(features)
        return features

    ones = [torch.ones(100, 50, 2, 2)]
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        blurred_distance(torch.zeros(1, 100, 2), ones, ones, [look], mask=0.15)
    first, again, other = seen
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(first, first[:, :, :1, :1].expand_as(first))
    # 5000 draws, whose share has a standard deviation of 0.005
    assert (first[:, :, 0, 0] == 0).float().mean().item() == pytest.approx(0.15, abs=0.02)
    assert len(first[:, :, 0, 0].unique(dim=0)) > 90
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_features_generated_from_blurred_ones_agree_with_the_reference_and_with_finite_differences():
    rng = np.random.default_rng(0)
    student, teacher = rng.random((2, 3, 4, 5)), 7 * rng.random((2, 3, 4, 5))
    torch.manual_seed(2)
    layer = generator(3).double()
    torch.manual_seed(5)
    kept = (torch.rand(2, 3) >= 0.4).double().numpy()
    assert 0 < kept.sum() < 6
    first, second = ([p.detach().numpy() for p in layer[place].parameters()] for place in (0, 2))
    made = reference.conv3x3(student * kept[:, :, None, None], *first)
    made = reference.conv3x3(np.maximum(made, 0), *second)
    expected = ((made - teacher * student.max() / teacher.max()) ** 2).sum() / 2

    def loss(features, *parameters):
        torch.manual_seed(5)
        passed = [lambda f: torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), f)]
        return blurred_distance(LOGITS, [features], [torch.tensor(teacher)], passed, mask=0.4)

    names, parameters = zip(*layer.named_parameters(), strict=True)
    assert loss(torch.tensor(student), *parameters).item() == pytest.approx(expected, rel=1e-12)
    # the student's largest value, which to gradients is a constant, must stand still for finite differences
    quieter, largest = torch.tensor(student[:, :2], requires_grad=True), torch.full((2, 1, 4, 5), 2.0)
    assert torch.autograd.gradcheck(lambda f, *p: loss(torch.cat([f, largest], 1), *p), (quieter, *parameters))


def test_the_largest_values_that_rescale_the_teacher_are_constants_to_the_gradient():
    student = torch.tensor([[1.0, 0.5], [0.2, 0.1]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[2.0, 4.0], [3.0, 1.0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(blurred_distance(LOGITS, [student], [teacher], mask=0.0), student)
    # 2 (F - A / 4) / 2
    torch.testing.assert_close(gradient, student.detach() - teacher / 4)


def test_a_gradient_flows_through_the_students_largest_value_where_that_is_asked_for():
    student = torch.tensor([[1.0, 0.5], [0.2, 0.1]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[2.0, 4.0], [3.0, 1.0]], dtype=torch.float64)

    def loss(features, **options):
        return blurred_distance(LOGITS, [features], [teacher], mask=0.0, **options)

    # with m = max F = F[0, 0]: d/dm sum (F - m A / 4)^2 / 2 = -sum (F - A / 4) A / 4 = -(0.25 - 0.5 - 0.4125 - 0.0375)
    expected = student.detach() - teacher / 4 + torch.tensor([[0.7, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(torch.autograd.grad(loss(student, max_grad=True), student)[0], expected)
    assert loss(student, max_grad=True).item() == loss(student).item()
    assert torch.autograd.gradcheck(lambda features: loss(features, max_grad=True), student)
    # values that are equally large share it: -(0.5 * 0.5 + 0 - 0.55 * 0.75 - 0.15 * 0.25) = 0.2
    equal = torch.tensor([[1.0, 1.0], [0.2, 0.1]], dtype=torch.float64, requires_grad=True)
    through = torch.autograd.grad(loss(equal, max_grad=True) - loss(equal), equal)[0]
    torch.testing.assert_close(through, torch.tensor([[0.1, 0.1], [0.0, 0.0]], dtype=torch.float64))


def test_a_silent_teacher_has_finite_gradients_through_the_students_largest_value():
    student = STUDENT.clone().requires_grad_()
    loss = blurred_distance(LOGITS, [student], [torch.zeros(2, 2)], mask=0.0, max_grad=True)
    torch.testing.assert_close(torch.autograd.grad(loss, student)[0], STUDENT)


@pytest.mark.parametrize("share", [-0.1, 1.1, "0.15"])
def test_a_share_of_missing_channels_outside_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match="mask must lie between 0 and 1; got"):
        blurred_distance(LOGITS, [STUDENT], [TEACHER], mask=share)
