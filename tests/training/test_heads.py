"""Training with auxiliary heads (ESD, SM), and gradients that several processes share exactly."""

import csv
import json

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from quick_runs import quick
from safetensors import safe_open
from torch.nn.parallel import DistributedDataParallel

from spikedistill import create_model, load, train
from spikedistill.config import DataConfig, ObjectiveConfig, TrainerConfig
from spikedistill.models import Branched
from spikedistill.objectives import create_objective
from spikedistill.recipes import recipe
from spikedistill.run_folder import RunFolder
from spikedistill.through_time import SyncBatchNorm, synchronise_batch_norm
from spikedistill.training.plan import make_plan
from spikedistill.training.run import changed_settings


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    data = DataConfig(name="digits", batch_size=60, train_samples=240, holdout=0.2)
    return RunFolder(train(quick("digits-esd", epochs=4, data=data, out=tmp_path_factory.mktemp("runs") / "esd")))


def test_the_accuracy_of_every_head_is_recorded(run):
    rows = list(csv.DictReader(run.metrics.read_text().splitlines()))
    heads = [key for key in rows[0] if key.startswith("head_accuracy_")]
    assert heads == ["head_accuracy_1", "head_accuracy_2", "head_accuracy_3"], "two branches and the network's own"
    for row in rows:
        at_least_one = 1 - float(row["no_head_right"])
        assert max(float(row[head]) for head in heads) <= at_least_one <= sum(float(row[head]) for head in heads)
        assert float(row["holdout_head_accuracy_3"]) == pytest.approx(float(row["holdout_accuracy_3"]))
    last = {key: float(value) for key, value in rows[-1].items()}
    assert last["train_loss"] == pytest.approx(3 * last["loss/heads_ce"] + 0.9 * last["loss/reliable"], rel=1e-5)
    assert last["head_accuracy_1"] > 0.2, "chance is 0.1"


def test_the_trained_network_has_no_branches_left(run):
    assert not isinstance(load(run.path), Branched)
    with safe_open(run.model, framework="pt") as file:
        assert not [name for name in file.keys() if "branch" in name]  # noqa: SIM118 - no dict
    assert json.loads(run.results.read_text())["last"]["ensemble"][-1]["accuracy"] > 0.2
    assert "accuracy of every head" in run.report.read_text().lower()


def test_resuming_keeps_the_branches(run, tmp_path):
    config = quick("digits-esd", epochs=4, out=tmp_path / "esd")
    plan = make_plan(config)
    checkpoint = torch.load(run.checkpoint, weights_only=False)
    network = plan.build_network()
    network.load_state_dict({k.removeprefix("network."): v for k, v in checkpoint["state_dict"].items()})


def test_heads_and_network_teach_each_other_and_the_network_is_left(tmp_path):
    config = quick("digits-sm-unofficial", out=tmp_path / "run")
    assert (config.gradient, config.model.branches, config.model.lif) == ("bptt", True, recipe("digits-sce").model.lif)
    run = RunFolder(train(config))
    (row,) = csv.DictReader(run.metrics.read_text().splitlines())
    value = {key: float(cell) for key, cell in row.items()}
    assert value["train_loss"] == pytest.approx(0.1 * value["loss/weighted_heads_ce"] + 0.9 * value["loss/mutual"])
    assert value["loss/mutual"] > 0
    assert [key for key in row if key.startswith("head_accuracy_")] == [f"head_accuracy_{head}" for head in (1, 2, 3)]
    assert not isinstance(load(run.path), Branched)


def test_gradients_can_be_scaled_as_in_the_released_code(tmp_path):
    """1/T of the gradient is 1/T of the learning rate, as long as no weight decays."""
    base = quick("digits-esd")
    outcomes = []
    for scale, lr in (("1/T", 0.06), ("1", 0.02)):
        optimizer = base.optimizer.model_copy(update={"lr": lr, "weight_decay": 0.0, "momentum": 0.0})
        trainer = base.trainer.model_copy(update={"precision": "64-true"})
        changes = {"gradient_scale": scale, "optimizer": optimizer, "trainer": trainer}
        run = train(quick("digits-esd", out=tmp_path / scale.replace("/", ""), **changes))
        outcomes.append(load(run).state_dict())
    for key, value in outcomes[0].items():
        torch.testing.assert_close(value, outcomes[1][key], rtol=1e-9, atol=1e-10)


