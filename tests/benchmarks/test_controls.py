"""The study of controls: what it trains, what it computes anew, and the smallest difference that it could have seen."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from benchmarks import controls
from benchmarks.controls import answers, study, to_markdown
from benchmarks.plans import Plan, teacher_seeds

from spikedistill.evaluation.recalibrated_runs import Recalibration
from spikedistill.evaluation.runs import parts_of_run
from spikedistill.run_folder import RunFolder


def test_a_study_in_small(tmp_path, monkeypatch, capsys):
    each_timestep = "sce,model.norm=timestep_batch"
    monkeypatch.setattr(controls, "METHODS", ("sce", each_timestep))
    monkeypatch.setattr(controls, "TARGET", each_timestep)
    plan = Plan(tmp_path, tmp_path / "out", "digits", (0, 1, 2), 240, 1, 2)
    file = study(plan, "a command")
    found = answers(plan.out)
    assert [*found] == [*(("sce", form) for form in ("trained", "each_k", "mixture")), (each_timestep, "trained")]
    assert {right.shape for right in found.values()} == {(3, 4, 355)}

    run = plan.out / "digits-sce" / "seed1"
    config = RunFolder(run).config()
    dataset, _ = parts_of_run(config)
    own = Recalibration(RunFolder(run).load_network(RunFolder(run).model, None), config, dataset, controls.SAMPLES)
    for form, accuracies in own.scores().items():
        if form != "samples":
            assert found["sce", form][1].mean(-1) == pytest.approx(accuracies)
    assert "| sce | statistics of this k |" in to_markdown(plan.out)

    capsys.readouterr()
    before = file.read_text().splitlines()[1:]
    study(plan, "a command")
    assert "recalibrated" not in capsys.readouterr().out, "nothing is left to do"
    assert file.read_text().splitlines()[1:] == before

    # another machine gets the two files alone, and one run was not recalibrated yet
    file.write_text(
        "".join(line for line in file.read_text().splitlines(keepends=True) if '"sce", "seed": 2' not in line)
    )
    for folder in plan.out.glob("digits-*"):
        shutil.rmtree(folder)
    (plan.out / "manifest.json").unlink()
    study(plan, file.name)
    assert "recalibrated 6 of 6" in capsys.readouterr().out
    again = answers(plan.out)
    assert all(np.array_equal(again[key], found[key]) for key in found), "the same weights on the same machine"
    assert [path.name for path in plan.out.glob("digits-*/seed*")] == ["seed2"], "one run is trained again"


def test_a_teacher_does_not_begin_where_its_student_does():
    plan = Plan(Path(), Path(), "digits", (0, 1, 2), 240, 1, 2)
    assert teacher_seeds(plan.configs(controls.METHODS)) == (1000,)
    assert teacher_seeds(plan.configs(["sce", "twce"])) == ()
