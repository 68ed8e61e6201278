"""Terms and objectives: the weighted sum, who receives what, what an objective needs."""

import math

import pytest
import torch

from spikedistill.objectives import (
    Objective,
    Term,
    compares_submodels,
    feature_mse,
    logit_kd,
    reliable,
    sce,
    strong2weak,
    twce,
    twsd,
    weak2strong,
)
from spikedistill.objectives.inputs import INPUTS, Inputs
from spikedistill.training.inputs import PROVIDERS, AtHand, inputs_of

LOGITS = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 1, 2, 3])
TEACHER = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))


def test_the_total_is_the_weighted_sum_and_each_term_is_reported_unweighted():
    objective = Objective("mine", [Term("hard", 0.5, sce), Term("soft", 3.0, logit_kd, {"temperature": 2.0})])
    total, terms = objective(LOGITS, TARGET, teacher_logits=TEACHER)
    hard, soft = sce(LOGITS, TARGET), logit_kd(LOGITS, TEACHER, temperature=2.0)
    assert terms == {"hard": hard, "soft": soft}
    assert total.item() == pytest.approx(0.5 * hard.item() + 3 * soft.item(), rel=1e-6)


def test_a_weight_that_moves_goes_in_a_straight_line_from_the_begin_to_the_end_of_training():
    objective = Objective("mine", [Term("hard", 1.0, sce, end_weight=0.5), Term("soft", 0.0, twce, end_weight=2.0)])
    hard, soft = sce(LOGITS, TARGET).item(), twce(LOGITS, TARGET).item()
    for progress, weights in ((0.0, (1.0, 0.0)), (0.25, (0.875, 0.5)), (1.0, (0.5, 2.0))):
        total = objective(LOGITS, TARGET, progress=progress).total
        assert total.item() == pytest.approx(weights[0] * hard + weights[1] * soft, rel=1e-6)
    assert str(objective) == "1..0.5 hard + 0..2 soft, over timesteps"


def test_where_no_weight_moves_progress_is_not_needed_and_changes_nothing():
    objective = Objective("mine", [Term("hard", 1.0, sce)])
    assert not objective.needs_progress
    assert objective(LOGITS, TARGET).total == objective(LOGITS, TARGET, progress=0.7).total


def test_a_missing_or_impossible_progress_is_reported():
    objective = Objective("mine", [Term("hard", 1.0, sce, end_weight=0.0)])
    with pytest.raises(ValueError, match="objective 'mine' changes its weights over training; got no progress: pass"):
        objective(LOGITS, TARGET)
    with pytest.raises(ValueError, match="progress must lie between 0 and 1; got 3"):
        objective(LOGITS, TARGET, progress=3)


def test_a_terms_function_receives_the_features_that_its_signature_names():
    def first_layer(logits, features):
        return features[0].mean()

    mine = [torch.full((4, 2), 3.0)]
    objective = Objective("mine", [Term("a", 1.0, first_layer)])
    assert objective.needs_features
    assert not objective.needs_teacher
    assert objective(LOGITS, TARGET, features=mine).total == 3
    assert Objective("mine", [Term("a", 1.0, feature_mse)]).needs_teacher
    assert not Objective("mine", [Term("a", 1.0, sce)]).needs_features


@pytest.mark.parametrize("missing", ["features", "teacher_features"])
def test_missing_features_are_reported_with_the_objectives_name(missing):
    given = {"features": [torch.zeros(4, 2)], "teacher_features": [torch.zeros(4, 2)]}
    with pytest.raises(ValueError, match=rf"objective 'mine' learns from .*features.*; got no {missing}: pass"):
        Objective("mine", [Term("a", 1.0, feature_mse)])(LOGITS, TARGET, **(given | {missing: None}))


def test_terms_are_detached_and_the_total_is_not():
    logits = LOGITS.clone().requires_grad_()
    value = Objective("mine", [Term("hard", 2.0, twce)])(logits, TARGET)
    assert not value.terms["hard"].requires_grad
    (gradient,) = torch.autograd.grad(value.total, logits)
    (expected,) = torch.autograd.grad(twce(logits, TARGET), logits)
    torch.testing.assert_close(gradient, 2 * expected)


def test_a_function_receives_the_inputs_that_its_signature_names():
    def labels_only(logits, target):
        return logits.mean() + target.sum()

    def logits_only(logits, *, power=1.0):
        return logits.mean() ** power

    objective = Objective("mine", [Term("a", 1.0, labels_only), Term("b", 1.0, logits_only, {"power": 2.0})])
    terms = objective(LOGITS, TARGET, teacher_logits=TEACHER, scores=torch.zeros(3)).terms
    assert terms["a"].item() == pytest.approx(LOGITS.mean().item() + 6)
    assert terms["b"].item() == pytest.approx(LOGITS.mean().item() ** 2)


