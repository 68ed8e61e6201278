"""The search for a recipe of our own: which ingredients are tried, what is kept, and that all methods have as many trials."""

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from benchmarks import ours
from benchmarks.ours import GRIDS, TAUGHT, TRIALS, best, grid, missing, scores, singles, study, to_markdown, trial, walk
from benchmarks.plans import Plan

from spikedistill.comparisons.side_by_side import fresh_processes
from spikedistill.objectives import list_objectives

PREFIX, SUM, HALF, LEARNED = (
    "the loss of every prefix",
    "the sum of right timesteps teaches",
    "membranes begin at half the threshold",
    "membranes begin where they learn to",
)


def _alone(**gains):
    """Accuracies of the ingredients alone: 90, and these gains."""
    of = {"prefix": PREFIX, "sum": SUM, "half": HALF, "learned": LEARNED, "taught": TAUGHT}
    gains = {of[name]: gain for name, gain in gains.items()}
    return {trial(names): 90 + (gains.get(names[0], -1) if names else 0) for names in singles(True)}


def test_the_methods_that_ours_is_compared_with_have_as_many_trials():
    assert {method: len(set(grid(method))) for method in GRIDS} == dict.fromkeys(GRIDS, TRIALS)
    assert "twkd,objective.options.alpha=0.2,objective.options.beta=0.5,objective.options.temperature=3" in grid("twkd")


def test_ingredients_are_added_in_the_order_of_what_they_gain_alone_and_kept_where_they_raise_the_mean():
    found = _alone(half=2, sum=1, prefix=0.5)
    assert walk(found, False) == ((HALF,), (HALF, SUM))
    found[trial((HALF, SUM))] = 91.9
    assert walk(found, False) == ((HALF,), (HALF, PREFIX)), "less than without it"
    found[trial((HALF, PREFIX))] = 92.1
    assert walk(found, False) == ((HALF, PREFIX), None)


def test_two_ingredients_that_set_the_same_are_never_tried_together():
    assert walk(_alone(half=2, learned=1), False) == ((HALF,), None)


def test_pairs_that_training_refuses_cost_no_trial():
    """Which these are, of all pairs, is what planning a run says, in a process of its own that registers names."""
    code = """
import itertools
from benchmarks import ours
from spikedistill.errors import UserError
from spikedistill.recipes.settings import variant
from spikedistill.run_folder import dataset_of
from spikedistill.training.combinations import check_mixed_timesteps, check_together, objective_of

ours.register()
data = dataset_of(variant("digits-sce", ()))
for count in (1, 2):
    for names in itertools.combinations(ours.INGREDIENTS, count):
        settings = [setting.split("=")[0] for name in names for setting in ours.INGREDIENTS[name].split(",")]
        refused = len({*settings}) < len(settings)
        try:
            config = variant("digits-" + ours.trial(names), ())
            check_together(config, objective := objective_of(config))
            check_mixed_timesteps(config, objective, data)
        except UserError:
            refused = True
        assert refused == ours._clash(names), names
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_walk_ends_when_there_were_as_many_trials_as_for_others(monkeypatch):
    monkeypatch.setattr(ours, "TRIALS", len(singles(False)) + 1)
    found = _alone(half=2, sum=1, prefix=0.5) | {trial((HALF, SUM)): 91.0}
    assert walk(found, False) == ((HALF,), None)


def test_only_one_track_may_be_taught():
    found = _alone(taught=3, half=1)
    assert walk(found, False) == ((HALF,), None)
    assert walk(found, True) == ((TAUGHT,), (TAUGHT, HALF))
    everything = found | {method: 0.0 for each in GRIDS for method in grid(each)}
    assert missing(everything) == [trial((TAUGHT, HALF))]


def test_a_trial_that_diverges_is_none_that_is_chosen(tmp_path):
    plan = Plan(Path(), tmp_path, "digits", (0,), 200, 3, 1)
    with ProcessPoolExecutor(1, mp_context=fresh_processes()) as pool:  # the name of the objective stays in it
        row = pool.submit(ours._tried, plan, "twce,optimizer.lr=1e25", 0, tmp_path / "teacher").result()
    assert row["accuracy"] is None
    assert "became NaN or infinite" in row["refused"]
    assert scores([row], (0,))["twce,optimizer.lr=1e25"] < 0


def test_a_study_goes_on_from_its_file(tmp_path, monkeypatch, capsys, fresh_names):
    chosen = {name: ours.INGREDIENTS[name] for name in (PREFIX, HALF, TAUGHT)}
    monkeypatch.setattr(ours, "INGREDIENTS", chosen)
    monkeypatch.setattr(ours, "GRIDS", {"s2w": {"weight": (0.5, 1)}})
    monkeypatch.setattr(ours, "TRIALS", 5)
    assert "ingredients" not in list_objectives(), "a name of the study alone"
    plan, file = Plan(Path(), tmp_path / "runs", "digits", (100,), 300, 12, 2), tmp_path / "ours.jsonl"
    found = study(plan, file, "a command")
    assert [run["refused"] for run in found if "refused" in run] == []
    assert all(len(run["accuracy"]) == 4 for run in found)
    assert max(scores(found, plan.seeds).values()) > 50, "networks that fire"
    table = to_markdown(found, plan.seeds)
    assert [name in table for name in chosen] == [True] * 3
    assert set(best(found, plan.seeds)) == {"ours", "ours-taught", "s2w"}

    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:-1]) + "\n")
    capsys.readouterr()
    again = study(plan, file, "a command")
    assert capsys.readouterr().out.count("seed") == 1, "the rest was done"
    assert to_markdown(again, plan.seeds) == table
    with pytest.raises(ValueError, match="choose another --out"):
        study(plan._replace(epochs=3), file, "a command")
