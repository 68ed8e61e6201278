"""A teacher of event data sees as many events as it was trained on, whatever the student's number of frames."""

from pathlib import Path

import numpy as np
import pytest
import torch
from quick_runs import quick

from spikedistill import load, train
from spikedistill.config import DataConfig
from spikedistill.run_folder import dataset_of
from spikedistill.training.plan import make_plan
from spikedistill.training.teacher import Teacher


def recordings(root: Path) -> Path:
    generator = np.random.default_rng(0)
    for k in range(20):
        folder = root / "N-MNIST" / ("Train", "Test")[k % 2] / str(k // 2)
        folder.mkdir(parents=True)
        (folder / "1.bin").write_bytes(generator.integers(0, 34, (60, 5), dtype=np.uint8).tobytes())
    return root


def test_an_ann_trained_on_whole_recordings_teaches_on_whole_recordings(tmp_path: Path) -> None:
    data = DataConfig(name="nmnist", root=recordings(tmp_path / "data"), batch_size=4)
    ann = quick("nmnist-ann", out=tmp_path / "ann", epochs=1, timesteps=1, data=data)
    train(ann)
    student = quick("nmnist-skd", out=tmp_path / "skd", epochs=1, timesteps=4, data=data, teacher=tmp_path / "ann")
    plan, few = make_plan(student), torch.arange(5)
    frames, whole = (dataset_of(config).test.inputs(few).transpose(0, 1) for config in (student, ann))
    assert (len(frames), len(whole)) == (4, 1)
    assert plan.teacher is not None
    with torch.no_grad():
        own = load(tmp_path / "ann")(whole)[0]
    torch.testing.assert_close(plan.teacher.logits(frames, "events"), own)


@pytest.mark.parametrize(("frames", "seen"), [(None, 5.0), (4, 5.0), (1, 20.0), (2, 10.0)])
def test_the_frame_it_sees_by_hand(frames: int | None, seen: float) -> None:
    events = torch.tensor([2.0, 4.0, 6.0, 8.0]).view(4, 1, 1, 1, 1)  # 20 in 4 frames
    teacher = Teacher(lambda images: images.flatten(1).expand(-1, 3), 3, frames)
    assert teacher.logits(events, "events").tolist() == [[seen] * 3]
