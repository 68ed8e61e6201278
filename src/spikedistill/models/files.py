"""A trained network as one file that says itself how to build it."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..files import write_atomically
from ..temporal import Temporal
from .registry import create_model

_KEY = "spikedistill"


def save_model(model: Temporal, spec: dict[str, Any], path: Path) -> None:
    """Write the weights of `create_model(**spec)` and the spec itself to a safetensors file.

    Args:
        model: the network; its inner module's tensors are written under their own names.
        spec: the arguments that `create_model` was called with.
        path: the file, replaced only once the new one is complete.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.module.state_dict().items()}
    write_atomically(path, save(tensors, metadata={_KEY: json.dumps(spec)}))


def read_model_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The spec and the tensors that `save_model` wrote.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is damaged or not written by `save_model`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: train a model first, or check the path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise ValueError(f"{path} is no complete safetensors file ({error}): copy or train it again") from None
    if _KEY not in metadata:
        raise ValueError(f"{path} does not say which network it holds: expected a model.safetensors of a run folder")
    return json.loads(metadata[_KEY]), tensors


def load_model(path: Path) -> Temporal:
    """Read a network that `save_model` wrote, in eval mode.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is damaged or not written by `save_model`.
    """
    spec, tensors = read_model_file(path)
    model = create_model(**spec)
    try:
        model.module.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the network it names: {str(error).splitlines()[1].strip()}") from None
    return model.eval()
