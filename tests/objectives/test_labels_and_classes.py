"""Labels that are no class, a single class, classes that are masked, and numbers that are none."""

import math

import pytest
import torch
from every_loss import CATALOGUE, EVERY_LOSS, STRONG, TASK, VARIANTS, WITH_LABELS, WITHOUT_LABELS, values
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from spikedistill import LIF, temporal
from spikedistill.evaluation import (
    calibrate_threshold,
    calibrated_metrics,
    compare_gradients,
    exit_curve,
    fit_temperature,
    timestep_metrics,
    timestep_reliability,
)
from spikedistill.evaluation.calibration import reliability
from spikedistill.objectives import (
    Objective,
    Term,
    create_objective,
    entropy,
    list_objectives,
    logit_mse,
    sce,
    strong2weak,
    timestep_scores,
    twce,
    twkl,
)

GENERATOR = torch.Generator().manual_seed(0)
Z, A = (torch.randn(shape, generator=GENERATOR, dtype=torch.float64) for shape in ((4, 6, 10), (6, 10)))
Y = torch.tensor([3, 1, 4, 1, 5, 9])


def labelled(label, place=4):
    target = Y.clone()
    target[place] = label
    return target


# Labels


@pytest.mark.parametrize("label", [-100, -1, 10, 255, 2**40])
@pytest.mark.parametrize("name", [*WITH_LABELS, *CATALOGUE])
def test_a_label_that_is_no_class_is_refused_with_its_place_and_the_range(name, label):
    with pytest.raises(ValueError, match=rf"^label {label} at place 4 of the batch is no class: expected 0 to 9; "):
        EVERY_LOSS[name](Z, labelled(label), A)


EVALUATED = {
    "timestep_metrics": lambda z, y: timestep_metrics(z, y),
    "timestep_reliability": lambda z, y: timestep_reliability(z, y),
    "calibrated_metrics": lambda z, y: calibrated_metrics(z, y, z, Y),
    "calibrated_metrics held out": lambda z, y: calibrated_metrics(z, Y, z, y),
    "reliability": lambda z, y: reliability(z[0], y),
    "fit_temperature": lambda z, y: fit_temperature(z[0], y),
    "exit_curve": lambda z, y: exit_curve(z, y, "margin"),
    "calibrate_threshold": lambda z, y: calibrate_threshold(z, y, max_drop=1.0),
    "timestep_scores": lambda z, y: timestep_scores(z, y, measure="loss"),
    "ranking": lambda z, y: create_objective("s2w", measure="accuracy").ranking(z, y),
    "compare_gradients": lambda z, y: compare_gradients(
        temporal(torch.nn.Sequential(torch.nn.Linear(10, 10), LIF(), torch.nn.Linear(10, 10))), z.float(), y
    ),
}


@pytest.mark.parametrize("label", [-100, 10])
@pytest.mark.parametrize("name", EVALUATED)
def test_what_evaluates_refuses_such_labels_in_the_same_words(name, label):
    with pytest.raises(ValueError, match=rf"^label {label} at place 2 of the batch is no class: expected 0 to 9; "):
        EVALUATED[name](Z, labelled(label, 2))


def test_a_refused_label_says_what_may_be_meant():
    with pytest.raises(ValueError, match="task losses leave such samples out with ignore_index=-100"):
        sce(Z, labelled(-100))
    with pytest.raises(ValueError, match="labels count from 0"):
        sce(Z, labelled(10))


@pytest.mark.parametrize("ignored", [-100, 255, 7])
@pytest.mark.parametrize("name", TASK)
def test_ignored_samples_are_as_if_they_were_not_there(name, ignored):
    """7 is a class too, of which a sample may be left out."""
    target, kept = labelled(ignored), [0, 1, 2, 3, 5]
    whole, left = (z.clone().requires_grad_() for z in (Z, Z[:, kept]))
    value, expected = TASK[name](whole, target, ignore_index=ignored), TASK[name](left, Y[kept])
    assert value.item() == pytest.approx(expected.item(), rel=1e-13)
    (gradient,), (of_left,) = torch.autograd.grad(value, whole), torch.autograd.grad(expected, left)
    torch.testing.assert_close(gradient[:, kept], of_left, rtol=1e-12, atol=1e-15)
    assert not gradient[:, 4].any()
    if "label_smoothing" in TASK[name].__kwdefaults__:
        smoothed = TASK[name](Z, target, ignore_index=ignored, label_smoothing=0.1)
        assert smoothed.item() == pytest.approx(TASK[name](Z[:, kept], Y[kept], label_smoothing=0.1).item(), rel=1e-13)


def test_the_mean_over_what_is_kept_by_hand():
    # the kept sample has probability 1/4 in one timestep and 1/2 in the other: -(ln 1/4 + ln 1/2) / 2
    logits = torch.tensor([[[0.0, math.log(3)], [9.0, 0.0]], [[0.0, 0.0], [9.0, 0.0]]])
    loss = twce(logits, torch.tensor([0, -100]), ignore_index=-100)
    assert loss.item() == pytest.approx(1.5 * math.log(2), rel=1e-6)


