"""What early exit saves: figures worked by hand, and the command on a real run."""

import json

import pytest
import torch
from benchmarks.__main__ import main
from benchmarks.exits import exit_row
from quick_runs import quick

from spikedistill import load
from spikedistill.data import as_network_input, load_dataset
from spikedistill.evaluation import POLICIES, AnytimeClassifier
from spikedistill.training import train


def two_classes(*margins):
    """Logits `[T, N, 2]` of which class 0 leads by these margins, a list for each timestep."""
    lead = torch.tensor(margins)
    return torch.stack([lead / 2, -lead / 2], -1)


def test_a_row_worked_by_hand():
    saved = {
        # p of the first answers is 1 / (1 + exp(-4)) = 0.98201 and 1 / (1 + exp(-1)) = 0.731, the latter of a wrong one
        "holdout_logits": two_classes([4.0, -1.0], [4.0, 5.0]),
        "holdout_targets": torch.tensor([0, 0]),
        # 0.998 of a wrong answer, so this one leaves; 0.953, 0.622 and 0.881 stay
        # right at t=1 are the last two, at t=2 all but the third
        "logits": two_classes([-6.0, -3.0, 0.5, 2.0], [10.0, 5.0, -4.0, 2.0]),
        "targets": torch.tensor([0, 0, 0, 0]),
    }
    row = exit_row(saved, "confidence", max_drop=0.0)
    assert row["threshold"] == pytest.approx(0.98201, abs=1e-5)  # the lowest under which the wrong one stays
    assert (row["heldout_drop"], row["heldout_mean_exit"]) == (0.0, 1.5)
    assert (row["leaving"], row["mean_exit"]) == ([0.25, 0.75], 1.75)
    assert (row["accuracy"], row["accuracy_of_all"], row["drop"]["difference"]) == (50.0, 75.0, 25.0)
    # a quarter of the samples after one timestep, where 50 percent are right, the others after two
    assert row["accuracy_of_fixed"] == 0.25 * 50 + 0.75 * 75
    assert row["gain_over_fixed"]["difference"] == 50 - 68.75


def test_where_all_samples_run_to_the_end_nothing_is_lost():
    logits = two_classes([-1.0, -1.0], [5.0, 5.0])
    targets = torch.tensor([0, 0])
    saved = {"holdout_logits": logits, "holdout_targets": targets, "logits": logits, "targets": targets}
    row = exit_row(saved, "margin", max_drop=0.0)
    assert (row["mean_exit"], row["accuracy"], row["accuracy_of_fixed"]) == (2.0, 100.0, 100.0)
    assert row["drop"] == {"difference": 0.0, "low": 0.0, "high": 0.0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    config = quick("digits-twsd", out=tmp_path_factory.mktemp("exits") / "run")
    return train(config.model_copy(update={"data": config.data.model_copy(update={"holdout": 0.2})}))


def test_the_command_reports_a_trained_run(trained, tmp_path, capsys):
    out = tmp_path / "exits.json"
    asked = ["exits", str(trained), "--max-drop", "1", "--batch-sizes", "32", "--rounds", "2", "--out", str(out)]
    assert main(asked) == 0
    assert "digits-twsd" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert [row["policy"] for row in found["exits"]] == list(POLICIES)
    (cost,) = found["seconds"]
    assert (cost["batch_size"], cost["samples"], cost["rounds"]) == (32, 64, 2)
    assert all(spread["median"] > 0 for spread in cost["seconds"].values())
    # decisions of the replay are those of the network itself
    row, test = found["exits"][0], load_dataset("digits").test
    x = as_network_input(test.inputs(torch.arange(len(test))), "image")
    answered = AnytimeClassifier(load(trained), "confidence", row["threshold"], 3)(x)
    assert float(answered.exit_times.double().mean()) == pytest.approx(row["mean_exit"], abs=2 / len(test))
    assert 100 * float((answered.predictions == test.targets).double().mean()) == pytest.approx(
        row["accuracy"], abs=200 / len(test)
    )


def test_a_run_without_held_out_samples_is_refused_in_one_line(tmp_path, capsys):
    run = train(quick("digits-twsd", out=tmp_path / "run"))
    assert main(["exits", str(run)]) == 2
    assert "no held-out samples to calibrate on: train it with --data.holdout 0.1" in capsys.readouterr().err


def test_ordinary_networks_take_part_in_the_rounds(trained, tmp_path, capsys):
    ann, out = train(quick("digits-ann", out=tmp_path / "ann")), tmp_path / "exits.json"
    asked = ["exits", str(trained), "--batch-sizes", "64", "--rounds", "2", "--threads", "1", "--out", str(out)]
    assert main([*asked, "--anns", str(ann)]) == 0
    assert str(ann) in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["threads"] == 1
    test = load_dataset("digits").test
    with torch.no_grad():
        right = load(ann)(as_network_input(test.inputs(torch.arange(len(test))), "image"), 1)[0].argmax(-1)
    (row,) = found["anns"]
    assert row["accuracy"] == pytest.approx(100 * float((right == test.targets).double().mean()))
    assert found["seconds"][0]["seconds"][str(ann)]["median"] > 0

    assert main([*asked, "--anns", str(trained)]) == 2
    assert "has neurons 'lif'; an ordinary network has relu, as in the recipes *-ann" in capsys.readouterr().err
