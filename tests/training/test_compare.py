"""Several methods and seeds, trained once and compared as often as one likes."""

import csv
from pathlib import Path

import pytest

from spikedistill.cli import main
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
    assert float(rows[1]["area"]) == pytest.approx((float(rows[1]["accuracy_1"]) + float(rows[1]["accuracy_2"])) / 2)
    assert float(rows[1]["area_difference"]) == pytest.approx(float(rows[1]["area"]) - float(rows[0]["area"]))


def test_a_comparison_of_one_is_refused(tmp_path, capsys):
    assert compare(tmp_path / "out", "digits-sce") == 2
    assert "two or more different recipes" in capsys.readouterr().err
