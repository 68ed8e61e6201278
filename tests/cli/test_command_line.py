"""The command line as its user meets it: what works, and what is said where something does not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spikedistill.cli import main

QUICK = [
    "--epochs",
    "1",
    "--timesteps",
    "2",
    "--model.width",
    "0.25",
    "--data.train-samples",
    "120",
    "--trainer.accelerator",
    "cpu",
]


def spikedistill(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "spikedistill", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "digits-twsd", "--out", str(folder), *QUICK]) == 0
    return folder


def test_train_prints_the_table_over_timesteps_and_the_report(tmp_path):
    result = spikedistill("train", "digits-twsd", "--out", str(tmp_path / "run"), *QUICK, "--data.batch-size", "10")
    assert result.returncode == 0, result.stderr
    assert "accuracy %" in result.stdout
    assert str(tmp_path / "run" / "report.html") in result.stdout
    assert "epoch 1/1: loss" in result.stdout, "a line for each epoch"
    assert "Traceback" not in result.stderr


def test_evaluate_prints_the_same_table_again(run, capsys):
    accuracy = json.loads((run / "results.json").read_text())["last"]["ensemble"][-1]["accuracy"]
    assert main(["evaluate", str(run)]) == 0
    assert f"{100 * accuracy:.2f}" in capsys.readouterr().out


def test_report_writes_the_page_anew(run, capsys):
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").is_file()


def test_list_and_data_name_what_there_is(capsys):
    assert main(["list"]) == 0
    assert "resnet18" in capsys.readouterr().out
    assert main(["data", "digits"]) == 0
    assert "10 classes" in capsys.readouterr().out
    assert main(["data"]) == 0
    assert "cifar-10-batches-py" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command", [[], ["train"], ["train", "digits-twsd"], ["evaluate"], ["report"], ["list"], ["data"]]
)
def test_every_command_has_help(command, capsys):
    try:
        code = main([*command, "--help"])
    except SystemExit as stop:
        code = stop.code
    assert code == 0
    assert "usage" in capsys.readouterr().out


def test_another_objective_brings_its_own_options(tmp_path, capsys):
    folder = tmp_path / "run"
    overrides = ["--objective.name", "s2w", "--objective.options.temperature", "4", "--out", str(folder)]
    assert main(["train", "digits-twsd", *overrides, *QUICK]) == 0
    assert "temperature: 4.0" in (folder / "config.yaml").read_text()


def test_a_run_is_repeated_from_its_own_configuration(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run)
    assert main(["train", "config.yaml", "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_a_mistake_beside_overwrite_deletes_nothing(run, tmp_path, capsys):
    copied = shutil.copytree(run, tmp_path / "run")
    before = sorted(path.name for path in copied.iterdir())
    again = ["train", "digits-twsd", "--out", str(copied), *QUICK, "--overwrite"]
    for mistake in (["--trainer.logger", "comet"], ["--trainer.accelerator", "tpu"]):
        assert main([*again, *mistake]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(path.name for path in copied.iterdir()) == before


def test_damaged_files_of_a_run_are_named(run, tmp_path, capsys):
    copied = shutil.copytree(run, tmp_path / "run")
    again = ["train", "digits-twsd", "--out", str(copied), *QUICK, "--resume", "auto"]
    (copied / "results.json").write_text("{")
    assert main(again) == 2
    assert "results.json is damaged" in capsys.readouterr().err
    (copied / "model.safetensors").unlink()
    (copied / "checkpoints" / "last.ckpt").write_bytes(b"PK")
    assert main(again) == 2
    assert "last.ckpt is damaged" in capsys.readouterr().err


def test_a_teacher_of_other_classes_is_refused(tmp_path, capsys):
    from spikedistill.models import create_model, save_model

    teacher = tmp_path / "teacher.safetensors"
    spec = {"name": "convnet", "num_classes": 7, "in_channels": 1, "image_size": 8, "neuron": "relu"}
    save_model(create_model(**spec), spec, teacher)
    assert main(["train", "digits-twkd", "--teacher", str(teacher), "--out", str(tmp_path / "run")]) == 2
    assert "returned [1, 7] for 1 inputs; expected logits [1, 10]" in capsys.readouterr().err


def test_a_mistake_in_a_real_process_has_no_traceback():
    result = spikedistill("train", "digits-none")
    assert result.returncode == 2
    assert result.stderr.startswith("spikedistill train: no recipe is called 'digits-none'")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "command", [["list", "recipes"], ["train", "digits-ann", "--epochs", "1", "--data.train-samples", "64"]]
)
def test_nothing_is_said_where_the_reader_of_the_output_has_had_enough(command, tmp_path):
    """As under `| head -1`."""
    begin = [sys.executable, "-m", "spikedistill", *command]
    with subprocess.Popen(begin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0


def test_three_evaluations_of_one_run_at_once_all_succeed(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    before = {
        name: (copied / name).read_bytes() for name in ("results.json", "logits.safetensors", "samples.safetensors")
    }
    command = [sys.executable, "-m", "spikedistill", "evaluate", str(copied)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert (process.returncode, said) == (0, "")
    assert {name: (copied / name).read_bytes() for name in before} == before
    assert main(["report", str(copied)]) == 0, "what they left is whole"
    assert not list(copied.glob(".*.partial"))
