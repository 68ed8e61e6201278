"""Layers that say nothing: those that never fire, and those that always do."""

import torch

from ..data import Samples
from ..evaluation import collect_logits, record
from ..neurons.compiler import uncompiled
from ..temporal import Temporal

LOOKED_AT = 32  # samples, so that looking costs little beside an epoch


def constant_layers(network: Temporal, samples: Samples, kind: str, timesteps: int) -> dict[str, list[str]]:
    """The layers of neurons that never fire, and those that always do, on the first training samples; by what they do.

    The network is looked at in eval mode and goes on as it was; nothing is drawn at random.
    """
    few = samples.subset(torch.arange(min(LOOKED_AT, len(samples))))
    was_training = network.training
    with record(network) as recording, uncompiled():
        collect_logits(network, few, kind, timesteps, batch_size=LOOKED_AT)
    network.train(was_training)
    rates = {path.removeprefix("network."): float(rate.mean()) for path, rate in recording.rates.items()}
    return {
        "never fires" if value == 0 else "always fires": [path for path, rate in rates.items() if rate == value]
        for value in (0, 1)
    }
