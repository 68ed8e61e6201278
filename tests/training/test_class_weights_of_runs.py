"""Class weights of a run: from its configuration to its loss."""

import pytest
import torch
import torch.nn.functional as F
import yaml
from quick_runs import quick

from spikedistill import UserError
from spikedistill.cli import main
from spikedistill.config import Config
from spikedistill.objectives import Objective, Term
from spikedistill.run_folder import RunFolder
from spikedistill.training.class_weights import class_weights
from spikedistill.training.combinations import check_together
from spikedistill.training.plan import make_plan

CLASSES = ("cat", "dog", "emu")


def weights(*written, targets=(0, 0, 0, 1, 1, 2)):
    return class_weights(written, CLASSES, torch.tensor(targets)).tolist()


def test_weights_by_hand():
    """Six samples of three classes, 3, 2 and 1 of them: 6 / (3 * 3), 6 / (3 * 2) and 6 / (3 * 1)."""
    assert weights("balanced") == pytest.approx([2 / 3, 1, 2])
    assert weights("1", "2.5", "0") == [1, 2.5, 0]
    assert weights("emu=4", "cat=0.5") == [0.5, 1, 4]


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    torch.manual_seed(0)
    targets = torch.randint(0, 3, (50,)) * torch.randint(0, 2, (50,))
    expected = compute_class_weight("balanced", classes=torch.arange(3).numpy(), y=targets.numpy())
    assert weights("balanced", targets=targets.tolist()) == pytest.approx(expected.tolist())


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (("1", "2"), "has 2 numbers, and there are 3 classes .cat, dog, emu.: give one number for each class"),
        (("cow=2",), "cow=2 names no class: the classes are cat, dog, emu"),
        (("cat=2", "cat=3"), "names the class cat twice"),
        (("0", "0", "0"), "all 0"),
    ],
)
def test_weights_that_do_not_fit_the_classes(written, said):
    with pytest.raises(UserError, match=said):
        weights(*written)


def test_balanced_needs_every_class():
    with pytest.raises(UserError, match="there are none of emu: give numbers"):
        weights("balanced", targets=(0, 1))


@pytest.mark.parametrize("form", [{"cat": 2, "emu": 0.5}, ["cat=2", "emu=0.5"], ("cat=2", "emu=0.5")], ids=str)
def test_forms_of_a_configuration(form):
    config = Config(recipe="digits-sce", objective={"class_weights": form})
    assert config.objective.class_weights == ("cat=2", "emu=0.5")
    assert Config.from_yaml(config.to_yaml()) == config


def test_a_run_learns_with_its_weights_and_records_them(tmp_path, capsys):
    """The first step's loss is torch's weighted cross-entropy; from config.yaml the run is repeated to the byte."""
    words = "--data.train-samples 60 --data.batch-size 60 --epochs 1 --timesteps 2 --model.width 0.25 --trainer.accelerator cpu"
    first = ["train", "digits-sce", *words.split(), "--objective.class-weights", "3=4", "8=0.25"]
    assert main([*first, "--out", str(tmp_path / "run")]) == 0
    assert "class weights: 0 1, 1 1, 2 1, 3 4, 4 1, 5 1, 6 1, 7 1, 8 0.25, 9 1\n" in capsys.readouterr().out
    run = RunFolder(tmp_path / "run")
    written = yaml.safe_load(run.config_file.read_bytes())
    assert written["objective"]["class_weights"] == ["3=4", "8=0.25"]
    plan = make_plan(run.config())
    network, target = plan.build_network().train(), plan.train.targets
    logits = network(plan.train.inputs(torch.arange(60)) / 255, timesteps=2)
    weight = torch.tensor([1, 1, 1, 4, 1, 1, 1, 1, 0.25, 1])
    expected = F.cross_entropy(logits.mean(0), target, weight=weight).item()
    plain = F.cross_entropy(logits.mean(0), target).item()
    (row,) = run.read_rows(run.metrics)
    assert float(row["train_loss"]) == pytest.approx(expected, rel=1e-4)
    assert abs(expected - plain) > 1e-3 * plain
    assert main(["train", str(run.config_file), "--out", str(tmp_path / "again")]) == 0
    assert RunFolder(tmp_path / "again").model.read_bytes() == run.model.read_bytes()


def test_an_objective_whose_loss_takes_no_weights_is_not_trained_as_if_it_did():
    own = Objective("own-loss", [Term("own", 1.0, lambda logits, target: F.cross_entropy(logits.mean(0), target))])
    config = quick("digits-sce")
    check_together(config, own)
    with pytest.raises(UserError, match="'own-loss' has no loss that takes class weights"):
        check_together(config.model_copy(update={"objective": {"class_weights": "balanced"}}), own)
