"""A checkpoint is read only where it is whole, holds nothing that runs, and belongs to the data and teacher of the run."""

import io
import os
import pickle
import re
import shutil
import signal
import threading
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from quick_runs import quick, stopped

from spikedistill import train
from spikedistill.cli import main
from spikedistill.config import Config, DataConfig
from spikedistill.run_folder import RunFolder
from spikedistill.training.checkpoints import AtomicCheckpoints, read_checkpoint
from spikedistill.training.module import DistillationModule
from spikedistill.training.plan import Plan


def short(out: Path, **changes) -> Config:
    """Three epochs of four steps, a checkpoint after each step."""
    config = quick("digits-sce", out=out, epochs=3, timesteps=2, resume="auto", **changes)
    return config.model_copy(update={"trainer": config.trainer.model_copy(update={"checkpoint_seconds": 0.0})})


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory) -> RunFolder:
    with pytest.MonkeyPatch.context() as patch:
        return stopped(short(tmp_path_factory.mktemp("stopped") / "run"), patch, epoch=2, step=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunFolder:
    return RunFolder(train(short(tmp_path_factory.mktemp("whole") / "run")))


@pytest.fixture
def run(broken_off, tmp_path) -> RunFolder:
    return RunFolder(shutil.copytree(broken_off.path, tmp_path / "run"))


def resume(run: RunFolder) -> int:
    settings = ["--epochs", "3", "--timesteps", "2", "--data.train-samples", "240", "--data.batch-size", "60"]
    settings += ["--model.width", "0.25", "--trainer.accelerator", "cpu", "--trainer.no-progress"]
    return main(
        [
            "train",
            "digits-sce",
            *settings,
            "--trainer.checkpoint-seconds",
            "0",
            "--out",
            str(run.path),
            "--resume",
            "auto",
        ]
    )


def test_the_last_two_are_kept_and_are_two_steps(run):
    steps = [read_checkpoint(file)["global_step"] for file in (run.earlier_checkpoint, run.checkpoint)]
    assert steps == [9, 10]
    assert torch.load(run.checkpoint, weights_only=True).keys() >= {"state_dict", "made_from"}, (
        "as any file of PyTorch's"
    )


@pytest.mark.parametrize("damage", ["one bit", "cut in half", "empty", "another file", "gone"])
def test_a_damaged_one_is_said_and_the_one_before_it_leads_to_the_same_weights(run, whole, damage, capsys):
    content = bytearray(run.checkpoint.read_bytes())
    if damage == "one bit":
        content[len(content) // 2] ^= 1
    new = {"one bit": content, "cut in half": content[: len(content) // 2], "empty": b"", "another file": b"PK\x03\x04"}
    run.checkpoint.unlink()
    if damage != "gone":
        run.checkpoint.write_bytes(new[damage])
    assert resume(run) == 0
    said = capsys.readouterr().out
    assert "going on from the one before it, in epoch 3" in said
    assert ("last.ckpt is damaged" in said) == (damage != "gone")
    assert run.model.read_bytes() == whole.model.read_bytes()
    assert run.metrics.read_bytes() == whole.metrics.read_bytes()


def test_where_both_are_damaged_nothing_begins(run, capsys):
    for file in (run.checkpoint, run.earlier_checkpoint):
        file.write_bytes(file.read_bytes()[:-200])
    before = run.metrics.read_bytes()
    assert resume(run) == 2
    message = capsys.readouterr().err
    assert "last.ckpt is damaged" in message
    assert "previous.ckpt is damaged" in message
    assert "--overwrite begins the run anew" in message
    assert run.metrics.read_bytes() == before


@pytest.mark.parametrize("sealed", [True, False], ids=["with its checksum", "as version 0.1.0 wrote it"])
def test_two_hundred_flipped_bits_are_all_found_or_change_nothing(run, sealed, tmp_path):
    path = tmp_path / "last.ckpt"
    content = run.checkpoint.read_bytes()
    if not sealed:
        content = content[: content.rindex(b"\nspikedistill checkpoint")]
    path.write_bytes(content)
    expected = read_checkpoint(path)["state_dict"]
    found = 0
    for position in range(0, len(content), len(content) // 200):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            tensors = read_checkpoint(path)["state_dict"]
        except ValueError:
            found += 1
        else:
            assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    assert found > 100


class Payload:
    """Runs code where it is unpickled: it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def hostile(kind: str, run: RunFolder, trap: Path) -> bytes:
    valid = torch.load(run.checkpoint, weights_only=True)
    buffer = io.BytesIO()
    match kind:
        case "the payload alone":
            torch.save(Payload(trap), buffer)
        case "inside a valid checkpoint":
            torch.save(valid | {"callbacks": {"Checkpoints": Payload(trap)}}, buffer)
        case "a plain pickle":
            buffer.write(pickle.dumps(Payload(trap)))
        case "with a checksum that fits":
            AtomicCheckpoints({}).save_checkpoint(valid | {"epoch_means": Payload(trap)}, run.path / "made.ckpt")
            buffer.write((run.path / "made.ckpt").read_bytes())
        case "an archive of another kind":
            with zipfile.ZipFile(buffer, "w") as archive:
                archive.writestr("data.pkl", pickle.dumps(Payload(trap)))
        case "an old pickle of PyTorch's":
            torch.save(valid | {"x": Payload(trap)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "kind",
    [
        "the payload alone",
        "inside a valid checkpoint",
        "a plain pickle",
        "with a checksum that fits",
        "an archive of another kind",
        "an old pickle of PyTorch's",
    ],
)
@pytest.mark.parametrize("place", ["last.ckpt", "previous.ckpt"])
def test_code_in_a_checkpoint_is_refused_and_never_runs(run, kind, place, tmp_path, capsys):
    trap = tmp_path / "ran"
    content = hostile(kind, run, trap)
    run.checkpoint.unlink()
    (run.checkpoint.parent / place).write_bytes(content)
    if place == "last.ckpt":
        run.earlier_checkpoint.unlink()
    assert resume(run) == 2
    assert not trap.exists()
    message = capsys.readouterr().err
    assert place in message
    assert "it is refused, and nothing of it was run" in message or "is damaged" in message
    # the trap works, where nothing guards
    if kind != "an archive of another kind":
        unguarded(content)
        assert trap.exists()


def unguarded(content: bytes) -> None:
    with suppress(Exception):
        torch.load(io.BytesIO(content), weights_only=False)
    with suppress(Exception):
        pickle.loads(content)


def test_a_file_that_is_no_checkpoint_of_a_run_or_of_another_network_is_named(run, capsys):
    run.earlier_checkpoint.unlink()
    valid = torch.load(run.checkpoint, weights_only=True)
    torch.save({"state_dict": {}}, run.checkpoint)
    assert resume(run) == 2
    assert "last.ckpt is no checkpoint of a run" in capsys.readouterr().err
    name = next(name for name in valid["state_dict"] if name.endswith("weight"))
    valid["state_dict"][name] = valid["state_dict"][name][:1]
    torch.save(valid, run.checkpoint)
    assert resume(run) == 2
    assert f"is of another network: {name} is" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changed",
    [
        {"optimizer_states": 5},
        {"loops": {}},
        {"callbacks": {"EpochRecord": 3}},
        {"callbacks": []},
        {"lr_schedulers": [{"last_epoch": []}] * 9},
    ],
    ids=str,
)
def test_a_whole_checkpoint_that_holds_something_else_is_named(run, changed, capsys):
    valid = torch.load(run.checkpoint, weights_only=True)
    AtomicCheckpoints(valid["made_from"]).save_checkpoint(valid | changed, run.checkpoint)
    assert resume(run) == 2
    assert re.search(
        r"last\.ckpt (does not hold what this version expects|is no checkpoint of a run)", capsys.readouterr().err
    )


@pytest.mark.parametrize("moment", ["before the first step", "after the last"])
def test_an_interrupt_outside_of_the_steps_has_a_message_too(run, moment, monkeypatch, capsys):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    hook = "configure_optimizers" if moment == "before the first step" else "on_train_end"
    monkeypatch.setattr(DistillationModule, hook, interrupt, raising=False)
    before = signal.getsignal(signal.SIGINT)
    assert resume(run) == 1
    assert "stopped; the same command with --resume auto goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) == before


def test_a_signal_in_the_last_step_is_no_lost_wish(run, whole, monkeypatch, capsys):
    training_step = DistillationModule.training_step

    def ask(module, batch, batch_index):
        if (module.current_epoch, batch_index) == (2, 3):
            os.kill(os.getpid(), signal.SIGTERM)
        return training_step(module, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(DistillationModule, "training_step", ask)
        assert resume(run) == 1
    assert "stopped after the last epoch, before evaluation; the same command with" in capsys.readouterr().err
    assert run.is_trained
    assert not run.results.exists()
    assert resume(run) == 0
    assert run.logits.read_bytes() == whole.logits.read_bytes()


def test_a_run_that_is_killed_before_its_model_is_listed_lists_it(run, whole, monkeypatch):
    save = Plan.save

    def save_and_die(plan, network, path):
        save(plan, network, path)
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(Plan, "save", save_and_die)
        with pytest.raises(InterruptedError):
            resume(run)
    assert run.model.is_file()
    assert not run.is_trained
    assert resume(run) == 0
    assert run.is_complete
    assert run.manifest().files.keys() == whole.manifest().files.keys()
    assert run.model.read_bytes() == whole.model.read_bytes()


# Data and teachers that changed while a run was stopped


def image_folder(root: Path, count: int, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    draw = np.random.default_rng(0)
    for split, number in (("train", count), ("test", 4)):
        for name in classes:
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for k in range(number):
                Image.fromarray(draw.integers(0, 255, (8, 8, 3), np.uint8)).save(root / split / name / f"{k:03}.png")
    return root


def of_folder(root: Path, out: Path) -> Config:
    data = DataConfig(name="image_folder", root=root, size=8, batch_size=10, holdout=0.2, augment=())
    return short(out).model_copy(update={"recipe": "image_folder-sce", "data": data})


@pytest.mark.parametrize(
    "change", ["30 images more", "a class more", "an image less", "an image renamed", "another size"]
)
def test_a_run_does_not_go_on_with_other_data(change, tmp_path, monkeypatch):
    root = image_folder(tmp_path / "data", 20)
    run = stopped(config := of_folder(root, tmp_path / "run"), monkeypatch, epoch=2, step=1)
    first = root / "train" / "cat" / "000.png"
    match change:
        case "30 images more":
            image_folder(root, 35)
        case "a class more":
            image_folder(root, 20, ("cat", "dog", "emu"))
        case "an image less":
            first.unlink()
        case "an image renamed":
            first.rename(first.with_name("zzz.png"))
        case "another size":
            Image.new("RGB", (8, 8)).save(first)
    before = run.checkpoint.read_bytes()
    with pytest.raises(
        ValueError, match=r"cannot go on, because .*the training samples changed since it was begun"
    ) as error:
        train(config)
    assert "restore it, or train with another --out" in str(error.value)
    assert run.checkpoint.read_bytes() == before


def test_a_run_goes_on_where_its_data_have_moved(tmp_path, monkeypatch):
    root = image_folder(tmp_path / "data", 20)
    run = stopped(config := of_folder(root, tmp_path / "run"), monkeypatch, epoch=1, step=1)
    moved = root.rename(tmp_path / "elsewhere")
    train(config.model_copy(update={"data": config.data.model_copy(update={"root": moved})}))
    assert run.is_complete


def test_a_run_does_not_go_on_with_another_teacher(tmp_path, monkeypatch):
    teachers = [train(quick("digits-ann", seed=seed, out=tmp_path / f"ann{seed}")) for seed in (0, 1)]
    config = short(tmp_path / "run").model_copy(update={"teacher": teachers[0], "recipe": "digits-skd"})
    config = config.model_copy(update={"objective": quick("digits-skd").objective})
    stopped(config, monkeypatch, epoch=1, step=1)
    shutil.rmtree(teachers[0])
    shutil.copytree(teachers[1], teachers[0])
    with pytest.raises(ValueError, match="cannot go on, because the teacher changed since it was begun"):
        train(config)


def test_a_broken_sample_stops_training_with_a_checkpoint_that_goes_on(tmp_path):
    root = image_folder(tmp_path / "data", 20)
    config = of_folder(root, tmp_path / "run")
    whole = RunFolder(train(config.model_copy(update={"out": tmp_path / "whole"})))
    broken = root / "train" / "dog" / "007.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:40] + bytes(len(content) - 40))  # of the same size
    with pytest.raises(ValueError, match=r"007\.png"):
        train(config)
    run = RunFolder(config.run_folder)
    assert not run.is_complete
    broken.write_bytes(content)
    train(config)
    assert run.model.read_bytes() == whole.model.read_bytes()


def test_a_checkpoint_that_is_written_beside_training_holds_what_was_when_it_was_saved(
    broken_off, tmp_path, monkeypatch
):
    valid, file = read_checkpoint(broken_off.checkpoint), tmp_path / "last.ckpt"
    weights, rows = torch.zeros(3), [{"epoch": 1}]
    goes_on, written, write = threading.Event(), [], AtomicCheckpoints._write
    monkeypatch.setattr(AtomicCheckpoints, "_write", lambda *arguments: (goes_on.wait(), write(*arguments)))
    checkpoints = AtomicCheckpoints({})
    checkpoints.save_checkpoint(valid | {"epoch_means": [weights, rows]}, file, lambda: written.append(file.is_file()))
    weights += 1
    rows.append({"epoch": 2})
    assert not file.exists(), "training goes on while nothing is written"
    assert written == []
    goes_on.set()
    # the next one waits for it, and leaves it as the one before
    checkpoints.save_checkpoint(valid | {"epoch_means": [weights, rows]}, file)
    assert written == [True]
    kept = [read_checkpoint(tmp_path / name)["epoch_means"] for name in ("previous.ckpt", "last.ckpt")]
    assert [(part[0].tolist(), len(part[1])) for part in kept] == [([0.0] * 3, 1), ([1.0] * 3, 2)]


def test_a_checkpoint_that_cannot_be_written_beside_training_ends_it_at_the_next_one_or_at_its_end(
    broken_off, tmp_path
):
    valid, written = read_checkpoint(broken_off.checkpoint), []
    (tmp_path / "a file").touch()
    for then in (lambda io: io.save_checkpoint(valid, tmp_path / "last.ckpt"), lambda io: io.teardown()):
        checkpoints = AtomicCheckpoints({})
        checkpoints.save_checkpoint(valid, tmp_path / "a file" / "last.ckpt", lambda: written.append(True))
        with pytest.raises(OSError, match="a file"):
            then(checkpoints)
        checkpoints.wait()  # it is said once
    assert not written


def test_a_run_whose_checkpoints_cannot_be_written_fails_and_says_why(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AtomicCheckpoints, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        train(short(tmp_path / "run"))
    monkeypatch.undo()
    assert RunFolder(train(short(tmp_path / "run"))).is_complete
