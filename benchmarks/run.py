"""How fast a whole run is beside its bare step, and where the rest of its time goes."""

import json
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikedistill.data import as_network_input, augment
from spikedistill.run_folder import RunFolder
from spikedistill.through_time import Captured
from spikedistill.training.allocator import keep_freed_memory
from spikedistill.training.module import DistillationModule
from spikedistill.training.optimizers import make_optimizer
from spikedistill.training.plan import Plan, make_plan
from spikedistill.training.progress import Speedometer
from spikedistill.training.run import fit, make_callbacks, make_trainer
from spikedistill.training.student import StudentPass

from .results import commit, machine, versions
from .run_options import Options

OPERATIONS = ("crop", "flip", "autoaugment", "cutout")
WARM_UP = 3  # bare steps: the first compiles, the second records on a GPU


def measure_run(options: Options, command: str) -> dict[str, Any]:
    """Everything that is written to a file: the machine, the options, seconds, and what follows from them.

    Raises:
        ValueError: for settings that do not fit each other, or a single epoch, which only warms up.
        FileNotFoundError: where the data set is missing.
    """
    if options.epochs < 2:
        raise ValueError(
            f"the first epoch warms up, so that --epochs {options.epochs} measures nothing: expected 2 or more"
        )
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        config = options.config(Path(folder))
        plan = make_plan(config)
        run = RunFolder(config.run_folder)
        run.begin(config)
        clock = RunClock(plan, torch.device(options.device), options.turn)
        trainer = make_trainer(plan, run.path, [*make_callbacks(plan, run, Speedometer()), clock])
        fit(trainer, DistillationModule(plan))
    return {
        "machine": machine(options.device),
        "versions": versions(),
        **commit(),
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": json.loads(json.dumps(asdict(options), default=str)),
        "epochs": clock.rows[1:],
        **summary(clock.rows[1:], len(plan.train)),
        "us_per_image": clock.us_per_image,
    }


def summary(epochs: list[dict[str, float]], images: int) -> dict[str, Any]:
    """Images per second and shares of time, medians over epochs.

    Args:
        epochs: of each its `seconds`, its `steps`, and the seconds of a bare `step` and of the `augmentation` of a batch.
        images: in an epoch.
    """
    of_step = [row["steps"] * row["step"] / row["seconds"] for row in epochs]
    of_augmentation = [row["steps"] * row["augmentation"] / row["seconds"] for row in epochs]
    rest = [1 - step - augmentation for step, augmentation in zip(of_step, of_augmentation, strict=True)]
    return {
        "images_per_s": median(images / row["seconds"] for row in epochs),
        "step_images_per_s": median(images / (row["steps"] * row["step"]) for row in epochs),
        "share_of_step": median(of_step),
        "share_of_augmentation": median(of_augmentation),
        "share_of_rest": median(rest),
    }


class RunClock(L.Callback):
    """Takes the seconds of each epoch with all that belongs to it, and, outside of these, of bare steps and of augmentation.

    They are measured in turn because a machine is not equally fast all the time. It must be the last callback.

    Args:
        plan: the run.
        device: where it trains.
        turn: seconds of bare steps after an epoch, and of augmentation.

    Attributes:
        rows: what `summary` takes, for each epoch.
        us_per_image: microseconds of each augmentation by name, where the data set's images can be given to it.
    """

    def __init__(self, plan: Plan, device: torch.device, turn: float) -> None:
        self.plan, self.device, self.turn = plan, device, turn
        self.rows: list[dict[str, float]] = []
        self.us_per_image: dict[str, float] = {}
        self.begun = 0.0
        self.bare: BareStep | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.bare = BareStep(self.plan, self.device)
        for _ in range(WARM_UP):
            self.bare()
        self._begin()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._wait()
        seconds = time.perf_counter() - self.begun
        assert self.bare is not None
        row = {"seconds": seconds, "steps": trainer.num_training_batches, "step": self._seconds(self.bare)}
        names = self.plan.augmentations
        inputs = self.bare.inputs
        row["augmentation"] = self._seconds(lambda: augment(inputs, names)) if names else 0.0
        self.rows.append({name: float(value) for name, value in row.items()})
        if trainer.current_epoch + 1 == trainer.max_epochs:
            self._measure_each(inputs)
        self._begin()

    def _measure_each(self, inputs: Tensor) -> None:
        """Each augmentation alone; AutoAugment takes colour images only."""
        colour = inputs.ndim == 4 and inputs.shape[1] == 3
        for name in OPERATIONS:
            if colour or name != "autoaugment":
                taken = self._seconds(partial(augment, inputs, (name,)))
                self.us_per_image[name] = 1e6 * taken / len(inputs)

    def _seconds(self, work: Any) -> float:
        """The median seconds of a piece of work, repeated for a turn."""
        taken: list[float] = []
        while sum(taken) < self.turn or len(taken) < WARM_UP:
            self._wait()
            begun = time.perf_counter()
            work()
            self._wait()
            taken.append(time.perf_counter() - begun)
        return median(taken)

    def _begin(self) -> None:
        self._wait()
        self.begun = time.perf_counter()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class BareStep:
    """The network's passes over one batch with the cross-entropy of the mean logits, and the optimiser: nothing else of a run.

    Args:
        plan: the run, whose network, batch, T, precision and optimiser it takes.
        device: where.
    """

    def __init__(self, plan: Plan, device: torch.device) -> None:
        config = plan.config
        places = torch.arange(min(config.data.batch_size, len(plan.train)))
        self.inputs = as_network_input(plan.train.inputs(places), plan.dataset.kind).to(device)
        self.target = plan.train.targets[places].to(device)
        with torch.random.fork_rng():  # the run's own draws stay as they are
            network: nn.Module = plan.build_network().to(device).train()
        student = StudentPass(network, None if plan.dataset.kind == "events" else config.timesteps, ())  # type: ignore[arg-type]
        self.student = Captured(student) if device.type == "cuda" else student
        self.optimizer = make_optimizer(network, config.optimizer, fused=device.type == "cuda")
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.trainer.precision == "bf16-mixed")

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        with torch.enable_grad():
            with self.autocast:
                loss = F.cross_entropy(self.student(self.inputs)[0].float().mean(0), self.target)
            loss.backward()
        self.optimizer.step()


def print_run(found: dict[str, Any]) -> None:
    """Two tables: where the time goes, and what augmentation costs."""
    from rich.console import Console
    from rich.table import Table

    whole, each = Table(box=None), Table(box=None)
    for title in ("", "images/s", "share of the run"):
        whole.add_column(title, justify="right")
    whole.add_row("whole run", f"{found['images_per_s']:,.0f}", "100.0%")
    whole.add_row("bare step", f"{found['step_images_per_s']:,.0f}", f"{found['share_of_step']:.1%}")
    whole.add_row("augmentation", "", f"{found['share_of_augmentation']:.1%}")
    whole.add_row("the rest", "", f"{found['share_of_rest']:.1%}")
    for title in ("augmentation", "µs per image"):
        each.add_column(title, justify="right")
    for name, value in found["us_per_image"].items():
        each.add_row(name, f"{value:.1f}")
    console = Console()
    console.print(whole)
    console.print(each)
