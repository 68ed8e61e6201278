"""The data set and the network of a run, of which some came from Python and are given again."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from ..config import Config
from ..data import Dataset, as_dataset, data_path
from ..errors import UserError
from ..from_python import check_given, import_path
from ..models import plain_module
from ..run_folder import dataset_of


def parts_of_run(
    config: Config,
    data: Any = None,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    root: Path | None = None,
    call: str = "evaluate(run",
) -> tuple[Dataset, nn.Module | None]:
    """The data set of a run, and the network that its weights are filled into, if it came from Python.

    Args:
        config: of the run.
        data: for a run whose data came from Python, the same as in `train(config, data=...)`.
        model: for a run whose network came from Python, an instance, which is copied, or what makes one.
        root: folder of the data sets, if it is another one now.
        call: what takes these arguments, for messages.

    Raises:
        FileNotFoundError: if files are missing.
        UserError: for data or a network that are missing, not wanted or of another class.
    """
    if data is not None and "data" not in config.from_python:
        raise UserError(
            f"data came for a run on {config.data.name}, which is loaded by name: leave it out, or score the network on other data "
            "with evaluate(load(run), data, timesteps=T)"
        )
    made = copy.deepcopy(model) if isinstance(model, nn.Module) else None if model is None else model()
    dataset = None if data is None else as_dataset(data)
    now = {
        "data": None if dataset is None else data_path(dataset),
        "model": None if made is None else import_path(plain_module(made)),
    }
    check_given(config.from_python, now, call)
    return dataset_of(config, root) if dataset is None else dataset, made
