"""What people see while a run trains: a bar in a terminal, elsewhere a line for every epoch, or nothing."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from spikedistill.cli import main
from spikedistill.run_folder import RunFolder
from spikedistill.training.progress import EpochLines, epoch_line

FEW = ["--data.train-samples", "200", "--data.batch-size", "50", "--timesteps", "2", "--model.width", "0.25"]
FEW += ["--epochs", "2", "--trainer.accelerator", "cpu"]


def in_a_terminal(command: list[str], cwd: Path) -> str:
    """What a process writes whose standard output and error are a terminal of 200 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    with subprocess.Popen(command, cwd=cwd, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 65_536)
            except OSError:  # Linux: the other end is closed
                break
            if not part:
                break
            written += part
    os.close(ours)
    assert process.returncode == 0, written.decode()
    return written.decode()


def test_a_terminal_shows_a_bar_with_the_means_of_the_epoch(tmp_path):
    command = [sys.executable, "-m", "spikedistill", "train", "digits-sce", *FEW, "--out", "run"]
    shown = in_a_terminal(command, tmp_path)
    assert "epoch 1/2:" in shown
    assert "training accuracy" not in shown, "no line for an epoch"
    row = RunFolder(tmp_path / "run").read_rows(tmp_path / "run" / "metrics.csv")[-1]
    last = shown[shown.rindex("acc@1=") - 200 :]
    for name, column in (("loss", "train_loss"), ("acc", "train_accuracy"), ("acc@1", "train_accuracy_1")):
        found = float(re.findall(rf"\b{name}=([\d.]+)", last)[-1])
        assert found == pytest.approx(float(row[column]), rel=0.01), "the mean of the epoch's four batches"


def test_elsewhere_every_epoch_has_a_line(tmp_path, capsys):
    more = ["--data.holdout", "0.2", "--trainer.track-test", "--out", str(tmp_path / "run")]
    assert main(["train", "digits-sce", *FEW, *more]) == 0
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("epoch ")]
    rows = RunFolder(tmp_path / "run").read_rows(tmp_path / "run" / "metrics.csv")
    for number, (line, row) in enumerate(zip(lines, rows, strict=True), 1):
        percent = {name: f"{100 * float(row[name]):.1f} %" for name in row if "accuracy" in name}
        expected = (
            f"epoch {number}/2: loss {float(row['train_loss']):.4g}, "
            f"training accuracy {percent['train_accuracy_1']} at k=1 and {percent['train_accuracy']} at k=2, "
            f"held out {percent['holdout_accuracy_1']} at k=1 and {percent['holdout_accuracy_2']} at k=2, "
            f"test {percent['test_accuracy_1']} at k=1 and {percent['test_accuracy_2']} at k=2, "
        )
        assert line.startswith(expected)
        left = r", \d[\d.]* (s|min) left" if number == 1 else ""
        assert re.fullmatch(rf"\d+ images/s{left}", line.removeprefix(expected))
    assert "\r" not in said, "no bar"


def test_without_progress_a_run_is_silent(tmp_path, capfd):
    assert main(["train", "digits-sce", *FEW, "--trainer.no-progress", "--out", str(tmp_path / "run")]) == 0
    first, *others = "".join(capfd.readouterr()).splitlines()
    assert first == "digits-sce: loss = 1 sce, over timesteps"
    assert not any("epoch" in line or "%|" in line for line in others)


def test_the_line_is_in_the_file_as_soon_as_the_epoch_ends(tmp_path, monkeypatch):
    """Python keeps what is written to a file for later, unless it is flushed."""
    found, show = [], EpochLines.on_train_epoch_end

    def shown(*arguments):
        show(*arguments)
        found.append((tmp_path / "log").read_text().splitlines()[-1])

    monkeypatch.setattr(EpochLines, "on_train_epoch_end", shown)
    with (tmp_path / "log").open("w") as log, contextlib.redirect_stdout(log):
        assert main(["train", "digits-sce", *FEW, "--out", str(tmp_path / "run")]) == 0
    assert [line.partition(":")[0] for line in found] == ["epoch 1/2", "epoch 2/2"]


def test_an_ann_has_one_accuracy():
    row = {"train_loss": 0.123456, "train_accuracy_1": 0.5, "train_accuracy": 0.5, "skipped_steps": 2}
    assert epoch_line(row, 1) == "loss 0.1235, training accuracy 50.0 %, 2 steps skipped"
