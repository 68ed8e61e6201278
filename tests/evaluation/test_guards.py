"""What stands beside accuracy, so that a comparison is not read wrongly: numbers by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from quick_runs import quick

from spikedistill.comparisons.equal_time import teacher_shares
from spikedistill.errors import UserError
from spikedistill.evaluation import Comparison
from spikedistill.evaluation.comparison.guards import places
from spikedistill.evaluation.comparison.leaderboard import finished
from spikedistill.evaluation.comparison.records import LostRun, RunRecord
from spikedistill.evaluation.comparison.teachers import every_teacher, over_teachers, teacher_spread
from spikedistill.evaluation.results import Agreement, Scores
from spikedistill.recipes import recipe
from spikedistill.report.comparison.headline import verdict
from spikedistill.run_folder import RunFolder
from spikedistill.training import train


def record(right, loss=0.5, teacher_s=None) -> RunRecord:
    """A run of 4 samples at T = len(right), of which so many are right after each k."""
    T = len(right)
    entries = [
        {"k": k, "accuracy": count / 4, "nll": 1.0, "ece": 0.0, "confidence": 0.5} for k, count in enumerate(right, 1)
    ]
    return RunRecord(
        config=recipe("digits-sce").model_copy(update={"timesteps": T, "epochs": 1}),
        results=Scores.model_validate({"ensemble": entries, "single": entries}),
        cost={} if teacher_s is None else {"teacher_s": teacher_s},
        metrics=[{"epoch": "1", "train_accuracy": "0.9", f"ce_prefix_{T}": str(loss)}],
        right=np.array([[n < count for n in range(4)] for count in right]),
        teacher=Agreement(),
    )


def test_the_worst_k_the_training_loss_and_the_time_of_the_teacher():
    first, second = Comparison.of(
        {"a": [record([1, 4], 0.5), record([1, 4], 1.0)], "b": [record([3, 3], 2.0, 7.0), record([3, 3], 2.0, 9.0)]}
    ).leaderboard
    # a is 25 and 100, b is 75 and 75 percent: each is best at one k
    assert (first["largest_regret"], second["largest_regret"]) == (50.0, 25.0)
    assert (first["train_loss"], second["train_loss"]) == (0.75, 2.0)
    assert "teacher_s" not in first
    assert second["teacher_s"] == 8.0


def test_one_method_is_before_another_only_where_both_training_times_say_so():
    long, short = {"a": 3.0, "b": 2.0, "c": 1.0, "d": 0.0}, {"a": 3.0, "b": 1.0, "c": 2.0, "d": 0.0}
    assert places([long, short]) == {"a": (1, 1), "b": (2, 3), "c": (2, 3), "d": (4, 4)}
    assert places([long]) == {"a": (1, 1), "b": (2, 2), "c": (3, 3), "d": (4, 4)}
    assert places([long, {"c": 5.0, "d": 6.0}]) == {"c": (1, 2), "d": (1, 2)}, "no run of the others at both"
    assert places([{"a": 1.0, "b": 1.0}]) == {"a": (1, 2), "b": (1, 2)}, "equal ones share their places"


def test_a_comparison_has_places_if_it_was_made_at_two_training_times():
    short = Comparison.of({"a": [record([2, 2])], "b": [record([3, 3])], "c": [record([1, 1])]})
    long = Comparison.of({"a": [record([4, 4])], "b": [record([3, 3])], "c": [record([1, 1])]}, shorter=short)
    found = [(row["place_first"], row["place_last"]) for row in long.leaderboard]
    assert found == [(1, 2), (1, 2), (3, 3)]
    assert verdict(long.leaderboard).startswith(
        "Which method is best in the mean over k depends on how long it is trained: a"
    )
    lost = LostRun(record([1, 1]).config, "diverged", "the loss is nan")
    unknown = Comparison.of({"a": [lost], "b": [record([1, 1])], "c": [record([2, 2])]})
    found = Comparison.of({"a": [record([4, 4])], "b": [record([3, 3])], "c": [record([1, 1])]}, shorter=unknown)
    assert verdict(found.leaderboard).startswith(
        "Which method is best in the mean over k is not known: a leads after all"
    )
    same = Comparison.of({"a": [record([4, 4])], "b": [record([3, 3])]}, shorter=long)
    assert verdict(same.leaderboard).startswith("No method is better in the mean over k than the baseline, a")
    assert "place_first" not in short.leaderboard[0]


def test_runs_with_several_teachers_are_one_run_of_their_mean():
    one, other = record([1, 2]), record([3, 4])
    (merged,) = over_teachers([[one], [other]])
    assert merged.right.mean(1).tolist() == [0.5, 0.75]
    assert merged.right[0].tolist() == [1.0, 0.5, 0.5, 0.0]
    lost = LostRun(one.config, "diverged", "the loss is nan")
    assert over_teachers([[one, one], [other, lost]])[1] is lost, (
        "a seed with fewer teachers is not compared with others"
    )
    assert over_teachers([[one], [lost]]) == [one], "a teacher that diverged is left out"
    assert over_teachers([[lost], [replace(lost, reason="another")]]) == [lost]


def test_every_number_of_them_is_a_mean_over_teachers():
    one, other = record([1, 2], 0.5, 7.0), record([3, 4], 1.5, 9.0)
    (merged,) = over_teachers([[one], [other]])
    assert merged.cost == {"teacher_s": 8.0}
    assert merged.metrics == [{"epoch": "1", "train_accuracy": "0.9", "ce_prefix_2": "1.0"}]
    assert [score.accuracy for score in merged.results.single] == [0.5, 0.75]
    assert [score.k for score in merged.results.single] == [1, 2]
    board = Comparison.of({"a": [record([2, 2])], "b": [merged]}).leaderboard
    assert (board[1]["train_loss"], board[1]["teacher_s"]) == (1.0, 8.0)


def test_how_much_a_teacher_changes_a_method():
    crossed = {"b": {0: [record([1, 2]), record([1, 4])], 5: [record([3, 4]), record([3, 4])]}}
    rows = every_teacher(crossed)
    assert rows == [
        {"method": "b", "teacher_seed": 0, "seeds": 2, "accuracy_1": 25.0, "accuracy_2": 75.0, "area": 50.0},
        {"method": "b", "teacher_seed": 5, "seeds": 2, "accuracy_1": 75.0, "accuracy_2": 100.0, "area": 87.5},
    ]
    assert teacher_spread(rows) == {"b": pytest.approx(37.5 / np.sqrt(2))}
    lost = LostRun(record([1, 2]).config, "diverged", "the loss is nan")
    half = {"b": {0: crossed["b"][0], 5: [lost, record([3, 4])]}}
    assert [(row["seeds"], row["area"]) for row in every_teacher(half)] == [(1, 62.5), (1, 87.5)], "of the same seeds"
    none = {"b": {0: crossed["b"][0], 5: [lost, lost]}}
    assert [(row["seeds"], row.get("area")) for row in every_teacher(none)] == [(0, None), (2, 50.0)]
    assert teacher_spread(every_teacher(none)) == {}
    merged = over_teachers([*crossed["b"].values()])
    found = Comparison.of({"a": [record([2, 2])] * 2, "b": merged}, crossed=crossed)
    alone, taught = found.leaderboard
    assert taught["area"] == pytest.approx((50.0 + 87.5) / 2)
    assert taught["area_teacher_std"] == pytest.approx(37.5 / np.sqrt(2))
    assert "area_teacher_std" not in alone
    assert found.tables["teachers.csv"] == rows
    assert len(finished(found.methods)) == 2


def test_the_share_of_the_time_that_a_teacher_takes():
    configs = [recipe("digits-sce"), recipe("digits-skd")]
    own = [replace(record([2]), cost={"training_s": seconds}) for seconds in (10.0, 12.0, 14.0)]
    taught = [replace(record([2]), cost={"training_s": 12.0, "teacher_s": 3.0})] * 3
    assert teacher_shares(configs, [own, taught]) == [0.0, 0.25]
    with pytest.raises(UserError, match=r"1\.00 times as long as digits-sce"):
        teacher_shares(configs, [own, [replace(record([2]), cost={"teacher_s": 12.0})]])
    with pytest.raises(UserError, match="no teacher_s of digits-skd"):
        teacher_shares(configs, [own, own])
    begun = [configs[0], configs[0].model_copy(update={"init_from": Path("ann")})]
    assert teacher_shares(begun, [own, taught]) == [0.0, 0.25], "what a run starts from counts too"
    with pytest.raises(UserError, match="no teacher_s of digits-sce"):
        teacher_shares(begun, [own, own])


def test_the_seconds_of_a_teacher_and_of_what_a_run_starts_from_are_those_of_their_runs(tmp_path):
    ann, other = (train(quick("digits-ann", out=tmp_path / name, epochs=1)) for name in ("ann", "other"))
    seconds = {run: RunFolder(run).read_cost()["training_s"] for run in (ann, other)}
    for number, (teacher, start, expected) in enumerate(
        [
            (ann, None, seconds[ann]),
            (None, ann, seconds[ann]),
            (None, ann / "model.safetensors", seconds[ann]),
            (ann, ann, seconds[ann]),
            (ann, other, seconds[ann] + seconds[other]),
            (None, None, None),
        ]
    ):
        method = "digits-sce" if teacher is None else "digits-skd"
        run = train(quick(method, out=tmp_path / f"run{number}", epochs=1, teacher=teacher, init_from=start))
        assert RunRecord.of(run).cost.get("teacher_s") == (expected and pytest.approx(expected))
    RunFolder(ann).cost.unlink()
    assert "teacher_s" not in RunRecord.of(tmp_path / "run4").cost, "a part is not the whole"
