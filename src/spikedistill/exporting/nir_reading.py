"""NIR graphs of files: run by the equations of the format, and as networks of ours that can be trained further."""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..neurons import LIF
from ..through_time import Temporal, temporal
from .graph import needed
from .nir import INPUT, OUTPUT, pair
from .verify import Runner


def read(content: bytes | Path) -> Any:
    """The graph in a file.

    Raises:
        UserError: if nir is not installed, or the file holds no graph.
    """
    needed("nir", "nir")
    import nir

    try:
        if isinstance(content, Path):
            return nir.read(content)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.nir"
            path.write_bytes(content)
            return nir.read(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # of h5py and nir, of many types
        raise UserError(f"the file holds no NIR graph: {' '.join(str(error).split())[:200]}") from None


def runner(content: bytes | Path, keys: Sequence[str]) -> Runner:
    """A NIR graph, run timestep by timestep by the equations of the format.

    Args:
        content: the file.
        keys: the names of the neurons' nodes, in the order of the state.
    """
    graph = read(content)
    order = ordered(graph)
    sources = {name: [source for source, target in graph.edges if target == name] for name in graph.nodes}

    @torch.no_grad()
    def run(x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        membranes, values = dict(zip(keys, state, strict=True)), {INPUT: x}
        for name in order:
            if name == INPUT:
                continue
            given = sum((values[source] for source in sources[name][1:]), values[sources[name][0]])
            values[name], membrane = evaluated(graph.nodes[name], given, membranes.get(name))
            if membrane is not None:
                membranes[name] = membrane
        return values[OUTPUT], [membranes[key] for key in keys]

    return run


def ordered(graph: Any) -> list[str]:
    """The names of a graph's nodes, each after those that it reads.

    Raises:
        UserError: for a graph with a loop.
    """
    waiting, done = list(graph.nodes), []
    while waiting:
        ready = [name for name in waiting if all(source in done for source, target in graph.edges if target == name)]
        if not ready:
            raise UserError(f"the graph has a loop through {', '.join(waiting[:4])}, which no layer of ours has")
        done += ready
        waiting = [name for name in waiting if name not in ready]
    return done


def evaluated(node: Any, x: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The output of a node at one timestep, and its membranes after it."""
    import nir

    def tensor(values: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values))

    if isinstance(node, nir.Conv2d):
        padding = node.padding if isinstance(node.padding, str) else tuple(int(p) for p in node.padding)
        stride, dilation = (tuple(int(s) for s in each) for each in (node.stride, node.dilation))
        return F.conv2d(x, tensor(node.weight), tensor(node.bias), stride, padding, dilation, int(node.groups)), None
    if isinstance(node, nir.Affine):
        return F.linear(x, tensor(node.weight), tensor(node.bias)), None
    if isinstance(node, nir.Linear):
        return F.linear(x, tensor(node.weight)), None
    if isinstance(node, nir.AvgPool2d):
        kernel, stride, padding = (
            tuple(int(n) for n in each) for each in (node.kernel_size, node.stride, node.padding)
        )
        return F.avg_pool2d(x, kernel, stride, padding), None
    if isinstance(node, nir.Flatten):
        return x.flatten(int(node.start_dim) + 1), None
    if isinstance(node, nir.Output):
        return x, None
    if isinstance(node, nir.LIF | nir.IF):
        assert v is not None
        if isinstance(node, nir.LIF):
            v = v + ((tensor(node.v_leak) - v) + tensor(node.r) * x) / tensor(node.tau)
        else:
            v = v + tensor(node.r) * x
        fires = v > tensor(node.v_threshold)
        return fires.to(x.dtype), torch.where(fires, tensor(node.v_reset), v)
    raise UserError(f"a node of the type {type(node).__name__} is not one that a network of ours becomes")


def from_nir(path: Path | str) -> Temporal:
    """A network from a NIR file, which every objective can train further.

    Neurons become `LIF` with hard reset, whose threshold is the smallest float32 above that of the file. Weights are parameters.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if there is none.
        UserError: for a file that is none, or nodes that no layer of ours stands for.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file")
    graph = read(Path(path))
    return temporal(FromNir(graph)).eval()


class FromNir(nn.Module):
    """The layers of a NIR graph, as a plain network of ours."""

    def __init__(self, graph: Any) -> None:
        super().__init__()
        import nir

        inputs = [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)]
        outputs = [name for name, node in graph.nodes.items() if isinstance(node, nir.Output)]
        if len(inputs) != 1 or len(outputs) != 1:
            raise UserError(f"the graph has {len(inputs)} inputs and {len(outputs)} outputs, expected one of each")
        self._input, self._output = inputs[0], outputs[0]
        self._order = [name for name in ordered(graph) if name not in (*inputs, *outputs)]
        self._sources = {
            name: [source for source, target in graph.edges if target == name] for name in (*self._order, *outputs)
        }
        self._layers = {name: f"layer{number}" for number, name in enumerate(self._order)}
        for name in self._order:
            self.add_module(self._layers[name], _layer(name, graph.nodes[name]))

    def forward(self, x: Any) -> Any:
        values = {self._input: x}
        for name in (*self._order, self._output):
            first, *more = (values[source] for source in self._sources[name])
            for value in more:
                first = first + value
            values[name] = first if name == self._output else getattr(self, self._layers[name])(first)
        return values[self._output]


def _layer(name: str, node: Any) -> nn.Module:
    """The layer that a node stands for.

    Raises:
        UserError: if there is none.
    """
    import nir

    def both(value: Any) -> tuple[int, int]:
        return pair([int(n) for n in np.broadcast_to(value, 2)])

    if isinstance(node, nir.Conv2d):
        outputs, inputs = node.weight.shape[:2]
        groups = int(node.groups)
        padding = node.padding if isinstance(node.padding, str) else both(node.padding)
        kernel = node.weight.shape[2:]
        conv = nn.Conv2d(inputs * groups, outputs, kernel, both(node.stride), padding, both(node.dilation), groups)
        return _filled(conv, node.weight, node.bias)
    if isinstance(node, nir.Affine | nir.Linear):
        outputs, inputs = node.weight.shape
        bias = getattr(node, "bias", None)
        return _filled(nn.Linear(inputs, outputs, bias=bias is not None), node.weight, bias)
    if isinstance(node, nir.AvgPool2d):
        return nn.AvgPool2d(both(node.kernel_size), both(node.stride), both(node.padding))
    if isinstance(node, nir.Flatten):
        return nn.Flatten(int(node.start_dim) + 1)
    if isinstance(node, nir.LIF | nir.IF):
        leaky = isinstance(node, nir.LIF)
        gain = node.r / node.tau if leaky else node.r
        decay = _one(name, "decay", 1 - 1 / node.tau.astype(np.float64)) if leaky else 1.0
        if leaky and bool((node.v_leak != 0).any()):
            raise UserError(f"the neurons {name!r} leak towards {node.v_leak.flat[0]:g}, and ours towards 0")
        if abs(_one(name, "gain", gain) - 1) > 1e-6:
            raise UserError(
                f"the neurons {name!r} scale their input by {gain.flat[0]:g}: put it into the weights before them"
            )
        above = np.nextafter(node.v_threshold.astype(np.float32), np.float32(np.inf))
        return LIF(
            decay=float(decay), threshold=_one(name, "threshold", above), v_reset=_one(name, "reset", node.v_reset)
        )
    raise UserError(f"the node {name!r} is a {type(node).__name__}, which no layer of ours stands for")


def _one(name: str, what: str, values: Any) -> float:
    first = float(values.flat[0])
    if not math.isclose(float(values.max()), float(values.min()), rel_tol=1e-6, abs_tol=1e-9):
        raise UserError(f"the neurons {name!r} differ in their {what}, expected one for a layer")
    return first


def _filled(layer: Any, weight: Any, bias: Any) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        if bias is not None:
            layer.bias.copy_(torch.from_numpy(np.ascontiguousarray(bias)))
    done: nn.Module = layer
    return done
