"""Layers of neurons as a user would write them, and networks of them."""

import torch
from torch import nn

from spikedistill import LIF, Delay, Recurrent, SpikingNeuron, spike


class OwnLIF(SpikingNeuron):
    """`LIF` written out."""

    def __init__(self, threshold=1.0, decay=0.5):
        super().__init__()
        self.threshold, self.decay = threshold, decay
        self.fire = spike

    def step(self, current, state):
        u = current if state is None else self.decay * state + current
        spikes = self.fire(u - self.threshold)
        return spikes, u - self.threshold * spikes


class Adaptive(SpikingNeuron):
    """A threshold that rises with every spike and decays (ALIF), of a jump that is learned for each channel."""

    def __init__(self, channels, jump=0.3):
        super().__init__()
        self.jump = nn.Parameter(torch.full((channels,), jump))
        self.fire = spike

    def step(self, current, state):
        zero = torch.zeros_like(current)
        v, rise = (zero, zero) if state is None else (state["v"], state["rise"])
        u = 0.8 * v + current
        spikes = self.fire(u - 0.3 - rise)
        jump = self.jump.view(-1, *[1] * (current.ndim - 2))
        return spikes, {"v": u * (1 - spikes), "rise": 0.9 * rise + jump * spikes}


class Synaptic(SpikingNeuron):
    """Currents that pass a synapse which decays, of learned decays; spikes depend on the state before only."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.3, -0.2]))
        self.fire = spike

    def step(self, current, state):
        filtered, v = (torch.zeros_like(current),) * 2 if state is None else state
        of_synapse, of_membrane = self.logits.sigmoid()
        spikes = self.fire(v - 0.2)
        filtered, v = of_synapse * filtered + current, of_membrane * (v - 0.2 * spikes) + filtered
        return spikes, (filtered, v)


class Izhikevich(SpikingNeuron):
    """Two variables of different time scales, the form of Izhikevich (2003), in units of the network's currents."""

    def __init__(self):
        super().__init__()
        self.fire = spike

    def step(self, current, state):
        v, w = (torch.full_like(current, -0.65), torch.full_like(current, -0.13)) if state is None else state
        v, w = v + 0.4 * v**2 + 0.5 * v + 0.14 - w + 2 * current, w + 0.02 * (0.2 * v - w)
        spikes = self.fire(v - 0.3)
        return spikes, (v * (1 - spikes) - 0.65 * spikes, w + 0.08 * spikes)


class Stochastic(SpikingNeuron):
    """A threshold with noise, drawn at every timestep."""

    def __init__(self):
        super().__init__()
        self.fire = spike

    def step(self, current, state):
        u = current if state is None else 0.5 * state + current
        spikes = self.fire(u - 0.3 - 0.2 * torch.rand_like(current))
        return spikes, u - 0.3 * spikes


class Dendrites(SpikingNeuron):
    """A layer inside, and a membrane that starts where it is learned."""

    def __init__(self, channels):
        super().__init__()
        self.mix, self.start = nn.Linear(channels, channels), nn.Parameter(torch.full((channels,), 0.1))
        self.fire = spike

    def step(self, current, state):
        u = 0.6 * (self.start.expand_as(current) if state is None else state) + self.mix(current)
        spikes = self.fire(u - 0.2)
        return spikes, u - 0.2 * spikes


class CalledTwice(nn.Module):
    """One layer in two places, each with a state of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.neuron = nn.Linear(4, 4), Adaptive(4)

    def forward(self, x):
        return self.neuron(self.neuron(self.first(x)) + x)


def mixed():
    conv, norm = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2)
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)),
        conv,
        norm,
        Adaptive(2),
        nn.Conv2d(2, 2, 1),
        LIF(threshold=0.05),
        nn.Flatten(),
        nn.Linear(8, 2),
        OwnLIF(0.05),
        nn.Linear(2, 2),
    )


NETWORKS = {
    "lif": lambda: nn.Sequential(nn.Linear(4, 6), OwnLIF(0.4), nn.Linear(6, 2)),
    "adaptive": lambda: nn.Sequential(nn.Linear(4, 6), Adaptive(6), nn.Linear(6, 2)),
    "synaptic": lambda: nn.Sequential(nn.Linear(4, 6), Synaptic(), nn.Linear(6, 4), Synaptic()),
    "izhikevich": lambda: nn.Sequential(nn.Linear(4, 6), Izhikevich(), nn.Linear(6, 2)),
    "stochastic": lambda: nn.Sequential(nn.Linear(4, 6), Stochastic(), nn.Linear(6, 2)),
    "dendrites": lambda: nn.Sequential(nn.Linear(4, 6), Dendrites(6), nn.Linear(6, 2)),
    "the network itself": lambda: Adaptive(4),
    "called twice": CalledTwice,
    "convolutions, and LIF beside": mixed,
    "inside a recurrence": lambda: nn.Sequential(
        Recurrent(nn.Sequential(nn.Linear(4, 4), Adaptive(4), nn.Linear(4, 4), Stochastic()), nn.Linear(4, 4)), Delay(1)
    ),
}
