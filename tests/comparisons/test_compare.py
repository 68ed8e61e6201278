"""Several methods and seeds, trained once and compared as often as one likes."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from quick_runs import quick

from spikedistill import train
from spikedistill.cli import main
from spikedistill.comparisons.equal_time import finished_there, in_equal_time
from spikedistill.comparisons.folder import FILES, begin
from spikedistill.comparisons.side_by_side import take_share
from spikedistill.comparisons.tuning import choose, trials
from spikedistill.comparisons.workers import time_left
from spikedistill.evaluation.comparison.records import from_json
from spikedistill.evaluation.results import read_results
from spikedistill.files import write_rows
from spikedistill.recipes import recipe
from spikedistill.run_folder import RunFolder

SMALL = [
    "--epochs",
    "1",
    "--timesteps",
    "2",
    "--model.width",
    "0.25",
    "--data.train-samples",
    "240",
    "--trainer.accelerator",
    "cpu",
]


def compare(out: Path, *recipes: str) -> int:
    """`spikedistill compare` of recipes, and settings behind them, with two seeds unless they say otherwise."""
    return main(
        ["compare", "--seeds", "0", "1", "--out", str(out), "--trainer.no-progress", *SMALL, "--recipes", *recipes]
    )


def test_a_second_invocation_trains_nothing_and_prints_the_same_table(tmp_path, capfd):
    assert compare(tmp_path, "digits-sce", "digits-twkd") == 0
    first = capfd.readouterr().out
    # an ANN to teach, and two recipes with two seeds
    assert first.count("run ") == 5
    took = first.partition("What it took")[2]
    assert "h:mm:ss" in took
    assert re.search(r"^ sce +2 +1 +0:00:\d\d ", took, re.MULTILINE)
    assert "trained 4 of the 5 that were left, about 1 min to go" in first
    weights = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    assert len(weights) == 5
    assert compare(tmp_path, "digits-sce", "digits-twkd") == 0
    second = capfd.readouterr().out
    assert "run " not in second
    assert first.endswith(second), "the table is the same"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")} == weights
    rows = list(csv.DictReader((tmp_path / "leaderboard.csv").read_text().splitlines()))
    assert [row["method"] for row in rows] == ["digits-sce", "digits-twkd"]
    accuracies = [
        100 * read_results(RunFolder(tmp_path / "digits-twkd" / f"seed{k}")).last.ensemble[1].accuracy for k in (0, 1)
    ]
    assert float(rows[1]["accuracy_2"]) == pytest.approx(sum(accuracies) / 2)
    runs = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    assert [(run["method"], run["seed"]) for run in runs] == [(row["method"], str(k)) for row in rows for k in (0, 1)]
    assert [float(run["accuracy_2"]) for run in runs[2:]] == pytest.approx(accuracies)
    metrics = (tmp_path / "digits-twkd" / "seed1" / "metrics.csv").read_text().splitlines()
    assert runs[3]["loss/twsd"] == list(csv.DictReader(metrics))[-1]["loss/twsd"]
    # the ANN that taught is a run with the same test samples
    assert 0 < float(rows[1]["teacher_agreement"]) <= 100
    assert rows[0]["teacher_agreement"] == ""
    assert [row["method"] for row in csv.DictReader((tmp_path / "timesteps.csv").read_text().splitlines())] == [
        "digits-sce",
        "digits-twkd",
    ]
    page = (tmp_path / "report.html").read_text()
    assert f"spikedistill compare --seeds 0 1 --out {tmp_path}" in page
    assert 'href="./digits-twkd/seed1/report.html"' in page
    assert "digits-twkd & $" in (tmp_path / "leaderboard.tex").read_text()
    assert (tmp_path / "accuracy.pdf").read_bytes().startswith(b"%PDF")
    assert float(rows[1]["area"]) == pytest.approx((float(rows[1]["accuracy_1"]) + float(rows[1]["accuracy_2"])) / 2)
    assert float(rows[1]["area_difference"]) == pytest.approx(float(rows[1]["area"]) - float(rows[0]["area"]))


def test_two_comparisons_in_one_folder_are_refused(tmp_path, capsys):
    stay = "import sys, pathlib, spikedistill.files as files\n"
    stay += "with files.alone_in(pathlib.Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", stay, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "in\n"
        assert compare(tmp_path, "digits-sce", "digits-twce") == 2
    assert f"another process is at work in {tmp_path}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_comparison_of_one_is_refused(tmp_path, capsys):
    assert compare(tmp_path / "out", "digits-sce") == 2
    assert "two or more different recipes" in capsys.readouterr().err


def test_a_recipe_can_take_part_in_variants(tmp_path, capfd):
    assert compare(tmp_path, "digits-rate", "digits-rate,segments=2,objective.name=twce", "--seeds", "1") == 0
    run = RunFolder(tmp_path / "digits-rate,segments=2,objective.name=twce" / "seed1").config()
    assert (run.segments, run.objective.name, run.seed) == (2, "twce", 1)
    assert "rate,segments=2" in capfd.readouterr().out.replace("\n", "")


def test_networks_trained_at_other_timesteps_take_part(tmp_path):
    regret = tmp_path / "regret.csv"
    assert compare(tmp_path, "digits-sce,timesteps=1", "digits-sce", "--seeds", "0") == 0
    assert [row["specialists"] for row in csv.DictReader(regret.read_text().splitlines())] == ["digits-sce"]
    assert 'id="regret"' in (tmp_path / "report.html").read_text()
    assert compare(tmp_path, "digits-sce,timesteps=1", "digits-twce", "--seeds", "0") == 0
    assert not regret.exists(), "nobody is left who specialised in two"
    rows = list(csv.DictReader((tmp_path / "leaderboard.csv").read_text().splitlines()))
    assert [(row["timesteps"], "accuracy_2" in row, "accuracy_3" in row) for row in rows] == [
        ("1", True, False),
        ("2", True, False),
    ]


def test_in_equal_time_a_faster_method_gets_more_epochs():
    recipes = [recipe("digits-sce"), recipe("digits-rate"), recipe("digits-esd")]
    configs = [config.model_copy(update={"epochs": 10}) for config in recipes]
    # two and a half times as fast; and never less than one epoch
    assert [config.epochs for config in in_equal_time(configs, [1.0, 2.54, 0.04], [0.0] * 3)] == [10, 25, 1]
    # the teacher of the second takes two fifths of the time
    assert [config.epochs for config in in_equal_time(configs, [1.0, 2.54, 0.04], [0.0, 0.4, 0.0])] == [10, 15, 1]


def test_methods_at_equal_time_train_on_the_same_samples_and_were_all_trained_before(tmp_path):
    configs = [recipe("digits-sce"), recipe("digits-rate")]
    with pytest.raises(FileNotFoundError, match="seed2 holds no finished run"):
        finished_there(configs, [2], tmp_path, 2)
    fewer = configs[1].model_copy(update={"data": configs[1].data.model_copy(update={"train_samples": 100})})
    with pytest.raises(ValueError, match="digits-sce and digits-rate train on different samples: give all"):
        finished_there([configs[0], fewer], [0], tmp_path, 0)


@pytest.fixture(scope="module")
def one_after_another(tmp_path_factory):
    """A finished comparison of a method with one that is taught, of two seeds; it is only read."""
    folder = tmp_path_factory.mktemp("comparisons") / "one_after_another"
    assert compare(folder, "digits-sce", "digits-twkd") == 0
    return folder


def test_in_equal_time_what_keeps_its_epochs_is_not_trained_again(one_after_another, tmp_path, capfd):
    first, second = one_after_another, tmp_path / "time"
    second.mkdir()
    begin(second)  # as if one had been measured to be twice as fast as the other
    speeds = "method,images_per_s,against_first\ndigits-sce,100.0,1.0\ndigits-twkd,200.0,2.0\n"
    (second / "speeds.csv").write_text(speeds)
    capfd.readouterr()
    assert compare(second, "digits-sce", "digits-twkd", "--equal-time", str(first)) == 0
    trained = re.findall(r"run \d of 5: (\S+), seed (\d)", capfd.readouterr().out)
    assert sorted(trained) == [("digits-ann", "0"), ("digits-twkd", "0"), ("digits-twkd", "1")]
    assert RunFolder(second / "digits-ann" / "seed0").config().epochs == 1, "the teacher is the same"
    before, now = (list(csv.DictReader((folder / "runs.csv").read_text().splitlines())) for folder in (first, second))
    assert [row["train_loss"] for row in now[:2]] == [row["train_loss"] for row in before[:2]]
    assert [RunFolder(second / "digits-twkd" / f"seed{k}").config().epochs for k in (0, 1)] == [2, 2]
    assert len((second / "records.jsonl").read_text().splitlines()) == 5, "it stands without the first"
    assert (second / "speeds.csv").read_text() == speeds, "what was measured counts for good"


def test_runs_side_by_side_are_those_one_after_another(one_after_another, tmp_path, capfd):
    alone, together = one_after_another, tmp_path / "together"
    capfd.readouterr()
    assert compare(together, "digits-sce", "digits-twkd", "--jobs", "2") == 0
    out = capfd.readouterr().out
    started = [line.partition(": ")[2] for line in out.splitlines() if line.startswith("run ")]
    assert sorted(started) == [
        "digits-ann, seed 0",
        *(f"digits-{name}, seed {seed}" for name in ("sce", "twkd") for seed in (0, 1)),
    ]
    assert started.index("digits-ann, seed 0") < started.index("digits-twkd, seed 0")
    assert without_cost(together) == without_cost(alone)
    assert (together / "records.jsonl").read_text().count("\n") == 5


def test_a_run_that_fails_lets_those_beside_it_end(tmp_path, capfd):
    assert compare(tmp_path, "digits-sce", "digits-twce") == 0
    damaged, gone = (RunFolder(tmp_path / f"digits-{name}" / "seed0") for name in ("sce", "twce"))
    damaged.model.write_bytes(b"damaged")
    damaged.report.unlink()
    shutil.rmtree(gone.path)
    (tmp_path / "records.jsonl").unlink()
    capfd.readouterr()
    assert compare(tmp_path, "digits-sce", "digits-twce", "--jobs", "2") == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.endswith("digits-sce/seed0 failed; the same command goes on from there"), "in one line"
    assert gone.is_complete
    assert '"run":"digits-twce/seed0"' in (tmp_path / "records.jsonl").read_text()


@pytest.mark.parametrize(
    ("visible", "place", "expected"), [("4,7", 0, "4"), ("4,7", 1, "7"), ("4,7", 2, "4"), ("3", 1, "3")]
)
def test_runs_side_by_side_take_a_gpu_each(monkeypatch, visible, place, expected):
    threads = torch.get_num_threads()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    try:
        take_share(place, 2)
        assert torch.get_num_threads() == max(1, threads // 2)
    finally:
        torch.set_num_threads(threads)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


def test_jobs_of_several_devices_are_refused(tmp_path, capsys):
    assert compare(tmp_path, "digits-sce", "digits-twce", "--jobs", "2", "--trainer.devices", "2") == 2
    assert "expected 1, or more if every run trains on one device" in capsys.readouterr().err
    assert compare(tmp_path, "digits-sce", "digits-twce", "--jobs", "0") == 2


def test_with_its_records_a_comparison_needs_no_run_again(one_after_another, tmp_path, capfd):
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(one_after_another, first)
    capfd.readouterr()
    assert compare(first, "digits-sce", "digits-twkd") == 0, "a copy, with a copy of the teacher"
    trained = capfd.readouterr().out
    assert "run " not in trained
    second.mkdir()
    shutil.copy(first / "records.jsonl", second)
    assert compare(second, "digits-sce", "digits-twkd") == 0
    out = capfd.readouterr().out
    assert "run " not in out
    table = out.partition("leaderboard: ")[0]
    assert table in trained, "the table is the same"
    for name in ("leaderboard.csv", "runs.csv", "timesteps.csv", "leaderboard.tex"):
        assert (second / name).read_text() == (first / name).read_text()
    assert not list(second.rglob("*.safetensors"))
    text = (second / "records.jsonl").read_text()
    assert str(tmp_path) not in text, "nothing of a record is of the place it was written in"

    # moved or copied, with the network that teaches
    moved = first.rename(tmp_path / "moved")
    assert compare(moved, "digits-sce", "digits-twkd") == 0
    assert "run " not in capfd.readouterr().out
    first = moved

    # one run less is one run more to train, and the network that teaches it
    lines = text.splitlines()
    assert [json.loads(line)["run"] for line in lines] == [
        *(
            f"digits-{name}/seed{seed}"
            for name, seeds in (("ann", (0,)), ("sce", (0, 1)), ("twkd", (0, 1)))
            for seed in seeds
        )
    ]
    (second / "records.jsonl").write_text("\n".join(lines[:-1]))
    assert compare(second, "digits-sce", "digits-twkd") == 0
    again = capfd.readouterr().out
    assert [line.partition(": ")[2] for line in again.splitlines() if line.startswith("run ")] == [
        "digits-ann, seed 0",
        "digits-twkd, seed 1",
    ]
    assert without_cost(second) == without_cost(first)


def without_cost(folder):
    """The leaderboard but for what training took, which no run has twice."""
    rows = csv.DictReader((folder / "leaderboard.csv").read_text().splitlines())
    cost = ("training_s", "images_per_s", "peak_mib", "teacher_s")
    return [{key: value for key, value in row.items() if key not in cost} for row in rows]


def test_records_of_other_settings_and_damaged_ones_are_refused(tmp_path, capsys):
    assert compare(tmp_path, "digits-sce", "digits-twce") == 0
    for run in tmp_path.glob("digits-*"):
        shutil.rmtree(run)
    assert compare(tmp_path, "digits-sce", "digits-twce", "--optimizer.lr", "0.2") == 2
    assert "was begun with other settings (optimizer.lr was 0.1 and is now 0.2)" in capsys.readouterr().err
    # nor is an old record taken for a run that was begun anew, and not ended
    begun = RunFolder(tmp_path / "digits-sce" / "seed0")
    begun.path.mkdir(parents=True)
    config = from_json((tmp_path / "records.jsonl").read_text().splitlines()[0], tmp_path)[1].config
    begun.config_file.write_text(
        config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"lr": 0.2})}).to_yaml()
    )
    assert compare(tmp_path, "digits-sce", "digits-twce", "--optimizer.lr", "0.2") == 2
    assert f"{begun.path} was begun with other settings (optimizer.lr was 0.1" in capsys.readouterr().err
    file = tmp_path / "records.jsonl"
    file.write_text(file.read_text().replace('"bits":"', '"bits":"?'))
    assert compare(tmp_path, "digits-sce", "digits-twce") == 2
    assert (
        "records.jsonl, line 1, is no record of a run (its checksum does not fit): delete the line"
        in capsys.readouterr().err
    )


def test_several_devices_take_part_in_a_comparison(tmp_path):
    """Lightning starts the second process by repeating the command line: it must be the run's, not the comparison's."""
    command = [sys.executable, "-m", "spikedistill", "compare", "--recipes", "digits-sce", "digits-twce"]
    command += ["--seeds", "0", "--out", str(tmp_path), "--trainer.devices", "2", "--trainer.no-progress", *SMALL]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("run ") == 2
    assert (tmp_path / "leaderboard.csv").is_file()


def test_a_run_without_enough_memory_says_so_in_a_line(tmp_path):
    gib = 12  # of addresses, of which PyTorch's libraries take a part; the currents of one layer would be more
    limited = f"ulimit -v {gib * 2**20}; exec {sys.executable} -m spikedistill compare --recipes digits-sce digits-twce --seeds 0"
    much = "--data.batch-size 1400 --timesteps 256 --model.width 16 --epochs 1 --trainer.accelerator cpu"
    result = subprocess.run(
        ["bash", "-c", f"{limited} {much} --out {tmp_path}"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 1
    assert f"{tmp_path}/digits-sce/seed0: there is not enough memory" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("seconds", "waiting", "running", "said"),
    [
        (600, 8, 0, "trained 2 of the 10 that were left, about 40 min to go"),
        (600, 6, 2, "trained 2 of the 10 that were left, about 23 min to go"),  # 7 runs left of 200 s each, 3 done
        (7200, 8, 0, "trained 2 of the 10 that were left, about 8.0 h to go"),
        (1, 1, 0, "trained 9 of the 10 that were left, about 1 min to go"),
    ],
)
def test_the_time_that_is_left_is_guessed_from_the_runs_so_far(seconds, waiting, running, said):
    assert time_left(seconds, 10, waiting, running) == said


DIVERGING = "digits-twce,optimizer.lr=1e12"
SEVERAL_STEPS = ["--data.train-samples", "120", "--data.batch-size", "20", "--seeds", "0"]


def table(folder, name):
    """The rows of a CSV file by method, without what is empty."""
    rows = csv.DictReader((folder / name).read_text().splitlines())
    return {row["method"]: {key: value for key, value in row.items() if value} for row in rows}


def trained(out):
    """The runs that a comparison says it trains."""
    return sorted(re.findall(r"run \d of \d: (\S+), seed \d", out))


def test_where_one_run_diverges_the_others_are_trained_and_compared(tmp_path, capfd):
    recipes = ("digits-sce", DIVERGING, "digits-twce", *SEVERAL_STEPS)
    assert compare(tmp_path, *recipes) == 0
    out, err = capfd.readouterr()
    assert trained(out) == ["digits-sce", "digits-twce", DIVERGING]
    assert "Of 3 runs 1 diverged. The reasons are in" in err.splitlines()[-1]
    assert "Traceback" not in err
    where = json.loads((tmp_path / DIVERGING / "seed0" / "diverged.json").read_text())
    rows = table(tmp_path, "leaderboard.csv")
    assert {key: rows[DIVERGING][key] for key in ("seeds", "diverged")} == {"seeds": "0", "diverged": "1"}
    assert not {"accuracy_2", "area", "area_difference"} & rows[DIVERGING].keys()
    assert rows["digits-twce"]["diverged"] == "0"
    assert {"accuracy_2", "area", "area_difference"} <= rows["digits-twce"].keys()
    assert table(tmp_path, "runs.csv")[DIVERGING] == {
        "method": DIVERGING,
        "seed": "0",
        "status": "diverged",
        "reason": where["message"],
    }
    page = (tmp_path / "report.html").read_text()
    assert "Of 3 runs 1 diverged." in page
    assert f"{DIVERGING} & 0 & 1 & -- & -- & -- & -- & -- \\\\" in (tmp_path / "leaderboard.tex").read_text()

    # not again, where only the records are
    copied = tmp_path / "copied"
    copied.mkdir()
    shutil.copy(tmp_path / "records.jsonl", copied)
    assert compare(copied, *recipes) == 0
    assert trained(capfd.readouterr().out) == []
    for name in ("leaderboard.csv", "runs.csv"):
        assert (copied / name).read_bytes() == (tmp_path / name).read_bytes()

    # nor here, where now the baseline diverged too
    baseline = RunFolder(tmp_path / "digits-sce" / "seed0")
    baseline.report.unlink()
    baseline.diverged.write_text(json.dumps({"step": 2, "epoch": 1, "message": "the loss is inf"}))
    assert compare(tmp_path, *recipes) == 0
    out, err = capfd.readouterr()
    assert trained(out) == []
    assert (
        "Of 3 runs 2 diverged. There are no differences, because the baseline, digits-sce, has no finished run." in err
    )

    # unless told to: one then diverges again, and the other does not
    assert compare(tmp_path, *recipes, "--retry-diverged") == 0
    assert trained(capfd.readouterr().out) == ["digits-sce", DIVERGING]
    assert table(tmp_path, "leaderboard.csv") == rows
    assert "--retry-diverged" not in (tmp_path / "report.html").read_text(), "what repeats the comparison"


def test_what_would_learn_from_one_that_diverged_is_not_trained(tmp_path, capfd):
    assert compare(tmp_path, f"digits-twkd,{DIVERGING[12:]}", DIVERGING, *SEVERAL_STEPS) == 1
    out, err = capfd.readouterr()
    assert trained(out) == ["digits-ann", DIVERGING]
    assert (
        "none of the 2 runs is finished, so there is nothing to compare. digits-twkd,optimizer.lr=1e12, seed 0" in err
    )
    assert "not trained, its teacher, digits-ann, seed 0, diverged: " in err
    assert not (tmp_path / "leaderboard.csv").exists()
    # a method beside it is compared
    assert compare(tmp_path, f"digits-twkd,{DIVERGING[12:]}", "digits-sce", *SEVERAL_STEPS) == 0
    out, err = capfd.readouterr()
    assert trained(out) == ["digits-sce"]
    assert "Of 2 runs 1 was not trained, because its teacher diverged." in err
    rows = table(tmp_path, "leaderboard.csv")
    assert [rows[name]["not_trained"] for name in rows] == ["1", "0"]
    reason = table(tmp_path, "runs.csv")[f"digits-twkd,{DIVERGING[12:]}"]["reason"]
    assert reason.startswith("its teacher, digits-ann, seed 0, diverged: ")


def test_a_method_of_which_every_trial_diverged_has_diverged(tmp_path, capfd):
    out, later = tmp_path / "tuned", tmp_path / "later"
    lost = "digits-tet,optimizer.lr=1e12"
    assert compare(out, "digits-sce", lost, *SEVERAL_STEPS, "--tune") == 0
    assert trained(capfd.readouterr().out) == [
        "digits-sce",
        *(f"{lost},weights={factor}" for factor in ("0.5", "1", "2")),
    ]
    assert table(out, "leaderboard.csv")[lost]["diverged"] == "1"
    assert table(out, "runs.csv")[lost]["reason"].startswith("with every factor on its weights, first: ")
    assert (out / "tuning.csv").read_text().count(",False\n") == 3
    assert compare(later, "digits-sce", lost, *SEVERAL_STEPS, "--equal-time", str(out)) == 2
    assert f"{out} has no run of {lost}, because its trials or its teacher diverged" in capfd.readouterr().err
    assert not later.exists()


def test_of_trials_one_that_diverged_is_the_worst():
    config = recipe("digits-etc")
    best, rows = choose(config, trials(config, seed=0), {0.5: 0.0, 1.0: None, 2.0: None})
    assert best.objective.options["weight"] == 0.5
    assert [row["heldout_area"] for row in rows] == [0.0, None, None]
    assert choose(config, trials(config, seed=0), dict.fromkeys((0.5, 1.0, 2.0)))[0] is None


@pytest.mark.parametrize("name", FILES)
def test_a_folder_with_files_of_somebody_else_is_left_as_it_is(name, tmp_path, capsys):
    (tmp_path / name).write_text('{"name": "my project"}\n')
    (tmp_path / "notes.md").write_text("mine")
    assert compare(tmp_path, "digits-sce", "digits-twce") == 2
    assert str(tmp_path) in (said := capsys.readouterr().err)
    assert "choose another --out" in said
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        name: '{"name": "my project"}\n',
        "notes.md": "mine",
    }


def test_folders_that_are_no_comparison_s_are_refused(tmp_path, capsys):
    def refused(folder, message):
        before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
        assert compare(folder, "digits-sce", "digits-twce") == 2
        assert message in capsys.readouterr().err
        assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before

    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.begin(recipe("digits-sce"))
    refused(run.path, "is the folder of a run: choose another --out for the comparison")
    (run.path / "manifest.json").unlink()
    refused(run.path, "is the folder of a run")  # as version 0.1.0 left it
    own = tmp_path / "own"
    (own / "report.html").mkdir(parents=True)
    refused(own, "report.html is a folder, and a comparison has a file there")
    (own / "report.html").rmdir()
    (own / "records.jsonl").write_text("")
    refused(own, "holds records.jsonl, and nothing shows that a comparison wrote it")
    (own / "records.jsonl").unlink()
    notes = own / "digits-twce" / "seed1" / "notes.md"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    refused(own, "seed1 is not empty, and it is no run that has begun: choose another --out")
    notes.with_name("config.yaml").write_text("lr: 0.1\n")
    refused(own, "seed1 is not empty, and it is no run that has begun")
    file = tmp_path / "file"
    file.write_text("mine")
    assert compare(file, "digits-sce", "digits-twce") == 2
    assert file.read_text() == "mine"
    begin(own)
    manifest = own / "manifest.json"
    manifest.write_text(manifest.read_text().replace("comparison", "comparisoN"))
    refused(own, "manifest.json is damaged, or no manifest of spikedistill")


def test_epochs_without_a_quarter_are_refused_before_anything_is_trained(tmp_path, capsys):
    assert compare(tmp_path / "out", "digits-sce", "digits-twce", "--epochs", "6", "--two-budgets") == 2
    assert "expected 4, 8, 12" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_training_times_in_equal_time_and_the_places_that_both_agree_on(tmp_path, capfd):
    """A baseline that is taught has fewer epochs, and its teacher as many as before."""
    before, after = tmp_path / "before", tmp_path / "after"
    recipes = ["digits-skd", "digits-sce", "--seeds", "0", "--epochs", "4"]
    assert compare(before, *recipes) == 0
    file = before / "records.jsonl"
    lines = [line.partition(',"sha256":')[0] + "}" for line in file.read_text().splitlines()]
    timed = [json.loads(line) for line in lines]
    for line in timed:
        line["cost"] |= {"training_s": 8.0} | ({"teacher_s": 4.0} if "skd" in line["run"] else {})
        if "skd" in line["run"]:
            line["config"]["objective"]["options"]["alpha"] = 0.4  # as if it had been tuned
    file.write_text("".join(json.dumps(line) + "\n" for line in timed))
    (before / "manifest.json").unlink()
    for name in ("ann", "skd", "sce"):
        shutil.rmtree(before / f"digits-{name}")
    capfd.readouterr()
    after.mkdir()
    begin(after)
    columns = {"images_per_s": 100.0, "faster": 7, "slower": 0}
    speeds = [
        {"method": "digits-skd", "against_first": 1.0, **columns},
        {"method": "digits-sce", "against_first": 1.5, **columns},
    ]
    write_rows(after / "speeds.csv", speeds)
    assert compare(after, *recipes, "--equal-time", str(before), "--count-teacher", "--two-budgets") == 0
    assert "place" in capfd.readouterr().out
    assert [path.parent.name for path in sorted(after.rglob("speeds.csv"))] == ["after"], "which are measured once"
    for folder, epochs in ((after, 4), (after / "quarter", 1)):
        found = {name: int(row["epochs"]) for name, row in table(folder, "leaderboard.csv").items()}
        assert found["digits-skd"] == max(1, epochs // 2), "half of the time is the teacher's"
        assert found["digits-sce"] == round(1.5 * epochs), "it is faster by a half"
        records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
        assert [line["config"]["epochs"] for line in records if "ann" in line["run"]] == [epochs]
        weights = [line["config"]["objective"]["options"]["alpha"] for line in records if "skd" in line["run"]]
        assert weights == [0.4]
    rows, short = table(after, "leaderboard.csv"), table(after / "quarter", "leaderboard.csv")
    areas = [(float(of["digits-skd"]["area"]), float(of["digits-sce"]["area"])) for of in (rows, short)]
    agree = any(all(sign * skd > sign * sce for skd, sce in areas) for sign in (1, -1))
    width = {int(row["place_last"]) - int(row["place_first"]) for row in rows.values()}
    assert width == ({0} if agree else {1})
    assert "Largest regret" in (after / "report.html").read_text()


def test_taught_methods_that_need_different_teachers_are_refused(tmp_path, capsys):
    methods = "digits-skd", "digits-twkd,model.width=2"
    assert compare(tmp_path / "out", *methods, "--seeds", "0") == 2
    said = capsys.readouterr().err
    assert "would train different teachers (model.width" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_another_teacher_of_the_same_name_is_refused(tmp_path, capsys):
    teachers = [tmp_path / place / "ann" / "seed0" for place in ("one", "two", "three")]
    for seed, teacher in enumerate(teachers[:2]):
        train(quick("digits-ann", out=teacher, seed=seed))
    shutil.copytree(teachers[0], teachers[2])
    out, recipes = tmp_path / "out", ["digits-sce", "digits-skd", "--seeds", "0"]
    assert compare(out, *recipes, "--teacher", str(teachers[0])) == 0
    capsys.readouterr()
    assert compare(out, *recipes, "--teacher", str(teachers[1])) == 2
    assert "begun with other settings (teacher was" in capsys.readouterr().err
    assert compare(out, *recipes, "--teacher", str(teachers[2])) == 0, "a copy is the same"


def test_taught_methods_meet_every_teacher(tmp_path, capfd):
    taught = ["--seeds", "0", "--teacher-seeds", "3", "4"]
    assert compare(tmp_path, "digits-sce", "digits-skd", *taught) == 0
    capfd.readouterr()
    runs = sorted(path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*/results.json"))
    assert runs == [
        "digits-ann/seed3",
        "digits-ann/seed4",
        "digits-sce/seed0",
        "digits-skd/seed0",
        "digits-skd/seed0-teacher4",
    ]
    rows = list(csv.DictReader((tmp_path / "teachers.csv").read_text().splitlines()))
    assert [(row["method"], row["teacher_seed"]) for row in rows] == [("digits-skd", "3"), ("digits-skd", "4")]
    areas = [float(row["area"]) for row in rows]
    found = table(tmp_path, "leaderboard.csv")
    assert float(found["digits-skd"]["area"]) == pytest.approx(sum(areas) / 2)
    assert float(found["digits-skd"]["teacher_s"]) >= 0, "the first step of a run is not timed"
    assert "teacher_s" not in found["digits-sce"]
    shutil.rmtree(tmp_path / "digits-skd")
    assert compare(tmp_path, "digits-sce", "digits-skd", *taught) == 0, "the records are enough"
    assert "run 1" not in capfd.readouterr().out
    assert table(tmp_path, "leaderboard.csv") == found


def test_teachers_that_nobody_needs_are_refused(tmp_path, capsys):
    assert compare(tmp_path / "out", "digits-sce", "digits-twce", "--teacher-seeds", "1") == 2
    assert "no method needs one" in capsys.readouterr().err
