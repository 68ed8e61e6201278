"""Training on attacked images: what the attack leaves alone, the term of TRADES, and weights near orthogonality."""

import math

import pytest
import torch
from quick_runs import assert_resumes_to_the_same_bytes, quick
from torch import nn

from spikedistill import UserError, load, train
from spikedistill.config import DataConfig
from spikedistill.data import load_dataset
from spikedistill.robustness import Pgd, View
from spikedistill.robustness.training import pgd_images, retract, trades, trades_images
from spikedistill.through_time.steps import evaluating
from spikedistill.training.module import DistillationModule
from spikedistill.training.plan import make_plan


def with_options(name: str, out, adversarial: str, **options):
    config = quick(name, out=out, **options)
    eps = 24.0 if adversarial != "none" else config.objective.adversarial_eps
    objective = config.objective.model_copy(update={"adversarial": adversarial, "adversarial_eps": eps})
    return config.model_copy(update={"objective": objective})


def right_under_attack(run) -> float:
    model, test = load(run), load_dataset("digits").test
    images, labels = test.inputs(torch.arange(200)) / 255, test.targets[:200]
    torch.manual_seed(0)
    changed = Pgd(24 / 255, steps=10)(View(model, 3), images, labels)
    return float((model(changed, timesteps=3).mean(0).argmax(1) == labels).float().mean())


def test_networks_that_were_attacked_in_training_withstand_more(tmp_path):
    data = DataConfig(name="digits", batch_size=60)
    shares = {
        kind: right_under_attack(train(with_options("digits-s2w", tmp_path / kind, kind, epochs=6, data=data)))
        for kind in ("none", "pgd", "trades")
    }
    assert shares["pgd"] > shares["none"] + 0.1
    assert shares["trades"] > shares["none"] + 0.1


@pytest.mark.parametrize("kind", ["pgd", "trades"])
def test_a_run_on_attacked_images_resumes_exactly(tmp_path, monkeypatch, kind):
    assert_resumes_to_the_same_bytes(with_options("digits-twce", tmp_path, kind), monkeypatch)


@pytest.mark.parametrize("gradient", ["sltt", "rate"])
@pytest.mark.parametrize("kind", ["pgd", "trades"])
def test_every_gradient_rule_and_heads_train_on_attacked_images(tmp_path, gradient, kind):
    config = with_options("digits-esd" if gradient == "rate" else "digits-sce", tmp_path, kind)
    run = train(config.model_copy(update={"gradient": gradient}))
    assert (run / "report.html").is_file()
    assert ("loss/trades" in (run / "metrics.csv").read_text()) == (kind == "trades")


def test_an_attack_in_training_moves_no_statistics_and_every_module_stays_as_it_was(tmp_path):
    module = DistillationModule(make_plan(with_options("digits-sce", tmp_path, "pgd")))
    network = module.network.train()
    network.module[0].eval()  # a part that is frozen
    modes = [part.training for part in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, target = torch.rand(6, 1, 8, 8), torch.arange(6)
    with evaluating(network):
        changed = pgd_images(module.logits_of, images, target, module.attack)
        far = trades_images(module.logits_of, images, module.attack)
    assert [part.training for part in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    for moved in (changed, far):
        assert 0 < (moved - images).abs().max() <= 24 / 255 + 1e-6
        assert moved.min() >= 0
        assert moved.max() <= 1


def test_the_attack_of_a_run_has_the_settings_of_the_run(tmp_path):
    config = with_options("digits-sce", tmp_path, "pgd")
    objective = config.objective.model_copy(update={"adversarial_step": 1.0, "adversarial_steps": 7})
    module = DistillationModule(make_plan(config.model_copy(update={"objective": objective})))
    assert module.attack == Pgd(24 / 255, step=1 / 255, steps=7)
    assert DistillationModule(make_plan(config)).attack.length == pytest.approx(2.5 * 24 / 255 / 2)


def test_the_term_of_trades_by_hand():
    clean, attacked = torch.tensor([[[0.0, 0.0]], [[0.0, 0.0]]]), torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]])
    q = math.e / (1 + math.e)  # of the mean logits 1 and 0
    expected = 0.5 * math.log(0.5 / q) + 0.5 * math.log(0.5 / (1 - q))
    assert float(trades(clean, attacked)) == pytest.approx(expected)
    assert float(trades(clean, clean)) == 0


def test_the_term_of_trades_compares_as_many_timesteps_as_a_pass_has(tmp_path):
    """On images that the attack leaves alone the term is 0, also in a pass for one of three timesteps."""
    config = with_options("digits-sce", tmp_path, "trades")
    config = config.model_copy(update={"objective": config.objective.model_copy(update={"adversarial_eps": 1e-3})})
    plan = make_plan(config.model_copy(update={"timestep_draws": 2}))
    module = DistillationModule(plan)
    module.network.eval()
    images, target = torch.rand(6, 1, 8, 8), torch.arange(6) % 3
    for k in (1, 3):
        with torch.no_grad():
            logits = module.network(images, k)
        at = module.at_hand(images, target, torch.arange(6), logits, [])
        assert float(module.value_of(at)[0].terms["trades"]) < 1e-3, k


def test_rows_move_towards_orthogonality():
    layer, conv = nn.Linear(2, 2), nn.Conv2d(1, 2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.6, 0.8], [-0.8, 0.6]]))  # orthonormal
        conv.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [1.0, 0, 0, 0]]).view(2, 1, 2, 2))
    kept = layer.weight.clone()
    retract(nn.Sequential(layer, conv), 0.1)
    torch.testing.assert_close(layer.weight, kept)
    # W W^T W is twice W for two equal rows of length one: 1.1 - 0.2
    torch.testing.assert_close(conv.weight[:, 0, 0, 0], torch.full((2,), 0.9))
    random = nn.Linear(40, 20)

    def distance() -> float:
        weight = random.weight.detach()
        return float((weight @ weight.T - torch.eye(20)).norm())

    before = distance()
    for _ in range(20):
        retract(random, 0.1)
    assert distance() < before / 3


def test_orthogonality_is_applied_after_every_step(tmp_path):
    config = quick("digits-sce", out=tmp_path / "run")
    plain = load(train(config)).state_dict()
    optimizer = config.optimizer.model_copy(update={"orthogonal": 0.02})
    moved = load(train(config.model_copy(update={"optimizer": optimizer, "out": tmp_path / "moved"}))).state_dict()
    weights = [name for name, value in plain.items() if value.ndim == 4]

    def distance(state) -> float:
        rows = [state[name].flatten(1) for name in weights]
        return sum(float((row @ row.T - torch.eye(len(row))).norm()) for row in rows)

    assert distance(moved) < distance(plain)


def test_settings_that_do_nothing_or_do_not_fit_are_refused(tmp_path):
    config = with_options("digits-sce", tmp_path, "none")
    for changes, words in (
        ({"adversarial_eps": 3.0}, "--objective.adversarial-eps has no effect under --objective.adversarial none"),
        (
            {"adversarial": "pgd", "adversarial_weight": 2.0},
            "adversarial-weight has no effect under --objective.adversarial pgd",
        ),
    ):
        objective = config.objective.model_copy(update=changes)
        with pytest.raises(UserError, match=words):
            make_plan(config.model_copy(update={"objective": objective}))
    attacked = with_options("digits-sce", tmp_path, "pgd")
    mixed = attacked.data.model_copy(update={"mix": "mixup"})
    with pytest.raises(UserError, match=r"--data\.mix mixup mixes two"):
        make_plan(attacked.model_copy(update={"data": mixed}))
