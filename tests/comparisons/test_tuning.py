"""The same tuning budget for every method: its weights times 0.5, 1 and 2, and held-out samples to judge them."""

import csv

import pytest
from quick_runs import quick

from spikedistill.cli import main
from spikedistill.comparisons import compare
from spikedistill.comparisons.equal_time import finished_there, with_weights_of
from spikedistill.comparisons.tuning import choose, trials
from spikedistill.recipes import recipe
from spikedistill.run_folder import RunFolder


def weights(config):
    """The weights that are tried, by factor."""
    return {factor: trial.objective.options for factor, trial in trials(config, seed=3).items()}


def test_all_weights_of_a_method_are_multiplied_and_nothing_else():
    tried = weights(recipe("digits-twkd"))
    others = {"temperature": 3.0, "teacher": "ensemble"}
    assert tried == {
        1.0: {"alpha": 0.2, "beta": 0.5, **others},
        0.5: {"alpha": 0.1, "beta": 0.25, **others},
        2.0: {"alpha": 0.4, "beta": 1.0, **others},
    }


def test_a_trial_is_the_run_of_one_seed_with_a_tenth_held_out():
    trial = trials(recipe("digits-etc"), seed=3)[2.0]
    assert (trial.recipe, trial.seed, trial.data.holdout) == ("digits-etc,weights=2", 3, 0.1)
    own = quick("digits-etc")
    own = own.model_copy(update={"data": own.data.model_copy(update={"holdout": 0.25})})
    assert trials(own, seed=0)[0.5].data.holdout == 0.25


@pytest.mark.parametrize(
    "name", ["digits-sce", "digits-twce", "digits-prefix", "digits-ann", "digits-rate", "digits-sltt"]
)
def test_a_method_without_weights_is_not_tuned(name):
    assert trials(recipe(name), seed=0) == {}


def test_a_weight_of_zero_stays_zero():
    assert (
        trials(
            quick(
                "digits-skd", objective=recipe("digits-skd").objective.model_copy(update={"options": {"alpha": 0.0}})
            ),
            0,
        )
        == {}
    )


def test_a_factor_that_the_objective_refuses_is_left_out():
    # label smoothing of 0.6 doubled would be above 1
    config = recipe("digits-label-smoothing")
    config = config.model_copy(update={"objective": config.objective.model_copy(update={"options": {"epsilon": 0.6}})})
    assert sorted(trials(config, seed=0)) == [0.5, 1.0]


def test_the_best_mean_over_k_on_held_out_samples_is_chosen():
    config = recipe("digits-etc")
    chosen, rows = choose(config, trials(config, seed=0), {0.5: 62.5, 1.0: 75.0, 2.0: 70.0})
    assert (chosen.recipe, chosen.objective.options["weight"], chosen.data.holdout) == ("digits-etc", 1.0, 0.0)
    assert [(row["factor"], row["heldout_area"], row["chosen"]) for row in rows] == [
        (0.5, 62.5, False),
        (1.0, 75.0, True),
        (2.0, 70.0, False),
    ]
    assert rows[0]["weights"] == "weight=0.5"
    assert (
        choose(config, trials(config, seed=0), {0.5: 62.5, 1.0: 60.0, 2.0: 62.6})[0].objective.options["weight"] == 2.0
    )


def test_of_equal_ones_the_published_weight_stays():
    config = recipe("digits-etc")
    equal = dict.fromkeys((0.5, 1.0, 2.0), 75.0)
    assert choose(config, trials(config, seed=0), equal)[0].objective.options["weight"] == 1.0


def test_a_comparison_tunes_trains_with_what_was_chosen_and_repeats_nothing(tmp_path, capfd):
    configs = [quick(f"digits-{name}", timesteps=2) for name in ("sce", "etc")]
    first = compare(configs, [0], tmp_path, tune=True).leaderboard
    assert capfd.readouterr().out.count("run ") == 3 + 2
    rows = list(csv.DictReader((tmp_path / "tuning.csv").read_text().splitlines()))
    assert [(row["method"], row["factor"]) for row in rows] == [("digits-etc", f) for f in ("0.5", "1.0", "2.0")]
    (best,) = (row for row in rows if row["chosen"] == "True")
    assert float(best["heldout_area"]) == max(float(row["heldout_area"]) for row in rows)
    trained = RunFolder(tmp_path / "digits-etc" / "seed0").config()
    assert best["weights"] == f"weight={trained.objective.options['weight']:g}"
    assert trained.data.holdout == 0.0
    assert compare(configs, [0], tmp_path, tune=True).leaderboard == first
    assert "run " not in capfd.readouterr().out
    # at equal time the weights stay
    changed = trained.model_copy(
        update={"objective": trained.objective.model_copy(update={"options": {"weight": 7.0}})}
    )
    RunFolder(tmp_path / "digits-etc" / "seed0").begin(changed)
    found = with_weights_of(configs, finished_there(configs, [0], tmp_path, 0))
    assert found[1].objective.options["weight"] == 7.0


def test_tuning_anew_at_equal_time_is_refused(tmp_path, capsys):
    arguments = ["compare", "--recipes", "digits-sce", "digits-etc", "--out", str(tmp_path / "a"), "--tune"]
    assert main([*arguments, "--equal-time", str(tmp_path)]) == 2
    assert "takes the weights that were tuned in its folder: leave --tune out" in capsys.readouterr().err