def test_a_run_from_before_an_option_was_there_had_it_at_its_default():
    now = recipe("digits-esd")
    older = {name: value for name, value in now.objective.options.items() if name != "reduction"}
    begun = now.model_copy(update={"objective": ObjectiveConfig(name="esd", options=older)})
    assert changed_settings(now, begun) == changed_settings(begun, now) == {}
    summed = ObjectiveConfig(name="esd", options=now.objective.options | {"reduction": "sum"})
    differing = changed_settings(now.model_copy(update={"objective": summed}), begun)
    assert differing == {"objective.options.reduction": ("mean", "sum")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"objective": ObjectiveConfig(name="esd")},
            "objective 'esd' needs auxiliary heads: add --model.branches",
        ),
        (
            {"objective": ObjectiveConfig(name="sm-unofficial")},
            "objective 'sm-unofficial' needs auxiliary heads: add --model.branches",
        ),
        (
            {"model": recipe("digits-esd").model},
            "does not train auxiliary heads, so they would learn nothing: leave --model.branches out",
        ),
    ],
)
def test_heads_without_an_objective_over_them_and_the_other_way_round_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_plan(quick("digits-sce", **changes))


def test_the_papers_weightings_are_in_the_recipes():
    cifar, events, images = (recipe(f"{name}-esd") for name in ("cifar100", "nmnist", "image_folder"))
    assert (cifar.timesteps, cifar.gradient, cifar.segments, cifar.model.branches) == (6, "rate", 1, True)
    assert cifar.model.lif.decay == 0.2
    assert cifar.model.lif.detach_reset
    # sums over four heads, three of convnet; alpha 0.7 for the branches on folders of images
    weights = [create_objective("esd", **c.objective.options) for c in (cifar, events, images)]
    assert [str(objective) for objective in weights] == [
        "4 heads_ce + 1.2 reliable, over heads",
        "3 heads_ce + 0.3 reliable, over heads",
        "3 heads_ce + 0.9 reliable, over heads",
    ]
    assert [objective.terms[0].options["branch_weight"] for objective in weights] == [1.0, 1.0, 0.7]


def test_synchronised_batch_norm_is_an_option():
    trainer = TrainerConfig(accelerator="cpu", progress=False, sync_batch_norm=True)
    network = make_plan(quick("digits-esd", trainer=trainer)).build_network()
    assert any(isinstance(module, SyncBatchNorm) for module in network.branches.modules())
    assert any(isinstance(module, SyncBatchNorm) for module in network.module.modules())


BATCH, RULES = 6, {"bptt": "twce-twsd", "sltt": "s2w", "rate": "esd"}


def network_and_batch(gradient, objective):
    torch.manual_seed(4)
    network = create_model(
        "convnet",
        num_classes=4,
        in_channels=2,
        image_size=8,
        width=0.3,
        gradient=gradient,
        branches=objective == "esd",
        threshold=0.4,
    ).double()
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(BATCH, 2, 8, 8, generator=generator, dtype=torch.float64)
    return network, images, torch.randint(0, 4, (BATCH,), generator=generator)


class Step(torch.nn.Module):
    """The forward pass that DDP wraps: from a batch to the objective's value."""

    def __init__(self, network, objective, average):
        super().__init__()
        self.network, self.objective, self.average = network, create_objective(objective), average

    def forward(self, images, target):
        branched = isinstance(self.network, Branched)
        logits = self.network.heads(images, 4)[1] if branched else self.network(images, timesteps=4)
        return self.objective(logits, target, average=self.average).total


def mean_over_processes(value):
    value = value.clone()
    dist.all_reduce(value)
    return value / dist.get_world_size()


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        results = {}
        for gradient, objective in RULES.items():
            network, images, target = network_and_batch(gradient, objective)
            step = DistributedDataParallel(Step(synchronise_batch_norm(network), objective, mean_over_processes))
            step(images[rank::2], target[rank::2]).backward()
            results[gradient] = {name: p.grad for name, p in network.named_parameters()}
        torch.save(results, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes_have_the_gradients_of_one_on_the_joined_batch(tmp_path):
    """Batch-norm, the ranking of S2W and the samples that ESD leaves out are those of the whole batch."""
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)
    for rank in (0, 1):
        shared = torch.load(tmp_path / f"{rank}.pt")
        for gradient, objective in RULES.items():
            network, images, target = network_and_batch(gradient, objective)
            Step(network, objective, None)(images, target).backward()
            for name, parameter in network.named_parameters():
                torch.testing.assert_close(shared[gradient][name], parameter.grad, rtol=1e-6, atol=1e-9)
            if objective == "esd":
                right = (network.heads(images, 4)[1].argmax(-1) == target).any(0)
                assert 0 < right[0::2].sum() != right[1::2].sum() > 0, "else the processes would agree without asking"
