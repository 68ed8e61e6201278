"""Images that workers read ahead: their number changes nothing, and what is wrong is said in one line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from quick_runs import quick

from spikedistill import train
from spikedistill.config import DataConfig
from spikedistill.data import Batches, BrokenSample, load_dataset, workers_for
from spikedistill.data.ahead import Ahead
from spikedistill.run_folder import RunFolder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, dice = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name in ("ant", "cat"):
            (root / split / name).mkdir(parents=True)
            for k in range(count):
                levels = dice.integers(0, 256, (20 + k, 24, 3), dtype=np.uint8)
                Image.fromarray(levels).save(root / split / name / f"{k:02d}.png")
    return root


def batches(folder: Path, workers: int, draws: bool, done: int = 0, epoch: int = 1) -> list[list[torch.Tensor]]:
    samples = load_dataset("image_folder", folder, size=8).train
    return [list(batch) for batch in Batches(samples, 5, 3, lambda: (epoch, done), workers=workers, draws=draws)]


def same(one: list[list[torch.Tensor]], other: list[list[torch.Tensor]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(*pair) for both in zip(one, other, strict=True) for pair in zip(*both, strict=True)
    )


@pytest.mark.parametrize("draws", [False, True])
def test_the_number_of_workers_changes_nothing(folder: Path, draws: bool) -> None:
    alone = batches(folder, 0, draws)
    state = torch.get_rng_state()
    assert same(alone, batches(folder, 1, draws))
    assert same(alone, batches(folder, 2, draws))
    assert torch.equal(state, torch.get_rng_state()), "the draws of training stay what they were"
    # from the middle of an epoch on
    assert same(alone[2:], batches(folder, 2, draws, done=2))


def test_batches_that_are_kept_stay_when_a_worker_uses_its_memory_again(folder: Path) -> None:
    samples = load_dataset("image_folder", folder, size=8).train
    chunks = [torch.tensor([k % len(samples)]) for k in range(40)]  # ten times its places
    kept = list(Ahead(samples, 1).batches(chunks))
    assert all(torch.equal(batch, samples.inputs(chunk)) for batch, chunk in zip(kept, chunks, strict=True))


def test_crops_differ_between_epochs_and_samples_and_not_with_the_batch(folder: Path) -> None:
    first, second = (batches(folder, 0, True, epoch=epoch) for epoch in (1, 2))
    by_place = [
        dict(
            zip(torch.cat([batch[2] for batch in each]).tolist(), torch.cat([batch[0] for batch in each]), strict=True)
        )
        for each in (first, second)
    ]
    assert all(not torch.equal(by_place[0][k], by_place[1][k]) for k in range(24))
    samples = load_dataset("image_folder", folder, size=8).train
    one_by_one = Ahead(samples, 0, 3).batches([torch.tensor([k]) for k in range(24)], epoch=1)
    assert all(torch.equal(image[0], by_place[0][k]) for k, image in enumerate(one_by_one))


def test_workers_go_on_from_epoch_to_epoch(folder: Path) -> None:
    samples = load_dataset("image_folder", folder, size=8).train
    at, ahead = [0], Batches(samples, 6, 3, lambda: (at[0], 0), workers=2, draws=True)
    for epoch in range(3):
        at[0] = epoch
        assert same(
            [list(batch) for batch in ahead],
            [list(b) for b in Batches(samples, 6, 3, lambda e=epoch: (e, 0), draws=True)],
        )


def test_a_broken_image_is_named_in_one_line_by_workers_too(folder: Path, tmp_path: Path) -> None:
    samples = load_dataset("image_folder", folder, size=8).train
    broken = tmp_path / "b.png"
    broken.write_bytes(b"no image")
    samples.paths[7] = broken
    for workers in (0, 2):
        with pytest.raises(BrokenSample, match=r"b\.png: is no readable image") as error:
            list(Ahead(samples, workers).batches(torch.arange(24).split(6)))
        assert "\n" not in str(error.value)


def test_few_files_are_read_without_workers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, digits = load_dataset("image_folder", folder).train, load_dataset("digits").train
    assert [workers_for(samples), workers_for(samples, 3), workers_for(digits, 3)] == [0, 3, 0]
    monkeypatch.setattr("spikedistill.data.ahead._WORTH", 10)
    assert workers_for(samples) == min(os.cpu_count() or 1, 8)


def config(folder: Path, out: Path, workers: int, **changes: object):
    data = DataConfig(
        name="image_folder", root=folder, size=8, batch_size=4, augment=("resized-crop", "flip"), workers=workers
    )
    return quick("digits-sce", out=out, epochs=2, data=data, **changes)


def often(run):
    """The same with a checkpoint after every step."""
    return run.model_copy(update={"trainer": run.trainer.model_copy(update={"checkpoint_seconds": 0.0})})


def weights(run: RunFolder) -> bytes:
    return run.model.read_bytes()


KILLED = """
import os, signal, sys
from pathlib import Path
from spikedistill import train
from spikedistill.training.module import DistillationModule
from test_ahead import config, often

take = DistillationModule.training_step

def step(module, batch, index):
    if (module.current_epoch, index) == (1, 4):
        os.kill(os.getpid(), signal.SIGKILL)
    return take(module, batch, index)

DistillationModule.training_step = step
train(often(config(Path(sys.argv[1]), Path(sys.argv[2]), 2, resume="auto")))
"""


def test_a_run_killed_inside_an_epoch_goes_on_to_the_same_weights_with_any_number_of_workers(
    folder: Path, tmp_path: Path
) -> None:
    here = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, folder, tmp_path / "run"],
        env=os.environ
        | {"PYTHONPATH": here + os.pathsep + os.environ.get("PYTHONPATH", "")}
        | {"OMP_NUM_THREADS": str(torch.get_num_threads())},  # another number adds in another order
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    run = RunFolder(tmp_path / "run")
    assert run.config().data.workers == 2
    begun = torch.load(run.checkpoint, weights_only=False)
    assert 6 < begun["global_step"] < 12, "inside the second epoch of six steps"
    train(often(config(folder, run.path, 1, resume="auto")))
    whole = RunFolder(train(config(folder, tmp_path / "whole", 0)))
    assert weights(RunFolder(train(config(folder, tmp_path / "two", 2)))) == weights(whole)
    assert weights(run) == weights(whole)


def test_a_process_that_is_killed_leaves_no_workers(folder: Path) -> None:
    program = f"""
import time, torch
from pathlib import Path
from spikedistill.data import load_dataset
from spikedistill.data.ahead import Ahead
samples = load_dataset("image_folder", Path({str(folder)!r}), size=8).train
batches = Ahead(samples, 2).batches(torch.arange(24).split(2))
next(batches)
import multiprocessing
print(*[child.pid for child in multiprocessing.active_children()], flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    workers = [int(word) for word in process.stdout.readline().split()]
    assert len(workers) == 2
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for _ in range(200):
        if not any(Path(f"/proc/{pid}").exists() for pid in workers):
            return
        time.sleep(0.1)
    pytest.fail(f"workers {workers} still run")


def test_resized_crops_need_image_files() -> None:
    wrong = quick("digits-sce", data=DataConfig(name="digits", augment=("resized-crop",)))
    with pytest.raises(
        ValueError, match="'resized-crop' is drawn while image files are read, and digits has none: leave it out"
    ):
        train(wrong)
