"""What the Trainer does in addition to training: metrics, averages, checkpoints."""

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import compress
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging

from ..data import BrokenSample, Samples, lengths_of
from ..errors import UserError
from ..evaluation import collect_logits, timestep_metrics
from ..evaluation.fitting_batches import in_fitting_batches
from ..files import write_rows
from ..models import Branched
from ..run_folder import RunFolder, RunStopped
from ..stopping import GRACE, Stop, stoppable
from ..through_time import Temporal
from .constant_layers import constant_layers
from .mixed_timesteps import recalibrate_mixed
from .module import DistillationModule
from .plan import Plan

logger = logging.getLogger("spikedistill")


class EpochRecord(L.Callback):
    """Scores the network after every epoch, writes metrics.csv with a row per epoch, and keeps the epoch that the hold-out selects.

    Checkpoints hold the rows, and the file is rewritten from them, so a resumed run writes the same file as an uninterrupted one.
    Lightning's CSVLogger would append to the file.

    Args:
        run: where to write.
        scored: samples to score by name, "holdout" and "test". The test set selects nothing.
        plan: the run.
    """

    def __init__(self, run: RunFolder, plan: Plan, scored: dict[str, Samples]) -> None:
        self.run = run
        self.plan = plan
        self.scored = scored
        self.rows: list[dict[str, Any]] = []
        self.best = -1.0
        self.constant: dict[str, list[str]] = {}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, DistillationModule)
        means = pl_module.epoch_means()
        reduced = trainer.strategy.reduce(torch.tensor(list(means.values()), device=pl_module.device))
        row: dict[str, Any] = {"epoch": trainer.current_epoch + 1, "lr": trainer.optimizers[0].param_groups[0]["lr"]}
        if self.plan.config.trainer.on_nonfinite == "skip":
            row["skipped_steps"] = pl_module.skipped
        row |= dict(zip(means, reduced.tolist(), strict=True))
        if trainer.is_global_zero:
            self._name_constant_layers(pl_module.network, row["epoch"])
            with _averaged_weights(trainer, pl_module):
                recalibrate_mixed(self.plan, pl_module.network)
                for name, samples in self.scored.items():
                    row |= self._score(name, samples, pl_module.network)
                self._keep_selected(row, pl_module.network)
        self.rows.append(row)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(row, step=row["epoch"])
            write_rows(self.run.metrics, self.rows)

    def _name_constant_layers(self, network: Temporal, epoch: int) -> None:
        """Log which layers never or always fire, if that has changed."""
        constant = constant_layers(network, self.plan.train, self.plan.dataset.kind, self.plan.config.timesteps)
        if constant != self.constant:
            found = [
                f"neurons of {', '.join(layers)} {does} on training samples"
                for does, layers in constant.items()
                if layers
            ]
            logger.warning(
                "epoch %d: %s", epoch, "; ".join(found) or "no layer is silent or fires all the time any more"
            )
        self.constant = constant

    def _score(self, name: str, samples: Samples, network: Temporal) -> dict[str, float]:
        """Accuracy and cross-entropy of every prefix and of every single timestep, and the accuracy of every head."""
        kind, T = self.plan.dataset.kind, self.plan.config.timesteps

        def collected(heads: bool) -> torch.Tensor:
            return in_fitting_batches(lambda size: collect_logits(network, samples, kind, T, size, heads=heads), 250)

        logits = collected(heads=False)
        heads: Iterable[torch.Tensor] = collected(heads=True) if isinstance(network, Branched) else ()
        network.train()
        scores = timestep_metrics(logits, samples.targets, lengths_of(samples))
        row = {f"{name}_accuracy_{entry['k']}": entry["accuracy"] for entry in scores["ensemble"]}
        row |= {f"{name}_ce_prefix_{entry['k']}": entry["nll"] for entry in scores["ensemble"]}
        row |= {f"{name}_ce_single_{entry['k']}": entry["nll"] for entry in scores["single"]}
        right = [(head.argmax(-1) == samples.targets).double().mean().item() for head in heads]
        return row | {f"{name}_head_accuracy_{s}": share for s, share in enumerate(right, 1)}

    def _keep_selected(self, row: dict[str, Any], network: Temporal) -> None:
        accuracy = row.get(f"holdout_accuracy_{self.plan.config.timesteps}", self.best)
        if accuracy > self.best:  # of equals the first
            self.best = accuracy
            self.plan.save(network, self.run.selected_model)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.best = state_dict["rows"], state_dict["best"]
        if (
            self.plan.config.trainer.on_nonfinite == "skip"
        ):  # rows of epochs before `skip` was set, in which no step was skipped
            self.rows = [{"epoch": row["epoch"], "lr": row["lr"], "skipped_steps": 0} | row for row in self.rows]


@contextmanager
def _averaged_weights(trainer: L.Trainer, pl_module: L.LightningModule) -> Iterator[None]:
    """Within this context, the network has the weights that are evaluated and saved: their moving average, if there is one."""
    averages = [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]  # type: ignore[attr-defined]
    for average in averages:
        average.on_validation_epoch_start(trainer, pl_module)
    try:
        yield
    finally:
        for average in averages:
            average.on_validation_epoch_end(trainer, pl_module)


