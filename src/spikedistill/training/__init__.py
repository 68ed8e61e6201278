"""Training runs: one LightningModule and the Trainer around it."""

from .run import train

__all__ = ["train"]
