"""Files of logits `[T, N, C]` and labels, of any library: read to be reported, written by `evaluate(..., out=FOLDER)`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..data.array_files import read_npz
from ..errors import UserError
from ..files import write_atomically
from .results import Energy, Layer, first_fault

LogitsLike: TypeAlias = Tensor | NDArray[Any]
SUFFIXES = (".npz", ".safetensors")
_MOST = 2**33  # bytes of an array
_LABELS = ("labels", "targets")
_HELDOUT = (("holdout_logits",), ("holdout_labels", "holdout_targets"))
_NAMES = ("logits", *_LABELS, "classes", "lengths", *_HELDOUT[0], *_HELDOUT[1])
# What the metadata may hold, in JSON.
_DESCRIBED: dict[str, TypeAdapter[Any]] = {
    "classes": TypeAdapter(list[str]),
    "energy": TypeAdapter(Energy),
    "firing_rates": TypeAdapter(list[Layer]),
}


@dataclass(frozen=True, eq=False)
class LabelledLogits:
    """Logits and labels, and optional information on the network and its samples.

    Attributes:
        logits: `[T, N, C]`.
        labels: `[N]`.
        classes: the names of the classes, if they are known.
        heldout: logits and labels of held-out samples, to fit temperatures on.
        energy: the estimate of `deployment.energy_per_timestep`, if `evaluate` counted the operations of a network.
        firing_rates: `[{layer, rates}]`, if `evaluate` recorded a network.
        lengths: the timesteps of each sample, `[N]`, if they differ.
    """

    logits: Tensor
    labels: Tensor
    classes: list[str] | None = None
    heldout: tuple[Tensor, Tensor] | None = None
    energy: dict[str, Any] | None = None
    firing_rates: tuple[dict[str, Any], ...] = ()
    lengths: Tensor | None = None

    @classmethod
    def of(
        cls,
        logits: LogitsLike,
        labels: LogitsLike,
        *,
        classes: Sequence[str] | None = None,
        heldout: tuple[LogitsLike, LogitsLike] | None = None,
    ) -> Self:
        """Make labelled logits from tensors or arrays of any library.

        Raises:
            UserError: for anything but floating-point logits and integer labels.
        """
        return cls(
            as_logits(logits),
            as_targets(labels),
            None if classes is None else list(classes),
            None if heldout is None else (as_logits(heldout[0]), as_targets(heldout[1])),
        )

    def write(self, path: Path) -> None:
        """Write a .safetensors file."""
        tensors = {"logits": self.logits, "targets": self.labels}
        if self.lengths is not None:
            tensors["lengths"] = self.lengths
        if self.heldout is not None:
            tensors |= {"holdout_logits": self.heldout[0], "holdout_targets": self.heldout[1]}
        described = {"classes": self.classes, "energy": self.energy, "firing_rates": list(self.firing_rates)}
        content = save(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            {name: json.dumps(value) for name, value in described.items() if value},
        )
        write_atomically(path, content)


def read_logits(path: Path) -> LabelledLogits:
    """Read logits and labels.

    Args:
        path: an .npz file with the arrays `logits` `[T, N, C]` and `labels` (or `targets`) `[N]`, and optionally `classes`
            (names as texts), `holdout_logits` and `holdout_labels`, and `lengths` `[N]` if sequences end before T; or a
            .safetensors file with the same names, whose metadata may hold `classes` as a JSON list.

    Raises:
        FileNotFoundError: if there is no such file.
        UserError: for a damaged file, or one without these arrays.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: expected logits and labels in an .npz or .safetensors file")
    if path.suffix == ".npz":
        arrays: Mapping[str, Any] = read_npz(path, _NAMES, _MOST)
        described: dict[str, Any] = {}
    elif path.suffix == ".safetensors":
        arrays, described = _read_safetensors(path)
    else:
        raise UserError(f"{path} ends with {path.suffix or 'nothing'}, expected a file of logits, .npz or .safetensors")
    if "logits" not in arrays:
        found = ", ".join(sorted(arrays)) or "none of these"
        raise UserError(f"{path} holds {found}, expected the arrays logits [T, N, C] and labels [N]")
    _check_described(path, described)
    classes = _class_names(path, arrays["classes"]) if "classes" in arrays else described.get("classes")
    heldout = None
    if "holdout_logits" not in arrays and (labels := [name for name in _HELDOUT[1] if name in arrays]):
        raise UserError(f"{path} holds {labels[0]} without holdout_logits: add these, or leave the labels out")
    if "holdout_logits" in arrays:
        heldout = as_logits(arrays["holdout_logits"]), _first(path, arrays, _HELDOUT[1])
    try:
        return LabelledLogits(
            as_logits(arrays["logits"]),
            _first(path, arrays, _LABELS),
            classes,
            heldout,
            described.get("energy"),
            tuple(described.get("firing_rates") or ()),
            as_targets(arrays["lengths"]) if "lengths" in arrays else None,
        )
    except UserError as error:
        raise UserError(f"{error}" if str(path) in str(error) else f"{path}: {error}") from None


