"""Training runs: one LightningModule and the Trainer around it."""

from .compare import compare
from .run import is_main_process, train

__all__ = ["compare", "is_main_process", "train"]