def test_scores_reach_the_terms_that_rank_timesteps():
    objective = Objective("mine", [Term("s2w", 1.0, strong2weak)])
    for scores in (torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 3.0])):
        assert objective(LOGITS, TARGET, scores=scores).total == strong2weak(LOGITS, scores=scores)


def test_an_objective_knows_whether_it_needs_a_trained_network():
    assert Objective("mine", [Term("a", 1.0, sce), Term("b", 1.0, logit_kd)]).needs_teacher
    assert not Objective("mine", [Term("a", 1.0, sce), Term("b", 1.0, twsd)]).needs_teacher


def test_a_missing_teacher_is_reported_with_the_objectives_name():
    objective = Objective("mine", [Term("soft", 1.0, logit_kd)])
    with pytest.raises(ValueError, match="objective 'mine' learns from a trained network; got no teacher_logits"):
        objective(LOGITS, TARGET)


@pytest.mark.parametrize("function", [strong2weak, weak2strong, twsd, reliable])
def test_terms_that_compare_timesteps_are_known(function):
    assert Objective("mine", [Term("a", 1.0, sce), Term("b", 1.0, function)]).compares_submodels


@pytest.mark.parametrize("function", [sce, twce, logit_kd])
def test_terms_with_a_signal_of_their_own_are_not_taken_for_comparing(function):
    assert not Objective("mine", [Term("a", 1.0, function)]).compares_submodels


def test_a_users_own_loss_can_be_marked_as_comparing():
    @compares_submodels
    def spread(logits):
        return logits.var(0).mean()

    assert Objective("mine", [Term("spread", 1.0, spread)]).compares_submodels


def test_heads_have_graphs_of_their_own_so_that_comparing_them_carries_a_signal():
    assert not Objective("mine", [Term("a", 1.0, reliable)], submodels="heads").compares_submodels


def test_timesteps_are_ranked_by_their_scores_averaged_over_processes():
    """Alone this process ranks timestep 2 the weakest; with the others' scores added it is timestep 0."""
    objective = Objective("mine", [Term("s2w", 1.0, strong2weak, {"measure": "loss"})])
    logits = torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]], [[0.0, 0.5]]])
    others = torch.tensor([-9.0, 0.0, 0.0])
    alone, shared = (
        objective(logits, torch.tensor([0]), average=average).total
        for average in (None, lambda own: (own + others) / 2)
    )
    assert alone == strong2weak(logits, scores=torch.tensor([1.0, 2.0, 0.0]))
    assert shared == strong2weak(logits, scores=torch.tensor([0.0, 2.0, 1.0]))
    assert alone != shared


def test_an_objective_is_written_as_a_formula():
    objective = Objective("mine", [Term("a", 1.0, sce), Term("b", -0.5, twce), Term("c", 0.25, twsd)])
    assert str(objective) == "1 a - 0.5 b + 0.25 c, over timesteps"


@pytest.mark.parametrize("terms", [[], [Term("a", 1.0, sce), Term("a", 1.0, twce)]])
def test_an_objective_needs_terms_with_different_names(terms):
    with pytest.raises(ValueError, match="objective 'mine' needs one or more terms with different names"):
        Objective("mine", terms)


def test_an_unknown_option_of_a_term_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="term 'soft' has no option tau: it takes temperature, teacher_grad"):
        Term("soft", 1.0, logit_kd, {"tau": 3.0})


@pytest.mark.parametrize("weight", [math.nan, math.inf, "1"])
def test_a_weight_must_be_a_finite_number(weight):
    for weights in ({"weight": weight}, {"weight": 1.0, "end_weight": weight}):
        with pytest.raises(ValueError, match="weight of term 'hard' must be a number up to ±1,000,000,000"):
            Term("hard", function=sce, **weights)


def test_an_input_that_there_is_not_is_refused_with_those_there_are():
    with pytest.raises(TypeError, match=r"no objective takes tutor: expected teacher_logits, scores, .*, progress"):
        Objective("mine", [Term("a", 1.0, sce)])(LOGITS, TARGET, tutor=TEACHER)


def test_every_declared_input_says_what_is_missing_and_has_a_provider_in_training():
    """A declaration without a provider, or a provider of nothing that is declared, would be found in a run only."""
    assert PROVIDERS.keys() == INPUTS.keys()
    assert INPUTS.keys() == Inputs.__annotations__.keys()
    for name, declared in INPUTS.items():
        assert bool(declared.what) == bool(declared.wanted), name
        assert bool(declared.what) == (declared.example() is not None), name


def test_a_run_computes_the_inputs_that_its_objective_uses_only():
    def close(logits, features):
        return features[0].mean()

    nobody = object()  # a teacher who would be looked for an attribute
    at = AtHand(
        objective=Objective("mine", [Term("a", 1.0, close)]),
        teacher=nobody,
        kind="image",
        inputs=LOGITS,
        target=TARGET,
        submodels=LOGITS,
        features=[TEACHER],
    )
    assert inputs_of(at) == {"features": [TEACHER]}
