"""A trained network as one file that says itself how to build it."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..files import write_atomically
from ..temporal import Temporal
from .joint import plain_state
from .registry import create_model

_KEY = "spikedistill"


def save_model(model: Temporal, spec: dict[str, Any], path: Path) -> None:
    """Write the weights of `create_model(**spec)` and the spec itself to a safetensors file.

    Args:
        model: the network; its inner module's tensors are written under their own names.
        spec: the arguments that `create_model` was called with; what is written of a joint network is the network alone.
        path: the file, replaced only once the new one is complete.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in plain_state(model.module).items()}
    alone = {option: value for option, value in spec.items() if option != "joint"}
    write_atomically(path, save(tensors, metadata={_KEY: json.dumps(alone)}))


def load_model(path: Path) -> Temporal:
    """Read a network that `save_model` wrote, in eval mode.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is damaged or not written by `save_model`.
    """
    metadata, tensors = _read(path)
    if _KEY not in metadata:
        raise ValueError(
            f"{path} does not say which network it holds: expected a model.safetensors of a run folder, or a model's name with it"
        )
    model = create_model(**json.loads(metadata[_KEY]))
    _fill(model, tensors, path)
    return model.eval()


def load_weights(model: Temporal, path: Path) -> None:
    """Fill a network with the weights of any safetensors file; statistics of the images that it lacks stay as they are.

    Args:
        model: the network, as `create_model` makes it.
        path: a file with the tensors of that layout under our names.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is damaged, or holds the weights of another network.
    """
    own = model.module.state_dict()
    tensors = {name if name in own else f"network.{name}": tensor for name, tensor in _read(path)[1].items()}
    _fill(model, {name: tensor for name, tensor in own.items() if name.startswith("normalize.")} | tensors, path)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: train a model first, or check the path")
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except SafetensorError as error:
        raise ValueError(f"{path} is no complete safetensors file ({error}): copy or train it again") from None


def _fill(model: Temporal, tensors: dict[str, Tensor], path: Path) -> None:
    try:
        model.module.load_state_dict(tensors)
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip()
        shown = detail if len(detail) < 160 else detail[:160] + " ..."
        raise ValueError(f"{path} holds the weights of another network: {shown}") from None
