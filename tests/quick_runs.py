"""Recipes made small, for tests that train."""

import pytest

from spikedistill import train
from spikedistill.config import Config, DataConfig, TrainerConfig
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


def assert_resumes_to_the_same_bytes(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two runs of two epochs one breaks off in the third step of the second epoch, of which there is a checkpoint."""
    from spikedistill.training.module import DistillationModule

    trainer = config.trainer.model_copy(update={"checkpoint_seconds": 0.0})
    whole, broken = (
        config.model_copy(update={"out": config.out / name, "epochs": 2, "resume": "auto", "trainer": trainer})
        for name in ("whole", "broken")
    )
    step = DistillationModule.training_step

    def break_off(module, batch, batch_index):
        if (module.current_epoch, batch_index) == (1, 2):
            raise InterruptedError
        return step(module, batch, batch_index)

    uninterrupted = RunFolder(train(whole))
    with monkeypatch.context() as patch:
        patch.setattr(DistillationModule, "training_step", break_off)
        with pytest.raises(InterruptedError):
            train(broken)
    resumed = RunFolder(train(broken))
    assert resumed.model.read_bytes() == uninterrupted.model.read_bytes()
    assert resumed.metrics.read_bytes() == uninterrupted.metrics.read_bytes()
