"""A whole run beside its bare step: the shares worked by hand, and the command on a real run."""

import json

import pytest
import torch
from benchmarks.__main__ import main
from benchmarks.run import OPERATIONS, summary


def test_shares_worked_by_hand():
    # 10 steps of 0.08 s are 0.8 of 1 s, and of 2 s 0.4; augmentation 0.1 and 0.05
    epochs = [{"seconds": s, "steps": 10, "step": 0.08, "augmentation": 0.01} for s in (1.0, 1.0, 2.0)]
    found = summary(epochs, images=600)
    assert found["images_per_s"] == 600
    assert found["step_images_per_s"] == pytest.approx(750)
    shares = [found[f"share_of_{part}"] for part in ("step", "augmentation", "rest")]
    assert shares == pytest.approx([0.8, 0.1, 0.1])


def test_the_command_measures_a_run_and_leaves_the_figures(tmp_path, capsys):
    threads = torch.get_num_threads()
    options = ["--recipe", "digits-sce", "--samples", "120", "--batch", "60", "--timesteps", "2", "--width", "0.25"]
    options += ["--augment", "crop", "--epochs", "3", "--turn", "0.01", "--threads", str(threads)]
    file = tmp_path / "run.json"
    assert main(["run", *options, "--out", str(file)]) == 0
    found = json.loads(file.read_text())
    assert len(found["epochs"]) == 2, "the first warms up"
    assert found["epochs"][0]["steps"] == 2
    parts = [found[f"share_of_{part}"] for part in ("step", "augmentation")]
    assert all(part > 0 for part in parts)
    assert list(found["us_per_image"]) == [name for name in OPERATIONS if name != "autoaugment"], (
        "digits have no colours"
    )
    assert found["options"]["augment"] == ["crop"]
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("whole run", "bare step", "cutout", str(file)))


def test_a_single_epoch_is_refused(capsys):
    assert main(["run", "--epochs", "1"]) == 2
    assert "expected 2 or more" in capsys.readouterr().err
