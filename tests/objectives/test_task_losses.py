"""Cross-entropies and entropy: numbers worked by hand, an independent reference, gradients."""

import math

import numpy as np
import objectives_reference as reference
import pytest
import torch
from against_reference import check_against

from spikedistill.errors import UserError
from spikedistill.objectives import entropy, prefix_ce, sce, twce, twkl

LOSSES = {"sce": sce, "twce": twce, "prefix_ce": prefix_ce}
LN3 = math.log(3.0)

# Two timesteps, one sample, two classes, label 0. softmax(ln 3, 0) = (3/4, 1/4); softmax(0, 0) = (1/2, 1/2).
BY_HAND = torch.tensor([[[LN3, 0.0]], [[0.0, LN3]]], dtype=torch.float64)
LABEL = torch.tensor([0])


def random_batch(S, B, C, seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    return scale * rng.standard_normal((S, B, C)), rng.integers(0, C, B)


def test_sce_is_the_cross_entropy_of_the_mean_logits():
    # mean logits (ln3/2, ln3/2): probability 1/2, so ln 2
    assert sce(BY_HAND, LABEL).item() == pytest.approx(math.log(2), rel=1e-14)


def test_twce_is_the_mean_of_the_timesteps_cross_entropies():
    # -ln(3/4) and -ln(1/4): their mean is ln(16/3)/2
    assert twce(BY_HAND, LABEL).item() == pytest.approx(math.log(16 / 3) / 2, rel=1e-14)


def test_prefix_ce_is_the_mean_over_k_of_the_loss_of_the_first_k():
    # k=1: -ln(3/4); k=2: the mean logits are equal, ln 2
    assert prefix_ce(BY_HAND, LABEL).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2, rel=1e-14)


def test_label_smoothing_spreads_the_target_over_all_classes():
    # epsilon 0.2, C=2: target (0.9, 0.1) on (3/4, 1/4)
    expected = -0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4)
    assert twce(BY_HAND[:1], LABEL, label_smoothing=0.2).item() == pytest.approx(expected, rel=1e-14)


def test_entropy_is_in_nats_and_a_mean_over_timesteps():
    # H(3/4, 1/4) = ln 4 - 3/4 ln 3 for both timesteps
    assert entropy(BY_HAND).item() == pytest.approx(math.log(4) - 0.75 * LN3, rel=1e-14)


def test_entropy_of_equal_logits_is_the_log_of_their_number_with_zero_gradient():
    logits = torch.full((3, 2, 7), 5.0, dtype=torch.float64, requires_grad=True)
    value = entropy(logits)
    value.backward()
    assert value.item() == pytest.approx(math.log(7), rel=1e-14)
    assert logits.grad.abs().max() < 1e-15


@pytest.mark.parametrize("shape", [(1, 1, 2), (4, 6, 5), (3, 2, 10)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("name", LOSSES)
def test_cross_entropies_agree_with_the_reference_in_value_and_gradient(name, smoothing, shape):
    Z, y = random_batch(*shape)
    expected = getattr(reference, name)(Z, y, smoothing)
    check_against(lambda z: LOSSES[name](z, torch.tensor(y), label_smoothing=smoothing), expected, Z)


@pytest.mark.parametrize("shape", [(1, 1, 2), (4, 6, 5)])
def test_entropy_agrees_with_the_reference_in_value_and_gradient(shape):
    Z, _ = random_batch(*shape)
    check_against(entropy, reference.entropy(Z), Z)


@pytest.mark.parametrize("name", LOSSES)
def test_one_timestep_makes_all_cross_entropies_equal(name):
    Z, y = random_batch(1, 5, 4)
    expected = torch.nn.functional.cross_entropy(torch.tensor(Z[0]), torch.tensor(y))
    assert LOSSES[name](torch.tensor(Z), torch.tensor(y)).item() == pytest.approx(expected.item(), rel=1e-14)


@pytest.mark.parametrize("loss", [*LOSSES.values(), lambda z, y: entropy(z)])
def test_gradients_agree_with_finite_differences(loss):
    Z, y = random_batch(3, 2, 4)
    assert torch.autograd.gradcheck(lambda z: loss(z, torch.tensor(y)), torch.tensor(Z, requires_grad=True))


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.zeros(4, 3), r"logits must be floating point \[submodels, batch, classes\].*torch.float32 \[4, 3\]"),
        (torch.zeros(2, 4, 3, dtype=torch.int64), r"got torch.int64 \[2, 4, 3\]"),
        (torch.zeros(0, 4, 3), r"none of them 0; got torch.float32 \[0, 4, 3\]"),
        ([torch.zeros(4, 3)], "got list: stack the timesteps' outputs with torch.stack"),
    ],
)
def test_wrong_logits_are_refused_with_what_came_and_what_to_do(logits, message):
    with pytest.raises(ValueError, match=message):
        sce(logits, torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize(
    "target", [torch.zeros(3, dtype=torch.int64), torch.zeros(4), torch.zeros(4, 5, dtype=torch.int64), None]
)
def test_a_wrong_target_is_refused(target):
    with pytest.raises(ValueError, match=r"target must be int64 class indices of shape \[4\]; got"):
        twce(torch.zeros(2, 4, 5), target)


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, math.nan, "0.1"])
def test_a_label_smoothing_outside_0_to_1_is_refused(smoothing):
    with pytest.raises(ValueError, match="label_smoothing must lie between 0 and 1"):
        prefix_ce(torch.zeros(2, 1, 5), torch.tensor([0]), label_smoothing=smoothing)


