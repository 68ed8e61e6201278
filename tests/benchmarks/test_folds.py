"""Cross-validation on N-MNIST: folds, the interval of a difference, and the figures on the page."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from benchmarks import folds
from benchmarks.folds import METHODS, difference, to_markdown, write_folds

DOCS = Path(__file__).parents[2] / "docs"


def test_every_recording_is_tested_on_once_and_digits_are_spread(tmp_path):
    for number in range(40):
        place = tmp_path / "data" / "N-MNIST" / ("Test" if number % 5 == 0 else "Train") / str(number % 4)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:05d}.bin").write_bytes(bytes([number]))
    folds = write_folds(tmp_path / "data", tmp_path / "folds")
    assert len(folds) == 10
    tested = []
    for fold in folds:
        train, test = (
            sorted(path.name for path in (fold / "N-MNIST" / part).glob("*/*.bin")) for part in ("Train", "Test")
        )
        assert sorted(train + test) == [f"{number:05d}.bin" for number in range(40)]
        assert len({path.parent.name for path in (fold / "N-MNIST" / "Test").glob("*/*.bin")}) == 4
        tested += test
    assert sorted(tested) == [f"{number:05d}.bin" for number in range(40)]
    assert write_folds(tmp_path / "data", tmp_path / "folds") == folds
    with pytest.raises(FileNotFoundError, match="holds no recordings"):
        write_folds(tmp_path / "none", tmp_path / "other")


def test_the_interval_of_a_difference_by_hand():
    ours, theirs = np.array([3.0, 5, 4, 8]), np.array([1.0, 4, 4, 5])
    found = difference(ours, theirs)
    each = [2, 1, 0, 3]  # mean 1.5, s^2 = 5/3
    error = math.sqrt((1 / 4 + 1 / 3) * 5 / 3)
    assert found["difference"] == 1.5
    assert found["high"] - 1.5 == pytest.approx(3.182446 * error, rel=1e-6)  # t of 3 degrees at 0.975
    assert found["least"] == pytest.approx((3.182446 + 0.978472) * error, rel=1e-5)
    assert difference(ours, ours)["p"] == 1
    assert np.var(each, ddof=1) == pytest.approx(5 / 3)


@pytest.mark.parametrize("T", [5, 10])
def test_the_figures_on_the_page_are_those_of_the_study(T):
    found = json.loads((DOCS / "studies" / f"nmnist_folds_T{T}.json").read_text())
    assert len(found["runs"]) == 10 * 3 * len(METHODS)
    assert {run["tested"] for run in found["runs"]} == {110}
    page = (DOCS / "results.md").read_text().split("## N-MNIST, ten folds")[1].split("\n## ")[0].replace("−", "-")
    accuracies, differences, exits = to_markdown(found).split("\n\n")
    for row in accuracies.splitlines()[2:]:
        assert row.split(" | ", 1)[1] in page
    for row in differences.splitlines()[2:]:
        _, _, span, _, least = (cell.strip() for cell in row.strip("|").split("|"))
        assert f"{span} | {least} |" in page
    if T == 10:
        for row in exits.splitlines()[2:]:
            assert row.split(" | ", 1)[1] in page


def test_a_study_goes_on_fold_by_fold_from_its_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(folds, "_FOLDS", 2)
    dice = np.random.default_rng(0)
    for number in range(40):
        events = np.zeros((30, 5), np.uint8)
        events[:, :2] = dice.integers(0, 34, (30, 2))
        events[:, 3] = np.arange(30)  # microseconds times 256
        place = tmp_path / "data" / "N-MNIST" / "Train" / str(number % 10) / f"{number:05d}.bin"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(events.tobytes())
    made, file = write_folds(tmp_path / "data", tmp_path / "folds"), tmp_path / "folds.json"
    plan = folds.Plan(2, 1, (0,), 1, ("sce", "twce"))
    assert "CPU hours: 4 runs" in folds.budget(made, plan)
    whole = folds.study(made, tmp_path / "runs", plan, file, "a command")
    assert [(run["fold"], run["method"]) for run in whole["runs"]] == [
        (0, "sce"), (0, "twce"), (1, "sce"), (1, "twce"),
    ]  # fmt: skip
    assert {run["tested"] for run in whole["runs"]} == {20}

    kept = json.loads(file.read_text())
    kept["runs"] = [run for run in kept["runs"] if run["fold"] == 0]
    file.write_text(json.dumps(kept))
    shutil.rmtree(tmp_path / "runs")
    capsys.readouterr()
    again = folds.study(made, tmp_path / "runs", plan, file, "a command")
    assert again["runs"] == whole["runs"]
    assert [path.name for path in (tmp_path / "runs" / "T2").iterdir()] == ["fold1"], (
        "the other fold is not trained again"
    )
    with pytest.raises(ValueError, match="choose another --out"):
        folds.study(made, tmp_path / "runs", plan._replace(epochs=2), file, "a command")
