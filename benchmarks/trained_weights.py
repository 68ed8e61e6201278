"""Networks that fire as trained ones do: one that was trained narrow, made wider, and set to a density.

Channels of the wider network are copies, so that its layers fire as the narrow network's do, with the same pattern in space.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikedistill import load, temporal
from spikedistill.data import as_network_input
from spikedistill.evaluation import record
from spikedistill.neurons import SpikingNeuron
from spikedistill.run_folder import RunFolder, dataset_of
from spikedistill.through_time.features import outputs_of
from spikedistill.through_time.model import firing_rate

_ROUNDS = 40
_STEP = 1.5


@torch.no_grad()
def widen(tensors: dict[str, Tensor], network: nn.Module) -> None:
    """Load the weights of a narrow network into a wider one of the same layout, each output and each input copied.

    Raises:
        ValueError: for a width that is no multiple.
    """
    for name, own in network.state_dict().items():
        given = tensors[name]
        times = [wide // narrow for wide, narrow in zip(own.shape, given.shape, strict=True)]
        if [n * size for n, size in zip(times, given.shape, strict=True)] != list(own.shape):
            raise ValueError(f"{name} is {list(own.shape)}, which is no multiple of {list(given.shape)}")
        value = given.tile(times) if times else given
        # a sum over so many copies of its inputs
        own.copy_(value / times[1] if len(times) > 1 else value)


def weights_of(run: Path) -> dict[str, Tensor]:
    """The weights of the network of a trained run."""
    return _parts(run)[1].state_dict()


@torch.no_grad()
def images_of(run: Path, count: int) -> Tensor:
    """The first test images of a run's data set, normalised as its network gets them."""
    test = dataset_of(RunFolder(run).config()).test
    return _parts(run)[0](as_network_input(test.inputs(torch.arange(count)), "image"))


def _parts(run: Path) -> tuple[nn.Module, nn.Module]:
    """The normalisation of images and the network of a trained run."""
    module = load(run).module
    return module.get_submodule("normalize"), module.get_submodule("network")


@torch.no_grad()
def rates_of(network: nn.Module, images: Tensor, timesteps: int) -> dict[str, float]:
    """The share of neurons of each layer that fire at a timestep."""
    layers = [path for path, module in network.named_modules() if isinstance(module, SpikingNeuron)]
    with outputs_of(network, layers) as outputs:
        temporal(network)(images, timesteps=timesteps)
        return {layer: float(firing_rate(outputs[layer])) for layer in layers}


@torch.no_grad()
def near_threshold(network: nn.Module, images: Tensor, timesteps: int) -> dict[float, dict[str, float]]:
    """The share of membranes of each layer within 0.5 and within 1 of their threshold."""
    found: dict[float, dict[str, float]] = {0.5: {}, 1.0: {}}
    model = temporal(network)
    with record(model) as recording:
        model(images, timesteps=timesteps)
    for layer, threshold in recording.thresholds.items():
        distance = (recording.membranes(layer) - threshold).abs()
        for most, shares in found.items():
            shares[layer] = float((distance < most).double().mean())
    return found


@torch.no_grad()
def set_density(network: nn.Module, images: Tensor, timesteps: int, density: float) -> None:
    """Shift the batch-norms so that every layer of neurons fires at a density, in the network's mode."""
    norms = _norms_before_neurons(network, images)
    statistics = {name: value.clone() for name, value in network.state_dict().items() if "running" in name}
    for _ in range(_ROUNDS):
        for layer, rate in rates_of(network, images, timesteps).items():
            norms[layer].bias += _STEP * (density - rate)
    network.load_state_dict(statistics, strict=False)


def _norms_before_neurons(network: nn.Module, images: Tensor) -> dict[str, Any]:
    """The last batch-norm that is called before each layer of neurons."""
    found: dict[str, Any] = {}
    latest: list[nn.Module] = []
    handles = []
    for path, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_hook(lambda own, *_: latest.append(own)))
        elif isinstance(module, SpikingNeuron):
            handles.append(module.register_forward_hook(lambda *_, path=path: found.update({path: latest[-1]})))
    temporal(network)(images, timesteps=1)
    for handle in handles:
        handle.remove()
    return found


def write_profile(run: Path, out: Path, images: int = 256) -> dict[str, Any]:
    """Write the firing rates of the layers of a trained run on test images, over all timesteps, as JSON.

    And for each layer the share of membranes near the threshold: within 0.5 of it, where the rectangular surrogate of width 1 is
    not 0, and within 1, where the triangular one is not.
    """
    config = RunFolder(run).config()
    network, given = _parts(run)[1].eval(), images_of(run, images)
    rates, near = rates_of(network, given, config.timesteps), near_threshold(network, given, config.timesteps)
    written = {
        "recipe": config.recipe,
        "model": {"name": config.model.name, "options": config.model.options},
        "epochs": config.epochs,
        "seed": config.seed,
        "timesteps": config.timesteps,
        "images": images,
        "rates": {layer: round(rate, 4) for layer, rate in rates.items()},
        "mean": round(sum(rates.values()) / len(rates), 4),
        "within": {
            str(distance): {layer: round(share, 4) for layer, share in found.items()}
            for distance, found in near.items()
        },
    }
    out.write_text(json.dumps(written, indent=2) + "\n")
    return written
