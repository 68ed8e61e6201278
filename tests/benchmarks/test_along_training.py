"""The cosine of rate-based gradients to backpropagation through time, along training."""

from pathlib import Path

import pytest
from benchmarks import along_training
from benchmarks.along_training import draw, study, to_markdown
from benchmarks.plans import Plan


def test_a_study_in_small(tmp_path, capsys):
    plan, file = Plan(Path(), Path(), "digits", (0, 1), 600, 2, 1), tmp_path / "along.jsonl"
    assert "CPU hours" in along_training.budget(plan)
    found = study(plan, file, "a command")
    assert [(run["seed"], run["method"]) for run in found] == [(s, m) for s in (0, 1) for m in along_training.METHODS]
    for run in found:
        assert len(run["epochs"]) == 3, "before training, and after each epoch"
        assert all(-1 <= cosine <= 1 for epoch in run["epochs"] for cosine in epoch.values())
        assert run["epochs"][0] != run["epochs"][-1]
    first, second = found[0], found[2]
    assert first["epochs"][0] != second["epochs"][0], "another seed, another network"
    assert to_markdown(found).count("\n") == 1 + 2 * len(along_training.METHODS)
    draw(found, tmp_path / "along.svg")
    assert "cosine to BPTT" in (tmp_path / "along.svg").read_text()
    capsys.readouterr()
    assert study(plan, file, "a command") == found
    assert "runs" not in capsys.readouterr().out, "nothing is left to do"
    with pytest.raises(ValueError, match="choose another --out"):
        study(plan._replace(epochs=3), file, "a command")
