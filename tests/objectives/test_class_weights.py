"""Class weights: every cross-entropy of labels takes them as PyTorch's does, and nothing else changes."""

import pytest
import torch
import torch.nn.functional as F
from every_loss import TASK

from spikedistill import UserError
from spikedistill.objectives import create_objective, list_objectives, objective_options, sce, tet_of_some, twce

WEIGHTS = torch.tensor([0.5, 2.0, 1.25], dtype=torch.float64)
OF_LABELS = {"sce", "twce", "prefix_ce", "heads_ce", "heads_ce_sum", "weighted_heads_ce", "exits_ce", "tet_of_some"}


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.randn(4, 7, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 2, 0, 0, 1])


def torch_ce(logits, target, **options):
    return F.cross_entropy(logits, target, weight=WEIGHTS, **options)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"ignore_index": 2}], ids=str)
def test_sce_and_twce_are_the_weighted_cross_entropy_of_torch(batch, options):
    logits, target = batch
    found = sce(logits, target, class_weights=WEIGHTS, **options)
    torch.testing.assert_close(found, torch_ce(logits.mean(0), target, **options), rtol=1e-12, atol=0)
    found = twce(logits, target, class_weights=WEIGHTS, **options)
    each = [torch_ce(z, target, **options) for z in logits]
    torch.testing.assert_close(found, torch.stack(each).mean(), rtol=1e-12, atol=0)


def test_by_hand():
    """Two samples of which both classes are equally likely, and one that is sure: (2 ln 2 + 1 ln 2 + 1 * 0) / 4."""
    logits = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [-800.0, 0.0]]], dtype=torch.float64)
    found = sce(logits, torch.tensor([0, 1, 1]), class_weights=torch.tensor([2.0, 1.0]))
    torch.testing.assert_close(found.item(), 3 * 0.6931471805599453 / 4, rtol=1e-12, atol=0)


def every_input(batch):
    logits, target = batch
    features = torch.linspace(0, 1, 7 * 3, dtype=torch.float64).view(7, 3, 1, 1)
    return {
        "logits": logits,
        "target": target,
        "teacher_logits": logits.flip(0)[0],
        "features": [features],
        "teacher_features": [features.flip(0)],
        "transforms": [torch.nn.Identity()],
        "classifier": lambda seen: seen.flatten(1).mean(1, keepdim=True) + logits[1],
        "weights": [features],
        "progress": 0.5,
    }


@pytest.mark.parametrize("name", list_objectives())
def test_every_objective_weighs_its_cross_entropies_and_nothing_else(batch, name):
    given = every_input(batch)
    objective = create_objective(name)

    def value(**options):
        torch.manual_seed(3)
        return objective(**given, **options)

    plain, ones, weighted = value(), value(class_weights=torch.ones(3)), value(class_weights=WEIGHTS)
    torch.testing.assert_close(ones.total, plain.total, rtol=1e-12, atol=1e-12)
    changed = {term for term in plain.terms if not torch.equal(plain.terms[term], weighted.terms[term])}
    assert changed == OF_LABELS & plain.terms.keys()
    assert changed, "every objective of the catalogue learns from labels"


@pytest.mark.parametrize("name", [*TASK, "tet_of_some"])
def test_processes_that_share_a_batch_weigh_it_as_one(batch, name):
    """The mean over two processes of their gradients is the gradient of the whole batch, though their classes differ."""
    loss = {**TASK, "tet_of_some": lambda z, y, **given: tet_of_some(z, y, k=4, mse_weight=0.0, **given)}[name]
    logits, target = batch
    logits, target = logits[:, :6].clone().requires_grad_(), target[:6]
    loss(logits, target, class_weights=WEIGHTS).backward()
    whole, logits.grad = logits.grad, None
    halves = [(logits[:, :3], target[:3]), (logits[:, 3:], target[3:])]
    mean = torch.stack([WEIGHTS[part].sum() for _, part in halves]).mean()
    sum(loss(z, y, class_weights=WEIGHTS, average=lambda own: mean) for z, y in halves).div(2).backward()
    torch.testing.assert_close(logits.grad, whole, rtol=1e-12, atol=1e-12)


def test_a_batch_of_classes_without_weight_teaches_nothing(batch):
    logits, _ = batch
    logits.requires_grad_()
    loss = twce(logits, torch.zeros(7, dtype=torch.int64), class_weights=torch.tensor([0.0, 1.0, 1.0]))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (torch.ones(2), r"floating point \[3\], one number for each class; got torch.float32 \[2\]"),
        ([1.0, 1.0, 1.0], "got list"),
        (torch.ones(3, dtype=torch.int64), "got torch.int64"),
        (torch.tensor([1.0, -1.0, 1.0]), "at least 0 and not all 0; got .*'-1'"),
        (torch.tensor([1.0, torch.nan, 1.0]), "must be finite"),
        (torch.zeros(3), "not all 0"),
    ],
)
def test_wrong_weights_are_refused(batch, weights, said):
    with pytest.raises(UserError, match=said):
        sce(*batch, class_weights=weights)


def test_options_of_objectives_are_what_they_were():
    """Class weights come with the batch, so that they are an option of no objective."""
    assert not any("class_weights" in objective_options(name) for name in list_objectives())
