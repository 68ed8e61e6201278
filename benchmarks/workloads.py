"""What is computed: the sizes that all contenders share, and the piece of work that each of them makes of it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikedistill import create_model

from .trained_weights import images_of, set_density, weights_of, widen

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


class LeftOut(Exception):
    """Raised by a contender that cannot take part here; says why in one line."""


@dataclass(frozen=True)
class Workload:
    """What every benchmark asks."""

    precision: Literal["float32", "bf16"] = "float32"
    """Of convolutions and currents; networks run under autocast."""
    device: str = "cpu"
    """cpu or cuda."""
    threads: int = 2
    """Threads of PyTorch."""
    keep_memory: bool = True
    """Let the process keep freed memory, for all contenders alike, as a training run does (glibc alone)."""

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    def prepare(self) -> None:
        """Set up the process."""
        torch.set_num_threads(self.threads)
        torch.backends.cudnn.benchmark = True  # on a GPU, the fastest algorithms for all alike
        if self.keep_memory:
            from spikedistill.training.allocator import keep_freed_memory

            keep_freed_memory()

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(torch.device(self.device).type, self.dtype, enabled=self.dtype != torch.float32)

    def random(self, *shape: int) -> Tensor:
        """Normal numbers, the same ones for every contender."""
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device)


@dataclass(frozen=True)
class NetworkWorkload(Workload):
    """One batch of images through a network."""

    model: str = "resnet18"
    """One of `spikedistill list models`."""
    width: float = 1.0
    """Factor on every hidden channel count."""
    batch: int = 16
    """Images."""
    image_size: int = 32
    """Height and width of the images, which have 3 channels."""
    classes: int = 10
    """Classes."""
    widened: str | None = None
    """Folder of a trained run of the same network, narrower: its weights, copied to this width, on its test images."""
    density: float | None = None
    """Shift batch-norms so that this share of the neurons of every layer fires at a timestep."""
    channels_last: bool = False
    """Keep weights and images with the channels last in memory."""

    def arrange(self, value: Any) -> Any:
        """A module or tensor on the device, in the memory format asked for."""
        return value.to(
            self.device, memory_format=torch.channels_last if self.channels_last else torch.contiguous_format
        )

    def images(self) -> Tensor:
        if self.widened is not None:
            return self.arrange(images_of(Path(self.widened), self.batch))
        return self.arrange(self.random(self.batch, 3, self.image_size, self.image_size))

    def labels(self) -> Tensor:
        return torch.arange(self.batch, device=self.device) % self.classes

    def network(self, neuron: Literal["lif", "relu"] = "lif") -> nn.Module:
        """The plain network, without time around it; every contender starts from the same weights."""
        torch.manual_seed(0)
        options: dict[str, Any] = {"num_classes": self.classes, "image_size": self.image_size, "width": self.width}
        network = create_model(self.model, neuron=neuron, **options).module
        if self.widened is not None and neuron == "lif":
            widen(weights_of(Path(self.widened)), network)
        return self.arrange(network)

    def at_density(self, network: nn.Module, timesteps: int) -> nn.Module:
        """The network, in its mode, set to the density that is asked for."""
        if self.density is not None:
            set_density(network, self.images(), timesteps, self.density)
        return network


@dataclass(frozen=True)
class NeuronWorkload(Workload):
    """One layer of neurons on currents [T, batch, channels, size, size]."""

    batch: int = 32
    """Samples."""
    channels: int = 64
    """Channels."""
    size: int = 32
    """Height and width."""

    def values(self, timesteps: int) -> Tensor:
        return self.random(timesteps, self.batch, self.channels, self.size, self.size).to(self.dtype)


class Step:
    """A piece of work that can be repeated.

    Args:
        run: does it once.
        parameters: whose gradients it leaves behind; they are dropped after each run, so that none starts with them in memory.
        only_time: its memory says nothing, because what it works on is kept ready outside.
    """

    def __init__(self, run: Callable[[], Any], parameters: Sequence[Tensor] = (), *, only_time: bool = False) -> None:
        self.run = run
        self.parameters = parameters
        self.only_time = only_time

    def forget(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


# Makes the step of a workload at T timesteps.
Contender = Callable[[Any, int], Step]


def replace_modules(network: nn.Module, kind: type[nn.Module], make: Callable[[Any], nn.Module]) -> nn.Module:
    """The network with `make(module)` in place of every module of that kind."""
    for name, child in network.named_children():
        if isinstance(child, kind):
            setattr(network, name, make(child))
        else:
            replace_modules(child, kind, make)
    return network
