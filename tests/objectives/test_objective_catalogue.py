"""The catalogue: every entry runs, is the composition its paper says, and refuses what it does not know."""

import inspect
import pickle
import re
from pathlib import Path

import numpy as np
import objectives_reference as reference
import pytest
import torch

from spikedistill.evaluation import published_numbers
from spikedistill.objectives import (
    create_objective,
    describe_objective,
    list_objectives,
    objective_options,
    register_objective,
)

GENERATOR = np.random.default_rng(7)
Z, A, Y = GENERATOR.standard_normal((4, 6, 3)), GENERATOR.standard_normal((6, 3)), GENERATOR.integers(0, 3, 6)
STRENGTH = reference.scores(Z, Y, "confidence")
S2W = reference.strong_weak(Z, STRENGTH, "s2w", "pair")
W2S = reference.strong_weak(Z, STRENGTH, "w2s", "pair")
# The network's weights, of which one is 0, as biases often are.
W = [np.append(GENERATOR.standard_normal(4), 0.0), GENERATOR.standard_normal((3, 2))]
# What two layers of student and teacher return; half of training is done.
SHAPES = [(6, 16, 12, 12), (6, 32, 6, 6)]
F, G = ([GENERATOR.standard_normal(shape) for shape in SHAPES] for _ in range(2))
PROGRESS = 0.5
DRAW = 11
torch.manual_seed(DRAW)
DRAWN = torch.randperm(4)[:2].tolist()
torch.manual_seed(DRAW)
KEPT = [(torch.rand(shape[:2]) >= 0.15).double().numpy() for shape in SHAPES]
torch.manual_seed(DRAW)
NOISE = torch.randn(6, 3, dtype=torch.float64).numpy()
FEATURES = {
    "lasnn-unofficial",
    "kdsnn",
    "sakd",
    "supersnn-similarity",
    "bkdsnn-unofficial",
    "ckdsnn-unofficial",
    "enof-laf",
}
# The teacher's classifier: global pooling and a linear layer.
WEIGHT, BIAS = GENERATOR.standard_normal((3, 32)), GENERATOR.standard_normal(3)
UNCHANGED = [torch.nn.Identity() for _ in SHAPES]


def classifier(features):
    """The teacher's, for features of as many channels as there are."""
    weight = torch.tensor(WEIGHT, dtype=features.dtype)[:, : features.shape[1]]
    return features.mean((2, 3)) @ weight.T + torch.tensor(BIAS, dtype=features.dtype)


def of_features(value_and_gradients):
    """A loss of the features alone, which has no gradient in the logits."""
    return value_and_gradients[0], np.zeros_like(Z), value_and_gradients[1]


