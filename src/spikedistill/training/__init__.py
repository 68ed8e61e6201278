"""Training runs: one LightningModule and the Trainer around it."""

from typing import Any

from .processes import is_main_process
from .run import train

__all__ = ["is_main_process", "train"]


def __getattr__(name: str) -> Any:
    if name != "compare":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .. import compare
    from ..renamed import say_renamed

    say_renamed("spikedistill.training.compare", "spikedistill.compare")
    return compare
