"""Training runs: one LightningModule and the Trainer around it."""

from .compare import compare
from .processes import is_main_process
from .run import train

__all__ = ["compare", "is_main_process", "train"]