# Each entry at its default options, as (weight, reference) of its terms; a reference is the value, the gradient in the logits
# and, where features are compared, those in the features.
PUBLISHED = {
    "sce": {"sce": (1, reference.sce(Z, Y))},
    "twce": {"twce": (1, reference.twce(Z, Y))},
    "prefix": {"prefix_ce": (1, reference.prefix_ce(Z, Y))},
    "label-smoothing": {"sce": (1, reference.sce(Z, Y, 0.1))},
    "entropy-regularisation": {"sce": (1, reference.sce(Z, Y)), "entropy": (-0.1, reference.entropy(Z))},
    "skd": {"sce": (1, reference.sce(Z, Y)), "logit_kd": (0.2, reference.logit_kd(Z, A))},
    "prefix-kd": {"prefix_ce": (1, reference.prefix_ce(Z, Y)), "prefix_kd": (0.2, reference.prefix_kd(Z, A))},
    "sce-twkl": {"sce": (1, reference.sce(Z, Y)), "twkl": (0.2, reference.twkl(Z, A))},
    "twce-skl": {"twce": (1, reference.twce(Z, Y)), "logit_kd": (0.2, reference.logit_kd(Z, A))},
    "twce-twkl": {"twce": (1, reference.twce(Z, Y)), "twkl": (0.2, reference.twkl(Z, A))},
    "twce-twsd": {"twce": (1, reference.twce(Z, Y)), "twsd": (0.5, reference.twsd(Z, Y, "ensemble"))},
    "twkd": {
        "twce": (1, reference.twce(Z, Y)),
        "twkl": (0.2, reference.twkl(Z, A)),
        "twsd": (0.5, reference.twsd(Z, Y, "ensemble")),
    },
    "tser-unofficial": {
        "twce": (0.5, reference.twce(Z, Y)),
        "twkl": (0.5, reference.twkl(Z, A)),
        "entropy": (-0.1, reference.entropy(Z)),
    },
    "s2w": {"sce": (1, reference.sce(Z, Y)), "strong2weak": (1, S2W)},
    "w2s": {"sce": (1, reference.sce(Z, Y)), "weak2strong": (1, W2S)},
    "s2w-w2s": {"sce": (1, reference.sce(Z, Y)), "strong2weak": (1, S2W), "weak2strong": (1, W2S)},
    "esd": {"heads_ce": (1, reference.twce(Z, Y)), "reliable": (0.3, reference.reliable(Z, Y))},
    "tet": {"twce": (0.95, reference.twce(Z, Y)), "logit_mse": (0.05, reference.logit_mse(Z))},
    "sltt-k": {"tet_of_some": (1, reference.tet_of_some(Z, Y, DRAWN))},
    "etc": {"sce": (1, reference.sce(Z, Y)), "all_pairs": (1, reference.all_pairs(Z))},
    # halfway from (1, 0) to (0.3, 0.7)
    "tks": {"sce": (0.65, reference.sce(Z, Y)), "right_sum": (0.35, reference.right_sum(Z, Y))},
    "mps-guidance": {"sce": (1, reference.sce(Z, Y)), "adjacent": (1, reference.adjacent(Z))},
    "seal-unofficial": {
        "twce": (1, reference.twce(Z, Y)),
        "aligned_kd": (0.6, reference.aligned_kd(Z, Y, A)),
        "selective": (0.15, reference.selective(Z)),
    },
    "lasnn-unofficial": {
        "sce": (1, reference.sce(Z, Y)),
        "feature_distance": (7e-5, of_features(reference.feature_distance(F, G))),
    },
    "kdsnn": {
        "sce": (1, reference.sce(Z, Y)),
        "logit_kd": (0.2, reference.logit_kd(Z, A)),
        "feature_distance": (7e-5, of_features(reference.feature_distance(F, G))),
    },
    "sakd": {"sce": (1, reference.sce(Z, Y)), "feature_mse": (100, of_features(reference.feature_mse(F, G)))},
    "supersnn-similarity": {
        "sce": (1, reference.sce(Z, Y)),
        "similarity": (3000, of_features(reference.similarity(F, G))),
    },
    "bkdsnn-unofficial": {
        "sce": (1, reference.sce(Z, Y)),
        "wsld": (1, reference.wsld(Z, Y, A)),
        "blurred_distance": (7e-5, of_features(reference.blurred_distance(F, G, KEPT))),
    },
    "ckdsnn-unofficial": {
        "sce": (1, reference.sce(Z, Y)),
        "noisy_kd": (1, reference.noisy_kd(Z, A, NOISE)),
        "activation_map_kl": (1, of_features(reference.activation_map_kl(F, G, WEIGHT, BIAS, len(Z)))),
    },
    "enof-laf": {
        "sce": (1, reference.sce(Z, Y)),
        "classified_kd": (0.2, of_features(reference.classified_kd(F, A, WEIGHT, BIAS))),
    },
    "joint-asnn-unofficial": {
        "exits_ce": (0.9, reference.exits_ce(Z, Y)),
        "exits_kd": (0.1, reference.exits_kd(Z)),
    },
    "akl": {"sce": (1, reference.sce(Z, Y)), "head_tail_kd": (1, reference.head_tail_kd(Z, A, 1.0))},
    "trt": {
        "twce": (0.95, reference.twce(Z, Y)),
        "label_mse": (0.05, reference.label_mse(Z, Y)),
        "fading_decay": (1e-5, (reference.fading_decay(W, len(Z))[0], np.zeros_like(Z))),
    },
    "sm-unofficial": {
        "weighted_heads_ce": (0.1, reference.weighted_heads_ce(Z, Y)),
        "mutual": (0.9, reference.mutual(Z)),
    },
}


