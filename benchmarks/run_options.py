"""What `python -m benchmarks run` measures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spikedistill.config import Config
from spikedistill.recipes import recipe


@dataclass(frozen=True)
class Options:
    """What is trained, and for how long."""

    recipe: str = "fashion_mnist-sce"
    """One of `spikedistill list recipes`."""
    model: str | None = None
    """One of `spikedistill list models`; the recipe's by default."""
    width: float | None = None
    """Factor on every hidden channel count; the recipe's by default."""
    timesteps: int | None = None
    """T; the recipe's by default."""
    batch: int | None = None
    """Images in a step; the recipe's by default."""
    augment: tuple[str, ...] | None = None
    """Augmentations; those of the data set by default."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Of convolutions."""
    channels_last: bool = False
    """Keep images and weights with the channels last in memory."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where it trains."""
    threads: int = 2
    """Threads of PyTorch."""
    samples: int | None = None
    """Training samples; all by default."""
    epochs: int = 4
    """Of which the first warms up."""
    turn: float = 5.0
    """Seconds of bare steps after each epoch, and of augmentation."""
    root: Path | None = None
    """Folder of the data sets; $SPIKEDISTILL_DATA by default."""

    def config(self, out: Path) -> Config:
        """The run."""
        config = recipe(self.recipe)
        given: dict[str, dict[str, Any]] = {
            "model": {"name": self.model, "width": self.width},
            "data": {
                "batch_size": self.batch,
                "augment": self.augment,
                "root": self.root,
                "train_samples": self.samples,
            },
            "trainer": {
                "accelerator": {"cpu": "cpu", "cuda": "gpu"}[self.device],
                "precision": self.precision,
                "channels_last": self.channels_last,
                "progress": False,
            },
        }
        update: dict[str, Any] = {"epochs": self.epochs, "out": out, "timesteps": self.timesteps or config.timesteps}
        for section, values in given.items():
            changed = {name: value for name, value in values.items() if value is not None}
            update[section] = getattr(config, section).model_copy(update=changed)
        return config.model_copy(update=update)
