"""Several methods and seeds, trained once and compared as often as one likes."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spikedistill.cli import main
from spikedistill.recipes import recipe
from spikedistill.run_folder import RunFolder
from spikedistill.training.compare import in_equal_time

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
    arguments = [
        "compare",
        "--recipes",
        *recipes,
        "--seeds",
        "0",
        "1",
        "--out",
        str(out),
        "--trainer.no-progress",
        *SMALL,
    ]
    return main(arguments)


def test_a_second_invocation_trains_nothing_and_prints_the_same_table(tmp_path, capfd):
    assert compare(tmp_path, "digits-sce", "digits-twkd") == 0
    first = capfd.readouterr().out
    # an ANN to teach, and two recipes with two seeds
    assert first.count("run ") == 5
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
        100 * RunFolder(tmp_path / "digits-twkd" / f"seed{k}").read_results()["last"]["ensemble"][1]["accuracy"]
        for k in (0, 1)
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
    assert f"spikedistill compare --recipes digits-sce digits-twkd --seeds 0 1 --out {tmp_path}" in page
    assert 'href="./digits-twkd/seed1/report.html"' in page
    assert "digits-twkd & $" in (tmp_path / "leaderboard.tex").read_text()
    assert (tmp_path / "accuracy.pdf").read_bytes().startswith(b"%PDF")
    assert float(rows[1]["area"]) == pytest.approx((float(rows[1]["accuracy_1"]) + float(rows[1]["accuracy_2"])) / 2)
    assert float(rows[1]["area_difference"]) == pytest.approx(float(rows[1]["area"]) - float(rows[0]["area"]))


def test_a_comparison_of_one_is_refused(tmp_path, capsys):
    assert compare(tmp_path / "out", "digits-sce") == 2
    assert "two or more different recipes" in capsys.readouterr().err


def test_a_recipe_can_take_part_in_variants(tmp_path, capfd):
    assert compare(tmp_path, "digits-rate", "digits-rate,segments=2,objective.name=twce") == 0
    run = RunFolder(tmp_path / "digits-rate,segments=2,objective.name=twce" / "seed1").config()
    assert (run.segments, run.objective.name, run.seed) == (2, "twce", 1)
    assert "rate,segments=2" in capfd.readouterr().out.replace("\n", "")


def test_networks_trained_at_other_timesteps_take_part(tmp_path):
    assert compare(tmp_path, "digits-sce,timesteps=1", "digits-twce") == 0
    rows = list(csv.DictReader((tmp_path / "leaderboard.csv").read_text().splitlines()))
    assert [(row["timesteps"], "accuracy_2" in row, "accuracy_3" in row) for row in rows] == [
        ("1", True, False),
        ("2", True, False),
    ]


def test_in_equal_time_a_faster_method_gets_more_epochs(tmp_path):
    recipes = [recipe("digits-sce"), recipe("digits-rate"), recipe("digits-esd")]
    configs = [config.model_copy(update={"epochs": 10}) for config in recipes]
    for config, speeds in zip(configs, ((60, 100), (250, 20), (4, 4)), strict=True):
        for seed, speed in enumerate(speeds):
            run = RunFolder(tmp_path / config.recipe / f"seed{seed}")
            run.path.mkdir(parents=True)
            run.cost.write_text(json.dumps({"images_per_s": speed, "peak_mib": 1.0}))
            run.config_file.write_text(config.to_yaml())
            run.model.touch()
    # 10 epochs at 100 images/s, the undisturbed run: 25 at 250, and at 4 not less than one
    assert [config.epochs for config in in_equal_time(configs, [0, 1], tmp_path)] == [10, 25, 1]
    with pytest.raises(FileNotFoundError, match="seed2"):
        in_equal_time(configs, [0, 2], tmp_path)


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
