"""Training runs: one LightningModule and the Trainer around it."""

from .processes import is_main_process
from .run import train

__all__ = ["is_main_process", "train"]