def evaluate(objective, timesteps=4, progress=PROGRESS):
    """The value, and its gradients in the logits and in the student's features."""
    torch.manual_seed(DRAW)
    logits, features = torch.tensor(Z[:timesteps], requires_grad=True), [torch.tensor(f, requires_grad=True) for f in F]
    teacher = {"teacher_logits": torch.tensor(A), "teacher_features": [torch.tensor(g) for g in G]}
    teacher |= {"transforms": UNCHANGED, "classifier": classifier}
    weights = [torch.tensor(w) for w in W]
    value = objective(logits, torch.tensor(Y), **teacher, features=features, weights=weights, progress=progress)
    gradients = torch.autograd.grad(value.total, [logits, *features], allow_unused=True, materialize_grads=True)
    return value, gradients


def run(objective):
    value, (gradient, *_) = evaluate(objective)
    return value, gradient


def test_every_entry_of_the_catalogue_is_specified_here():
    assert list_objectives() == sorted(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_entry_is_the_weighted_sum_that_its_paper_says(name):
    objective = create_objective(name)
    value, (gradient, *of_layers) = evaluate(objective)
    terms = PUBLISHED[name]
    assert objective.name == name
    assert {term: v.item() for term, v in value.terms.items()} == pytest.approx(
        {t: r[0] for t, (_, r) in terms.items()}
    )
    assert value.total.item() == pytest.approx(sum(weight * r[0] for weight, r in terms.values()), rel=1e-10)
    np.testing.assert_allclose(gradient, sum(weight * r[1] for weight, r in terms.values()), rtol=1e-9, atol=1e-13)
    compared = [(weight, r[2]) for weight, r in terms.values() if len(r) == 3]
    for layer, found in enumerate(of_layers):
        expected = sum((weight * gradients[layer] for weight, gradients in compared), np.zeros(SHAPES[layer]))
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13)


def test_no_entry_is_a_copy_of_another():
    """As the gradients in logits and features say, with timesteps that are right and wrong on one and the same sample."""
    right = (Z.argmax(-1) == Y).mean(0)
    assert ((right > 0) & (right < 1)).sum() >= 3
    gradients = {
        name: torch.cat([g.flatten() for g in evaluate(create_objective(name))[1]]) for name in list_objectives()
    }
    for one in gradients:
        for other in gradients:
            if one < other:
                cosine = torch.cosine_similarity(gradients[one], gradients[other], dim=0)
                assert cosine < 1 - 1e-4, (one, other)


PAGE = Path(__file__).parents[2] / "docs" / "methods" / "baselines.md"
DECLARED, ON_LOGITS = (
    PAGE.read_text().split("## Which are the same")[1].split("\n## ")[0].split("On the gradient of the logits")
)
IDENTITIES = re.findall(r"^\| `([a-z][\w-]*)`([^|]*)\| `([a-z][\w-]*)`([^|]*)\|$", DECLARED, re.MULTILINE)
ONE_ON_LOGITS = dict(re.findall(r"^\| `([\w-]+)` \| `([\w-]+)` \|$", ON_LOGITS, re.MULTILINE))


def _settings(cell):
    numbers = {key: float(value) for key, value in re.findall(r"`(\w+)=([\d.e-]+)`", cell)}
    return {key: int(value) if key in ("k", "T") else value for key, value in numbers.items()}


