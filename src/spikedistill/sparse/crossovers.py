"""The density of spikes up to which a sparse operator is faster than the dense one, measured once for a problem on this machine."""

import functools
import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..native import cache_folder
from ..neurons import Neuron
from . import kernels
from .kernels import Geometry
from .layer import SparseLayer
from .rows import SpikeRows
from .waiting import LayerOnSpikes, fire_in_rows

Operator = Literal["inference", "forward", "gradient"]
"""A layer with weights that stay, one whose weights change at every call, and the gradient of its weights."""

DEFAULTS: dict[Operator, float] = {"inference": 0.5, "forward": 0.5, "gradient": 0.5}
"""Used where measuring would take longer than it saves: for layers of few operations."""

# Layers of fewer operations in all timesteps are not measured.
MEASURED_FROM = 2**25
_DENSITIES = (0.2, 0.7)
_REPEATS = 5
# An operator of evaluation computes the neurons after the layer too.
_NEURON = Neuron()
# The times of both vary, and with the automatic choice the sparse operator shall not be slower.
_MARGIN = 0.9

logger = logging.getLogger("spikedistill")


class _Problem(NamedTuple):
    geometry: Geometry
    timesteps: int
    operator: Operator
    dtype: torch.dtype
    threads: int

    @property
    def name(self) -> str:
        sizes = "-".join(map(str, self.geometry))
        return f"{self.operator} {sizes} T{self.timesteps} {self.dtype} {self.threads} threads"


def crossover(geometry: Geometry, timesteps: int, operator: Operator, dtype: torch.dtype) -> float:
    """The density of spikes up to which an operator of a layer shall run sparse."""
    if geometry.operations * timesteps < MEASURED_FROM:
        return DEFAULTS[operator]
    # batches of similar sizes are one problem
    images = 1 << (geometry.images - 1).bit_length()
    problem = _Problem(geometry._replace(images=images), timesteps, operator, dtype, torch.get_num_threads())
    return _known(problem)


@functools.lru_cache(4096)
def _known(problem: _Problem) -> float:
    file = _file()
    known = _read(file) if file is not None else {}
    found = known.get(problem.name)
    if found is None:
        found = measure(problem.geometry, problem.timesteps, problem.operator, problem.dtype)
        if file is not None:
            _keep(file, problem.name, found)
    return found


@torch.no_grad()
def measure(geometry: Geometry, timesteps: int, operator: Operator, dtype: torch.dtype) -> float:
    """Measure a crossover, 0 to 1, on independent spikes, which leave least to share between timesteps.

    The sparse operator takes a time that grows as the density does, so two densities tell it.
    """
    dense: float = 0.0
    sparse: list[float] = []
    g = geometry
    weight = torch.randn(g.outputs, g.channels // g.groups, g.kernel_h, g.kernel_w)
    blocks = kernels.to_blocks(weight, g)
    for density in _DENSITIES:
        shape = torch.Size((g.images, g.channels, g.height, g.width))
        words = torch.rand(g.images * g.height * g.width, g.words, timesteps, kernels.WORD) < density
        rows, number = kernels.rows_of_bits(_bits(words, g.channels), timesteps)
        spikes = SpikeRows(rows, shape, number, dtype)
        layer = SparseLayer(spikes, g, dtype)
        grad = layer.forward(blocks, None)
        sparse.append(_seconds(partial(_sparse, layer, grad, weight, blocks, operator)))
        if not dense:
            # neurons before a layer that stays dense write numbers
            dense = _seconds(partial(_dense, layer, layer.rows.value(), grad, weight.to(dtype), operator))
    slope = max((sparse[1] - sparse[0]) / (_DENSITIES[1] - _DENSITIES[0]), 1e-9)
    found = _DENSITIES[0] + (_MARGIN * dense - sparse[0]) / slope
    return min(1.0, max(0.0, found))


def _bits(words: Tensor, channels: int) -> Tensor:
    """Spikes `[positions, words, T, 64]` as bits `[ceil(T / 8), positions, C]`."""
    spikes = words.permute(2, 0, 1, 3).flatten(2)[..., :channels]
    groups = [spikes[first : first + 8] for first in range(0, len(spikes), 8)]
    summed = [sum(part.to(torch.uint8) << t for t, part in enumerate(group)) for group in groups]
    return torch.stack([torch.as_tensor(total) for total in summed]).contiguous()


def _sparse(layer: SparseLayer, grad: Tensor, weight: Tensor, blocks: Tensor, operator: Operator) -> None:
    if operator == "gradient":
        layer.weight_gradient(grad, weight)
    elif operator == "forward":
        layer.forward(kernels.to_blocks(weight, layer.geometry), None)
    else:
        LayerOnSpikes(layer, blocks, None).fire(_NEURON)


def _dense(layer: SparseLayer, spikes: Tensor, grad: Tensor, weight: Tensor, operator: Operator) -> None:
    g, x = layer.geometry, spikes.flatten(0, 1)
    places = [g.stride_h, g.stride_w], [g.pad_h, g.pad_w], [g.dilation_h, g.dilation_w]
    if operator == "gradient":
        rest = False, [0, 0], g.groups, [False, True, False]
        torch.ops.aten.convolution_backward(grad.flatten(0, 1), x, weight, None, *places, *rest)
    else:
        out = F.conv2d(x, weight, None, *places, g.groups)
        if operator == "inference":
            fire_in_rows(out.unflatten(0, (layer.timesteps, -1)), layer.timesteps, _NEURON)


def _seconds(run: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begun)
    return best


@functools.cache
def _file() -> Path | None:
    """The file of this machine, whose name tells what the times depend on; None if nothing can be kept."""
    try:
        processor = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    except OSError:
        processor = platform.processor()
    made_of = processor, torch.__version__, torch.backends.cpu.get_cpu_capability(), os.cpu_count()
    source = Path(kernels.__file__).with_name("kernels.cpp").read_text()
    name = hashlib.sha256(repr((made_of, source)).encode()).hexdigest()[:16]
    try:
        return cache_folder() / f"crossovers-{name}.json"
    except (OSError, RuntimeError) as error:
        logger.debug("crossovers are not kept for the next process: %s", error)
        return None


def _read(file: Path) -> dict[str, float]:
    """The densities in a file; a damaged one is measured anew."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, float) and 0 <= value <= 1}


def _keep(file: Path, name: str, value: float) -> None:
    from ..files import write_atomically  # and what it needs, not before

    try:  # what another process has added is read again
        write_atomically(file, json.dumps(_read(file) | {name: value}, indent=1))
    except OSError as error:
        logger.debug("crossovers are not kept for the next process: %s", error)
