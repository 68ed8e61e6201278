"""Training runs: one LightningModule and the Trainer around it."""

from .compare import compare, in_equal_time
from .run import is_main_process, train

__all__ = ["compare", "in_equal_time", "is_main_process", "train"]