def test_the_page_declares_identities():
    assert len(IDENTITIES) >= 12


@pytest.mark.parametrize(("one", "its", "other", "others"), IDENTITIES)
def test_what_the_page_declares_identical_is(one, its, other, others):
    options = _settings(its)
    timesteps, progress = options.pop("T", 4), options.pop("progress", PROGRESS)
    first, second = (
        evaluate(create_objective(name, **given), timesteps, progress)
        for name, given in ((one, options), (other, _settings(others)))
    )
    torch.testing.assert_close(first[0].total, second[0].total, rtol=1e-9, atol=1e-12)
    for gradient, same in zip(first[1], second[1], strict=True):
        torch.testing.assert_close(gradient, same, rtol=1e-9, atol=1e-12)


def test_on_logits_alone_those_are_one_that_the_page_declares_and_no_others():
    gradients = {name: run(create_objective(name))[1].flatten() for name in list_objectives()}
    for one in gradients:
        for other in gradients:
            if one < other:
                declared = ONE_ON_LOGITS.get(one, one) == ONE_ON_LOGITS.get(other, other)
                cosine = torch.cosine_similarity(gradients[one], gradients[other], dim=0)
                assert (cosine > 1 - 1e-12) if declared else (cosine < 1 - 1e-4), (one, other)


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_entry_runs_with_one_timestep_in_half_precision(name):
    objective = create_objective(name)
    of_each = 2 if objective.submodels == "pair" else 1  # an exit of either network
    logits = torch.randn(of_each, 2, 3).bfloat16().requires_grad_()
    features, teacher_features = ([torch.randn(2, 5, 3, 3).bfloat16()] for _ in range(2))
    features[0].requires_grad_()
    teacher = {"teacher_logits": torch.randn(2, 3), "teacher_features": teacher_features, "transforms": UNCHANGED[:1]}
    teacher["classifier"] = classifier
    total, terms = objective(
        logits, torch.tensor([0, 2]), **teacher, features=features, weights=[torch.ones(2).bfloat16()], progress=0.5
    )
    total.backward()
    assert features[0].grad is None or features[0].grad.isfinite().all()
    assert logits.grad.isfinite().all()
    assert all(value.isfinite() for value in terms.values())


def test_the_entries_that_need_a_trained_network_and_those_that_compare_timesteps():
    objectives = [create_objective(name) for name in list_objectives()]
    assert {o.name for o in objectives if o.needs_teacher} == {
        "skd",
        "prefix-kd",
        "sce-twkl",
        "twce-skl",
        "twce-twkl",
        "twkd",
        "tser-unofficial",
        "seal-unofficial",
        "akl",
        *FEATURES,
    }
    assert {o.name for o in objectives if o.compares_submodels} == {
        "twce-twsd",
        "twkd",
        "s2w",
        "w2s",
        "s2w-w2s",
        "etc",
        "tks",
        "mps-guidance",
        "seal-unofficial",
    }


def test_the_entries_that_compare_features_and_those_that_change_over_training():
    objectives = [create_objective(name) for name in list_objectives()]
    assert {o.name for o in objectives if o.needs_features} == FEATURES
    assert {o.name for o in objectives if "classifier" in o.inputs} == {"ckdsnn-unofficial", "enof-laf"}
    assert {o.name: o.transform for o in objectives if o.transform} == {
        "sakd": "conv_norm",
        "bkdsnn-unofficial": "generator",
    }
    assert {o.name for o in objectives if o.needs_progress} == {"tks"}


def test_layers_are_named_with_commas_and_are_those_that_end_stages_otherwise():
    assert create_objective("kdsnn").layers == ()
    assert create_objective("kdsnn", layers="stages.2, stages.3").layers == ("stages.2", "stages.3")
    for name in ("bkdsnn-unofficial", "ckdsnn-unofficial", "enof-laf"):
        assert create_objective(name).layers == ("last",)


