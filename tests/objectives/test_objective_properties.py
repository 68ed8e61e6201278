"""What holds for every loss, whatever the shape, the type and the size of the logits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikedistill.objectives import (
    adjacent,
    aligned_kd,
    all_pairs,
    entropy,
    head_tail_kd,
    label_mse,
    logit_kd,
    logit_mse,
    mutual,
    prefix_ce,
    prefix_kd,
    reliable,
    right_sum,
    sce,
    selective,
    strong2weak,
    tet_of_some,
    twce,
    twkl,
    twsd,
    weak2strong,
    weighted_heads_ce,
    wsld,
)

VARIANTS = ["pair", "ensemble_teacher", "ensemble_student", "cascade"]
MEASURES = ["confidence", "entropy", "margin", "accuracy", "loss", "random", "first_to_last"]

# name -> loss of (logits, target, teacher logits), each of them mean-reduced and non-negative
EVERY_LOSS = {
    "sce": lambda z, y, a: sce(z, y),
    "sce smoothed": lambda z, y, a: sce(z, y, label_smoothing=0.1),
    "twce": lambda z, y, a: twce(z, y),
    "prefix_ce": lambda z, y, a: prefix_ce(z, y),
    "entropy": lambda z, y, a: entropy(z),
    "logit_kd": lambda z, y, a: logit_kd(z, a, teacher_grad=True),
    "twkl": lambda z, y, a: twkl(z, a, teacher_grad=True),
    "prefix_kd": lambda z, y, a: prefix_kd(z, a, teacher_grad=True),
    "reliable": lambda z, y, a: reliable(z, y, teacher_grad=True),
    **{f"twsd {t}": lambda z, y, a, t=t: twsd(z, y, teacher=t) for t in ("ensemble", "correct", "correct_masked")},
    **{f"s2w {v}": lambda z, y, a, v=v: strong2weak(z, variant=v, teacher_grad=True) for v in VARIANTS},
    **{f"w2s {v}": lambda z, y, a, v=v: weak2strong(z, variant=v) for v in VARIANTS},
    **{f"s2w by {m}": lambda z, y, a, m=m: strong2weak(z, target=y, measure=m) for m in MEASURES},
    "s2w standardized": lambda z, y, a: strong2weak(z, divergence="standardized"),
    "s2w mse": lambda z, y, a: strong2weak(z, divergence="mse"),
    "tet_of_some": lambda z, y, a: tet_of_some(z, y),
    "logit_mse": lambda z, y, a: logit_mse(z),
    "label_mse": lambda z, y, a: label_mse(z, y),
    "all_pairs": lambda z, y, a: all_pairs(z, teacher_grad=True),
    "adjacent": lambda z, y, a: adjacent(z, teacher_grad=True),
    "right_sum": lambda z, y, a: right_sum(z, y),
    "aligned_kd": lambda z, y, a: aligned_kd(z, y, a),
    "selective": lambda z, y, a: selective(z),
    "wsld": lambda z, y, a: wsld(z, y, a),
    "head_tail_kd": lambda z, y, a: head_tail_kd(z, a),
    "weighted_heads_ce": lambda z, y, a: weighted_heads_ce(z, y),
    "mutual": lambda z, y, a: mutual(z),
}
# adding to logits may make or break exact ties between them, which these would see
RANKED = ("s2w", "w2s", "twsd correct", "reliable", "right_sum", "aligned_kd")
# and these are about the logits themselves
ABSOLUTE = ("tet_of_some", "logit_mse", "label_mse", "selective")


@st.composite
def batches(draw, dtypes=(torch.float64, torch.float32, torch.float16, torch.bfloat16)):
    """Logits, target and teacher logits: any small shape, many equal values, some of them ±1e4."""
    S, B, C = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(2, 5))
    dtype = draw(st.sampled_from(dtypes))
    value = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 1e4, -1e4]), st.floats(-20, 20, width=32))
    logits, teacher = (
        torch.tensor(draw(st.lists(value, min_size=n, max_size=n))).to(dtype).view(shape).requires_grad_()
        for n, shape in [(S * B * C, (S, B, C)), (B * C, (B, C))]
    )
    target = torch.tensor(draw(st.lists(st.integers(0, C - 1), min_size=B, max_size=B)))
    return logits, target, teacher


@pytest.mark.parametrize("name", EVERY_LOSS)
@settings(max_examples=40, deadline=None)
@given(batch=batches())
def test_every_loss_is_finite_and_not_negative_with_finite_gradients(name, batch):
    logits, target, teacher = batch
    value = EVERY_LOSS[name](logits, target, teacher)
    assert value.shape == ()
    assert value.dtype == (torch.float64 if logits.dtype == torch.float64 else torch.float32)
    assert value.isfinite()
    assert value >= -1e-5
    value.backward()
    assert logits.grad.dtype == logits.dtype
    for gradient in (logits.grad, teacher.grad):
        assert gradient is None or gradient.isfinite().all()


@pytest.mark.parametrize("name", EVERY_LOSS)
@settings(max_examples=10, deadline=None)
@given(batch=batches(dtypes=(torch.float16, torch.bfloat16)))
def test_half_precision_logits_give_the_loss_of_the_same_numbers_in_single_precision(name, batch):
    logits, target, teacher = batch
    torch.manual_seed(0)
    half = EVERY_LOSS[name](logits, target, teacher)
    torch.manual_seed(0)
    assert torch.equal(half, EVERY_LOSS[name](logits.float(), target, teacher.float()))


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_single_precision_agrees_with_double(name):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 8, 10, generator=generator, dtype=torch.float64)
    target, teacher = torch.arange(8), torch.randn(8, 10, generator=generator, dtype=torch.float64)
    torch.manual_seed(0)
    double = EVERY_LOSS[name](logits, target, teacher)
    torch.manual_seed(0)
    single = EVERY_LOSS[name](logits.float(), target, teacher.float())
    assert single.item() == pytest.approx(double.item(), rel=1e-5)


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_under_autocast_the_loss_is_computed_in_single_precision(name):
    torch.manual_seed(1)
    logits, target, teacher = torch.randn(4, 8, 10), torch.arange(8), torch.randn(8, 10)
    torch.manual_seed(0)
    plain = EVERY_LOSS[name](logits, target, teacher)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = EVERY_LOSS[name](logits, target, teacher)
    torch.testing.assert_close(under_autocast, plain)


@pytest.mark.parametrize("name", [name for name in EVERY_LOSS if not name.startswith(("s2w", "w2s", "tet_of"))])
@settings(max_examples=15, deadline=None)
@given(batch=batches(dtypes=(torch.float64,)))
def test_losses_are_means_so_repeating_the_batch_changes_nothing(name, batch):
    logits, target, teacher = (x.detach() for x in batch)
    once = EVERY_LOSS[name](logits, target, teacher)
    twice = EVERY_LOSS[name](logits.repeat(1, 2, 1), target.repeat(2), teacher.repeat(2, 1))
    assert twice.item() == pytest.approx(once.item(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ["twce", "entropy", "twkl", "reliable", "twsd ensemble", "twsd correct"])
@settings(max_examples=15, deadline=None)
@given(batch=batches(dtypes=(torch.float64,)))
def test_a_mean_over_timesteps_does_not_grow_with_their_number(name, batch):
    logits, target, teacher = (x.detach() for x in batch)
    once = EVERY_LOSS[name](logits, target, teacher)
    twice = EVERY_LOSS[name](logits.repeat(2, 1, 1), target, teacher)
    assert twice.item() == pytest.approx(once.item(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in EVERY_LOSS if not name.startswith((*RANKED, *ABSOLUTE))])
@settings(max_examples=15, deadline=None)
@given(batch=batches(dtypes=(torch.float64,)), shift=st.floats(-50, 50))
def test_a_shift_of_all_logits_changes_nothing(name, batch, shift):
    logits, target, teacher = batch
    once = EVERY_LOSS[name](logits, target, teacher)
    shifted = EVERY_LOSS[name](logits + shift, target, teacher + shift)
    assert shifted.item() == pytest.approx(once.item(), rel=1e-6, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(batch=batches(dtypes=(torch.float64,)), smoothing=st.sampled_from([0.0, 0.1]))
def test_the_ensemble_of_the_first_k_is_bounded_by_all_timesteps_losses(batch, smoothing):
    # convexity: SCE(z_1..z_k) <= TWCE(z_1..z_k) <= (T/k) TWCE(z_1..z_T), and likewise for distillation
    logits, target, teacher = batch
    T = len(logits)
    hard = twce(logits, target, label_smoothing=smoothing).item()
    soft = twkl(logits, teacher).item()
    for k in range(1, T + 1):
        slack = 1e-9 + 1e-12 * T / k * max(hard, soft)
        assert sce(logits[:k], target, label_smoothing=smoothing).item() <= T / k * hard + slack
        assert logit_kd(logits[:k], teacher).item() <= T / k * soft + slack


@settings(max_examples=30, deadline=None)
@given(batch=batches(dtypes=(torch.float64,)))
def test_the_prefix_loss_is_the_mean_of_what_deployment_at_each_k_scores(batch):
    logits, target, teacher = batch
    T = len(logits)
    hard = sum(sce(logits[:k], target).item() for k in range(1, T + 1)) / T
    soft = sum(logit_kd(logits[:k], teacher).item() for k in range(1, T + 1)) / T
    assert prefix_ce(logits, target).item() == pytest.approx(hard, rel=1e-9, abs=1e-9)
    assert prefix_kd(logits, teacher).item() == pytest.approx(soft, rel=1e-9, abs=1e-9)
