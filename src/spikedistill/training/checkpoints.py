"""Checkpoints that survive being killed while they are written."""

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from ..files import write_atomically


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, flushes it to the disk and moves it there: the last good one is never lost."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(Path(path), buffer.getvalue())
