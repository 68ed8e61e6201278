"""Layers that carry no information, because their neurons never fire or always fire."""

import torch

from ..data import Samples, lengths_of
from ..evaluation import collect_logits, record
from ..neurons import SpikingNeuron, uncompiled
from ..through_time import Temporal

LOOKED_AT = 32  # samples, so that the check takes little time compared with an epoch
NEVER, ALWAYS = "never fire", "always fire"


def constant_layers(network: Temporal, samples: Samples, kind: str, timesteps: int) -> dict[str, list[str]]:
    """The layers of neurons that never fire, and those that always do, on some samples from all over the training set.

    The network runs in eval mode and returns to its mode afterwards; no random number is drawn. An ANN has no such layers.

    Returns:
        Names of layers, under "never fire" and "always fire"; empty if there are none.
    """
    if not any(isinstance(module, SpikingNeuron) for module in network.module.modules()):
        return {}
    lengths = lengths_of(samples)
    # of recordings of different length the longest, in one pass
    some = torch.arange(len(samples)) if lengths is None else (lengths == lengths.max()).nonzero().flatten()
    places = some[torch.linspace(0, len(some) - 1, min(LOOKED_AT, len(some))).round().long()]
    was_training = network.training
    with record(network) as recording, uncompiled():
        collect_logits(network, samples.subset(places), kind, timesteps, batch_size=LOOKED_AT)
    network.train(was_training)
    rates = {path.removeprefix("network."): float(rate.mean()) for path, rate in recording.rates.items()}
    found = {does: [path for path, rate in rates.items() if rate == value] for does, value in ((NEVER, 0), (ALWAYS, 1))}
    return {does: layers for does, layers in found.items() if layers}
