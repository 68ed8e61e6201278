"""The weights and membranes that a run starts from."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import Config
from ..data import Dataset, Samples, as_network_input, balanced_order, lengths_of
from ..errors import UserError
from ..evaluation.initial_membranes import start_membranes
from ..models import Start, read_weights, starting_weights
from ..run_folder import RunFolder
from ..through_time import Temporal

_BATCH, _BATCHES = 100, 50  # the running mean forgets a batch after about ten


def initial_weights(config: Config, network: Temporal, spec: Mapping[str, Any], dataset: Dataset) -> Start | None:
    """The weights of `config.init_from`, a run folder, a model file or any safetensors file; None if it is not given.

    Args:
        config: the configuration of the run.
        network: the untrained network, which is not changed.
        spec: the arguments of `create_model` for it.
        dataset: the data set of the run.

    Raises:
        FileNotFoundError: if the run or the file is not there, or the run has not finished.
        UserError: if the file is damaged or of another kind, or its weights do not fit.
    """
    path = config.init_from
    if path is None:
        return None
    if config.model.joint:
        raise UserError("--model.joint draws the singular vectors that both networks share: omit --init-from")
    if config.model.norm == "tdbn":
        raise UserError(
            f"--model.norm tdbn only says where weights of batch-norms start, and --init-from {path} replaces these: set "
            "--model.norm batch, or omit --init-from"
        )
    if path.resolve() == config.run_folder.resolve():
        raise UserError(f"--init-from {path} is the folder that this run writes to: choose another --out")
    file = initial_file(path)
    found = read_weights(file, RunFolder(path).read(file) if path.is_dir() else None)
    return starting_weights(network, found, path, spec=spec, classes=dataset.classes)


def with_membranes(
    config: Config, network: Temporal, start: Start | None, train: Samples, dataset: Dataset
) -> Start | None:
    """What a run starts from, with membranes at the running mean of where they end, if `config.init_membranes` asks for that.

    Args:
        config: the configuration of the run.
        network: the untrained network, which is not changed.
        start: the weights.
        train: training samples.
        dataset: the data set of the run.

    Raises:
        UserError: without weights, for recordings of different length, or for a network whose initial membranes are not learned.
    """
    if not config.init_membranes:
        return start
    if start is None:
        raise UserError(
            "--init-membranes takes the membranes of a network that was trained: give its run or file as --init-from"
        )
    if lengths_of(train) is not None:
        raise UserError(
            f"--init-membranes: {dataset.name} holds recordings of different length, whose padding it would count: leave it out"
        )
    begun = copy.deepcopy(network)
    begun.module.load_state_dict(start.tensors, strict=False)
    chosen = balanced_order(train.targets)[: _BATCH * _BATCHES]
    batches = (as_network_input(train.inputs(part), dataset.kind) for part in chosen.split(_BATCH))
    found = start_membranes(begun, batches, config.timesteps)
    membranes = {
        name: value for name, value in begun.module.state_dict().items() if name.rpartition(".")[2] == "v_init"
    }
    said = f"{start.said}; membranes begin at {min(found.values()):.3g} to {max(found.values()):.3g}"
    return Start(start.tensors | membranes, said)


def initial_file(path: Path) -> Path:
    """The file that holds the weights.

    Raises:
        FileNotFoundError: if the run or the file is not there, or the run has not finished.
        UserError: if it is another kind of file.
    """
    if path.is_dir():
        return RunFolder.trained(path).model
    if not path.is_file():
        raise FileNotFoundError(f"--init-from {path} does not exist: expected a run folder or a .safetensors file")
    if path.suffix != ".safetensors":
        raise UserError(
            f"--init-from {path} is no safetensors file: expected a run folder or a .safetensors file; "
            "safetensors.torch.save_file(state_dict, path) writes one from a state dict of PyTorch"
        )
    return path