class MovingAverage(EMAWeightAveraging):
    """Lightning's moving average of the weights, without steps that were skipped, and without waiting for a GPU."""

    def __init__(self, decay: float) -> None:
        super().__init__(decay=decay)
        self.decay = decay
        self.begun = False

    @property
    def state_key(self) -> str:
        return EMAWeightAveraging.__qualname__  # as in checkpoints of version 0.1.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        assert isinstance(pl_module, DistillationModule)
        assert self._average_model is not None
        self.begun = bool(self._average_model.n_averaged > 0)
        pl_module.update_average = lambda: self.update(pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *arguments: Any) -> None:
        assert isinstance(pl_module, DistillationModule)
        assert pl_module.watch is not None
        if trainer.global_step > self._latest_update_step:
            if pl_module.whole is None and not pl_module.watch.left_out:
                self.update(pl_module)
            self._latest_update_step = trainer.global_step

    @torch.no_grad()
    def update(self, pl_module: L.LightningModule) -> None:
        """`average <- decay average + (1 - decay) weights`, also of buffers; it starts at the weights."""
        assert self._average_model is not None
        average = self._average_model.module
        own = [*average.parameters(), *average.buffers()]
        now = [*pl_module.parameters(), *pl_module.buffers()]
        if self.begun:
            is_count = [not tensor.is_floating_point() for tensor in own]
            for count, counted in zip(compress(own, is_count), compress(now, is_count), strict=True):
                count.copy_(self.decay * count + (1 - self.decay) * counted)
            own, now = ([tensor for tensor in tensors if tensor.is_floating_point()] for tensors in (own, now))
            torch._foreach_mul_(own, self.decay)
            torch._foreach_add_(own, list(torch._foreach_mul(now, 1 - self.decay)))
        else:
            torch._foreach_copy_(own, now)
        self.begun = True
        self._average_model.n_averaged += 1


class Checkpoints(L.Callback):
    """Saves a checkpoint after every epoch, every `seconds` within an epoch, and when the process receives a signal to stop.

    It saves none after the last epoch, because the finished model is written at once. Training does not begin if one process
    found the checkpoint and another did not. If a sample cannot be read, it also saves a checkpoint.

    Args:
        path: the file.
        seconds: between two checkpoints within an epoch.
        grace: seconds from the signal until the process ends, even within a step.
    """

    def __init__(self, path: Path, seconds: float, grace: float = GRACE) -> None:
        self.path = path
        self.seconds = seconds
        self.grace = grace
        self.last = time.monotonic()
        self.place = ""
        self.open = ExitStack()
        self.stop: Stop | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        first = trainer.strategy.broadcast(trainer.fit_loop.total_batch_idx)
        if not trainer.strategy.reduce_boolean_decision(trainer.fit_loop.total_batch_idx == first):
            raise UserError(
                f"not every process finds the checkpoint in {self.path.parent}: the run folder must be one that all machines share"
            )

        self.stop = self.open.enter_context(stoppable(grace=self.grace, saved=self._saved, raises=False))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.open.close()

    def _saved(self) -> str:
        if not self.path.is_file():
            return "nothing was saved yet"
        return f"the checkpoint {self.path}{self.place} is saved, and the same command with --resume auto goes on"

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # the checkpoint of the epoch follows at once; none can be saved while gradients are being accumulated
        stop = self._asked_to_stop(trainer)
        due = trainer.strategy.reduce_boolean_decision(time.monotonic() - self.last >= self.seconds, all=False)
        if stop or due:
            self._save(trainer)
        if stop:
            raise RunStopped(f"stopped in epoch {trainer.current_epoch + 1} after {batch_idx + 1} batches")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs:
            return
        self._save(trainer)
        if self._asked_to_stop(trainer):
            raise RunStopped(f"stopped after epoch {trainer.current_epoch + 1}")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        # only between two steps, and with one process, because other processes would not take part
        between = trainer.fit_loop.epoch_loop.batch_progress.current.completed % trainer.accumulate_grad_batches == 0
        try:
            if isinstance(exception, BrokenSample) and between and trainer.world_size == 1:
                self._save(trainer)
            trainer.strategy.checkpoint_io.teardown()  # waits until the last checkpoint is written
        finally:
            # after an exception Lightning does not call `teardown`, and a later signal would end the process after the grace
            # period
            self.open.close()

    def _asked_to_stop(self, trainer: L.Trainer) -> bool:
        """Whether any of the processes has received a signal to stop."""
        asked = self.stop is not None and self.stop.asked
        return trainer.strategy.reduce_boolean_decision(asked, all=False)

    def _save(self, trainer: L.Trainer) -> None:
        """Save a checkpoint; it is written while training goes on."""
        if isinstance(module := trainer.lightning_module, DistillationModule) and module.watch is not None:
            module.watch.settle()  # so that no checkpoint holds weights from after a step that was not finite
        place = f", of step {trainer.global_step} in epoch {trainer.current_epoch + 1},"

        def written() -> None:
            self.place = place

        trainer.save_checkpoint(self.path, storage_options=written)
        self.last = time.monotonic()
