"""Cross-validation on N-MNIST: folds, the interval of a difference, and the figures on the page."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
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