def as_logits(values: LogitsLike) -> Tensor:
    """Logits of any library as a tensor on the CPU, in float32; float64 stays float64.

    Raises:
        UserError: for anything but floating-point numbers.
    """
    tensor = _as_tensor(values, "logits [T, N, C]")
    if not tensor.is_floating_point():
        raise UserError(f"expected floating-point logits [T, N, C], got {tensor.dtype} {list(tensor.shape)}")
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def as_targets(values: LogitsLike) -> Tensor:
    """Labels as an int64 tensor on the CPU.

    Raises:
        UserError: for anything but integers.
    """
    tensor = _as_tensor(values, "labels [N]")
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise UserError(f"expected integer labels [N], got {tensor.dtype} {list(tensor.shape)}")
    return tensor.long()


def _as_tensor(values: Any, expected: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        return torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("="), order="C"))
    if isinstance(values, (list, tuple)) and all(isinstance(value, int) for value in values):
        return torch.tensor(values)
    got = f"an array of {values.dtype}" if isinstance(values, np.ndarray) else f"a {type(values).__name__}"
    raise UserError(f"got {got}, expected {expected} as a tensor or an array of numbers")


def _first(path: Path, arrays: Mapping[str, Any], names: tuple[str, ...]) -> Tensor:
    found = [name for name in names if name in arrays]
    if len(found) > 1:
        raise UserError(f"{path} holds {' and '.join(found)}, expected one of the two")
    if not found:
        raise UserError(f"{path} holds {', '.join(sorted(arrays))}, expected the labels too, as {' or '.join(names)}")
    return as_targets(arrays[found[0]])


def _class_names(path: Path, names: Any) -> list[str]:
    if not isinstance(names, np.ndarray) or names.ndim != 1 or names.dtype.kind not in "US":
        got = f"{names.dtype} {list(names.shape)}"
        raise UserError(
            f"{path}: classes is {got}, expected one text for each class, such as numpy.array(names, dtype=str)"
        )
    return [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names.tolist()]


def _check_described(path: Path, described: dict[str, Any]) -> None:
    """Refuse metadata of another form.

    Raises:
        UserError: naming the first fault.
    """
    try:
        for name, kind in _DESCRIBED.items():
            if name in described:
                kind.validate_python(described[name])
    except ValidationError as error:
        raise UserError(f"{path}: the metadata is broken ({first_fault(error)})") from None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of known names, and the metadata, read as JSON."""
    try:
        with safe_open(path, "pt") as file:
            found = set(file.keys())
            tensors = {name: file.get_tensor(name) for name in _NAMES if name in found}
            metadata = file.metadata() or {}
        described = {name: json.loads(metadata[name]) for name in _DESCRIBED if name in metadata}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is no readable .safetensors file ({' '.join(str(error).split())[:120]})") from None
    return tensors, described
