"""NIR, the exchange format of neuromorphic tools (Pedersen et al., Nature Communications 2024).

A network is followed by a signal of its own kind, through the product's own dispatch of functions over time: each layer becomes a
node. Batch-norm in eval mode and the normalisation of images are folded into the layer before them, or become a convolution of 1x1.

The format has leaky neurons with hard reset. Ours with decay d is `tau = 1 / (1 - d)`, `r = tau`, `v_leak = 0`, with a timestep of
1 and forward Euler: v + ((v_leak - v) + r I) / tau = d v + I. Without a leak it is IF. A neuron of NIR fires above its threshold,
and ours at it too: the threshold in the file is the largest float32 below ours, which says the same.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..through_time import Temporal, UnsupportedOperationError
from ..through_time.batch_norm import BatchNormCall
from ..through_time.call import Call
from ..through_time.signal import Signal, signals_in
from .description import KEY, Description
from .graph import needed

INPUT, OUTPUT = "input", "output"
_SAME = frozenset({"bfloat16", "clone", "contiguous", "detach", "float", "to"})
_FLATS = frozenset({"flatten", "reshape", "view"})


class CannotExpress(UserError):
    """A network has parts that the format cannot hold."""


class _Graph(Call):
    """The nodes and edges of a network while a signal goes through it."""

    gradient = "nir"

    def __init__(self, paths: dict[Any, str]) -> None:
        super().__init__(1)
        self.paths = paths
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.used: set[str] = set()
        self.lost: dict[str, list[str]] = {}
        self.calls: dict[str, int] = {}

    def add(self, name: str, node: Any, sources: Sequence[str]) -> str:
        """A node with edges from others; names are made unique."""
        unique, count = name, 1
        while unique in self.nodes:
            count += 1
            unique = f"{name}_{count}"
        self.nodes[unique] = node
        for source in sources:
            self.edges.append((source, unique))
            self.used.add(source)
        return unique

    def lose(self, what: str, where: str = "") -> None:
        """Note what the format cannot hold."""
        self.lost.setdefault(what, []).append(where)

    def path_of(self, layer: Any) -> str:
        """The path of a layer of neurons, as the state of `Temporal.step` names it."""
        path = self.paths[layer]
        calls = self.calls[path] = self.calls.get(path, 0) + 1
        return path if calls == 1 else f"{path}#{calls - 1}"


class _Traced(Signal):
    """A value `[1, ...]` that knows the nodes whose sum it is.

    Args:
        value: the value.
        graph: of the network.
        sources: nodes; their sum, times `scale` plus `shift` for each channel, is the value.
    """

    _axes_before = 0
    call: _Graph
    gradient = "nir"

    def __init__(
        self,
        value: Tensor,
        graph: _Graph,
        sources: tuple[str, ...],
        scale: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> None:
        self._value, self.call, self.sources = value, graph, sources
        self.scale, self.shift = scale, shift

    @property
    def _held_like(self) -> Tensor:
        return self._value

    @property
    def requires_grad(self) -> bool:
        return False

    def _over_time(self) -> Tensor:
        return self._value.unsqueeze(0)

    def _mean_over_time(self) -> Tensor:
        return self._value

    def become(self, other: Any) -> None:
        self._value, self.sources, self.scale, self.shift = other._value, other.sources, other.scale, other.shift

    def fire(self, neuron: Any) -> Self:
        self.enter("LIF", neuron)
        import nir

        path = self.call.path_of(neuron)
        dynamics = neuron.dynamics(self.ndim)
        spikes = torch.zeros_like(self._value)
        if dynamics.v_reset is None:
            self.call.lose("the soft reset, which subtracts the threshold (train with --model.lif.v-reset 0)", path)
            return type(self)(spikes, self.call, self.settled())
        if dynamics.v_init is not None and bool((torch.as_tensor(dynamics.v_init) != 0).any()):
            self.call.lose("the membrane before the first timestep", path)
        shape = self.shape[1:]
        full = np.ones(tuple(shape), np.float32)
        decay = _spread(dynamics.decay, shape)
        below = np.nextafter(_spread(dynamics.threshold, shape), np.float32(-np.inf))
        reset = np.float32(dynamics.v_reset) * full
        if (decay == 1).all():
            node = nir.IF(r=full, v_threshold=below, v_reset=reset)
        elif (decay == 1).any():
            self.call.lose("neurons with and without a leak in one layer", path)
            return type(self)(spikes, self.call, self.settled())
        else:
            tau = (1 / (1 - decay.astype(np.float64))).astype(np.float32)
            node = nir.LIF(tau=tau, r=tau, v_leak=0 * full, v_threshold=below, v_reset=reset)
        return type(self)(spikes, self.call, (self.call.add(path, node, self.settled()),))

    def advance(self, neuron: Any) -> Self:
        self.enter(type(neuron).__name__, neuron)
        self.call.lose(f"neurons of the type {type(neuron).__name__}", self.call.path_of(neuron))
        return type(self)(self._value, self.call, self.sources)

    def normalise(self, norm: Any) -> Self:
        self.enter(type(norm).__name__, norm)
        return self._lose(f"{type(norm).__name__}: statistics that differ between timesteps", self._value)

    def recur(self, recurrent: Any) -> Self:
        self.enter("Recurrent", recurrent)
        shape = self.shape[1:] if recurrent.shape is None else recurrent.shape
        return self._lose("a Recurrent layer", self._value.new_zeros(len(self._value), *shape))

    def delay(self, delay: Any) -> Self:
        self.enter("Delay")
        return self._lose("a Delay", self._value)

    def apply(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        signals = signals_in(args, kwargs)
        plain = [value._value if isinstance(value, _Traced) else value for value in args]
        if name == "batch_norm":
            call = BatchNormCall(*args[1:], **kwargs)
            mean, variance = call.running_mean, call.running_var
            assert mean is not None
            assert variance is not None
            scale = (variance + call.eps).rsqrt()
            scale = scale if call.weight is None else scale * call.weight
            shift = -mean * scale + (0 if call.bias is None else call.bias)
            return self._scaled(scale, shift, func(*plain, **kwargs))
        value = func(*plain, **{key: v._value if isinstance(v, _Traced) else v for key, v in kwargs.items()})
        if len(signals) == 2 and name in ("__add__", "__radd__", "add") and not kwargs:
            return type(self)(value, self.call, tuple(s for signal in signals for s in signal.settled()))
        if len(signals) > 1:
            return self._lose(f"{name} of several values", value)
        if name.startswith("dropout") or name in _SAME or name.endswith("dropout"):
            return type(self)(value, self.call, self.sources, self.scale, self.shift)
        if name in ("conv2d", "linear"):
            return self._weighted(name, value, *args[1:], **kwargs)
        if name in ("avg_pool2d", "adaptive_avg_pool2d", "mean"):
            return self._pooled(name, value, args[1:], kwargs)
        if name in _FLATS and value.ndim == 2:
            return self._flat(value)
        if name in ("__sub__", "sub", "__truediv__", "div", "__mul__", "mul", "__rmul__", "__add__", "add", "__radd__"):
            other = next(value for value in args if not isinstance(value, _Traced))
            if (found := self._constant(name, args, other)) is not None:
                return self._scaled(*found, value)
        return self._lose(name, value)

    def _constant(self, name: str, args: tuple[Any, ...], other: Any) -> tuple[Tensor, Tensor] | None:
        """The scale and shift of each channel that an operation with a constant is; None if it is none."""
        C = self.shape[1]
        number = torch.as_tensor(other, dtype=torch.float64)
        flat = number.flatten()
        of_channels = number.numel() == 1 or (number.numel() == C and self.ndim - number.ndim <= 1)
        if not of_channels or (name in ("__sub__", "sub", "__truediv__", "div") and args[0] is not self):
            return None
        each, one = flat.expand(C), torch.ones(C, dtype=torch.float64)
        if "mul" in name:
            return each, 0 * one
        if "div" in name:
            return 1 / each, 0 * one
        return one, -each if "sub" in name else each

    def _scaled(self, scale: Tensor, shift: Tensor, value: Tensor) -> Self:
        scale, shift = scale.double(), shift.double()
        if self.scale is not None and self.shift is not None:
            scale, shift = scale * self.scale, scale * self.shift + shift
        return type(self)(value, self.call, self.sources, scale, shift)

    def settled(self) -> tuple[str, ...]:
        """The nodes whose sum is the value, with its scale and shift in a layer before it or in one of their own."""
        import nir

        if self.scale is None or self.shift is None:
            return self.sources
        scale, shift = self.scale, self.shift
        self.scale = self.shift = None
        node = self.call.nodes.get(self.sources[0]) if len(self.sources) == 1 else None
        if isinstance(node, nir.Conv2d | nir.Affine) and self.sources[0] not in self.call.used:
            weight = scale.view(-1, *[1] * (node.weight.ndim - 1)).numpy() * node.weight
            node.weight = weight.astype(np.float32)
            node.bias = (scale.numpy() * node.bias + shift.numpy()).astype(np.float32)
            return self.sources
        C = self.shape[1]
        if self.ndim == 4:
            weight = torch.diag(scale).view(C, C, 1, 1).numpy().astype(np.float32)
            own: Any = nir.Conv2d(tuple(self.shape[2:]), weight, 1, 0, 1, 1, shift.numpy().astype(np.float32))
        else:
            own = nir.Affine(torch.diag(scale).numpy().astype(np.float32), shift.numpy().astype(np.float32))
        self.sources = (self.call.add("scaled", own, self.sources),)
        return self.sources

    def _weighted(
        self, name: str, value: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kw: Any
    ) -> Self:
        import nir

        shift = np.zeros(len(weight)) if bias is None else bias.numpy()
        if name == "linear":
            if self.ndim != 2:
                return self._lose("a linear layer on more than one axis", value)
            node: Any = nir.Affine(weight.numpy().astype(np.float64), shift.astype(np.float64))
        else:
            stride, padding, dilation, groups = _geometry(*args, **kw)
            if groups != 1:
                return self._lose("convolutions in groups, which readers of the format take differently", value)
            node = nir.Conv2d(
                tuple(self.shape[2:]),
                weight.numpy().astype(np.float64),
                stride,
                padding,
                dilation,
                1,
                shift.astype(np.float64),
            )
        return type(self)(value, self.call, (self.call.add(name, node, self.settled()),))

    def _pooled(self, name: str, value: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Self:
        import nir

        size = self.shape[2:]
        if name == "mean":
            axes = args[0] if args else kwargs.get("dim")
            axes = (axes,) if isinstance(axes, int) else tuple(axes or ())
            if self.ndim != 4 or sorted(axis % 4 for axis in axes) != [2, 3]:
                return self._lose("a mean over other axes than height and width", value)
            kernel, stride, padding = tuple(size), tuple(size), (0, 0)
        elif name == "adaptive_avg_pool2d":
            out = value.shape[2:]
            if any(whole % part for whole, part in zip(size, out, strict=True)):
                return self._lose("adaptive pooling into unequal parts", value)
            kernel = stride = tuple(whole // part for whole, part in zip(size, out, strict=True))
            padding = (0, 0)
        else:
            names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
            given = dict(zip(names, args, strict=False)) | kwargs
            if given.get("ceil_mode") or given.get("divisor_override") or not given.get("count_include_pad", True):
                return self._lose("average pooling with other borders", value)
            kernel = pair(given["kernel_size"])
            stride = pair(given.get("stride") or kernel)
            padding = pair(given.get("padding", 0))
        node = nir.AvgPool2d(np.array(kernel), np.array(stride), np.array(padding))
        pooled = type(self)(value, self.call, (self.call.add("pool", node, self.settled()),))
        return pooled._flat(value) if value.ndim == 2 else pooled

    def _flat(self, value: Tensor) -> Self:
        import nir

        if self.ndim == 2:
            return type(self)(value, self.call, self.sources, self.scale, self.shift)
        before = np.array([*self.shape[1:]] if self.ndim > 2 else [*value.shape[1:]])
        node = nir.Flatten({"input": before}, 0, -1)
        return type(self)(value, self.call, (self.call.add("flatten", node, self.settled()),))

    def _lose(self, what: str, value: Any) -> Self:
        self.call.lose(what)
        if not isinstance(value, Tensor):
            raise CannotExpress(_lost(self.call.lost))
        return type(self)(value, self.call, self.sources)


def _lost(parts: Mapping[str, Sequence[str]]) -> str:
    said = []
    for what, where in parts.items():
        places = [path for path in where if path]
        said.append(f"{what}, of {', '.join(places)}" if places else what)
    return f"NIR cannot hold this network; it would lose {'; '.join(said)}"


def _spread(value: float | Tensor, shape: Sequence[int]) -> Any:
    return torch.as_tensor(value, dtype=torch.float32).expand(*shape).numpy().astype(np.float32).copy()


def pair(value: Any) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)


def _geometry(
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> tuple[tuple[int, int], Any, tuple[int, int], int]:
    return pair(stride), padding if isinstance(padding, str) else pair(padding), pair(dilation), groups


@torch.no_grad()
def graph_of(network: Temporal, x: Tensor, description: Description) -> Any:
    """The NIR graph of a network in eval mode, with all shapes.

    Args:
        network: the network.
        x: one sample `[1, ...]` of one timestep.
        description: what the graph says of itself, in its metadata.

    Raises:
        CannotExpress: listing what would be lost.
        UserError: if nir is not installed.
    """
    needed("nir", "nir")
    import nir

    graph = _Graph({module: path for path, module in network.module.named_modules()})
    graph.nodes[INPUT] = nir.Input({"input": np.array(x.shape[1:])})
    try:
        out = network.module(_Traced(x, graph, (INPUT,)))
    except UnsupportedOperationError as error:
        raise CannotExpress(_lost({**graph.lost, str(error): []})) from None
    finally:
        graph.ended = True
    if graph.lost:
        raise CannotExpress(_lost(graph.lost))
    graph.ended = False
    last = out.settled()
    graph.nodes[OUTPUT] = nir.Output({"output": np.array(out.shape[1:])})
    graph.edges += [(source, OUTPUT) for source in last]
    for node in graph.nodes.values():
        if isinstance(node, nir.Conv2d | nir.Affine):
            node.weight, node.bias = node.weight.astype(np.float32), node.bias.astype(np.float32)
    return nir.NIRGraph(graph.nodes, graph.edges, metadata={KEY: description.text()}, type_check=False)


def nir_of(network: Temporal, x: Tensor, description: Description) -> bytes:
    """The file of `graph_of`."""
    graph = graph_of(network, x, description)
    import nir

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.nir"
        nir.write(path, graph)
        return path.read_bytes()