@pytest.mark.parametrize("name", TASK)
def test_where_every_sample_is_ignored_the_loss_is_0_with_zero_gradient(name):
    logits = Z.clone().requires_grad_()
    value = TASK[name](logits, torch.full_like(Y, -100), ignore_index=-100)
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(Z))


def test_other_labels_are_refused_beside_those_that_are_ignored():
    with pytest.raises(ValueError, match="label -1 at place 4 of the batch is no class: expected 0 to 9"):
        twce(Z, labelled(-1), ignore_index=-100)
    for wrong in (-100.0, "ignore", True):
        with pytest.raises(ValueError, match="ignore_index must be an int or None; got"):
            twce(Z, Y, ignore_index=wrong)


def test_a_term_of_an_objective_takes_it_as_an_option():
    objective = Objective("mine", [Term("hard", 1.0, twce, {"ignore_index": -100})])
    assert objective(Z, labelled(-100)).total == twce(Z, labelled(-100), ignore_index=-100)


def test_labels_are_not_read_where_there_are_no_values_to_read():
    """Where PyTorch only follows the operations reading a value fails, or is written into what comes out."""
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        fake, target = mode.from_tensor(Z), mode.from_tensor(Y)
        assert sce(fake, target).shape == ()
        assert create_objective("twkd")(fake, target, teacher_logits=mode.from_tensor(A)).total.shape == ()
    assert sce(torch.empty(4, 6, 10, device="meta"), torch.empty(6, dtype=torch.int64, device="meta")).shape == ()
    graph = make_fx(lambda z, y: sce(z, y))(Z, Y)
    assert graph(2 * Z, labelled(2)).item() == pytest.approx(sce(2 * Z, labelled(2)).item())
    together = torch.func.vmap(sce, in_dims=(1, 0))(Z.unsqueeze(2), Y.unsqueeze(1))
    assert together.mean().item() == pytest.approx(sce(Z, Y).item())
    assert torch.func.grad(sce)(Z, Y).shape == Z.shape


@pytest.mark.parametrize("label", [-100, 10])
def test_where_labels_are_not_read_pytorch_does_not_ignore_them_in_silence(label):
    """As on a GPU, whose cross-entropy asserts on the device what the one of a CPU raises."""
    graph = make_fx(lambda z, y: sce(z, y))(Z, Y)
    with pytest.raises(IndexError, match="out of bounds"):
        graph(Z, labelled(label))


# One class


@pytest.mark.parametrize("name", [*WITH_LABELS, *WITHOUT_LABELS])
def test_one_class_is_refused(name):
    with pytest.raises(
        ValueError, match=r"^one class has nothing to tell apart; got logits \[4, 6, 1\]: use a network with"
    ):
        EVERY_LOSS[name](Z[..., :1], torch.zeros_like(Y), A[..., :1])


@pytest.mark.parametrize("name", list_objectives())
def test_every_entry_of_the_catalogue_refuses_one_class(name):
    with pytest.raises(ValueError, match="one class has nothing to tell apart"):
        CATALOGUE[f"objective {name}"](Z[..., :1], torch.zeros_like(Y), A[..., :1])


@pytest.mark.parametrize("name", [name for name in EVALUATED if name != "compare_gradients"])
def test_what_evaluates_refuses_one_class(name):
    if name == "calibrated_metrics held out":
        return
    with pytest.raises(ValueError, match="one class has nothing to tell apart"):
        EVALUATED[name](Z[..., :1], torch.zeros_like(Y))


# Masked classes: those that are kept are all there are


MASKED = [0, 2, 7]
KEPT = [1, 3, 4, 5, 6, 8, 9]
RENUMBERED = torch.tensor([KEPT.index(label) for label in Y.tolist()])


def masked(logits, value=-math.inf):
    return logits.index_fill(-1, torch.tensor(MASKED), value)


@pytest.mark.parametrize("value", [-math.inf, torch.finfo(torch.float64).min])
@pytest.mark.parametrize("also_the_teacher", [True, False])
@pytest.mark.parametrize("name", EVERY_LOSS)
def test_masked_classes_are_as_if_they_were_not_there(name, also_the_teacher, value):
    if "ckdsnn" in name or name == "noisy_kd":
        pytest.skip("its noise is drawn for every class")
    loss = EVERY_LOSS[name]
    teacher = masked(A, value) if also_the_teacher else A
    if not also_the_teacher and "enof" in name:
        pytest.skip("the teacher's classifier says the student's logits")
    found = values(loss, masked(Z, value), Y, teacher)
    expected = values(loss, Z[..., KEPT], RENUMBERED, A[..., KEPT])
    torch.testing.assert_close(found[0], expected[0], rtol=1e-10, atol=1e-13)
    for gradient, of_kept in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(gradient[..., KEPT], of_kept, rtol=1e-9, atol=1e-13)
        assert not gradient[..., MASKED].any()


