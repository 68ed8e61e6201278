"""MixUp and CutMix, worked by hand, and the loss of mixed samples."""

import pytest
import torch
from quick_runs import quick

from spikedistill import train
from spikedistill.config import DataConfig
from spikedistill.data.mixing import mixed
from spikedistill.objectives import create_objective
from spikedistill.run_folder import RunFolder
from spikedistill.training.inputs import AtHand
from spikedistill.training.module import DistillationModule
from spikedistill.training.plan import make_plan


def seeded(inputs: torch.Tensor, how: str, alpha: float = 1.0, seed: int = 0):
    torch.manual_seed(seed)
    return mixed(inputs, how, alpha)


@pytest.mark.parametrize("shape", [(6, 3, 8, 10), (4, 6, 2, 8, 10)])
def test_mixup_is_a_weighted_mean(shape: tuple[int, ...]) -> None:
    inputs, batch = torch.rand(shape), len(shape) - 4
    found = seeded(inputs, "mixup")
    assert sorted(found.partners.tolist()) == list(range(6))
    others = inputs.index_select(batch, found.partners)
    assert torch.equal(found.inputs, found.share * inputs + (1 - found.share) * others)


@pytest.mark.parametrize("shape", [(6, 3, 8, 10), (4, 6, 2, 8, 10)])
def test_cutmix_shows_a_rectangle_of_the_partner_and_counts_its_pixels(shape: tuple[int, ...]) -> None:
    for seed in range(20):
        inputs, batch = torch.rand(shape), len(shape) - 4
        found = seeded(inputs, "cutmix", seed=seed)
        others = inputs.index_select(batch, found.partners)
        changed = (found.inputs != inputs).flatten(0, -3).any(0)
        assert torch.equal(found.inputs, torch.where(changed, others, inputs))
        rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
        area = len(rows) * len(columns)
        assert int(changed.sum()) == area, "one rectangle"
        assert found.share == pytest.approx(1 - area / 80)


def test_the_share_is_of_a_beta_distribution() -> None:
    shares = torch.tensor([seeded(torch.rand(2, 1, 1, 1), "mixup", 0.2, seed).share for seed in range(3000)])
    # of Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1))
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / (4 * 1.4), rel=0.05)


def test_the_loss_is_that_of_both_labels() -> None:
    plan = make_plan(
        quick("digits-twsd", data=DataConfig(name="digits", batch_size=60, train_samples=240, mix="mixup"))
    )
    module, logits = DistillationModule(plan), torch.randn(3, 6, 10)
    target = torch.arange(6)
    at = AtHand(
        objective=plan.objective,
        teacher=None,
        kind="image",
        inputs=logits,
        target=target,
        submodels=logits,
        features=(),
    )
    mix = seeded(torch.rand(6, 1, 8, 8), "mixup")
    value, _ = module.value_of(at, mix)
    objective = create_objective(plan.config.objective.name, **plan.config.objective.options)
    own, partners = objective(logits, target), objective(logits, target[mix.partners])
    assert torch.allclose(value.total, mix.share * own.total + (1 - mix.share) * partners.total)
    assert value.terms.keys() == own.terms.keys()


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_runs_with_mixed_samples_are_repeated_exactly(tmp_path, mix: str) -> None:
    runs = []
    for name in ("one", "two"):
        data = DataConfig(name="digits", batch_size=60, train_samples=240, mix=mix, mix_alpha=0.4)
        runs.append(RunFolder(train(quick("digits-esd", out=tmp_path / name, data=data))))
    assert runs[0].model.read_bytes() == runs[1].model.read_bytes()


def test_cached_logits_of_a_teacher_are_refused(tmp_path) -> None:
    teacher = train(quick("digits-ann", out=tmp_path / "ann"))
    data = DataConfig(name="digits", batch_size=60, train_samples=240, mix="mixup", augment=())
    with pytest.raises(
        ValueError, match=r"images are mixed \(--data\.mix mixup\), and the teacher gets the mixed ones"
    ):
        make_plan(quick("digits-twkd", teacher=teacher, teacher_logits="cached", data=data))
