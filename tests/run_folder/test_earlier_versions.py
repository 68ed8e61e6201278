"""Runs made before event slicing and AutoAugment changed are read, evaluated and gone on with as they were made."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from quick_runs import quick, stopped

from spikedistill import evaluate, train
from spikedistill.config import Config, DataConfig
from spikedistill.data import AUGMENTATION_VERSION, SLICING_VERSION, fingerprint
from spikedistill.evaluation.comparison.records import RunRecord, from_json
from spikedistill.evaluation.results import read_results
from spikedistill.recipes import recipe
from spikedistill.recipes.settings import from_file
from spikedistill.run_folder import RunFolder, dataset_of
from spikedistill.training.checkpoints import AtomicCheckpoints


def recordings(root: Path) -> Path:
    """Twenty of N-MNIST, of 7 events each: "even" makes frames of 3, 2 and 2 of them for T = 3, and "number" of 2, 2 and 3."""
    generator = np.random.default_rng(0)
    for k in range(20):
        folder = root / "N-MNIST" / ("Train", "Test")[k % 2] / str(k // 2)
        folder.mkdir(parents=True)
        events = generator.integers(0, 34, (7, 5), dtype=np.uint8)
        (folder / "1.bin").write_bytes(events.tobytes())
    return root


def of_events(root: Path, out: Path, slicing: str | None) -> Config:
    data = DataConfig(name="nmnist", root=root, batch_size=4, slicing=slicing)
    return quick("nmnist-sce", out=out, epochs=2, timesteps=3, resume="auto", data=data)


def made_by_version_1(run: RunFolder, slicing: str) -> None:
    """Change a run's files into what version 1 wrote, which knew no "even"."""
    text = run.config_file.read_text()
    assert "wording: 3\n" in text
    assert "slicing: even\n" in text
    run.config_file.write_text(text.replace("wording: 3\n", "").replace("slicing: even\n", f"slicing: {slicing}\n"))
    manifest = run.manifest().with_files(run.path, ["config.yaml"])
    manifest.model_copy(update={"made_with": manifest.made_with | {"augmentation": 1, "slicing": 1}}).write(run.path)


@pytest.mark.parametrize("slicing", ["number", "null"])
def test_a_run_by_number_of_version_1_still_sees_the_frames_it_was_trained_on(tmp_path: Path, slicing: str) -> None:
    root = recordings(tmp_path / "data")
    run = RunFolder(train(of_events(root, tmp_path / "run", "even")))
    before = read_results(run)
    made_by_version_1(run, slicing)
    frames = dataset_of(run.config()).test.inputs(torch.arange(10))
    assert frames.sum((2, 3, 4)).tolist() == [[3, 2, 2]] * 10
    evaluate(run.path)
    assert read_results(run).last == before.last
    # also where its configuration is used anew, with a manifest beside it or without
    assert from_file(run.config_file).data.slicing == "even"
    (copy := tmp_path / "mine.yaml").write_bytes(run.config_file.read_bytes())
    assert from_file(copy).data.slicing == "even"


def test_a_comparison_s_record_of_version_1_keeps_its_meaning(tmp_path: Path) -> None:
    run = RunFolder(train(of_events(recordings(tmp_path / "data"), tmp_path / "run", "even")))
    line = RunRecord.of(run.path).to_json("run", tmp_path)
    assert from_json(line, tmp_path)[1].config.data.slicing == "even"
    row = json.loads(line)
    assert row["config"].pop("wording") == 3
    row.pop("sha256")
    for slicing in ("number", None):
        row["config"]["data"]["slicing"] = slicing
        assert from_json(json.dumps(row), tmp_path)[1].config.data.slicing == "even"
    row["config"]["data"]["slicing"] = "time"
    assert from_json(json.dumps(row), tmp_path)[1].config.data.slicing == "even-time"


def test_a_half_trained_run_of_version_1_goes_on_under_the_new_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = recordings(tmp_path / "data")
    whole = RunFolder(train(of_events(root, tmp_path / "whole", "even")))
    run = stopped(config := of_events(root, tmp_path / "run", "even"), monkeypatch, epoch=1, step=0)
    made_by_version_1(run, "null")
    dataset = dataset_of(run.config())
    by_version_1 = replace(dataset, options={"timesteps": 3, "slicing": "number"})
    assert fingerprint(dataset) == fingerprint(by_version_1), "which its checkpoints have"
    with pytest.raises(ValueError, match=r"other settings \(data\.slicing was 'even' and is now None\)"):
        train(of_events(root, tmp_path / "run", None))
    train(config)
    assert read_results(run).last == read_results(whole).last


@pytest.mark.parametrize("augment", ["flip", "autoaugment"])
def test_a_half_trained_run_goes_on_unless_its_augmentation_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augment: str
) -> None:
    for k in range(16):
        file = tmp_path / "data" / ("train", "test")[k % 2] / ("ant", "cat")[k // 8] / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (9 * k, 100, 50)).save(file)
    data = DataConfig(name="image_folder", root=tmp_path / "data", size=8, batch_size=4, augment=(augment,))
    config = quick("digits-sce", out=tmp_path / "run", epochs=2, resume="auto", data=data)
    run = stopped(config, monkeypatch, epoch=1, step=0)
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    made_from = checkpoint.pop("made_from") | {"augmentation": "1", "slicing": "1"}
    AtomicCheckpoints(made_from).save_checkpoint(checkpoint, run.checkpoint)
    if augment == "flip":
        train(config)
        assert run.is_complete
    else:
        with pytest.raises(ValueError, match="cannot go on, because the augmentation changed since"):
            train(config)


def test_settings_of_one_s_own_have_the_words_of_this_version_and_newer_ones_are_refused() -> None:
    mine = "recipe: a\ndata: {name: nmnist, slicing: number}\n"
    assert Config.from_yaml(mine).data.slicing == "number"
    assert Config.from_yaml("wording: 1\n" + mine).data.slicing == "even"
    assert Config.from_yaml("wording: 2\n" + mine).data.slicing == "number"
    # versions before 3 divided the time of a recording evenly
    by_time = mine.replace("number", "time")
    slicings = [Config.from_yaml(f"wording: {wording}\n{by_time}").data.slicing for wording in (1, 2, 3)]
    assert slicings == ["even-time", "even-time", "time"]
    for wording in ("4", "two", "null", "[1]"):
        with pytest.raises(
            ValueError, match=r"x\.yaml is no configuration of a run: wording: got .*expected at most 3"
        ):
            Config.from_yaml(f"wording: {wording}\n{mine}", "x.yaml")
    assert (AUGMENTATION_VERSION, SLICING_VERSION) == (2, 3)


@pytest.mark.parametrize(("learn_decay", "decay"), [("true", "learned:0.7"), ("false", 0.7)])
def test_a_decay_that_was_learned_in_earlier_words_is(learn_decay: str, decay: float | str) -> None:
    text = recipe("digits-twsd").to_yaml()
    old = text.replace("    decay: 0.5\n", f"    decay: 0.7\n    learn_decay: {learn_decay}\n")
    assert old != text
    assert Config.of_run(old.encode(), "config.yaml").model.lif.decay == decay
    assert Config.from_yaml(f"recipe: a\nmodel: {{lif: {{learn_decay: {learn_decay}}}}}\n").model.lif.decay in (
        "learned",
        0.5,
    )