@pytest.mark.parametrize("value", [-math.inf, torch.finfo(torch.float32).min])
@pytest.mark.parametrize("name", EVERY_LOSS)
def test_values_and_gradients_stay_finite_whoever_masks_in_single_precision(name, value):
    z, a = Z.float(), A.float()
    some = z.clone()
    some[1, 2, [0, 7]] = value  # of one timestep of one sample
    others = masked(z)
    others[..., 8] = -math.inf
    for student, teacher in (
        (masked(z, value), a),
        (z, masked(a, value)),
        (some, a),
        (some, masked(a, value)),
        (others, masked(a)),
    ):
        assert all(number.isfinite().all() for number in values(EVERY_LOSS[name], student, Y, teacher))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [*WITH_LABELS, *WITHOUT_LABELS])
def test_half_precision_masks_alike(name, dtype):
    z, a = masked(Z).to(dtype), masked(A).to(dtype)
    half, single = (values(EVERY_LOSS[name], *given) for given in ((z, Y, a), (z.float(), Y, a.float())))
    torch.testing.assert_close(half[0].float(), single[0], rtol=1e-5, atol=1e-7)
    assert all(gradient.isfinite().all() for gradient in half[1:])


@pytest.mark.parametrize("measure", STRONG)
@pytest.mark.parametrize("variant", VARIANTS)
def test_masked_classes_rank_timesteps_as_if_they_were_not_there(measure, variant):
    options = {"measure": measure, "variant": variant}
    found = strong2weak(masked(Z), target=Y, **options)
    assert found.item() == pytest.approx(strong2weak(Z[..., KEPT], target=RENUMBERED, **options).item(), rel=1e-12)


def test_masked_classes_by_hand():
    # of three classes one is masked, the others have 3/4 and 1/4
    logits = torch.tensor([[[math.log(3), 0.0, -math.inf]]], dtype=torch.float64)
    assert sce(logits, torch.tensor([1])).item() == pytest.approx(math.log(4))
    # (0.9 + 0.05) ln 4/3 + 0.05 ln 4: the label's share, and a half of the rest for each of the two
    smoothed = sce(logits, torch.tensor([0]), label_smoothing=0.1)
    assert smoothed.item() == pytest.approx(0.95 * math.log(4 / 3) + 0.05 * math.log(4))
    assert entropy(logits).item() == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4))
    # a teacher with halves on the classes that are kept, and with much on the other, which is not asked for
    teacher = torch.tensor([[0.0, 0.0, 9.0]], dtype=torch.float64)
    assert twkl(logits, teacher, temperature=1.0).item() == pytest.approx(math.log(2 / 3) / 2 + math.log(2) / 2)
    assert logit_mse(logits, level=0.0).item() == pytest.approx(math.log(3) ** 2 / 2)


def test_the_label_of_a_masked_class_is_refused_on_a_cpu_with_its_place():
    """Its cross-entropy is infinite."""
    for name in (
        "sce",
        "twce smoothed",
        "prefix_ce",
        "wsld",
        "aligned_kd",
        "objective twkd",
        "objective joint-asnn-unofficial",
    ):
        with pytest.raises(
            ValueError, match=r"^label 7 at place 4 of the batch is a class that the logits mask with -inf: omit"
        ):
            EVERY_LOSS[name](masked(Z), labelled(7), A)
    assert twce(masked(Z), labelled(7), ignore_index=7).isfinite(), "which is left out"


# Numbers that are none


@pytest.mark.parametrize("name", EVERY_LOSS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_nan_and_infinity_are_never_hidden(name, data):
    """The step that meets them stops: a loss that stays finite would train on."""
    z, a = Z.clone(), A.clone()
    rows = st.integers(0, 3), st.integers(0, 5)
    t, b = (data.draw(each) for each in rows)
    what = data.draw(st.sampled_from([math.nan, math.inf, "row"]))
    # of what is drawn at random, or chosen as the strongest and the weakest, all timesteps are such
    t = t if name in EVERYWHERE else slice(None)
    z[t, b] = -math.inf if what == "row" else z[t, b]
    if what != "row":
        z[t, b, data.draw(st.integers(0, 9))] = what
    torch.manual_seed(0)
    assert not EVERY_LOSS[name](z, Y, a).isfinite()


SOME_TIMESTEPS = ("s2w", "w2s", "tet_of_some", "objective sltt-k")
EVERYWHERE = [name for name in EVERY_LOSS if not name.startswith(SOME_TIMESTEPS)]


@pytest.mark.parametrize("name", [name for name in list_objectives() if create_objective(name).needs_teacher])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_those_of_a_teacher_are_not_hidden_either(name, number):
    """Wherever they are: at a label, at an answer, or elsewhere."""
    if not {"teacher_logits", "classifier"} & {each for term in create_objective(name).terms for each in term.inputs}:
        pytest.skip("it learns from features")
    for place in range(10):
        teacher = A.clone()
        teacher[2, place] = number
        torch.manual_seed(0)
        assert not CATALOGUE[f"objective {name}"](Z, Y, teacher).isfinite(), place
