"""Other libraries' neurons are as close to ours as `benchmarks/peers.py` says; skipped where a library is not installed."""

import pytest
import torch
from benchmarks import peers
from benchmarks.workloads import NetworkWorkload

from spikedistill import lif, temporal

pytestmark = pytest.mark.filterwarnings("ignore")
T = 6


def currents():
    return torch.randn(T, 4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).mul(1.5).requires_grad_()


def spikes_and_gradient(neuron):
    x = currents()
    spikes = neuron(x)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    return spikes.detach(), torch.autograd.grad(spikes, x, weights)[0]


@pytest.mark.parametrize("name", ["spikingjelly", "spikingjelly-torch"])
def test_spikingjelly_has_our_spikes_and_gradients_call_after_call(name):
    pytest.importorskip("spikingjelly")
    neuron = peers.NEURONS[name]()
    spikes, gradient = spikes_and_gradient(lif)
    for _ in range(2):  # the membrane starts anew
        theirs, their_gradient = spikes_and_gradient(neuron)
        torch.testing.assert_close(theirs, spikes)
        torch.testing.assert_close(their_gradient, gradient)


def test_norse_has_our_spikes_and_a_gradient_of_half_the_size_before_its_reset():
    pytest.importorskip("norse")
    theirs, their_gradient = spikes_and_gradient(peers.norse())
    spikes, gradient = spikes_and_gradient(lif)
    torch.testing.assert_close(theirs, spikes)
    # the last timestep's current moves nothing but its own spike
    torch.testing.assert_close(their_gradient[-1], gradient[-1] / 2)


def test_snntorch_resets_one_timestep_later_and_without_a_gradient():
    pytest.importorskip("snntorch")

    def delayed(x):
        membrane, fired, spikes = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
        for current in x.unbind(0):
            membrane = 0.5 * membrane + current - fired
            fired = (membrane > 1).to(x.dtype)
            p = torch.sigmoid(4 * (membrane - 1))
            spikes.append(fired + p - p.detach())
        return torch.stack(spikes)

    theirs, their_gradient = spikes_and_gradient(peers.snntorch())
    spikes, gradient = spikes_and_gradient(delayed)
    torch.testing.assert_close(theirs, spikes)
    torch.testing.assert_close(their_gradient, gradient)
    assert not torch.equal(theirs, lif(currents()))


def test_the_whole_network_with_spikingjelly_computes_what_ours_does():
    pytest.importorskip("spikingjelly")
    work = NetworkWorkload(width=0.06, image_size=16)
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    theirs = peers.PeerNetwork(work.network().double(), peers.spikingjelly, T)(images)
    torch.testing.assert_close(theirs, temporal(work.network().double())(images, timesteps=T))
