"""How fast methods train against each other, measured in turn and kept."""

import csv
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest
from quick_runs import quick

from spikedistill.comparisons import speeds as module
from spikedistill.comparisons.folder import begin, rewriting
from spikedistill.comparisons.speeds import ROUNDS, relative_speeds
from spikedistill.config import DataConfig, TrainerConfig
from spikedistill.training.module import DistillationModule
from spikedistill.training.plan import make_plan
from spikedistill.training.progress import StepClock
from spikedistill.training.run import fit, make_trainer


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.2)


@pytest.fixture(autouse=True)
def scratch(tmp_path_factory, monkeypatch):
    """Where temporary files go, and are gone in the end."""
    folder = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    # pymp is where this process talks to others, until it ends
    assert [path.name for path in folder.iterdir() if not path.name.startswith("pymp-")] == []


HEAD = "method,images_per_s,against_first,faster,slower\n"


def rows(file):
    return list(csv.DictReader(file.read_text().splitlines()))


def test_every_method_is_measured_once_also_one_that_learns_from_features(tmp_path, capfd):
    file = tmp_path / "comparison" / "speeds.csv"
    configs = [quick(f"digits-{name}", timesteps=4) for name in ("sce", "kdsnn")]
    speeds = relative_speeds(configs, file)
    assert capfd.readouterr().out.count("measuring how fast each of 2 methods trains") == ROUNDS
    assert [row["method"] for row in rows(file)] == ["digits-sce", "digits-kdsnn"]
    assert speeds[0] == 1.0
    first, second = rows(file)
    assert [first[key] for key in ("against_first", "faster", "slower")] == ["1.0", "0", "0"]
    assert int(second["faster"]) + int(second["slower"]) == ROUNDS
    assert (float(second["against_first"]) > 1) == (int(second["faster"]) > ROUNDS / 2)
    assert relative_speeds(configs, file) == speeds
    assert capfd.readouterr().out == ""


def test_a_method_that_comes_later_is_measured_beside_the_first_and_the_others_keep_their_speeds(tmp_path, capfd):
    file = tmp_path / "speeds.csv"
    file.write_text(HEAD + "digits-sce,1.0,1.0,0,0\ndigits-twce,3.0,3.0,7,0\n")
    configs = [quick(f"digits-{name}") for name in ("sce", "twce", "rate")]
    speeds = relative_speeds(configs, file)
    assert "each of 2 methods" in capfd.readouterr().out
    assert speeds[:2] == [1.0, 3.0]
    assert float(rows(file)[2]["against_first"]) < 10, "its ratio is to the first as it was beside it"


def test_one_that_was_now_faster_and_now_slower_is_as_fast(tmp_path):
    file = tmp_path / "speeds.csv"
    lines = ["digits-sce,9,1,0,0", "digits-twce,9,1.2,5,2", "digits-rate,9,1.2,6,1", "digits-skd,9,0.9,0,7"]
    file.write_text(HEAD + "\n".join(lines))
    configs = [quick(f"digits-{name}") for name in ("sce", "twce", "rate", "skd")]
    assert relative_speeds(configs, file) == [1, 1, 1.2, 0.9]


def test_a_published_file_without_counts_keeps_its_ratios():
    """A study of the docs goes on with the speeds that it was published with."""
    file = Path(__file__).parents[2] / "docs/studies/rules_cifar10_equal_time/speeds.csv"
    published = rows(file)
    configs = [quick("digits-sce").model_copy(update={"recipe": row["method"]}) for row in published]
    assert relative_speeds(configs, file) == [float(row["against_first"]) for row in published]


def test_the_median_of_the_ratios_counts_and_the_machine_may_change_its_speed(tmp_path, monkeypatch):
    """By hand: ratios of 0.5, 0.4 and 0.6 on a machine that is now fast and now slow."""
    first, second = (200.0, 20.0, 400.0), (100.0, 8.0, 240.0)
    rounds = [{"digits-sce": one, "digits-twce": other} for one, other in zip(first, second, strict=True)]
    monkeypatch.setattr(module, "images_per_s", lambda configs: rounds)
    file = tmp_path / "speeds.csv"
    assert relative_speeds([quick("digits-sce"), quick("digits-twce")], file) == [1.0, 0.5]
    assert file.read_text() == HEAD + "digits-sce,200.0,1.0,0,0\ndigits-twce,100.0,0.5,0,3\n"


