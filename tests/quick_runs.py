"""Recipes made small, for tests that train."""

import pytest
import torch

from spikedistill import train
from spikedistill.config import Config, DataConfig, TrainerConfig
from spikedistill.data import Entry, from_torch, register_dataset
from spikedistill.recipes import recipe
from spikedistill.run_folder import RunFolder


def quick(name: str, **changes) -> Config:
    """240 digits, one epoch of 4 steps, 3 timesteps, a network of 4, 8 and 16 channels."""
    config = recipe(name)
    small = {
        "epochs": 1,
        "timesteps": 3,
        "data": DataConfig(name="digits", batch_size=60, train_samples=240),
        "model": config.model.model_copy(update={"width": 0.25}),
        "trainer": TrainerConfig(accelerator="cpu", progress=False),
    }
    return config.model_copy(update=small | changes)


def quick_on_events(**changes) -> Config:
    """`quick` on 120 event recordings, with most events in the upper or the lower half; it registers the data set."""
    dice = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 2
    rate = torch.full((120, 3, 2, 8, 8), 0.1)
    rate[labels == 1, :, :, :4] = 0.5
    rate[labels == 0, :, :, 4:] = 0.5
    data = torch.utils.data.TensorDataset(torch.poisson(rate, generator=dice), labels)
    register_dataset(Entry(name="halves", about="Halves.", load=lambda: from_torch(data, data, name="halves")))
    return quick("digits-sce", data=DataConfig(name="halves", batch_size=20), **changes)


def stopped(config: Config, monkeypatch: pytest.MonkeyPatch, *, epoch: int, step: int) -> RunFolder:
    """The folder of a run that ends in that step of that epoch, both counted from 0."""
    from spikedistill.training.module import DistillationModule

    training_step = DistillationModule.training_step

    def break_off(module, batch, batch_index):
        if (module.current_epoch, batch_index) == (epoch, step):
            raise InterruptedError
        return training_step(module, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(DistillationModule, "training_step", break_off)
        with pytest.raises(InterruptedError):
            train(config)
    return RunFolder(config.run_folder)


def assert_resumes_to_the_same_bytes(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two runs of two epochs one breaks off in the third step of the second epoch, of which there is a checkpoint."""
    trainer = config.trainer.model_copy(update={"checkpoint_seconds": 0.0})
    whole, broken = (
        config.model_copy(update={"out": config.out / name, "epochs": 2, "resume": "auto", "trainer": trainer})
        for name in ("whole", "broken")
    )
    uninterrupted = RunFolder(train(whole))
    stopped(broken, monkeypatch, epoch=1, step=2)
    resumed = RunFolder(train(broken))
    assert resumed.model.read_bytes() == uninterrupted.model.read_bytes()
    assert resumed.metrics.read_bytes() == uninterrupted.metrics.read_bytes()
