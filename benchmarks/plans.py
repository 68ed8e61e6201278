"""What studies by comparison have in common: their runs, and how long a training step takes here."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from spikedistill.comparisons.planned_runs import is_taught
from spikedistill.config import Config
from spikedistill.recipes.settings import variant
from spikedistill.training.estimate import trial
from spikedistill.training.plan import plan_without_teacher

TEACHER_SEED = 1000  # or more: with a student's seed both would begin with equal weights


class Plan(NamedTuple):
    """What is trained.

    Attributes:
        root: of the data sets.
        out: folder of the comparisons.
        dataset: its name.
        seeds: of every method.
        samples: images of training.
        epochs: of training.
        jobs: processes.
        settings: of every run, such as model.width=0.25.
    """

    root: Path
    out: Path
    dataset: str
    seeds: tuple[int, ...]
    samples: int
    epochs: int
    jobs: int
    settings: tuple[str, ...] = ()

    def configs(self, methods: Sequence[str], settings: Sequence[str] = ()) -> list[Config]:
        """The configurations of methods, each with its own settings behind commas."""
        common = ("--data.root", str(self.root.resolve()), "--data.train-samples", str(self.samples))
        named = [word for setting in self.settings for word in _words(setting)]
        words = (*common, "--epochs", str(self.epochs), *named, *settings)
        return [variant(f"{self.dataset}-{method}", words) for method in methods]


def teacher_seeds(configs: Sequence[Config]) -> tuple[int, ...]:
    """What `compare` is to be given as the seeds of teachers; nothing if it trains none."""
    return (TEACHER_SEED,) if any(config.teacher is None and is_taught(config) for config in configs) else ()


def _words(setting: str) -> tuple[str, str]:
    name, equals, value = setting.partition("=")
    if not (name and equals and value):
        raise ValueError(f"got the setting {setting!r}, expected NAME=VALUE, such as model.width=0.25")
    return f"--{name}", value


def step_seconds(config: Config, steps: int = 5) -> float:
    """Seconds of one core that a training step takes for one image, without a teacher."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = plan_without_teacher(config)
    size = made.config.data.batch_size
    with trial(made) as step:
        step(size)  # compiles
        begun = time.process_time()
        for _ in range(steps):
            step(size)
        taken = time.process_time() - begun
    torch.set_num_threads(threads)
    return taken / steps / size
