"""One pass of the student over a batch."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ..models import Branched
from ..neurons import SpikingNeuron
from ..through_time import Temporal, firing_rate, mean_rate
from ..through_time.features import outputs_of
from ..through_time.retimed import timesteps_behind

# How long a pass runs: the network for one number of timesteps, each stage for its own, or as long as usual.
Timesteps = int | tuple[int, ...] | None


class StudentPass(nn.Module):
    """From a batch to all outputs of the network that an objective uses, as one tuple of tensors.

    Args:
        network: the network.
        timesteps: T for images, which are shown at every timestep; None for event frames, which have T of their own.
        layers: names of the layers whose features are compared.
        stages: names of the layers that end the stages, if these may run for different numbers of timesteps.
        counts_spikes: whether the firing rates of the layers of neurons are also returned.
    """

    def __init__(
        self,
        network: Temporal,
        timesteps: int | None,
        layers: tuple[str, ...],
        *,
        stages: tuple[str, ...] = (),
        counts_spikes: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.timesteps = timesteps
        self.layers = layers
        self.stages = stages
        self.neurons = tuple(
            path
            for path, module in network.module.named_modules()
            if counts_spikes and isinstance(module, SpikingNeuron)
        )

    def forward(self, inputs: Tensor, lengths: Tensor | None = None, timesteps: Timesteps = None) -> tuple[Tensor, ...]:
        """Logits of images `[B, C, H, W]` in [0, 1] or event frames `[T, B, C, H, W]`, of which each sample has so many, `[B]`.

        Images run for `timesteps`, if they are given, and for those of the student otherwise.

        Returns:
            The logits `[T, B, C]` of the timesteps; the logits `[S, B, C]` of the heads, if there are some; the mean rates
            `[B, ...]` of the layers; and the firing rates `[L]` of the layers of neurons, if spikes are counted.
        """
        behind: dict[str, int] = {}
        if isinstance(timesteps, tuple):
            timesteps, *others = timesteps
            behind = dict(zip(self.stages[:-1], others, strict=True))
        timesteps = self.timesteps if timesteps is None else timesteps
        changing = timesteps_behind(self.network.module, behind) if behind else nullcontext()
        # features and firing rates are those of the stage, before its spikes are added up for the next
        with outputs_of(self.network.module, (*self.layers, *self.neurons)) as outputs, changing:
            if isinstance(self.network, Branched):
                found = self.network.heads(inputs, timesteps)
            else:
                found = self.network(inputs, timesteps, lengths)
            logits = found if isinstance(found, tuple) else (found,)
            features = [mean_rate(outputs[layer]) for layer in self.layers]
            if self.neurons:
                features.append(torch.stack([firing_rate(outputs[layer]) for layer in self.neurons]))
            return *logits, *features
