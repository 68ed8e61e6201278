"""A user's mistake is one line and exit code 2; a bug, of the library or of what a user wrote, keeps its traceback."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from spikedistill.cli import main
from spikedistill.config import Config
from spikedistill.errors import UserError, said_of

NO_MEMORY = (
    "use a smaller batch (--data.batch-size auto chooses one), fewer timesteps (--timesteps), a narrower network "
    "(--model.width 0.5), --gradient rate, or --checkpoint under bptt and sltt"
)

SAID = {
    "a wrong value": (UserError("epochs: got 0,\n  expected at least 1"), "epochs: got 0, expected at least 1"),
    "no file": (FileNotFoundError(errno.ENOENT, "No such file or directory", "x/y"), "x/y: No such file or directory"),
    "no file, in our words": (FileNotFoundError("x holds no y: train it first"), "x holds no y: train it first"),
    "a full disk": (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    "no right to read": (PermissionError(errno.EACCES, "Permission denied", "x"), "x: Permission denied"),
    "a folder that is held": (BlockingIOError("another process is at work in x"), "another process is at work in x"),
    "no memory": (MemoryError(), f"there is not enough memory: {NO_MEMORY}"),
    "no memory on a GPU": (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 7.79 GiB"),
        f"there is not enough memory (2.5 GiB more were needed): {NO_MEMORY}",
    ),
}  # fmt: skip
BUGS = [
    ValueError("need at least one array to stack"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    OSError("could not get source code"),  # of inspect, which torch.compile asks
    OSError(errno.EBADF, "Bad file descriptor"),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    KeyError("x"),
    AssertionError(),
]


@pytest.mark.parametrize("what", SAID)
def test_what_a_user_can_mend_is_said_in_one_line(what):
    error, said = SAID[what]
    assert said_of(error) == said


MENDED = [
    (lambda: np.empty(2**50), "there is not enough memory (8 PiB more were needed)"),
    (lambda: torch.empty(2**50), "there is not enough memory (4 PiB more were needed)"),
    (lambda: Config(recipe="x", epochs=0), "epochs: got 0, expected at least 1"),
    (lambda: Path("nowhere/x").read_bytes(), "nowhere/x: No such file or directory"),
]


@pytest.mark.parametrize(("call", "said"), MENDED)
def test_errors_as_libraries_raise_them(call, said):
    with pytest.raises(Exception) as error:  # noqa: PT011  (of several kinds)
        call()
    found = said_of(error.value)
    assert found is not None
    assert found.startswith(said)
    assert "\n" not in found


@pytest.mark.parametrize("error", BUGS, ids=repr)
def test_a_bug_is_not_said_but_raised(error):
    assert said_of(error) is None


# A loss of a user's own that fails in the first step of training, after it was tried on a batch of one.
SCRIPT = """
import sys
import torch
from spikedistill import train
from spikedistill.cli import main
from spikedistill.errors import UserError
from spikedistill.objectives import Objective, Term, register_objective
from spikedistill.recipes import recipe, with_objective


def mine(logits, target):
    if len(target) > 1:
        WHAT
    return logits.sum() * 0.0


@register_objective
def own() -> Objective:
    \"\"\"One of a user's own.\"\"\"
    return Objective("own", (Term("mine", 1.0, mine),), submodels="timesteps")


if sys.argv[1] == "train":
    config = with_objective(recipe("digits-sce"), "own").model_copy(update={"out": "run", "timesteps": 2, "epochs": 1})
    trainer = config.trainer.model_copy(update={"accelerator": "cpu", "progress": False})
    train(config.model_copy(update={"trainer": trainer}))
else:
    arguments = ["--objective.name", "own", "--out", "run", "--timesteps", "2", "--trainer.no-progress"]
    sys.exit(main(["train", "digits-sce", "--trainer.accelerator", "cpu", *arguments]))
