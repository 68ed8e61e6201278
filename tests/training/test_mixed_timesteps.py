"""Batches that run for several numbers of timesteps: what is drawn, the sum of the losses, and statistics afterwards."""

from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
from quick_runs import assert_resumes_to_the_same_bytes, quick, quick_on_events
from torch import nn

from spikedistill import LIF, UserError, load, temporal, train
from spikedistill.comparisons.speeds import _images_per_s
from spikedistill.config import DataConfig, ModelConfig, TrainerConfig
from spikedistill.data import as_network_input, balanced_order
from spikedistill.evaluation import recalibrate
from spikedistill.objectives import sce
from spikedistill.recipes import recipe
from spikedistill.run_folder import RunFolder
from spikedistill.through_time.retimed import over_other_timesteps
from spikedistill.training import estimate, mixed_timesteps
from spikedistill.training.batch_size import with_fitting_batch_size
from spikedistill.training.estimate import estimate_line, trial
from spikedistill.training.mixed_timesteps import (
    SAMPLES,
    drawn_timesteps,
    most_timesteps,
    recalibrate_mixed,
    usual_timesteps,
)
from spikedistill.training.module import DistillationModule
from spikedistill.training.plan import make_plan
from spikedistill.training.student import StudentPass


def test_numbers_are_drawn_evenly_from_one_to_t_and_again_the_same():
    plan = make_plan(quick("digits-mtt-global", timesteps=4))
    drawn = torch.tensor([drawn_timesteps(plan, epoch, step) for epoch in range(10) for step in range(100)])
    assert drawn.shape == (1000, 3)
    shares = drawn.flatten().bincount(minlength=5)[1:] / 3000
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.04)  # five standard deviations of 3000 draws
    assert drawn_timesteps(plan, 3, 7) == drawn_timesteps(plan, 3, 7)
    assert len({tuple(row) for row in drawn.tolist()}) > 50
    assert drawn_timesteps(make_plan(quick("digits-sce")), 0, 0) == [None]
    of_stages = make_plan(quick("digits-mtt", timesteps=4))
    drawn = torch.tensor([drawn_timesteps(of_stages, epoch, step) for epoch in range(10) for step in range(100)])
    assert drawn.shape == (1000, 3, 3), "a number for each of the three stages of convnet"
    assert drawn.flatten().bincount(minlength=5)[1:].tolist() == pytest.approx([2250] * 4, abs=210)


@pytest.mark.parametrize("timesteps", [2, 3, 4, 5])
@pytest.mark.parametrize("draws", [1, 2, 3])
def test_two_usual_batches_in_a_row_have_the_mean_of_all_draws(draws, timesteps):
    plan = make_plan(quick("digits-sce", timestep_draws=draws, timesteps=timesteps))
    for first in range(2):
        both = usual_timesteps(plan, 0, first) + usual_timesteps(plan, 0, first + 1)
        assert sum(both) / len(both) == (timesteps + 1) / 2
        assert len(both) == 2 * draws
    assert most_timesteps(plan, 0, 0) == [None] * draws
    plain = make_plan(quick("digits-sce"))
    assert usual_timesteps(plain, 0, 0) == most_timesteps(plain, 0, 0) == [None]


@pytest.fixture
def passes(monkeypatch):
    """The numbers of timesteps of all passes from now on."""
    found, one_pass = [], DistillationModule.one_pass

    def noted(module, *arguments):
        found.append(arguments[-1])
        return one_pass(module, *arguments)

    monkeypatch.setattr(DistillationModule, "one_pass", noted)
    return found


def test_a_step_on_trial_makes_as_many_passes_as_a_step_of_the_run(passes):
    with trial(make_plan(quick("digits-mtt-global", timesteps=4))) as step:
        step(8)
        step(8)
    assert passes == [2, 3, 2, 3, 2, 3]


def test_an_estimate_is_of_the_mean_of_all_draws(monkeypatch):
    """Steps of 7 and 8 timesteps in turn, at a second for each."""
    seconds = iter([90.0, 90.0, 0.7, 0.8, 0.7, 0.8])

    @contextmanager
    def timed(plan):
        yield lambda size: next(seconds)

    monkeypatch.setattr(estimate, "trial", timed)
    # 4 steps and a pass of 240 images at 4 timesteps, which takes a third of 4 / 7.5 of 4 steps
    epoch = 0.75 * (4 + 4 * 4 / 7.5 / 3)
    said = estimate_line(make_plan(quick("digits-mtt-global", timesteps=4, epochs=40)))
    assert said == f"about {epoch:.1f} s an epoch, {40 * epoch / 60:.1f} min in all (measured on 4 steps)"


