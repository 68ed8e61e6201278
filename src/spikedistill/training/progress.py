"""How fast training is, and what people see of it: a bar in a terminal, elsewhere a line for every epoch."""

import resource
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import TQDMProgressBar

from .estimate import about
from .module import DistillationModule

if TYPE_CHECKING:
    from .callbacks import EpochRecord


class Speedometer(L.Callback):
    """Measures time and images per second, without the first step of each process.

    The measurements are saved in the checkpoint, so that a run in several pieces has the speed of all of them.
    """

    def __init__(self) -> None:
        self.images = 0
        self.seconds = 0.0
        self.peak_mib = 0.0
        self.last: float | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        before, self.last = self.last, time.perf_counter()
        if before is None:
            return
        self.images += len(batch[1]) * trainer.world_size
        self.seconds += self.last - before

    @property
    def images_per_s(self) -> float:
        return self.images / self.seconds if self.images else 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"images": self.images, "seconds": self.seconds, "peak_mib": self._peak_mib()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.images, self.seconds, self.peak_mib = (state_dict[key] for key in ("images", "seconds", "peak_mib"))

    def cost(self) -> dict[str, float]:
        """Training time in seconds, images per second, and the peak memory of its processes in MiB (the accelerator's, if any)."""
        return {
            "training_s": round(self.seconds, 1),
            "images_per_s": round(self.images_per_s, 1),
            "peak_mib": round(self._peak_mib(), 1),
        }

    def _peak_mib(self) -> float:
        if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
            return max(self.peak_mib, torch.cuda.max_memory_allocated() / 2**20)
        return max(self.peak_mib, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


class StepClock(Speedometer):
    """Ends training after so many steps and seconds, not counting the first step; waits for a GPU at each."""

    def __init__(self, steps: int, seconds: float) -> None:
        super().__init__()
        self.steps, self.enough = steps, seconds

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        trainer.should_stop = trainer.global_step > self.steps and self.seconds >= self.enough


class ProgressBar(TQDMProgressBar):
    """Lightning's bar with means over the epoch so far of the loss and the accuracies, and the speed.

    The numbers are read only when the bar is drawn, without waiting for a GPU. With several processes, the first shows its own
    speed.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self.glance = Glance()

    def on_train_epoch_start(self, trainer: L.Trainer, *arguments: Any) -> None:
        super().on_train_epoch_start(trainer, *arguments)
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)  # the version number of a logger; there is none here
        if isinstance(pl_module, DistillationModule):
            shown |= dict(zip(("loss", "acc", "acc@1"), self.glance(pl_module.means.so_far()), strict=False))
            if pl_module.skipped:
                shown["skipped_steps"] = pl_module.skipped
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Speedometer) and callback.images_per_s:
                shown["images/s"] = callback.images_per_s
        return shown


class EpochLines(L.Callback):
    """Prints one line after every epoch, for output that is no terminal: a file, a pipe or a notebook.

    Args:
        record: the callback that records the epochs; it must run before this one.
        speed: of training.
        timesteps: T.
    """

    def __init__(self, record: "EpochRecord", speed: Speedometer, timesteps: int) -> None:
        self.record = record
        self.speed = speed
        self.timesteps = timesteps
        self.begun = 0.0
        self.steps_before = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.begun, self.steps_before = time.monotonic(), trainer.global_step

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        done = trainer.global_step - self.steps_before
        left = int(trainer.estimated_stepping_batches) - trainer.global_step
        seconds = (time.monotonic() - self.begun) / max(done, 1) * left
        line = epoch_line(self.record.rows[-1], self.timesteps)
        speed = f", {self.speed.images_per_s:.0f} images/s" if self.speed.images_per_s else ""
        to_go = f", {about(seconds)} left" if left else ""
        print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {line}{speed}{to_go}", flush=True)


def epoch_line(row: Mapping[str, Any], timesteps: int) -> str:
    """Loss and accuracies of an epoch in words, from its row in metrics.csv."""

    def at(first: str, last: str) -> str:
        percent = [f"{100 * row[key]:.1f} %" for key in (first, last)]
        return percent[1] if timesteps == 1 else f"{percent[0]} at k=1 and {percent[1]} at k={timesteps}"

    said = [f"loss {row['train_loss']:.4g}", f"training accuracy {at('train_accuracy_1', 'train_accuracy')}"]
    for name, words in (("holdout", "held out"), ("test", "test")):
        if f"{name}_accuracy_1" in row:
            said.append(f"{words} {at(f'{name}_accuracy_1', f'{name}_accuracy_{timesteps}')}")
    if row.get("skipped_steps"):
        said.append(f"{row['skipped_steps']} steps skipped")
    return ", ".join(said)


class Glance:
    """Reads numbers without waiting for the device: on a GPU returns those of the call before, once they have arrived."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.coming: torch.Tensor | None = None
        self.arrived: torch.cuda.Event | None = None

    def __call__(self, values: torch.Tensor) -> list[float]:
        if values.device.type != "cuda":
            return values.tolist()
        if self.coming is not None and self.arrived is not None:
            if not self.arrived.query():
                return self.values
            self.values = self.coming.tolist()
        self.coming = torch.empty(values.shape, pin_memory=True).copy_(values, non_blocking=True)
        self.arrived = torch.cuda.Event()
        self.arrived.record()
        return self.values