def test_the_entries_over_heads():
    objectives = [create_objective(name) for name in list_objectives()]
    assert {o.name for o in objectives if o.submodels == "heads"} == {"esd", "sm-unofficial"}
    assert {o.name for o in objectives if o.submodels == "pair"} == {"joint-asnn-unofficial"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_options_are_plain_values_that_create_the_same_objective(name):
    options = objective_options(name)
    assert all(type(default) in (float, int, str, bool) for default in options.values())
    assert create_objective(name, **options) == create_objective(name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_entry_is_described_by_a_sentence_and_its_equation(name):
    first_line = describe_objective(name).splitlines()[0]
    assert first_line.endswith((".", ";", ":"))
    assert len(first_line) > 40


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_entry_says_what_is_published_of_it(name):
    last_line = describe_objective(name).rstrip().splitlines()[-1].strip()
    rows = published_numbers(None, name)
    if not rows:
        assert last_line in ("Published: in no paper.", "Published: no number that we could check.")
        return
    said = {
        f"Published: {row['accuracy']} on {row['dataset']}, {row['network']}, "
        + (f"T={row['T']}" if row["T"] else "T unknown")
        + (" (disputed)." if row["doubt"] else ".")
        for row in rows
    }
    assert last_line in said


SOFTENED = ["skd", "prefix-kd", "sce-twkl", "twce-skl", "twce-twkl", "twkd", "tser-unofficial", "s2w", "w2s", "esd"]
SOFTENED += ["etc", "tks", "seal-unofficial", "kdsnn", "bkdsnn-unofficial", "sm-unofficial"]
SOFTENED += ["akl", "ckdsnn-unofficial", "enof-laf", "joint-asnn-unofficial"]


@pytest.mark.parametrize("name", SOFTENED)
def test_the_temperature_option_reaches_the_distillation(name):
    assert run(create_objective(name, temperature=1.5))[0].total != run(create_objective(name))[0].total


@pytest.mark.parametrize(
    ("name", "options", "weights"),
    [
        ("skd", {"alpha": 0.7}, [1, 0.7]),
        ("twkd", {"alpha": 0.3, "beta": 0.9}, [1, 0.3, 0.9]),
        ("tser-unofficial", {"alpha": 0.2, "gamma": 0.3}, [0.8, 0.2, -0.3]),
        ("s2w", {"weight": 0.01}, [1, 0.01]),
        ("s2w-w2s", {"s2w_weight": 2.0, "w2s_weight": 3}, [1, 2, 3]),
        ("esd", {"beta": 0.1}, [1, 0.1]),
        ("esd", {"beta": 0.1, "factor": 4.0}, [4, 0.4]),
        ("entropy-regularisation", {"gamma": 0.4}, [1, -0.4]),
        ("tet", {"mse_weight": 0.001}, [0.999, 0.001]),
        ("trt", {"eta": 0.25, "lam": 5e-5}, [0.75, 0.25, 5e-5]),
        ("akl", {"alpha": 0.7}, [1, 0.7]),
        ("etc", {"weight": 0.5}, [1, 0.5]),
        ("mps-guidance", {"weight": 0.5}, [1, 0.5]),
        ("seal-unofficial", {"alpha": 0.2, "beta": 0.3}, [1, 0.2, 0.3]),
        ("lasnn-unofficial", {"alpha": 0.1}, [1, 0.1]),
        ("kdsnn", {"alpha": 0.1, "beta": 0.3}, [1, 0.1, 0.3]),
        ("sakd", {"alpha": 10.0}, [1, 10]),
        ("supersnn-similarity", {"weight": 1}, [1, 1]),
        ("bkdsnn-unofficial", {"alpha": 0.1, "beta": 0.3}, [1, 0.1, 0.3]),
        ("ckdsnn-unofficial", {"alpha": 0.1, "beta": 0.3}, [1, 0.1, 0.3]),
        ("enof-laf", {"alpha": 0.1}, [1, 0.1]),
        ("joint-asnn-unofficial", {"beta": 0.3}, [0.7, 0.3]),
        ("sm-unofficial", {"beta": 0.3}, [0.7, 0.3]),
    ],
)
def test_weights_are_options(name, options, weights):
    assert [term.weight for term in create_objective(name, **options).terms] == pytest.approx(weights)


@pytest.mark.parametrize("name", ["tks", "tser-unofficial"])
def test_a_share_of_the_labels_below_0_is_refused(name):
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1"):
        create_objective(name, alpha=1.5)


def test_the_share_of_the_soft_loss_at_the_end_of_training_is_an_option():
    hard, soft = create_objective("tks", alpha=0.4).terms
    assert [(hard.weight_at(p), soft.weight_at(p)) for p in (0.0, 0.5, 1.0)] == [(1.0, 0.0), (0.8, 0.2), (0.6, 0.4)]


@pytest.mark.parametrize("teacher", ["ensemble", "correct", "correct_masked"])
@pytest.mark.parametrize("name", ["twkd", "twce-twsd"])
def test_the_teacher_of_self_distillation_is_an_option(name, teacher):
    value, _ = run(create_objective(name, teacher=teacher))
    assert value.terms["twsd"].item() == pytest.approx(reference.twsd(Z, Y, teacher)[0], rel=1e-10)


@pytest.mark.parametrize("variant", ["pair", "ensemble_teacher", "ensemble_student", "cascade"])
@pytest.mark.parametrize("direction", ["s2w", "w2s"])
def test_variant_measure_and_divergence_of_strong_and_weak_are_options(direction, variant):
    objective = create_objective(direction, variant=variant, measure="loss", divergence="mse")
    expected = reference.strong_weak(Z, reference.scores(Z, Y, "loss"), direction, variant, divergence="mse")
    value, _ = run(objective)
    assert list(value.terms.values())[1].item() == pytest.approx(expected[0], rel=1e-10)


@pytest.mark.parametrize("teachers", ["reliable", "unreliable", "all"])
def test_which_heads_teach_is_an_option(teachers):
    objective = create_objective("esd", teachers=teachers)
    assert objective.submodels == "heads"
    value, _ = run(objective)
    assert value.terms["reliable"].item() == pytest.approx(reference.reliable(Z, Y, teachers=teachers)[0], rel=1e-10)


def test_branches_can_weigh_less_than_the_networks_own_head():
    value, _ = run(create_objective("esd", alpha=0.7))
    heads = [reference.twce(Z[s : s + 1], Y)[0] for s in range(len(Z))]
    assert value.terms["heads_ce"].item() == pytest.approx((0.7 * sum(heads[:-1]) + heads[-1]) / len(Z), rel=1e-10)


@pytest.mark.parametrize("S", [2, 3, 4])
def test_the_paper_sums_over_the_heads_however_many_a_network_has(S):
    """As the released code: each head's cross-entropy and distillation are added up, that of the network's own with weight 1."""
    heads, options = torch.tensor(Z[:S]), {"alpha": 0.7, "beta": 0.3}
    of_each = [reference.twce(Z[s : s + 1], Y)[0] for s in range(S)]
    taught = S * reference.reliable(Z[:S], Y)[0]
    summed = create_objective("esd", reduction="sum", **options)
    value = summed(heads, torch.tensor(Y))
    assert value.total.item() == pytest.approx(0.7 * sum(of_each[:-1]) + of_each[-1] + 0.3 * taught, rel=1e-10)
    assert str(summed) == "1 heads_ce_sum + 0.3 reliable_sum, over heads"
    by_factor = create_objective("esd", factor=float(S), **options)(heads, torch.tensor(Y))
    assert value.total.item() == pytest.approx(by_factor.total.item(), rel=1e-12)
    with pytest.raises(ValueError, match="unknown reduction 'max': choose one of mean, sum"):
        create_objective("esd", reduction="max")


def test_the_weight_of_auxiliary_heads_in_the_mean_of_the_cross_entropies_is_an_option():
    value, _ = run(create_objective("sm-unofficial", alpha=0.2))
    expected = reference.weighted_heads_ce(Z, Y, 0.2)[0]
    assert value.terms["weighted_heads_ce"].item() == pytest.approx(expected, rel=1e-10)


def test_the_share_of_missing_channels_is_an_option():
    value, _ = run(create_objective("bkdsnn-unofficial", mask=0.0))
    whole = reference.blurred_distance(F, G, [np.ones(shape[:2]) for shape in SHAPES])[0]
    assert value.terms["blurred_distance"].item() == pytest.approx(whole, rel=1e-10)


def test_the_gradient_through_the_largest_rate_is_an_option():
    values, gradients = zip(
        *(evaluate(create_objective("bkdsnn-unofficial", max_grad=g)) for g in (False, True)), strict=True
    )
    assert values[0].total == values[1].total
    for rates, without, through in zip(F, gradients[0][1:], gradients[1][1:], strict=True):
        assert (without != through).nonzero().tolist() == [list(np.unravel_index(rates.argmax(), rates.shape))]


def test_the_share_of_noise_is_an_option():
    value, _ = run(create_objective("ckdsnn-unofficial", noise=0.4))
    assert value.terms["noisy_kd"].item() == pytest.approx(reference.noisy_kd(Z, A, NOISE, 0.4)[0], rel=1e-10)


@pytest.mark.parametrize("name", ["s2w", "w2s", "s2w-w2s"])
def test_the_gradient_of_the_teacher_is_an_option(name):
    assert (run(create_objective(name, teacher_grad=True))[1] - run(create_objective(name))[1]).abs().max() > 1e-3


def test_the_simultaneous_objective_takes_one_set_of_scores_for_both_directions():
    objective = create_objective("s2w-w2s")
    scores = torch.tensor([1.0, 4.0, 2.0, 3.0])
    terms = objective(torch.tensor(Z), torch.tensor(Y), scores=scores).terms
    for term, direction in (("strong2weak", "s2w"), ("weak2strong", "w2s")):
        expected = reference.strong_weak(Z, scores.tolist(), direction, "pair")[0]
        assert terms[term].item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tkwd", {}, "no objective is called 'tkwd': did you mean 'twkd'"),
        ("zzz", {}, "no objective is called 'zzz': choose one of akl, bkdsnn-unofficial"),
        ("s2w", {"lam": 1.0}, "objective 's2w' has no option 'lam': its options are weight=1.0, temperature=2.0"),
        ("sce", {"weight": 1.0}, "objective 'sce' has no option 'weight': its options are none"),
        ("s2w", {"weight": "1"}, "option 'weight' of objective 's2w' must be a float; got '1'"),
        ("s2w", {"teacher_grad": 1}, "option 'teacher_grad' of objective 's2w' must be a bool; got 1"),
        ("s2w", {"weight": float("nan")}, "weight must be a number from 0 to 1,000,000,000; got nan"),
        ("twkd", {"temperature": -1.0}, "temperature must lie between 0.001 and 1,000,000"),
        ("twkd", {"teacher": "best"}, "unknown teacher 'best': choose one of ensemble, correct, correct_masked"),
        ("s2w", {"variant": "all"}, "unknown variant 'all'"),
        ("s2w", {"measure": "luck"}, "unknown measure 'luck'"),
        ("s2w", {"divergence": "js"}, "unknown divergence 'js'"),
        ("w2s", {"measure": "last_to_first"}, "use strong2weak"),
        ("label-smoothing", {"epsilon": 2.0}, "epsilon must lie between 0 and 1"),
        ("tet", {"mse_weight": 1.5}, "mse_weight must lie between 0 and 1; got 1.5"),
        ("tks", {"alpha": -0.5}, "alpha must lie between 0 and 1; got -0.5"),
        ("sltt-k", {"k": 0}, "k must be a whole number from 1 to 10,000; got 0"),
        ("sltt-k", {"k": 2.0}, "option 'k' of objective 'sltt-k' must be an int; got 2.0"),
        ("sltt-k", {"k": True}, "option 'k' of objective 'sltt-k' must be an int; got True"),
        ("sltt-k", {"mse_weight": 2.0}, "mse_weight must lie between 0 and 1"),
        ("trt", {"eta": 1.5}, "eta must lie between 0 and 1; got 1.5"),
        ("trt", {"lam": -1.0}, "lam must be a number from 0 to"),
        ("trt", {"delta": -0.5}, "delta must be a number from 0 to"),
        ("akl", {"head": 1.5}, "head must lie between 0 and 1; got 1.5"),
        ("etc", {"temperature": 0.0}, "temperature must lie between 0.001 and 1,000,000"),
        ("bkdsnn-unofficial", {"mask": 1.5}, "mask must lie between 0 and 1; got 1.5"),
        ("ckdsnn-unofficial", {"noise": -0.1}, "noise must lie between 0 and 1; got -0.1"),
        ("joint-asnn-unofficial", {"beta": 1.5}, "beta must lie between 0 and 1; got 1.5"),
        ("sm-unofficial", {"alpha": -0.5}, "alpha must lie between 0 and 1; got -0.5"),
        ("sm-unofficial", {"beta": 1.5}, "beta must lie between 0 and 1; got 1.5"),
    ],
)
def test_a_mistake_is_found_when_the_objective_is_created(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_objective(name, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [("s2w", {"measure": "random"}), ("sltt-k", {}), ("bkdsnn-unofficial", {}), ("ckdsnn-unofficial", {})],
)
def test_creating_an_objective_leaves_the_random_generator_alone(name, options):
    torch.manual_seed(3)
    create_objective(name, **options)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))