def test_a_speed_for_equal_time_is_of_the_mean_of_all_draws(passes, tmp_path):
    assert _images_per_s(quick("digits-mtt-global", timesteps=4), 2, 0.0, tmp_path) > 0
    assert passes == [2, 3, 2, 3, 2, 3, 2, 3, 2]


def test_a_batch_size_fits_where_all_draws_are_t(passes):
    data = DataConfig(name="digits", batch_size="auto:4", train_samples=240)
    plan = make_plan(quick("digits-mtt-global", timesteps=4, data=data))
    assert with_fitting_batch_size(plan).config.data.batch_size == 4
    assert len(passes) % 3 == 0
    assert {*passes} == {None}, "which stands for T"


def test_a_pass_for_fewer_timesteps_is_the_network_run_for_these():
    module = DistillationModule(make_plan(quick("digits-mtt-global", timesteps=4)))
    images, target = torch.rand(6, 1, 8, 8), torch.arange(6)
    for k in (1, 3):
        torch.manual_seed(0)
        value, step, submodels = module.one_pass(images, target, target, None, k)
        other = DistillationModule(make_plan(quick("digits-mtt-global", timesteps=4))).network
        other.load_state_dict(module.network.state_dict())
        logits = other.train()(images, k)
        assert submodels.shape == (k, 6, 10)
        assert value.total.item() == pytest.approx(sce(logits, target).item(), rel=1e-5)
        # after its end the prediction stays
        assert step["ce_prefix"][k - 1 :].tolist() == pytest.approx([value.total.item()] * (5 - k), rel=1e-5)


def norms_of(network):
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def by_groups(values, timesteps):
    """Repeated or added up, as the paper's code does: in plain Python."""
    few, many = sorted((len(values), timesteps))
    ends = [round(i * many / few - 1e-5) for i in range(few + 1)]
    groups = [range(a, b) for a, b in pairwise(ends)]
    if timesteps > len(values):
        return [values[place] for place, group in enumerate(groups) for _ in group]
    return [sum(values[t] for t in group) for group in groups]


def test_values_over_other_timesteps_are_repeated_or_added_up():
    # by hand: 2 into 5 ends at 2.5, rounded down, and 5; 3 into 4 at 1.33, 2.67, 4
    assert over_other_timesteps(torch.tensor([[7.0], [9.0]]), 5).flatten().tolist() == [7, 7, 9, 9, 9]
    assert over_other_timesteps(torch.tensor([[1.0], [2.0], [4.0], [8.0], [16.0]]), 2).flatten().tolist() == [3, 28]
    assert over_other_timesteps(torch.tensor([[1.0], [2.0], [4.0], [8.0]]), 3).flatten().tolist() == [1, 6, 8]
    for before in range(1, 11):
        values = torch.rand(before, 2, 3)
        for after in range(1, 11):
            found = over_other_timesteps(values, after)
            torch.testing.assert_close(found, torch.stack(by_groups([*values], after)))
            if after <= before:
                torch.testing.assert_close(found.sum(0), values.sum(0))


