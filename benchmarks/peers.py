"""The neurons of other libraries, as modules on currents `[T, B, ...]`, as close to `spikedistill.LIF()` as each library goes.

`LIF()` has decay 0.5, threshold 1, soft reset that gradients flow through, and the logistic surrogate 4 p (1 - p). Each library is
imported where it is used; the environment that has them all is made by `make bench`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spikedistill import LIF

from .workloads import replace_modules


def spikingjelly() -> nn.Module:
    """SpikingJelly's multi-step LIFNode with the implementation that it chooses itself; the same dynamics and surrogate."""
    from spikingjelly.activation_based import surrogate

    return _SpikingJelly(surrogate.Sigmoid(alpha=4.0))


def spikingjelly_torch() -> nn.Module:
    """The same LIFNode on its reference in PyTorch, which it falls back to for a surrogate that is a plain function."""
    from spikingjelly.activation_based import surrogate

    sigmoid = surrogate.Sigmoid(alpha=4.0)
    return _SpikingJelly(lambda distance: sigmoid(distance))


def snntorch() -> nn.Module:
    """snnTorch's Leaky, stepped over time.

    Its reset comes one timestep later, is not subject to the decay and carries no gradient, and it fires above the threshold, not
    at it. (With `reset_delay=False`, which takes longer, neurons whose membrane stays above the threshold still differ.)
    """
    import snntorch
    from snntorch import surrogate

    return _SnnTorch(snntorch.Leaky(beta=0.5, threshold=1.0, spike_grad=surrogate.sigmoid(slope=4)))


def norse() -> nn.Module:
    """Norse's LIFBoxCell, lifted over time.

    Its membrane takes in half of the current, so that half the threshold gives the same spikes; it fires above the threshold, not
    at it, and its surrogate of the same shape is half as high.
    """
    from norse.torch import LIFBoxCell, LIFBoxParameters, Lift
    from norse.torch.functional.reset import reset_subtract

    parameters = LIFBoxParameters(
        tau_mem_inv=torch.tensor(500.0),  # times dt = 0.001 is 1 - decay
        v_th=torch.tensor(0.5),
        method="tanh",
        alpha=4.0,
        reset_method=reset_subtract,
    )
    return _Norse(Lift(LIFBoxCell(parameters)))


# By the names that their figures go by.
NEURONS: dict[str, Callable[[], nn.Module]] = {
    "spikingjelly": spikingjelly,
    "spikingjelly-torch": spikingjelly_torch,
    "snntorch": snntorch,
    "norse": norse,
}


class PeerNetwork(nn.Module):
    """The network with another library's neurons; all else runs once on `[T*B, ...]`, as in SpikingJelly's multi-step mode."""

    def __init__(self, network: nn.Module, make_neuron: Callable[[], nn.Module], timesteps: int) -> None:
        super().__init__()
        self.network = replace_modules(network, LIF, lambda _: _OverTime(make_neuron(), timesteps))
        self.timesteps = timesteps

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[T, B, C]` of images `[B, ...]`."""
        repeated = images.expand(self.timesteps, *images.shape).flatten(0, 1)
        return self.network(repeated).unflatten(0, (self.timesteps, -1))


class _OverTime(nn.Module):
    def __init__(self, neuron: nn.Module, timesteps: int) -> None:
        super().__init__()
        self.neuron = neuron
        self.timesteps = timesteps

    def forward(self, currents: Tensor) -> Tensor:
        return self.neuron(currents.unflatten(0, (self.timesteps, -1))).flatten(0, 1)


class _SpikingJelly(nn.Module):
    def __init__(self, surrogate_function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        from spikingjelly.activation_based import neuron

        self.node = neuron.LIFNode(
            tau=2.0, decay_input=False, v_reset=None, surrogate_function=surrogate_function, step_mode="m"
        )

    def forward(self, currents: Tensor) -> Tensor:
        self.node.reset()
        return self.node(currents)


class _SnnTorch(nn.Module):
    def __init__(self, leaky: nn.Module) -> None:
        super().__init__()
        self.leaky = leaky

    def forward(self, currents: Tensor) -> Tensor:
        membrane, spikes = torch.zeros_like(currents[0]), []
        for current in currents.unbind(0):
            fired, membrane = self.leaky(current, membrane)
            spikes.append(fired)
        return torch.stack(spikes)


class _Norse(nn.Module):
    def __init__(self, lifted: nn.Module) -> None:
        super().__init__()
        self.lifted = lifted

    def forward(self, currents: Tensor) -> Tensor:
        return self.lifted(currents)[0]
