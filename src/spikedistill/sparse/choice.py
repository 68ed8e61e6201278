"""Which layers run on spikes: those for which it is faster at their density, or all, or none."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

import torch

from ..errors import UserError
from ..native import DTYPES
from ..neurons import may_compile
from .crossovers import Operator, crossover
from .kernels import Geometry, available
from .layer import SparseLayer

SparseMode = Literal["auto", "always", "never"]

# Layers of fewer operations in all timesteps run dense: the time that they take is that of calling them.
SMALLEST = 2**22


class Choices:
    """What was chosen for the layers on spikes, as a line says it.

    Attributes:
        mode: "auto", "always" or "never".
    """

    def __init__(self, mode: SparseMode) -> None:
        self.mode = mode
        self._latest: dict[tuple[Geometry, int], tuple[bool, float]] = {}

    def note(self, geometry: Geometry, times: int, sparse: bool, density: float) -> None:
        self._latest[geometry, times] = sparse, density

    def __bool__(self) -> bool:
        return bool(self._latest)

    def __str__(self) -> str:
        if not self:
            return f"no layer on spikes with {SMALLEST / 1e6:.1f} M operations or more"
        sparse = [density for runs, density in self._latest.values() if runs]
        dense = [density for runs, density in self._latest.values() if not runs]
        parts = [
            f"{len(found)} {word} at densities of {min(found):.2f} to {max(found):.2f}"
            for word, found in (("sparse", sparse), ("dense", dense))
            if found
        ]
        return "layers on spikes by their sizes: " + ", ".join(parts)


_choices = ContextVar("_choices", default=Choices("auto"))  # noqa: B039 the default only notes


@contextmanager
def sparse_layers(mode: SparseMode) -> Iterator[Choices]:
    """Choose the layers on spikes in that way inside.

    Args:
        mode: "auto" runs them on spikes where that is faster at their density; "always" and "never" force either.

    Raises:
        UserError: for another mode.
    """
    if mode not in get_args(SparseMode):
        raise UserError(f"mode is {mode!r}, expected one of {', '.join(get_args(SparseMode))}")
    choices = Choices(mode)
    token = _choices.set(choices)
    try:
        yield choices
    finally:
        _choices.reset(token)


def current_choices() -> Choices:
    """What has been chosen so far in the innermost `sparse_layers`."""
    return _choices.get()


def may_run_sparse(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether layers on spikes of that dtype may run sparse there."""
    if torch.compiler.is_compiling() or device.type != "cpu" or dtype not in DTYPES:
        return False
    return _choices.get().mode != "never" and may_compile() and available()


def is_large(geometry: Geometry, timesteps: int) -> bool:
    """Whether a layer is large enough to run sparse; under "always" every layer is."""
    return _choices.get().mode == "always" or geometry.operations * timesteps >= SMALLEST


def runs_sparse(layer: SparseLayer, operator: Operator) -> bool:
    """Whether an operator of a layer runs sparse at the density of its input."""
    choices = _choices.get()
    geometry, timesteps, density = layer.geometry, layer.timesteps, layer.density
    if choices.mode == "always":
        sparse = True
    else:
        sparse = is_large(geometry, timesteps) and density <= crossover(geometry, timesteps, operator, layer.dtype)
    if operator != "gradient":
        choices.note(geometry, timesteps, sparse, density)
    return sparse