@pytest.mark.parametrize("gradient", ["bptt", "sltt"])
@pytest.mark.parametrize("counts", [(2, 4, 1), (3, 3, 3), (1, 2, 4)])
def test_stages_run_for_their_own_timesteps(counts, gradient):
    """A pass of the run against its stages one after another, each as a network of its own, with their gradients."""
    module = DistillationModule(make_plan(quick("digits-mtt", timesteps=4, gradient=gradient)))
    images, target = torch.rand(6, 1, 8, 8), torch.arange(6)
    value, step, submodels = module.one_pass(images, target, target, None, counts)
    parameters = list(module.network.parameters())
    ours = torch.autograd.grad(value.total, parameters)
    assert submodels.shape == (counts[-1], 6, 10)

    other = DistillationModule(make_plan(quick("digits-mtt", timesteps=4, gradient=gradient))).network.train()
    normalise, layout = other.module[0], other.module[1]
    ends = [int(name.partition(".")[2]) + 1 for name in layout.stage_channels]
    x = normalise(images).expand(counts[0], *images.shape)
    for count, (begin, end) in zip(counts, pairwise([0, *ends]), strict=True):
        x = torch.stack(by_groups([*x], count))
        assert len(x) == count
        x = temporal(layout.features[begin:end], gradient=gradient).train()(x)
    logits = temporal(nn.Sequential(nn.Flatten(), layout.head), gradient=gradient)(x)
    loss = sce(logits, target)
    assert value.total.item() == pytest.approx(loss.item(), rel=1e-5)
    for mine, theirs in zip(ours, torch.autograd.grad(loss, list(other.parameters())), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    assert step["ce_prefix"][counts[-1] - 1 :].tolist() == pytest.approx([loss.item()] * (5 - counts[-1]), rel=1e-5)


def test_firing_rates_are_those_of_the_stages_and_not_of_what_is_added_up_for_the_next():
    plan = make_plan(quick("digits-mtt", timesteps=4))
    network = plan.build_network().train()
    student = StudentPass(network, 4, plan.stages, stages=plan.stages, counts_spikes=True)
    images = torch.rand(6, 1, 8, 8)
    found = {counts: student(images, timesteps=counts) for counts in (None, (4, 1, 1))}
    for place in (1, -1):  # the features of the first stage, and the rates of all layers
        usual, mixed = found[None][place], found[4, 1, 1][place]
        torch.testing.assert_close(mixed if place == 1 else mixed[0], usual if place == 1 else usual[0])
        assert mixed.max() <= 1


def test_a_network_without_named_stages_and_means_over_time_are_refused(fresh_names):
    with pytest.raises(
        UserError, match=r"--timestep-draws-of stages .* and gradients under --gradient rate are of means"
    ):
        make_plan(quick("digits-mtt", gradient="rate"))
    with pytest.raises(UserError, match="has no effect without draws: add --timestep-draws, such as 3"):
        make_plan(quick("digits-sce", timestep_draws_of="stages"))
    with pytest.raises(UserError, match="numbers of timesteps change at the ends of stages, and Frozen does not name"):
        make_plan(quick("digits-mtt", model=ModelConfig()), model=Frozen)


class Staged(nn.Module):
    """Two stages that name their ends, with a skip connection over the first end or without."""

    def __init__(self, stages, skip=False):
        super().__init__()
        self.stage_channels = dict.fromkeys(stages, 4)
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), LIF())
        self.first, self.second = LIF(), LIF()
        self.skip, self.head = skip, nn.Linear(4 * 64, 10)

    def forward(self, x):
        x = self.stem(x)
        return self.head((self.second(self.first(x)) + (x if self.skip else 0)).flatten(1))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: Staged(["first", "nope"]), "no layer 'network.nope': did you mean"),
        (lambda: Staged(["second", "first"]), "run in the order .*first, .*second, and are named as"),
        (lambda: Staged(["first", "second"], skip=True), "behind the end of a stage, something from before it is used"),
    ],
)
def test_stages_whose_timesteps_cannot_differ_are_refused_before_training(network, message, fresh_names):
    config = recipe("digits-mtt").model_copy(update={"model": ModelConfig(), "timesteps": 4})
    make_plan(config, model=lambda: Staged(["first", "second"]))
    with pytest.raises(UserError, match=message):
        make_plan(config, model=network)


def test_the_losses_of_all_passes_are_added(tmp_path, monkeypatch):
    """In the first step of a run, against passes of the same network one at a time."""
    config = quick("digits-mtt-global", timesteps=4, out=tmp_path)
    found = {}
    training_step = DistillationModule.training_step

    def compare(module, batch, batch_index):
        if not found:
            state = {name: tensor.clone() for name, tensor in module.network.state_dict().items()}
            inputs, _ = module.prepared(batch[0], batch[1], batch_index)
            drawn = drawn_timesteps(module.plan, 0, batch_index)
            parameters = list(module.network.parameters())
            expected, alone = [torch.zeros_like(parameter) for parameter in parameters], 0.0
            for k in drawn:
                loss = sce(module.network(inputs, k), batch[1])
                expected = [sum(pair) for pair in zip(expected, torch.autograd.grad(loss, parameters), strict=True)]
                alone += loss.item()
            after = [norm.running_mean.clone() for norm in norms_of(module.network)]
            module.network.load_state_dict(state)
            before = [id(norm.running_mean) for norm in norms_of(module.network)]
            total = training_step(module, batch, batch_index)
            ours = torch.autograd.grad(total, parameters, retain_graph=True)
            found.update(total=total.item(), expected=alone, gradients=(ours, expected))
            for norm, mean, place in zip(norms_of(module.network), after, before, strict=True):
                torch.testing.assert_close(norm.running_mean, mean)  # every pass counts
                assert id(norm.running_mean) == place, "which other processes know"
            return total
        return training_step(module, batch, batch_index)

    monkeypatch.setattr(DistillationModule, "training_step", compare)
    train(config)
    assert found["total"] == pytest.approx(found["expected"], rel=1e-5)
    for mine, other in zip(*found["gradients"], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_the_trained_network_has_statistics_at_t_timesteps(tmp_path):
    run = train(quick("digits-mtt-global", timesteps=4, out=tmp_path, epochs=2))
    network, plan = load(run), make_plan(RunFolder(run).config())
    norms = norms_of(network)
    before = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    chosen = balanced_order(plan.train.targets)[:SAMPLES]
    images = as_network_input(plan.train.inputs(chosen), "image")
    recalibrate(network, [images], lambda own, x: own(x, 4))
    for norm, (mean, var) in zip(norms, before, strict=True):
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, var, rtol=1e-4, atol=1e-5)
    recalibrate(network, [images], lambda own, x: own(x, 1))
    assert any((norm.running_mean - mean).abs().max() > 0.01 for norm, (mean, _) in zip(norms, before, strict=True))


