"""A run folder: what a run leaves behind, and where."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .config import Config, TrainerConfig
from .data import Dataset, load_dataset
from .models import load_model
from .temporal import Temporal


def device_of(options: TrainerConfig) -> torch.device:
    """Where a run works outside of Lightning's hands: on a GPU, where there is one and the run may use it."""
    wants_gpu = options.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if wants_gpu else "cpu")


class RunStopped(Exception):
    """A run was asked to stop, and has saved where it is."""


class RunFailed(RuntimeError):
    """A run of several failed, in a process of its own that has said why."""


class RunFolder:
    """The files of one run.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.metrics = self.path / "metrics.csv"
        self.checkpoint = self.path / "checkpoints" / "last.ckpt"
        self.model = self.path / "model.safetensors"
        self.selected_model = self.path / "selected.safetensors"
        self.cost = self.path / "cost.json"
        self.results = self.path / "results.json"
        self.logits = self.path / "logits.safetensors"
        self.samples = self.path / "samples.safetensors"
        self.gradients = self.path / "gradients.csv"
        self.report = self.path / "report.html"

    @classmethod
    def trained(cls, path: Path | str) -> "RunFolder":
        """The folder of a run that has been trained to its end.

        Raises:
            FileNotFoundError: where the folder, its configuration or its trained model is missing.
        """
        run = cls(path)
        if not run.path.is_dir():
            raise FileNotFoundError(f"{run.path} is no folder: expected a run folder such as runs/digits-twsd/seed0")
        for file in (run.config_file, run.model):
            if not file.is_file():
                raise FileNotFoundError(
                    f"{run.path} holds no {file.name}: it is no run folder, or its training has not finished; "
                    "spikedistill train RECIPE --resume auto goes on with it"
                )
        return run

    @property
    def is_complete(self) -> bool:
        """Whether training and evaluation have written everything."""
        return self.model.is_file() and self.report.is_file()

    def config(self) -> Config:
        """The configuration that the run was trained with.

        Raises:
            ValueError: where config.yaml is damaged.
        """
        return Config.from_yaml(self.config_file.read_text(), origin=str(self.config_file))

    def read_results(self) -> dict[str, Any]:
        """What evaluation wrote.

        Raises:
            FileNotFoundError: where the run has not been evaluated.
            ValueError: where the file is damaged.
        """
        if not self.results.is_file():
            raise FileNotFoundError(f"{self.path} holds no results.json: spikedistill evaluate {self.path} writes it")
        try:
            results = json.loads(self.results.read_text())
            results["last"]["single"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{self.results} is damaged ({error}): spikedistill evaluate {self.path} writes it anew"
            ) from None
        return results

    def read_tensors(self, file: Path, *names: str) -> dict[str, Tensor]:
        """What evaluation wrote into one of `logits` and `samples`, these names at least.

        Raises:
            FileNotFoundError: where the run has not been evaluated.
            ValueError: where the file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        again = f"spikedistill evaluate {self.path} writes it"
        try:
            tensors = load_file(file)
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.path} holds no {file.name}: {again}") from None
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged ({error}): {again} anew") from None
        if missing := next((name for name in names if name not in tensors), None):
            raise ValueError(f"{file} holds no tensor {missing!r}: {again} anew")
        return tensors

    def read_cost(self) -> dict[str, Any]:
        """Training time, speed and memory, `{training_s, images_per_s, peak_mib}`; empty where training measured none."""
        return json.loads(self.cost.read_text()) if self.cost.is_file() else {}


def dataset_of(config: Config, root: Path | None = None) -> Dataset:
    """The data set of a run.

    Args:
        config: of the run.
        root: folder of the data sets, where it is another one now.

    Raises:
        FileNotFoundError: where files are missing.
        ValueError: for an unknown data set, an option that is not its own, or a damaged file.
    """
    data = config.data
    return load_dataset(data.name, root or data.root, timesteps=config.timesteps, size=data.size, slicing=data.slicing)


def load(run: Path | str) -> Temporal:
    """The trained network of a run, in eval mode, taking images in [0, 1] (or event frames) as `model(x, timesteps=T)`.

    Args:
        run: a run folder.

    Raises:
        FileNotFoundError: where there is no trained run.
        ValueError: where the model file is damaged.
    """
    return load_model(RunFolder.trained(run).model)
