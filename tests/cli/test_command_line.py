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
    assert "images/s=" in result.stdout, "the progress bar"
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
    assert main(["list", "recipes"]) == 0
    assert "fashion_mnist-s2w" in capsys.readouterr().out.split()
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


MISTAKES = {
    "no such configuration": (["train", "runs/x/config.yaml"], "does not exist"),
    "a configuration misspelt": (["train", "runs/x/config.yml"], "does not exist"),
    "unknown command": (["tarin"], "invalid choice"),
    "no recipe": (["train"], "no recipe was named"),
    "unknown recipe": (["train", "digits-twds"], "did you mean digits-twsd"),
    "a flag in the recipe's place": (["train", "--epochs", "3"], "expected a recipe before --epochs"),
    "unknown key": (["train", "digits-sce", "--epoch", "3"], "--epochs"),
    "unknown objective": (["train", "digits-sce", "--objective.name", "s2v"], "s2w"),
    "an option of another objective": (["train", "digits-sce", "--objective.options.beta", "1"], "beta"),
    "no timesteps": (["train", "digits-sce", "--timesteps", "0"], "timesteps"),
    "negative temperature": (["train", "digits-twsd", "--objective.options.temperature", "-3"], "temperature"),
    "not a number": (["train", "digits-sce", "--epochs", "many"], "many"),
    "unknown model": (["train", "digits-sce", "--model.name", "resnet81"], "resnet18"),
    "unknown data set": (["train", "digits-sce", "--data.name", "digit"], "digits"),
    "missing data": (["train", "fashion_mnist-sce"], "SPIKEDISTILL_DATA"),
    "no such data folder": (["train", "fashion_mnist-sce", "--data.root", "nowhere"], "nowhere"),
    "too many samples": (["train", "digits-sce", "--data.train-samples", "99999"], "99999"),
    "missing teacher": (["train", "digits-twkd"], "--teacher runs/digits-ann/seed0"),
    "teacher without use": (["train", "digits-sce", "--teacher", "runs/x"], "learns from no teacher"),
    "teacher that is not there": (["train", "digits-twkd", "--teacher", "nowhere"], "nowhere is no folder"),
    "segments without rate": (["train", "digits-sce", "--segments", "2"], "needs --gradient rate"),
    "too many segments": (["train", "digits-rate", "--segments", "9"], "cannot divide 4 timesteps"),
    "rate silences the term": (["train", "digits-s2w", "--gradient", "rate"], "--segments 2 or more"),
    "missing run folder": (["evaluate", "nowhere"], "nowhere is no folder"),
    "empty run folder": (["evaluate", "empty"], "holds no config.yaml"),
    "report of no run": (["report", "nowhere"], "nowhere"),
    "over and on": (["train", "digits-sce", "--overwrite", "--resume", "auto"], "leave one of them out"),
    "no such accelerator": (["train", "digits-sce", "--trainer.accelerator", "tpu"], "--trainer.accelerator tpu"),
    "several data sets": (["compare", "--recipes", "digits-sce", "mnist-sce", "--out", "runs"], "of the same test samples"),
    "a negative seed": (["compare", "--recipes", "digits-sce", "digits-twce", "--seeds", "-1", "--out", "runs"], "from 0 on"),
    "one seed for all": (
        ["compare", "--recipes", "digits-sce", "digits-twce", "--seed", "3", "--out", "runs"], "it has --seeds and --out"
    ),
    "a comparison's own mistake": (
        ["compare", "--recipes", "digits-sce", "digits-s2w,gradient=rate", "--out", "runs"], "--segments 2 or more"
    ),
    "nowhere to write": (["train", "digits-sce", "--out", "/dev/null/run", *QUICK], "/dev/null"),
    "unknown list": (["list", "methods"], "invalid choice"),
    "unknown data set to check": (["data", "cifar11"], "cifar10"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_a_short_message_and_exit_code_2(mistake, tmp_path, monkeypatch, capsys):
    arguments, said = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPIKEDISTILL_DATA", raising=False)
    (tmp_path / "empty").mkdir()
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    message = capsys.readouterr().err
    assert code == 2
    assert said in message
    assert "Traceback" not in message
    assert len(message.splitlines()) < 30
    assert not (tmp_path / "runs").exists(), "a mistake leaves nothing behind"


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
