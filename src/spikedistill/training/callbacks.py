"""What the Trainer does beside training: progress, metrics, speed."""

import csv
import io
import resource
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import TQDMProgressBar

from ..files import write_atomically
from ..run_folder import RunFolder
from .module import DistillationModule


class MetricsFile(L.Callback):
    """Writes metrics.csv, one row per epoch.

    The rows travel in the checkpoint and the file is written anew from them, so that a resumed run leaves the file of an
    uninterrupted one; Lightning's CSVLogger appends to what it finds.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.rows: list[dict[str, Any]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, DistillationModule)
        means = trainer.strategy.reduce(torch.tensor(list(pl_module.epoch_means().values()), device=pl_module.device))
        means_by_name = dict(zip(pl_module.epoch_means(), means.tolist(), strict=True))
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.rows.append({"epoch": trainer.current_epoch + 1, "lr": rate, **means_by_name})
        if trainer.is_global_zero:
            text = io.StringIO()
            writer = csv.DictWriter(text, fieldnames=list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
            write_atomically(self.run.metrics, text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


class Speedometer(L.Callback):
    """Measures images per second, without the first step, and shows it on the progress bar."""

    def __init__(self) -> None:
        self.steps = 0
        self.images = 0
        self.start = 0.0
        self.stop = 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.steps += 1
        self.stop = time.perf_counter()
        if self.steps == 1:
            self.start = self.stop
            return
        self.images += len(batch[1]) * trainer.world_size
        pl_module.log("images/s", self.images_per_s, prog_bar=True, logger=False)

    @property
    def images_per_s(self) -> float:
        return self.images / (self.stop - self.start) if self.images else 0.0

    def cost(self) -> dict[str, float]:
        """Images per second of training, and the process's peak memory in MiB (the accelerator's where there is one)."""
        if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
            peak = torch.cuda.max_memory_allocated() / 2**20
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"images_per_s": round(self.images_per_s, 1), "peak_mib": round(peak, 1)}


class ProgressBar(TQDMProgressBar):
    """Lightning's bar, without the version number of a logger that there is not."""

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}