def test_a_taken_name_cannot_be_registered_again():
    def sce():
        return create_objective("twce")

    with pytest.raises(ValueError, match="objective 'sce' is registered already"):
        register_objective(sce)


def test_objectives_can_be_pickled():
    objective = create_objective("twkd", alpha=0.4)
    assert pickle.loads(pickle.dumps(objective)) == objective


COMPILED = [
    "twkd",
    "s2w-w2s",
    "esd",
    "prefix-kd",
    "etc",
    "tks",
    "seal-unofficial",
    "bkdsnn-unofficial",
    "joint-asnn-unofficial",
    "sm-unofficial",
    "trt",
    "akl",
]


@pytest.mark.parametrize("name", COMPILED)
def test_an_objective_compiles_to_one_graph(name):
    torch._dynamo.reset()
    objective = create_objective(name)
    value, gradient = run(objective)
    compiled, compiled_gradient = run(_Compiled(objective))
    torch.testing.assert_close(compiled.total, value.total)
    torch.testing.assert_close(compiled_gradient, gradient)


def test_a_cascade_by_random_order_compiles_to_one_graph():
    torch._dynamo.reset()
    run(_Compiled(create_objective("s2w", variant="cascade", measure="random", divergence="standardized")))


def test_the_public_names_are_exported_once_and_documented():
    import spikedistill.objectives as room

    assert sorted(room.__all__) == list(dict.fromkeys(sorted(room.__all__)))
    assert all(inspect.getdoc(getattr(room, name)) for name in room.__all__)


class _Compiled:
    def __init__(self, objective):
        self.call = torch.compile(objective, fullgraph=True, backend="aot_eager")

    def __call__(self, *args, **kwargs):
        return self.call(*args, **kwargs)
