"""A trained network as one file that says itself how to build it, what it was trained on, and whether it is whole.

The file is safetensors, with a JSON text of these entries under the key `spikedistill` of its metadata:

- `schema`: 2. Files of version 0.1.0 have none: the text is `network` itself, and they carry no checksum.
- `network`: the arguments of `create_model`.
- `classes`: names of the classes, in the order of the logits, or null.
- `input`: what the network takes, such as `{"kind": "image", "channels": 1, "size": [28, 28]}`, or null; images are in [0, 1].
- `sha256`: over the entries above, and every tensor's name, type, shape and bytes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..errors import UserError
from ..files import parse_json, write_atomically
from ..learned import Learned, in_our_words
from ..through_time import Temporal
from .joint import plain_state
from .registry import create_model

_KEY = "spikedistill"
SCHEMA = 2


class ModelFile(NamedTuple):
    """What a model file holds.

    Attributes:
        network: the arguments of `create_model`.
        tensors: the weights by name.
        classes: names of the classes; None where the file does not say.
        input: what the network takes; None where the file does not say.
    """

    network: dict[str, Any]
    tensors: dict[str, Tensor]
    classes: list[str] | None = None
    input: dict[str, Any] | None = None


def save_model(
    model: Temporal,
    spec: dict[str, Any],
    path: Path,
    *,
    classes: Sequence[str] | None = None,
    input: dict[str, Any] | None = None,
) -> None:
    """Write the weights of `create_model(**spec)`, and what tells how to use them, to a safetensors file.

    Args:
        model: the network; its inner module's tensors are written under their own names.
        spec: the arguments that `create_model` was called with; what is written of a joint network is the network only.
        path: the file, replaced only once the new one is complete.
        classes: names of the classes, in the order of the logits.
        input: what the network takes: `{"kind": "image" | "events", "channels": C, "size": [H, W]}`.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in plain_state(model.module).items()}
    plain = {
        name: str(value) if isinstance(value, Learned) else value for name, value in spec.items() if name != "joint"
    }
    text = json.dumps({"network": plain, "classes": None if classes is None else list(classes), "input": input})
    described = {"schema": SCHEMA, **json.loads(text)}
    described["sha256"] = _checksum(described, tensors)
    write_atomically(path, save(tensors, metadata={_KEY: json.dumps(described)}))


def read_model(path: Path, content: bytes | None = None) -> ModelFile:
    """What `save_model` wrote, with its checksum verified.

    Args:
        path: the file.
        content: what it holds, where that has been read.

    Raises:
        FileNotFoundError: where there is no such file.
        UserError: where it is damaged, of a newer version, or not written by `save_model`.
    """
    metadata, tensors = _read(path, content)
    if not isinstance(metadata.get(_KEY), str):
        raise UserError(
            f"{path} does not say which network it holds: expected a model.safetensors of a run folder, or a model's name with it"
        )
    described = parse_json(metadata[_KEY], path)
    if "schema" not in described:
        return ModelFile(described, tensors)
    if described["schema"] != SCHEMA:
        raise UserError(
            f"{path} is a model file of schema {described['schema']!r}, and this version reads {SCHEMA}: use a newer one"
        )
    if described.pop("sha256", None) != _checksum(described, tensors):
        raise UserError(f"{path} is damaged: its checksum does not fit; copy or train it again")
    try:
        return ModelFile(described["network"], tensors, described["classes"], described["input"])
    except KeyError as error:
        raise UserError(f"{path} is no model file: it has no entry {error}") from None


def load_model(path: Path, content: bytes | None = None) -> Temporal:
    """Read a network that `save_model` wrote, in eval mode.

    Args:
        path: the file.
        content: what it holds, where that has been read.

    Raises:
        FileNotFoundError: where there is no such file.
        UserError: where it is damaged, not written by `save_model`, or holds a number that is not finite.
    """
    file = read_model(path, content)
    try:
        network = in_our_words(file.network)
        with torch.device("meta"):  # takes no memory, whatever sizes the file asks for
            _check_shapes(create_model(**network).module.state_dict(), file.tensors, path)
        model = create_model(**network)
    except (TypeError, KeyError, AttributeError, OverflowError, RuntimeError) as error:
        shown = " ".join(str(error).split())[:160]
        raise UserError(f"{path} describes no network that this version can build ({shown})") from None
    _fill(model, file.tensors, path)
    return model.eval()


def load_weights(model: Temporal, path: Path) -> None:
    """Fill a network with the weights of any safetensors file; statistics of the images that it lacks stay as they are.

    Args:
        model: the network, as `create_model` makes it.
        path: a file with the tensors of that layout under our names.

    Raises:
        FileNotFoundError: where there is no such file.
        UserError: where it is damaged, holds the weights of another network, or a number that is not finite.
    """
    own = model.module.state_dict()
    tensors = {name if name in own else f"network.{name}": tensor for name, tensor in _read(path, None)[1].items()}
    tensors = {name: tensor for name, tensor in own.items() if name.startswith("normalize.")} | tensors
    _check_shapes(own, tensors, path)
    _fill(model, tensors, path)


def _read(path: Path, content: bytes | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if content is None:
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: train a model first, or check the path")
        content = path.read_bytes()
    try:
        tensors = load(content)  # which checks all of the header
    except SafetensorError as error:
        raise UserError(f"{path} is no complete safetensors file ({error}): copy or train it again") from None
    header = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")], path)
    return header.get("__metadata__") or {}, tensors


def _check_shapes(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors of another network.

    Raises:
        UserError: naming the first that is missing, unknown or of another shape.
    """
    for name in [*own, *(name for name in tensors if name not in own)]:
        shapes = [list(found[name].shape) if name in found else "none" for found in (own, tensors)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{path} holds the weights of another network: {name} is {shapes[1]} there, expected {shapes[0]}"
            )


def _fill(model: Temporal, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy the tensors, once all are known to be finite.

    Raises:
        UserError: naming the first that is not.
    """
    check_finite(tensors, path)
    model.module.load_state_dict(tensors)


def check_finite(tensors: Mapping[str, Tensor], origin: object) -> None:
    """Refuse tensors that hold NaN or infinite numbers.

    Raises:
        UserError: naming `origin` and the first such tensor.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not (finite := tensor.isfinite()).all():
            raise UserError(
                f"{origin} holds {int((~finite).sum())} of {tensor.numel()} numbers in {name} that are NaN or infinite: the "
                "training diverged, or a file is damaged; train the network again"
            )


def _checksum(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over a model file's entries and tensors, in hexadecimal."""
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
