"""What is kept of a run, against numbers worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spikedistill.evaluation.records import Records, RunRecord
from spikedistill.recipes import recipe
from spikedistill.run_folder import RunFolder


def logits(*answers):
    """Logits `[T, N, 2]` whose timestep t outweighs those before it and is right, class 0, where it says so."""
    lead = torch.tensor([[3.0**t if right else -(3.0**t) for right in row] for t, row in enumerate(answers)])
    return torch.stack([lead, -lead], -1)


def write_run(folder, **config):
    run = RunFolder(folder)
    run.path.mkdir(parents=True)
    config = recipe("digits-twkd").model_copy(update={"out": folder, "timesteps": 2, **config})
    run.config_file.write_text(config.to_yaml())
    right = torch.zeros(4, dtype=torch.int64)
    saved = {"logits": logits([1, 0, 1, 0], [1, 1, 0, 0]), "targets": right}
    saved |= {"beyond_right": torch.tensor([[1, 1, 1, 0]], dtype=torch.uint8)}
    save_file(
        saved | {"holdout_logits": logits([1, 1, 1, 0], [1, 1, 0, 0]), "holdout_targets": right.clone()}, run.logits
    )
    results = {"last": {"single": [{"k": 1}], "ensemble": [], "confusion": [[1]]}, "teacher": {"agreement": 0.5}}
    run.results.write_text(json.dumps(results))
    run.cost.write_text(json.dumps({"images_per_s": 3.0}))
    run.metrics.write_text("epoch,loss\n0,1.5\n1,0.5\n")
    run.model.touch()
    run.report.touch()
    return folder


def test_a_record_holds_what_is_compared(tmp_path):
    record = RunRecord.of(write_run(tmp_path / "a" / "seed0"))
    assert record.right.tolist() == [[1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert record.heldout_area == (75 + 50) / 2
    assert record.results == {"single": [{"k": 1}], "ensemble": []}
    assert record.metrics[1] == {"epoch": "1", "loss": "0.5"}
    assert (record.cost, record.teacher) == ({"images_per_s": 3.0}, {"agreement": 0.5})


def test_a_record_is_the_same_in_another_place(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    data = recipe("digits-twkd").data.model_copy(update={"root": Path("/data")})
    run = write_run(here / "digits-twkd" / "seed0", data=data, teacher=here / "digits-ann" / "seed0")
    line = RunRecord.of(run).to_json("digits-twkd/seed0", here)
    assert str(tmp_path) not in line
    assert "/data" not in line
    name, moved = RunRecord.from_json(line, there)
    assert name == "digits-twkd/seed0"
    assert moved.config.teacher == there / "digits-ann" / "seed0"
    assert np.array_equal(moved.right, RunRecord.of(run).right)
    assert moved.to_json(name, there) == line
    for number, teacher in enumerate((Path("/weights/ann.safetensors"), Path("runs/ann/seed0"))):
        elsewhere = RunRecord.of(write_run(tmp_path / f"b{number}", teacher=teacher))
        assert RunRecord.from_json(elsewhere.to_json("b", here), there)[1].config.teacher == teacher


def test_what_an_earlier_comparison_in_the_folder_has_written_stays(tmp_path):
    Records(tmp_path).keep([write_run(tmp_path / "digits-sce" / "seed0")])
    Records(tmp_path).keep([write_run(tmp_path / "digits-twkd" / "seed0")])
    assert [json.loads(line)["run"] for line in (tmp_path / "records.jsonl").read_text().splitlines()] == [
        "digits-sce/seed0",
        "digits-twkd/seed0",
    ]


def test_folders_that_are_there_come_before_what_is_remembered_of_them(tmp_path):
    run = write_run(tmp_path / "digits-twkd" / "seed0")
    Records(tmp_path).keep([run, tmp_path / "unfinished"])
    written = (tmp_path / "records.jsonl").stat().st_mtime_ns
    Records(tmp_path).keep([run])
    assert (tmp_path / "records.jsonl").stat().st_mtime_ns == written, "nothing new is nothing to write"
    RunFolder(run).cost.write_text(json.dumps({"images_per_s": 9.0}))
    assert Records(tmp_path).find(run).cost == {"images_per_s": 9.0}
    RunFolder(run).report.unlink()
    assert Records(tmp_path).find(run).cost == {"images_per_s": 3.0}
    assert Records(tmp_path).find(tmp_path / "digits-sce" / "seed0") is None


def test_what_is_damaged_is_named(tmp_path):
    run = RunFolder(write_run(tmp_path / "digits-twkd" / "seed0"))
    Records(tmp_path).keep([run.path])
    file = tmp_path / "records.jsonl"
    file.write_text(file.read_text().replace('"single"', '"alone"'))
    with pytest.raises(ValueError, match=r"records\.jsonl, line 1, is no record of a run \('single'\)"):
        Records(tmp_path)
    run.logits.write_bytes(run.logits.read_bytes()[:-20])
    with pytest.raises(
        ValueError, match=r"logits\.safetensors is damaged .*: spikedistill evaluate .*seed0 writes it anew"
    ):
        RunRecord.of(run.path)
    save_file({"logits": logits([1, 0, 1, 0])}, run.logits)
    with pytest.raises(ValueError, match=r"logits\.safetensors holds no tensor 'targets': spikedistill evaluate"):
        RunRecord.of(run.path)
    run.logits.unlink()
    with pytest.raises(FileNotFoundError, match=r"seed0 holds no logits\.safetensors: spikedistill evaluate"):
        RunRecord.of(run.path)
    run.results.write_text('{"last": {"ensemble": []}}')
    with pytest.raises(ValueError, match=r"results\.json is damaged \('single'\)"):
        RunRecord.of(run.path)
