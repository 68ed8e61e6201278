"""The study of objectives under attack: what it writes, and how it goes on where neither weights nor attacks were kept."""

import json
import shutil
from pathlib import Path

import pytest
from benchmarks import robust
from benchmarks.robust import Plan, clean, read, study, to_markdown, worst


def test_a_study_goes_on_from_its_file_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(robust, "METHODS", {"digits": ("sce", "twce")})
    monkeypatch.setattr(robust, "TRAINING", {"plain": {}})
    plan = Plan(Path(), tmp_path / "runs", "digits", (0, 1), 300, 12, 10, 2, 2)
    file = tmp_path / "out" / "robust.jsonl"
    whole = study(plan, file, "a command")
    runs = [(run["method"], run["seed"]) for run in whole["runs"]]
    assert sorted(runs) == [("sce", 0), ("sce", 1), ("twce", 0), ("twce", 1)]
    assert [seed for _, seed in runs] == [0, 0, 1, 1], "the seed that is checked comes first"
    assert all(worst(run, k, robust.EPS) <= clean(run, k) for run in whole["runs"] for k in (1, 4))
    for run in whole["runs"]:  # what every seed gets, without the further steps of the seed that is checked
        for each in run["worst"]:
            asked = [row["accuracy"] for row in run["rows"] if row["remark"] == "" and row["eps"] == each["eps"]]
            assert len(asked) == 4, "two attacks at two k"
        assert {each["eps"] for each in run["worst"]} == {8 / 255}
        checked = {check["about"] for row in run["rows"] if row["remark"] == "" for check in row["checks"]}
        assert ("falls with eps" in checked) == (run["seed"] == 0), "half the size is of the checks"
    assert max(clean(run, 4) for run in whole["runs"]) > 50
    assert to_markdown(whole).count("\n\n") == 2, "three tables"

    session, *lines = file.read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["method"] == "sce"]
    file.write_text("\n".join([session, *kept]) + "\n")
    shutil.rmtree(plan.out)
    capsys.readouterr()
    again = study(plan, file, "a command")
    assert [line for line in capsys.readouterr().out.splitlines() if "sce" in line] == [], "done already"
    assert file.read_text().startswith("\n".join([session, *kept]))
    assert [len(found["sessions"]) for found in (whole, again)] == [1, 2]
    assert to_markdown(again) == to_markdown(whole), "the same weights and starting points on the same machine"

    with pytest.raises(ValueError, match="choose another --out"):
        study(plan._replace(tested=9), file, "a command")
    assert read(file)["plan"]["tested"] == 10
