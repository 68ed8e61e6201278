"""Training runs: one LightningModule and the Trainer around it."""

from .run import is_main_process, train

__all__ = ["is_main_process", "train"]
