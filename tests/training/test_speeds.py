"""How fast methods train against each other, measured in turn and kept."""

import csv

import pytest
from quick_runs import quick

from spikedistill.config import TrainerConfig
from spikedistill.training import speeds as module
from spikedistill.training.callbacks import StepClock
from spikedistill.training.module import DistillationModule
from spikedistill.training.plan import make_plan
from spikedistill.training.run import fit, make_trainer
from spikedistill.training.speeds import ROUNDS, relative_speeds


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.2)


def rows(file):
    return list(csv.DictReader(file.read_text().splitlines()))


def test_every_method_is_measured_once_also_one_that_learns_from_features(tmp_path, capfd):
    file = tmp_path / "comparison" / "speeds.csv"
    configs = [quick(f"digits-{name}", timesteps=4) for name in ("sce", "kdsnn")]
    speeds = relative_speeds(configs, file)
    assert capfd.readouterr().out.count("measuring how fast each of 2 methods trains") == ROUNDS
    assert [row["method"] for row in rows(file)] == ["digits-sce", "digits-kdsnn"]
    assert speeds[0] == 1.0
    assert speeds[1] == pytest.approx(
        float(rows(file)[1]["images_per_s"]) / float(rows(file)[0]["images_per_s"]), rel=0.01
    )
    assert relative_speeds(configs, file) == speeds
    assert capfd.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["comparison"], "nothing is left of the measurement"


def test_a_method_that_comes_later_is_measured_beside_the_first_and_the_others_keep_their_speeds(tmp_path, capfd):
    file = tmp_path / "speeds.csv"
    file.write_text("method,images_per_s,against_first\ndigits-sce,1.0,1.0\ndigits-twce,3.0,3.0\n")
    configs = [quick(f"digits-{name}") for name in ("sce", "twce", "rate")]
    speeds = relative_speeds(configs, file)
    assert "each of 2 methods" in capfd.readouterr().out
    assert speeds[:2] == [1.0, 3.0]
    assert float(rows(file)[2]["images_per_s"]) > 10 * speeds[2], "its ratio is to the first as it was beside it"


def test_a_network_that_runs_four_times_as_long_is_slower(tmp_path):
    short, long = quick("digits-sce", timesteps=2), quick("digits-twce", timesteps=8)
    trainer = TrainerConfig(accelerator="cpu", progress=False, accumulate=2)
    configs = [config.model_copy(update={"trainer": trainer}) for config in (short, long)]
    assert relative_speeds(configs, tmp_path / "speeds.csv")[1] < 0.8


@pytest.mark.parametrize(
    "text", ["method,images_per_s\na,1\n", "method,against_first\na,fast\n", "method,against_first\na,0\n"]
)
def test_a_damaged_file_is_named(text, tmp_path):
    file = tmp_path / "speeds.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match="holds no speeds of methods: delete it, and they are measured anew"):
        relative_speeds([quick("digits-sce")], file)


def test_a_round_has_its_steps_and_its_seconds(tmp_path):
    plan = make_plan(quick("digits-sce", epochs=1_000_000))
    few, long = StepClock(3, 0.0), StepClock(3, 0.5)
    for clock in (few, long):
        fit(make_trainer(plan, tmp_path, [clock]), DistillationModule(plan))
    assert few.images == 3 * plan.config.data.batch_size
    assert 0.5 <= long.seconds < 5
