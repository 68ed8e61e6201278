"""Recipes made small, for tests that train."""

from spikedistill.config import Config, DataConfig, TrainerConfig
from spikedistill.recipes import recipe


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