@pytest.mark.parametrize(
    "text",
    [
        "method,images_per_s\na,1\n",
        HEAD + "a,1,fast,1,1\n",
        HEAD + "a,1,0,1,1\n",
        HEAD + "a,1,1,x,1\n",
        HEAD + "a,1,1\n",
        "",
        HEAD,
        HEAD + "a,1,inf,1,1\n",
        HEAD + "a,1,nan,1,1\n",
        HEAD + "a,inf,1,1,1\n",
        HEAD + "a,1,2,1,1\n",  # faster than itself
        HEAD + "a,1,1,0,0\nb,1,1e300,7,0\n",
        HEAD + "a,1,1,0,0\nb,1,2,8,-1\n",
        HEAD + "a,1,1,0,0\na,1,1,0,0\n",
        HEAD + "a,1,1,0,0,9\n",
        HEAD + "a,1,1,0,0\0\n",
        HEAD + 200_000 * "a" + ",1,1,0,0\n",
        HEAD + "\udcffa,1,1,0,0\n",  # no UTF-8
    ],
)
def test_a_damaged_file_is_named(text, tmp_path):
    file = tmp_path / "speeds.csv"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match="holds no speeds of methods: delete it, and they are measured anew"):
        relative_speeds([quick("digits-sce").model_copy(update={"recipe": "a"})], file)


def test_a_method_that_diverges_is_measured_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROUNDS", 1)
    config = quick("digits-sce", timesteps=2)
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"lr": 1e12})})
    assert relative_speeds([config], tmp_path / "speeds.csv") == [1.0]


def test_another_digit_in_the_file_of_a_comparison_is_noticed(tmp_path):
    begin(tmp_path)
    file = tmp_path / "speeds.csv"
    with rewriting(file):
        file.write_text(HEAD + "digits-sce,9,1,0,0\ndigits-rate,18,2,7,0\n")
    configs = [quick("digits-sce"), quick("digits-rate")]
    assert relative_speeds(configs, file) == [1.0, 2.0]
    file.write_text(file.read_text().replace("18,2", "18,3"))
    with pytest.raises(
        ValueError, match=r"speeds\.csv is damaged: it is not the file that manifest\.json lists; delete it"
    ):
        relative_speeds(configs, file)


def test_a_round_has_its_steps_and_its_seconds(tmp_path):
    plan = make_plan(quick("digits-sce", epochs=1_000_000))
    few, long = StepClock(1, 0.0), StepClock(1, 0.5)
    for clock in (few, long):
        fit(make_trainer(plan, tmp_path, [clock]), DistillationModule(plan))
    assert few.images == plan.config.data.batch_size, "one behind the first, in the middle of an epoch of four"
    assert long.seconds >= 0.5


def test_a_step_that_sums_up_gradients_is_timed_whole(tmp_path):
    trainer = TrainerConfig(accelerator="cpu", progress=False, accumulate=2)
    plan, clock = make_plan(quick("digits-sce", epochs=1_000_000, trainer=trainer)), StepClock(2, 0.0)
    fit(make_trainer(plan, tmp_path, [clock]), DistillationModule(plan))
    assert clock.images == 5 * plan.config.data.batch_size, "three steps of two batches, but for the first batch"


def test_the_speeds_of_a_folder_are_against_one_first_method(tmp_path):
    file = tmp_path / "speeds.csv"
    file.write_text(HEAD + "digits-sce,9,1,0,0\ndigits-rate,18,2,7,0\n")
    with pytest.raises(
        ValueError, match="holds speeds against digits-sce: another first method, digits-rate, needs another --out"
    ):
        relative_speeds([quick("digits-rate"), quick("digits-twce")], file)


def test_what_cannot_be_measured_says_why(tmp_path):
    missing = quick("digits-sce").model_copy(update={"data": DataConfig(name="mnist", root=tmp_path)})
    with pytest.raises(FileNotFoundError, match="mnist"):
        relative_speeds([missing], tmp_path / "speeds.csv")


def test_a_bug_in_what_is_measured_keeps_its_traceback(tmp_path, monkeypatch):
    def fail(*arguments):
        raise ValueError("shapes do not fit")

    monkeypatch.setattr(DistillationModule, "training_step", fail)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    with ours, theirs, pytest.raises(ValueError, match="shapes do not fit"):
        module._round([quick("digits-sce")], 1, 0.0, tmp_path, theirs, {})


@pytest.mark.parametrize("stopped", ["the process that measures", "the one that waits"])
def test_a_measurement_that_is_stopped_leaves_no_process_and_no_file(stopped, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 60.0)
    before = set(multiprocessing.active_children())

    def stop():
        while not (begun := set(multiprocessing.active_children()) - before):
            time.sleep(0.1)
        pid = begun.pop().pid if stopped == "the process that measures" else os.getpid()
        os.kill(pid, signal.SIGKILL if pid != os.getpid() else signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    expected = (RuntimeError, "exit code -9") if stopped == "the process that measures" else (KeyboardInterrupt, None)
    with pytest.raises(expected[0], match=expected[1]):
        relative_speeds([quick("digits-sce")], tmp_path / "speeds.csv")
    assert set(multiprocessing.active_children()) == before
    assert not (tmp_path / "speeds.csv").exists()
