"""A trained network as one self-describing file: how to build the network, its input, and a checksum.

The file is safetensors. Its metadata have the key `spikedistill` with a JSON text of these entries:

- `schema`: 3. Files of schema 2 lack `timesteps` and `imports`. Files of version 0.1.0 have no schema: their text is `network`
  itself, and they carry no checksum. All are read.
- `network`: the arguments of `create_model`, without the gradient rule, auxiliary heads and ANN of training; or `{"python": PATH}`
  for a network that was made in Python, with the import path of its class.
- `imports`: the files and modules that register names in `network`. Reading never imports them.
- `classes`: names of the classes, in the order of the logits, or null.
- `input`: the input of the network, `{"kind": "image", "channels": 1, "size": [28, 28]}`, and how images are preprocessed for
  it (see `spikedistill.data.Preprocess`), or null. Images are in [0, 1]; the network normalises them itself.
- `timesteps`: T of training, or null.
- `exit`: when a sample may stop, `{"policy": "confidence", "threshold": 0.9, "max_timesteps": 4}`, or missing; a threshold of null
  runs all timesteps.
- `sha256`: over the entries above, and every tensor's name, type, shape and bytes.

The surrogate of the neurons is an argument of the network, because gradients through a trained network need it: fine-tuning,
saliency, adversarial examples.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ..errors import UserError
from ..files import parse_json, write_atomically
from ..learned import Learned, in_our_words
from ..registry import UnknownName
from ..setting_types import MOST_TIMESTEPS
from ..through_time import OPTIONS as RULE_OPTIONS
from ..through_time import Temporal, temporal
from .joint import plain_state
from .plain import normalised
from .registry import create_model

_KEY = "spikedistill"
SCHEMA = 3
_OF_TRAINING = {"gradient", "joint", "branches", "branch_count", "drop_path", *RULE_OPTIONS}


class ModelFile(NamedTuple):
    """The content of a model file.

    Attributes:
        network: the arguments of `create_model`, or `{"python": PATH}`.
        tensors: the weights by name.
        classes: names of the classes; None if the file has none.
        input: the input of the network; None if the file does not record it.
        timesteps: T of training; None if the file does not record it.
        imports: files and modules that register names in `network`.
        exit: when a sample may stop; None if the file does not say.
    """

    network: dict[str, Any]
    tensors: dict[str, Tensor]
    classes: list[str] | None = None
    input: dict[str, Any] | None = None
    timesteps: int | None = None
    imports: Sequence[str] = ()
    exit: dict[str, Any] | None = None


def save_model(
    model: Temporal,
    spec: dict[str, Any],
    path: Path | str,
    *,
    classes: Sequence[str] | None = None,
    input: dict[str, Any] | None = None,
    timesteps: int | None = None,
    imports: Sequence[str] = (),
    exit: Mapping[str, Any] | None = None,
) -> None:
    """Write a network to a safetensors file that `load` and `load_model` read.

    Only the network is written: no gradient rule, auxiliary heads or ANN of training.

    Args:
        model: the network. The tensors of `model.module` are written under their own names.
        spec: the arguments that `create_model` was called with; or `{"python": "my_nets.Net"}` for a module of your own, which
            `load(path, model=Net())` then fills.
        path: the file. An existing file is replaced only when the new one is complete.
        classes: names of the classes, in the order of the logits.
        input: the input of the network: `{"kind": "image" | "events", "channels": C, "size": [H, W]}`, with the entries of
            `spikedistill.data.Preprocess`. `load` then offers `preprocess` and `predict`, and refuses images outside [0, 1].
        timesteps: T of training, the default of `predict`.
        imports: the files and modules that register names in `spec`, such as `my_nets.py`; `load` says that it needs them.
        exit: when a sample may stop: `{"policy": "confidence", "threshold": 0.9, "max_timesteps": 4}`; `AnytimeClassifier.load`
            takes it.
    """
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)  # tied weights are written twice
        for name, tensor in plain_state(model.module).items()
    }
    network = {
        name: str(value) if isinstance(value, Learned) else value
        for name, value in spec.items()
        if name not in _OF_TRAINING
    }
    entries = {"network": network, "imports": list(imports), "classes": None if classes is None else list(classes)}
    if exit is not None:
        entries["exit"] = dict(exit)
    text = json.dumps({**entries, "input": input, "timesteps": timesteps})
    described = {"schema": SCHEMA, **json.loads(text)}
    described["sha256"] = _checksum(described, tensors)
    write_atomically(Path(path), save(tensors, metadata={_KEY: json.dumps(described)}))


def read_model(path: Path | str, content: bytes | None = None) -> ModelFile:
    """The content of a file that `save_model` wrote. Its checksum is verified; nothing in it is imported or executed.

    Args:
        path: the file.
        content: its bytes, if they have been read already.

    Raises:
        FileNotFoundError: if there is no such file.
        UserError: if it is damaged, written by a newer version, or not written by `save_model`.
    """
    path = Path(path)
    metadata, tensors = _read(path, content)
    if not isinstance(metadata.get(_KEY), str):
        raise UserError(
            f"{path} does not say which network it holds: expected a model.safetensors of a run folder, or a model's name with it"
        )
    described = parse_json(metadata[_KEY], path)
    if "schema" not in described:
        return ModelFile(described, tensors)
    if described["schema"] not in (2, SCHEMA):
        raise UserError(
            f"{path} is a model file of schema {described['schema']!r}, and this version reads up to {SCHEMA}: use a newer one"
        )
    if described.pop("sha256", None) != _checksum(described, tensors):
        raise UserError(f"{path} is damaged: its checksum does not fit; copy or train it again")
    try:
        needed = {name: described[name] for name in ("network", "classes", "input")}
    except KeyError as error:
        raise UserError(f"{path} is no model file: it has no entry {error}") from None
    file = ModelFile(
        tensors=tensors,
        timesteps=described.get("timesteps"),
        imports=described.get("imports", []),
        exit=described.get("exit"),
        **needed,
    )
    if wrong := _wrong_entry(file):
        raise UserError(f"{path} is no model file of this version: its entry {wrong}")
    return file


def _wrong_entry(file: ModelFile) -> str | None:
    """The first entry whose type is not the one that `save_model` writes, with the expected type; None if there is none."""
    classes = file.classes
    count = file.network.get("num_classes") if isinstance(file.network, dict) else None
    rules = {
        "network": (isinstance(file.network, dict), "named arguments"),
        "classes": (
            classes is None or (_are_texts(classes) and count in (None, len(classes))),
            "the name of each class",
        ),
        "input": (file.input is None or isinstance(file.input, dict), "named values"),
        "timesteps": (
            file.timesteps is None or (type(file.timesteps) is int and 1 <= file.timesteps <= MOST_TIMESTEPS),
            f"a whole number from 1 to {MOST_TIMESTEPS}",
        ),
        "imports": (_are_texts(file.imports), "names of files and modules"),
        "exit": (file.exit is None or isinstance(file.exit, dict), "named values"),
    }
    for name, (right, expected) in rules.items():
        if not right:
            return f"{name!r} is {str(getattr(file, name))[:80]}, expected {expected}"
    return None


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)


def load_model(
    path: Path | str, content: bytes | None = None, *, model: nn.Module | Callable[[], nn.Module] | None = None
) -> Temporal:
    """Read a network that `save_model` wrote, in eval mode and with BPTT as its gradient rule.

    `spikedistill.load` returns the same network with its class names, `preprocess` and `predict`.

    Args:
        path: the file.
        content: its bytes, if they have been read already.
        model: the network to fill, for one that was made in Python or whose name is not registered: a plain module, or one from
            `temporal`, or a class or function that makes it.

    Raises:
        FileNotFoundError: if there is no such file.
        UserError: if it is damaged, not written by `save_model`, holds a number that is not finite, or holds a network that is
            neither registered nor given.
    """
    return build_model(read_model(path, content), Path(path), model)


def build_model(file: ModelFile, path: Path, given: nn.Module | Callable[[], nn.Module] | None = None) -> Temporal:
    """The network of a file that was read, in eval mode; see `load_model`."""
    if given is not None:
        made = given if isinstance(given, nn.Module) or not callable(given) else given()
        if not isinstance(made, nn.Module):
            raise UserError(f"model is a {type(made).__name__}, expected a torch.nn.Module, or what makes one")
        network = _over_time(made, file.tensors)
        _check_shapes(network.module.state_dict(), file.tensors, path)
        _fill(network, file.tensors, path)
        return network.eval()
    if isinstance(python := file.network.get("python"), str):
        raise UserError(
            f"{path} holds a network that was made in Python, {python[:120]}: make it and pass it, load(path, model=...)"
        )
    try:
        spec = {name: value for name, value in in_our_words(file.network).items() if name not in _OF_TRAINING}
        with torch.device("meta"):  # takes no memory, whatever sizes the file names
            _check_shapes(create_model(**spec).module.state_dict(), file.tensors, path)
        network = create_model(**spec)
    except UnknownName as error:
        needed = " ".join(f"--import {name[:200]}" for name in file.imports[:4])
        advice = (
            f": add {needed}, import it in Python first, or pass the network, load(path, model=...)" if needed else ""
        )
        raise UserError(f"{path} needs names that are not registered ({error}){advice}") from None
    except (TypeError, KeyError, AttributeError, OverflowError, RuntimeError) as error:
        shown = " ".join(str(error).split())[:160]
        raise UserError(f"{path} describes no network that this version can build ({shown})") from None
    _fill(network, file.tensors, path)
    return network.eval()


def _over_time(network: nn.Module, tensors: Mapping[str, Tensor]) -> Temporal:
    """A network that the user made, over time, behind the normalisation with which it was saved."""
    module = network.module if isinstance(network, Temporal) else network
    mean, std = tensors.get("normalize.mean"), tensors.get("normalize.std")
    if mean is None or std is None or "normalize.mean" in module.state_dict():
        return network if isinstance(network, Temporal) else temporal(module)
    return temporal(normalised(module, mean.flatten().tolist(), std.flatten().tolist()))


def read_weights(path: Path, content: bytes | None = None) -> ModelFile:
    """The tensors of any safetensors file, with the entries of a model file.

    Raises:
        FileNotFoundError: if there is no such file.
        UserError: if it is damaged, or of a newer version.
    """
    metadata, tensors = _read(path, content)
    return read_model(path, content) if _KEY in metadata else ModelFile({}, tensors)


def load_weights(model: Temporal, path: Path) -> None:
    """Fill a network with the weights of any safetensors file. Statistics of images that the file lacks stay as they are.

    Args:
        model: the network, as `create_model` makes it.
        path: a file with the tensors of that layout under our names.

    Raises:
        FileNotFoundError: if there is no such file.
        UserError: if it is damaged, holds the weights of another network, or a number that is not finite.
    """
    own = model.module.state_dict()
    tensors = {
        name if name in own else f"network.{name}": tensor for name, tensor in read_weights(path).tensors.items()
    }
    tensors = {name: tensor for name, tensor in own.items() if name.startswith("normalize.")} | tensors
    _check_shapes(own, tensors, path)
    _fill(model, tensors, path)


def _read(path: Path, content: bytes | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if content is None:
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: train a model first, or check the path")
        content = path.read_bytes()
    try:
        tensors = load(content)  # this checks the whole header
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
    """Copy the tensors after checking that all are finite.

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