class Frozen(nn.Module):
    """A network with a batch-norm that is trained, one that is frozen, and one without running statistics."""

    def __init__(self, tracked: bool = True):
        super().__init__()
        self.norms = nn.ModuleList(
            [nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False)][0 if tracked else 2 :]
        )
        self.first, self.fire, self.last = nn.Conv2d(1, 4, 3, padding=1), LIF(), nn.Linear(4 * 64, 10)
        if tracked:
            self.norms[1].running_mean.fill_(5.0)

    def train(self, mode: bool = True):
        super().train(mode)
        if len(self.norms) > 1:
            self.norms[1].eval()
        return self

    def forward(self, x):
        x = self.first(x)
        for norm in self.norms:
            x = norm(x)
        return self.last(self.fire(x).flatten(1))


def test_only_statistics_that_training_mixes_are_computed_anew():
    plan = make_plan(quick("digits-mtt-global", timesteps=4))
    network = temporal(Frozen()).train()
    recalibrate_mixed(plan, network)
    trained, frozen, _ = network.module.norms
    assert frozen.running_mean.tolist() == [5.0] * 4
    assert trained.running_mean.abs().sum() > 0
    assert not frozen.training
    untracked = temporal(Frozen(tracked=False)).train()
    recalibrate_mixed(plan, untracked)  # which has nothing to compute anew


def test_statistics_are_computed_in_batches_that_fit(monkeypatch):
    plan, sizes = make_plan(quick("digits-mtt-global", timesteps=4)), []
    own = mixed_timesteps.recalibrate

    def small(network, batches, run, *, norms):
        sizes.append(len(first := next(batches)))
        if len(first) > 100:
            raise MemoryError
        return own(network, [first, *batches], run, norms=norms)

    monkeypatch.setattr(mixed_timesteps, "recalibrate", small)
    recalibrate_mixed(plan, plan.build_network().train())
    assert sizes == [240, 128, 64]


@pytest.mark.parametrize("name", ["digits-mtt-global", "digits-mtt"])
def test_a_run_resumes_to_the_same_bytes(name, tmp_path, monkeypatch):
    assert_resumes_to_the_same_bytes(quick(name, out=tmp_path), monkeypatch)


def test_the_recipe_is_sce_with_three_draws():
    plain, mixed = recipe("cifar10-sce"), recipe("cifar10-mtt-global")
    assert mixed.timestep_draws == 3
    assert mixed.model_copy(update={"timestep_draws": None, "recipe": plain.recipe}) == plain
    of_stages = recipe("cifar10-mtt")
    assert of_stages.timestep_draws_of == "stages"
    assert of_stages.model_copy(update={"timestep_draws_of": "network", "recipe": mixed.recipe}) == mixed


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("digits-sce", {"timesteps": 1}, "draws numbers of timesteps, and --timesteps 1 has only one: leave it out"),
        ("digits-ann", {}, "is for spiking networks, and with --model.neuron relu all timesteps are alike"),
        ("digits-esd", {}, "for objectives over timesteps, and 'esd' is over heads"),
        ("digits-sce", {"gradient": "rate", "segments": 2}, "may draw fewer timesteps than --segments 2"),
        ("digits-sce", {"model": ModelConfig(norm="timestep_batch")}, "--model.norm timestep_batch has others"),
        ("digits-sce", {"trainer": TrainerConfig(ema=0.9)}, "leave --trainer.sync-batch-norm and --trainer.ema out"),
    ],
)
def test_settings_that_do_not_fit_are_refused(name, changes, message):
    with pytest.raises(UserError, match=f"--timestep-draws 2 .*{message}"):
        make_plan(quick(name, timestep_draws=2, **changes))


def test_event_frames_are_refused(fresh_names):
    config = quick_on_events(timestep_draws=2)
    assert isinstance(config.data, DataConfig)
    with pytest.raises(UserError, match="--timestep-draws 2 is for images, and halves holds event frames"):
        make_plan(config)


@pytest.mark.parametrize("name", ["digits-s2w", "digits-tks", "digits-trt"])
def test_other_objectives_train_with_it(name, tmp_path):
    run = RunFolder(train(quick(name, out=tmp_path, timestep_draws=2)))
    rows = run.read_rows(run.metrics)
    assert all(float(row["train_loss"]) > 0 for row in rows)