"""


def begin(folder: Path, *arguments: str, **options) -> subprocess.Popen:
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": folder}
    return subprocess.Popen([sys.executable, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"}, **options)


def test_a_bug_in_a_loss_of_ones_own_keeps_its_traceback_and_a_refusal_of_it_is_one_line(tmp_path):
    bug, refusal = 'raise ValueError("shapes do not fit")', 'raise UserError("no such\\nlabels")'
    tried = {"train": ("train", bug), "main": ("main", bug), "refused": ("main", refusal)}
    processes = {}
    for name, (way, what) in tried.items():
        (folder := tmp_path / name).mkdir()
        (folder / "script.py").write_text(SCRIPT.replace("WHAT", what))
        processes[name] = begin(folder, "script.py", way)
    ended = {name: (process.communicate(timeout=120)[1], process.returncode) for name, process in processes.items()}
    for name in ("train", "main"):
        said, code = ended[name]
        assert code == 1, said
        assert said.count("Traceback (most recent call last)") == 1
        assert "in mine" in said, "the line of the loss"
        assert said.rstrip().endswith("ValueError: shapes do not fit")
    assert ended["refused"] == ("spikedistill train: no such labels\n", 2)


WRONG = {
    "train digits-sce --epochs 0": "epochs: got 0, expected at least 1",
    "evaluate nowhere": "nowhere is no folder: expected a run folder such as runs/digits-twsd/seed0",
    "compare --recipes digits-sce --out runs": "a comparison takes two or more different recipes and different seeds; got "
    "['digits-sce'] and [0, 1, 2]",
    "gradients": "missing RUN; --help explains",
    "report nowhere": "no run folder nowhere: train first with `spikedistill train RECIPE --out nowhere`",
    "list networks": "invalid choice 'networks' for argument 'what'. Expected one of ('all', 'recipes', 'methods', 'models', "
    "'objectives', 'data').",
    "data digits --data.size 8": "digits takes no 'size', which is an option of arrays, cifar10_dvs, dvs_gesture, event_folder, "
    "image_folder, imagenet, ncaltech101, tiny_imagenet; leave it out",
}


FORKS = """
import os, sys
import spikedistill.cli, spikedistill.recipes.settings, spikedistill.training

for number, line in enumerate(sys.stdin.read().splitlines()):
    if os.fork() == 0:
        sys.argv = ["spikedistill", *line.split()]
        os.dup2(os.open(f"said{number}", os.O_WRONLY | os.O_CREAT), 2)
        sys.exit(spikedistill.cli.main())
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_wrong_value_of_every_command_is_one_line_of_its_process(tmp_path):
    process = begin(tmp_path, "-c", FORKS, stdin=subprocess.PIPE)
    codes, complaints = process.communicate("\n".join(WRONG), timeout=120)
    assert codes.split() == ["2"] * len(WRONG), complaints
    for number, line in enumerate(WRONG):
        assert (tmp_path / f"said{number}").read_text() == f"spikedistill {line.split()[0]}: {WRONG[line]}\n"


def test_a_disk_that_takes_no_more_is_one_line(tmp_path):
    def nearly_full() -> None:  # no file may become longer
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    process = begin(tmp_path, "-m", "spikedistill", "train", "digits-sce", "--out", "run", preexec_fn=nearly_full)
    said = process.communicate(timeout=120)[1]
    assert said == "spikedistill train: run/config.yaml: File too large\n"
    assert process.returncode == 2


def test_more_processes_than_a_cpu_has_cores_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    cpu = ["--trainer.accelerator", "cpu", "--trainer.devices"]
    for command in (["train", "digits-sce"], ["compare", "--recipes", "digits-sce", "digits-twce", "--out", "runs"]):
        assert main([*command, *cpu, "500"]) == 2
        assert capsys.readouterr().err == (
            f"spikedistill {command[0]}: --trainer.devices 500 on a CPU starts 500 processes, and this machine has 3 cores: "
            "expected 3 or fewer\n"
        )
    assert not list(tmp_path.iterdir())
