"""What can be told apart, and what cannot."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spikedistill.config import DataConfig
from spikedistill.evaluation import Comparison
from spikedistill.evaluation.comparison.differences import paired_difference
from spikedistill.evaluation.comparison.leaderboard import holm
from spikedistill.evaluation.comparison.records import LostRun, RunRecord
from spikedistill.evaluation.runs import agreement
from spikedistill.recipe_name import RecipeName
from spikedistill.recipes import recipe
from spikedistill.run_folder import RunFolder


def test_holm_by_hand():
    # sorted .01 .02 .04 times 3, 2, 1: .03, .04, .04
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def write_run(folder, T, right, beyond=(), teacher=None):
    """The record of a run of 4 samples and 2 classes, trained at T, of which so many are right after each k up to T, and beyond."""
    run = RunFolder(folder)
    run.path.mkdir(parents=True)
    run.config_file.write_text(recipe("digits-sce").model_copy(update={"timesteps": T, "epochs": 1}).to_yaml())
    run.metrics.write_text("epoch,loss\n1,0.5\n")
    lead = torch.tensor([[1.0 if n < count else -1.0 for n in range(4)] for count in right])
    lead = lead * 3.0 ** torch.arange(T)[:, None]  # each timestep outweighs those before it
    tensors = {"logits": torch.stack([lead, -lead], -1), "targets": torch.zeros(4, dtype=torch.int64)}
    if beyond:
        tensors["beyond_right"] = torch.tensor([[n < count for n in range(4)] for count in beyond]).to(torch.uint8)
    save_file(tensors, run.logits)
    single = [
        {"k": k, "accuracy": count / 4, "nll": 1.0, "ece": 0.0, "confidence": 0.5 + k / 10}
        for k, count in enumerate(right, 1)
    ]
    results = {"schema": 1, "timesteps": T, "last": {"ensemble": single, "single": single}}
    results["cost"] = {"images_per_s": 7.0}
    run.results.write_text(json.dumps(results | ({"teacher": teacher} if teacher else {})))
    return RunRecord.of(folder)


def test_networks_trained_at_other_timesteps_are_compared_at_every_k_up_to_the_longest(tmp_path):
    runs = {
        "specialist": [write_run(tmp_path / "a", 1, [2], beyond=[3, 1, 0, 0, 0, 0, 0])],
        "universal": [write_run(tmp_path / "b", 3, [1, 2, 4], beyond=[4, 4, 4, 4, 4])],
    }
    assert runs["specialist"][0].right.mean(1).tolist() == [0.5, 0.75, 0.25, 0, 0, 0, 0, 0]
    short, long = Comparison.of(runs).leaderboard
    assert [short[f"accuracy_{k}"] for k in (1, 2, 3)] == [50.0, 75.0, 25.0]
    assert [long[f"accuracy_{k}"] for k in (1, 2, 3)] == [25.0, 50.0, 100.0]
    assert "accuracy_4" not in long
    assert (short["timesteps"], long["timesteps"]) == (1, 3)
    assert (long["area_difference"], long["accuracy_3_difference"]) == pytest.approx((25 / 3, 75.0))


def test_what_one_network_loses_to_specialists_by_hand(tmp_path):
    runs = {
        "d-sce,timesteps=1": [write_run(tmp_path / "a", 1, [3], beyond=[3, 3, 3, 3, 3, 3, 3])],
        "d-sce": [write_run(tmp_path / "b", 2, [1, 4], beyond=[4, 4, 4, 4, 4, 4])],
        "d-twkd": [write_run(tmp_path / "c", 2, [2, 3], beyond=[4, 4, 4, 4, 4, 4])],
    }
    own, taught = Comparison.of(runs).regrets
    # who was trained at T=2 has 1 and 2 of 4 right where the specialist of k=1 has 3, and 4 and 3 where that of k=2 has 4
    assert (own["method"], own["specialists"]) == ("d-sce", "d-sce")
    assert own["regret_1"] == 50.0
    assert "regret_2" not in own  # it is its own specialist there
    assert (taught["method"], taught["regret_1"], taught["regret_2"]) == ("d-twkd", 25.0, 25.0)
    assert "regret_1_low" not in taught  # with one seed
    assert Comparison.of({name: runs[name] for name in ("d-sce", "d-twkd")}).regrets == []  # nobody specialised


def test_specialists_are_found_by_what_they_change_and_not_in_their_names(tmp_path):
    """Names hold the signs that they are put together with; the order of other settings does not matter."""

    def runs_of(**trained):
        return {
            RecipeName("my-data,timesteps=9", method, changes): [
                write_run(tmp_path / f"{place}-{T}", T, [2, 3][:T], beyond=[3] * (8 - T))
            ]
            for place, (T, (method, changes)) in enumerate(trained.values())
        }

    runs = runs_of(
        early=(1, ("s2w-x,timesteps=3", ["model.width=2", "timesteps=1", "epochs=3"])),
        late=(2, ("s2w-x,timesteps=3", ["epochs=3", "model.width=2"])),
        other=(1, ("s2w-x", ["epochs=3", "timesteps=1", "model.width=2"])),
        wider=(1, ("s2w-x,timesteps=3", ["epochs=3", "model.width=3"])),
    )
    (row,) = Comparison.of(runs).regrets
    assert row["method"] == "my-data,timesteps=9-s2w-x,timesteps=3,epochs=3,model.width=2"
    assert row["specialists"] == "my-data,timesteps=9-s2w-x,timesteps=3,model.width=2,epochs=3"
    assert (row["regret_1"], "regret_2" in row) == (0.0, False)


def test_a_comparison_knows_the_parts_of_its_methods_names(tmp_path):
    """Given as text, a name has the parts that the data set of its runs shows."""
    run = write_run(tmp_path / "a", 2, [1, 2])
    of_other = replace(run, config=run.config.model_copy(update={"data": DataConfig(name="my-data")}))
    found = Comparison.of({"my-data-s2w,epochs=3": [of_other], RecipeName("a", "b-c,d"): [run]})
    assert [(name.dataset, name.method, name.changes) for name in found.methods] == [
        ("my-data", "s2w", ("epochs=3",)),
        ("a", "b-c,d", ()),
    ]
    for table in found.tables.values():
        assert all(isinstance(row["method"], RecipeName) for row in table)


def test_a_run_that_was_not_evaluated_so_long_is_refused(tmp_path):
    runs = {"short": [write_run(tmp_path / "a", 1, [2])], "long": [write_run(tmp_path / "b", 3, [1, 2, 4])]}
    with pytest.raises(ValueError, match="spikedistill evaluate scores runs of earlier versions again"):
        Comparison.of(runs)


def test_agreement_with_a_teacher_by_hand(tmp_path):
    # the teacher answers 0 1 0 1 where 0 0 0 0 is right: two mistakes, of which the student (0 1 1 0) repeats one
    teacher, student = (torch.nn.functional.one_hot(torch.tensor(a), 2).float() for a in ([0, 1, 0, 1], [0, 1, 1, 0]))
    found = agreement(student, teacher, torch.zeros(4, dtype=torch.int64))
    assert found == {"accuracy": 0.5, "agreement": 0.5, "agreement_where_wrong": 0.5}
    perfect = agreement(student, teacher, torch.tensor([0, 1, 0, 1]))
    assert perfect == {"accuracy": 1.0, "agreement": 0.5, "agreement_where_wrong": None}
    runs = {
        "alone": [write_run(tmp_path / "a", 1, [2])],
        "taught": [
            write_run(tmp_path / "b", 1, [2], teacher=found),
            write_run(tmp_path / "c", 1, [2], teacher=perfect),
        ],
    }
    runs["alone"] *= 2
    alone, taught = Comparison.of(runs).leaderboard
    assert (taught["teacher_agreement"], taught["teacher_agreement_where_wrong"]) == (50.0, 50.0)
    assert "teacher_agreement" not in alone


def test_every_timestep_alone_is_a_mean_over_seeds(tmp_path):
    runs = {"a": [write_run(tmp_path / "a", 2, [1, 3]), write_run(tmp_path / "b", 2, [2, 4])]}
    (row,) = Comparison.of(runs).timesteps
    assert (row["accuracy_1"], row["accuracy_2"]) == (37.5, 87.5)
    assert (row["confidence_1"], row["confidence_2"]) == pytest.approx((60.0, 70.0))
    assert np.isnan(row["entropy_1"])


def lost(T=2, status="diverged", seed=1):
    config = recipe("digits-sce").model_copy(update={"timesteps": T, "epochs": 1, "seed": seed})
    return LostRun(config, status, "the loss is nan in step 3")


@pytest.fixture
def some_lost(tmp_path):
    """Three seeds of four methods: all finished, the second diverged, all diverged, the first and last not trained."""
    right = {
        "all": ([1, 2], [3, 4], [2, 2]),
        "one": ([2, 3], None, [4, 4]),
        "none": (None,) * 3,
        "second": (None, [4, 4], None),
    }
    return {
        name: [
            lost(status="not trained" if name == "second" else "diverged", seed=seed)
            if scores is None
            else write_run(tmp_path / name / f"seed{seed}", 2, scores)
            for seed, scores in enumerate(of_seeds)
        ]
        for name, of_seeds in right.items()
    }


def test_runs_that_diverged_are_counted_and_the_others_compared_by_hand(some_lost):
    rows = {row["method"]: row for row in Comparison.of(some_lost).leaderboard}
    counts = {name: (row["seeds"], row["diverged"], row["not_trained"]) for name, row in rows.items()}
    assert counts == {"all": (3, 0, 0), "one": (2, 1, 0), "none": (0, 3, 0), "second": (1, 0, 2)}
    assert (rows["all"]["accuracy_1"], rows["one"]["accuracy_1"]) == (50.0, 75.0)
    assert rows["one"]["accuracy_1_std"] == pytest.approx(np.std([50.0, 100.0], ddof=1))
    # seeds 0 and 2 of both: 2+3 and 4+4 of 8 against 1+2 and 2+2
    assert rows["one"]["area_difference"] == pytest.approx((25.0 + 50.0) / 2)
    assert rows["one"]["accuracy_2_difference"] == pytest.approx((25.0 + 50.0) / 2)
    # seed 1 of both: 4+4 of 8 against 3+4
    assert (rows["second"]["area"], rows["second"]["area_difference"]) == (100.0, 12.5)
    assert rows["none"] == {"method": "none", "seeds": 0, "diverged": 3, "not_trained": 0, "timesteps": 2, "epochs": 1}
    # two seeds in common, and one: no interval
    assert not [key for row in rows.values() for key in row if key.endswith(("_low", "_high", "_p"))]


def test_intervals_need_three_seeds_and_p_values_are_corrected_for_those_that_have_them(tmp_path):
    right = {
        "base": ([1, 2], [2, 2], [0, 3]),
        "better": ([2, 3], [4, 3], [3, 4]),
        "same": ([1, 2], [2, 3], [0, 2]),
        "few": ([2, 4], [4, 4], None),
    }
    runs = {
        name: [
            lost(seed=seed) if scores is None else write_run(tmp_path / name / f"seed{seed}", 2, scores)
            for seed, scores in enumerate(of_seeds)
        ]
        for name, of_seeds in right.items()
    }
    rows = {row["method"]: row for row in Comparison.of(runs).leaderboard}
    found = {}
    for name in ("better", "same"):
        answers = [np.stack([run.right.mean(0) for run in runs[method]]) for method in (name, "base")]
        found[name] = paired_difference(*answers)
        for key in ("difference", "low", "high", "test_set_low", "test_set_high"):
            assert rows[name][f"area_{key}"] == pytest.approx(100 * found[name][key])
    assert [rows[name]["area_p"] for name in found] == pytest.approx(holm([entry["p"] for entry in found.values()]))
    assert "area_difference" in rows["few"]
    assert "area_p" not in rows["few"]


def test_where_the_baseline_diverged_nothing_is_compared_with_it(some_lost):
    for row in Comparison.of({"none": some_lost["none"]} | some_lost).leaderboard:
        assert not [key for key in row if key.endswith(("_difference", "_low", "_high", "_p"))]
    # nor with one that has no seed in common
    only = {"second": some_lost["second"], "one": some_lost["one"]}
    assert "area_difference" not in Comparison.of(only).leaderboard[1]


def test_without_a_lost_run_there_are_no_columns_for_them(tmp_path):
    runs = {name: [write_run(tmp_path / name, 2, [1, 2])] for name in ("a", "b")}
    found = Comparison.of(runs)
    assert not {"diverged", "not_trained"} & found.leaderboard[0].keys()
    assert not {"status", "reason"} & found.runs[0].keys()


def test_every_run_says_what_became_of_it(some_lost):
    rows = Comparison.of(some_lost).runs
    assert [(row["method"], row["seed"]) for row in rows[3:9:2]] == [("one", 0), ("one", 0), ("none", 1)]
    assert [row["status"] for row in rows] == [
        *["finished"] * 3,
        *("finished", "diverged", "finished"),
        *["diverged"] * 3,
        *("not trained", "finished", "not trained"),
    ]
    assert rows[4] == {"method": "one", "seed": 1, "status": "diverged", "reason": "the loss is nan in step 3"}
    assert (rows[3]["accuracy_2"], rows[3]["loss"]) == (75.0, "0.5")


def test_what_is_shown_beside_the_leaderboard_is_of_finished_runs(some_lost):
    found = Comparison.of(some_lost)
    assert {row["method"]: row["accuracy_1"] for row in found.timesteps} == {"all": 50.0, "one": 75.0, "second": 100.0}
    assert (found.chosen, found.published) == ([], [])
    assert (found.baseline, found.seeds, found.longest) == ("all", 3, 2)


def test_a_specialist_that_diverged_has_no_regret(tmp_path):
    runs = {
        "d-sce,timesteps=1": [lost(T=1)],
        "d-sce": [write_run(tmp_path / "b", 2, [1, 4])],
        "d-twkd": [write_run(tmp_path / "c", 2, [2, 3])],
    }
    assert Comparison.of(runs).regrets == []
    specialist = write_run(tmp_path / "a", 1, [3], beyond=[3])
    apart = {"d-sce,timesteps=1": [specialist, lost()], "d-sce": [lost(), runs["d-sce"][0]]}
    assert Comparison.of(apart).regrets == [], "no seed of both"


def test_seeds_that_are_missing_are_not_taken_for_others(some_lost):
    with pytest.raises(ValueError, match="methods can be compared over the same seeds"):
        Comparison.of(some_lost | {"one": some_lost["one"][:2]})
