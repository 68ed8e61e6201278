"""The runs behind the published numbers, in the order in which they are worth their time, and the settings of each."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikedistill.comparisons.planned_runs import is_taught, without_foreign_settings
from spikedistill.config import Config
from spikedistill.files import write_atomically
from spikedistill.recipes import recipe


@dataclass(frozen=True)
class Study:
    """Runs that are compared: one data set, network, T, schedule and precision.

    Attributes:
        dataset: its recipe's prefix.
        protocol: the paper whose settings are taken.
        timesteps: T; the protocol's where None.
        epochs: passes over all training images.
        model: the network; the protocol's where None.
        precision: of convolutions.
        remark: what its name ends in.
    """

    dataset: str
    protocol: str
    timesteps: int | None
    epochs: int
    model: str | None = None
    precision: str = "bf16-mixed"
    remark: str = ""

    @property
    def name(self) -> str:
        """The folder of its runs."""
        parts = (self.dataset, self.model, self.timesteps and f"t{self.timesteps}", f"{self.epochs}epochs", self.remark)
        return "-".join(str(part) for part in parts if part)


@dataclass(frozen=True)
class Run:
    """One entry of the list."""

    study: Study
    method: str
    seed: int = 0

    @property
    def recipe(self) -> str:
        return f"{self.study.dataset}-{self.method}"

    @property
    def name(self) -> str:
        """Its folder, below that of all runs."""
        return f"{self.study.name}/{self.recipe}/seed{self.seed}"


@dataclass(frozen=True)
class Choices:
    """What a call may decide about all runs.

    Attributes:
        batch: images in a step; the published number where None. The learning rate is scaled with it.
        root: folder of the data sets; the environment variable SPIKEDISTILL_DATA where None.
        dry: one epoch of 512 images of noise at full width in float32, to try everything but the numbers.
    """

    batch: int | None = None
    root: Path | None = None
    dry: bool = False


def _study(dataset: str, model: str, epochs: int, **others: Any) -> Study:
    return Study(dataset, "twkd", 4, epochs, model, **others)


_TEACHER = Study("cifar100", "twkd", None, 100, remark="teacher")
_SHORT, _LONG = _study("cifar100", "resnet18", 100), _study("cifar100", "resnet18", 300)
_ESD = Study("cifar100", "esd", 6, 100, "resnet18", remark="esd")
_S2W = Study("cifar100", "s2w", 4, 100, "ms_resnet18", remark="s2w")
_FLOAT = _study("cifar100", "resnet18", 100, precision="32-true", remark="float32")
_OTHER_TEACHER, _OTHER = Study("cifar10", "twkd", None, 100, remark="teacher"), _study("cifar10", "resnet18", 100)
_WIDE = _study("cifar100", "resnet19", 100)
_TRANSFORMER = Study("cifar100", "qkformer", 4, 100, "qkformer", remark="transformer")
_CORE = ("skd", "twce", "twkd")
_NEWER = ("trt", "akl", "mps-unofficial", "mtt")

# A teacher comes before those it teaches. The first four are worth half an hour of a fast GPU, the next five another.
RUNS: tuple[Run, ...] = (
    Run(_TEACHER, "ann"),
    *(Run(_SHORT, method) for method in _CORE),
    *(Run(_SHORT, method) for method in ("sce", "tks", "twce-twsd")),
    Run(_ESD, "esd"),
    Run(_S2W, "s2w"),
    *(Run(_LONG, method) for method in _CORE),
    *(Run(_SHORT, method, seed) for seed in (1, 2) for method in _CORE),
    *(Run(_LONG, method, seed) for seed in (1, 2) for method in _CORE),
    Run(_FLOAT, "twkd"),
    Run(_OTHER_TEACHER, "ann"),
    *(Run(_OTHER, method) for method in _CORE),
    *(Run(_WIDE, method) for method in _CORE),
    *(Run(_SHORT, method) for method in _NEWER),
    *(Run(_TRANSFORMER, method) for method in ("sce", "s2w", "twkd")),
)


def teacher_file(out: Path, dataset: str) -> Path:
    """The network that teaches all runs on a data set."""
    return out / "teachers" / f"{dataset}.safetensors"


def config_of(run: Run, out: Path, choices: Choices) -> Config:
    """The settings of a run: the paper's, but for what the study and the call say otherwise.

    All images are trained on, the last epoch counts, and the test set is scored after each, for the papers' way.
    """
    study = run.study
    config = recipe(run.recipe, study.protocol)
    changes: dict[str, Any] = {"seed": run.seed, "epochs": study.epochs, "out": out / run.name, "resume": "auto"}
    if study.timesteps is not None:
        changes["timesteps"] = study.timesteps
    if study.model is not None:
        changes["model"] = config.model.model_copy(update={"name": study.model})
    options: dict[str, Any] = {
        "precision": study.precision,
        "channels_last": True,  # the fastest on a GPU, and everywhere the same run
        "track_test": True,
        "progress": False,
    }
    changes["trainer"] = config.trainer.model_copy(update=options)
    changes["data"] = config.data.model_copy(update={"root": choices.root})
    if is_taught(config):
        changes["teacher"] = teacher_file(out, study.dataset)
    config = config.model_copy(update=changes)
    config = config if choices.batch is None else with_batch(config, choices.batch)
    return without_foreign_settings(_dry(config, out) if choices.dry else config)


def with_batch(config: Config, batch: int) -> Config:
    """The configuration with another batch, the learning rate scaled with it."""
    rate = config.optimizer.lr * batch / config.data.batch_size
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"batch_size": batch}),
            "optimizer": config.optimizer.model_copy(update={"lr": rate}),
        }
    )


_DRY_IMAGES = {"train": 512, "test": 100}


def _dry(config: Config, out: Path) -> Config:
    """One epoch of the images of `write_noise`, which no protocol is for."""
    data = {"name": "image_folder", "root": out / "noise" / config.data.name, "size": 32}
    return config.model_copy(
        update={
            "epochs": 1,
            "protocol": None,
            "data": config.data.model_copy(update=data),
            "optimizer": config.optimizer.model_copy(update={"schedule": "cosine"}),  # steps need more epochs
            "trainer": config.trainer.model_copy(update={"precision": "32-true", "accelerator": "cpu"}),
        }
    )


def write_noise(out: Path, runs: Sequence[Run]) -> None:
    """Images for dry runs, noise in a colour for each class, in folders in place of the data sets of the runs."""
    import torch
    from PIL import Image

    for dataset in dict.fromkeys(run.study.dataset for run in runs):
        classes = {"cifar10": 10}.get(dataset, 100)
        draw = torch.Generator().manual_seed(classes)
        colours = torch.randint(256, (classes, 3), generator=draw)
        for part, count in _DRY_IMAGES.items():
            for number in range(count):
                pixels = torch.randint(256, (32, 32, 3), generator=draw) // 2 + colours[number % classes] // 2
                folder = out / "noise" / dataset / part / f"{number % classes:02}"
                if not (file := folder / f"{number:03}.png").is_file():
                    Image.fromarray(pixels.byte().numpy()).save(content := io.BytesIO(), format="PNG")
                    write_atomically(file, content.getvalue())
