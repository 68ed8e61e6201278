"""What no implementation can be faster than."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .workloads import LeftOut, NetworkWorkload, NeuronWorkload, Step


def convolutions(work: NetworkWorkload, timesteps: int, *, backward: bool = True, captured: bool = False) -> Step:
    """All convolutions and linear layers of the network at batch T*B, in its dtype and memory format, and nothing else.

    Forward one after the other, then backward in reverse order; the first layer, which sees images, has no gradient to its input.
    """
    layers = [
        _Layer(module, shape, timesteps, work, needs_input=index > 0)
        for index, (module, shape) in enumerate(_calls(work))
    ]

    def run() -> None:
        with torch.set_grad_enabled(backward):
            outputs = [layer.module(layer.input) for layer in layers]
        if backward:
            for layer in reversed(layers):
                torch.autograd.grad(outputs.pop(), layer.sources, layer.grad)

    if captured:
        if work.device == "cpu":
            raise LeftOut("CUDA graphs need a GPU")
        graph = _recorded(run)

        def replay() -> None:
            assert layers  # whose tensors the graph reads
            graph.replay()

        return Step(replay, only_time=True)
    return Step(run, only_time=True)


def _recorded(run: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """What it runs on the GPU, after two runs that choose algorithms."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def bandwidth(work: NeuronWorkload, timesteps: int) -> Step:
    """The least memory traffic of a layer with a derivative: forward one read and one write, backward two reads and one write."""
    value, kept, out = (work.values(timesteps) for _ in range(3))

    def run() -> None:
        torch.neg(value, out=out)
        torch.mul(value, kept, out=out)

    return Step(run, only_time=True)


class _Layer:
    """A layer beside an input and an output gradient of its size."""

    def __init__(
        self, module: nn.Module, shape: torch.Size, timesteps: int, work: NetworkWorkload, *, needs_input: bool
    ) -> None:
        self.module = work.arrange(module.to(work.dtype))
        images = len(shape) == 4
        values = work.random(timesteps * shape[0], *shape[1:]).to(work.dtype)
        self.input: Tensor = (work.arrange(values) if images else values).requires_grad_(needs_input)
        with torch.no_grad():
            self.grad = torch.ones_like(self.module(self.input))
        self.sources = [*([self.input] if needs_input else []), *self.module.parameters()]


def _calls(work: NetworkWorkload) -> list[tuple[nn.Module, torch.Size]]:
    """The network's convolutions and linear layers, in the order in which they are called, with the shapes of their inputs."""
    network = work.network("relu")
    calls: list[tuple[nn.Module, torch.Size]] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: calls.append((module, inputs[0].shape)))
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        network(work.images())
    for hook in hooks:
        hook.remove()
    return calls