DENSE = torch.zeros(4, 2, 3, 5, 5)
FITTING = torch.zeros(4, 6, 3)


@pytest.mark.parametrize(
    ("logits", "target", "advice"),
    [
        (
            DENSE,
            torch.zeros(2, 5, 5).long(),
            r"got torch.float32 \[4, 2, 3, 5, 5\]: where every pixel has a label, .*movedim",
        ),
        ([torch.zeros(6, 3)] * 4, None, r"got list: stack the timesteps' outputs with torch.stack\(outputs\)$"),
        (np.zeros((4, 6, 3)), None, r"got ndarray: pass torch.as_tensor"),
        (torch.zeros(4, 6, 3).long(), None, r"got torch.int64 \[4, 6, 3\]: pass the outputs themselves"),
        (torch.zeros(4, 0, 3), None, r"got torch.float32 \[4, 0, 3\]: leave a batch without samples out"),
        (FITTING, torch.zeros(6).int(), r"got torch.int32 \[6\]: pass target.long\(\)$"),
        (FITTING, torch.zeros(6, 3), r"got torch.float32 \[6, 3\]: pass target.argmax\(-1\) for one-hot labels$"),
        (FITTING, torch.zeros(6, 1).long(), r"got torch.int64 \[6, 1\]: pass target.flatten\(\).long\(\)$"),
        (FITTING, torch.zeros(4, 6).long(), r"got torch.int64 \[4, 6\]: pass the labels of one timestep, target\[0\]"),
        (FITTING, [0] * 6, r"got list: pass torch.tensor\(labels\)$"),
        (FITTING, torch.zeros(5).long(), r"got torch.int64 \[5\]: pass one label for each sample"),
    ],
)
def test_the_message_says_what_came_what_is_expected_and_what_to_do_with_it(logits, target, advice):
    with pytest.raises(UserError, match=rf"^(logits|target) must be .*{advice}") as error:
        twce(logits, torch.zeros(6).long() if target is None else target)
    assert "\n" not in str(error.value)


def test_dense_logits_count_every_pixel_as_the_message_says():
    logits, target = torch.randn(4, 2, 3, 5, 5), torch.randint(3, (2, 5, 5))
    ours = twce(logits.movedim(2, -1).flatten(1, -2), target.flatten())
    each = [torch.nn.functional.cross_entropy(timestep, target) for timestep in logits]
    torch.testing.assert_close(ours, torch.stack(each).mean())


@pytest.mark.parametrize(
    ("teacher", "advice"),
    [
        (
            torch.zeros(2, 6, 3),
            r"got torch.float32 \[2, 6, 3\]: pass the mean over its 2 timesteps, teacher_logits.mean\(0\)",
        ),
        ([torch.zeros(6, 3)], r"got list: stack the timesteps' outputs"),
        (torch.zeros(6).long(), r"got torch.int64 \[6\]: pass the outputs themselves"),
        (torch.zeros(2, 3, 5, 5), r"got torch.float32 \[2, 3, 5, 5\]: make every pixel a sample"),
        (torch.zeros(6, 9), r"got torch.float32 \[6, 9\]: use a teacher with the student's classes"),
    ],
)
def test_a_teachers_logits_that_do_not_fit_come_with_advice_too(teacher, advice):
    with pytest.raises(UserError, match=rf"^teacher_logits must be floating point \[6, 3\] or \[4, 6, 3\] .*{advice}"):
        twkl(FITTING, teacher)
