"""The response of mean rates to a lasting change, against autograd on the perturbed plain loop."""

import itertools

import pytest
import torch
from plain_lif import PRIMITIVES, cubic_bump, cubic_bump_primitive, plain_eligibility

from spikedistill.neurons import Neuron, lif, lif_response, lif_response_in_chunks

f64 = torch.float64
T = 6
LEARNED = ("decay", "v_init", "threshold")
SEGMENTS = [(6,), (3, 3), (1, 5), (4, 1, 1), (1,) * 6]


def currents(dtype=f64):
    return torch.randn(T, 3, 4, generator=torch.Generator().manual_seed(1), dtype=f64).mul(0.9).add(0.4).to(dtype)


@pytest.mark.parametrize("lengths", SEGMENTS)
@pytest.mark.parametrize(("v_reset", "detach"), [*itertools.product((None, 0.0, -0.4), (False, True))])
@pytest.mark.parametrize("surrogate", [*PRIMITIVES, "callable"])
def test_eligibility_is_the_derivative_of_the_segment_mean(surrogate, v_reset, detach, lengths):
    ours, primitive = (
        (cubic_bump, cubic_bump_primitive) if surrogate == "callable" else (surrogate, PRIMITIVES[surrogate])
    )
    common = {
        "decay": torch.tensor(0.6, dtype=f64),
        "threshold": torch.tensor([0.8, 0.5, 1.1, 0.8], dtype=f64),
        "v_init": torch.tensor([0.3, -0.2, 0.0, 0.7], dtype=f64),
        "v_reset": v_reset,
        "detach_reset": detach,
    }
    response = lif_response(currents(), lengths, Neuron(surrogate=ours, **common), LEARNED)
    spikes, *slopes = plain_eligibility(currents(), lengths, primitive=primitive, **common)
    assert torch.equal(response.spikes, spikes)
    for mine, plain in zip(response[1:5], slopes, strict=True):
        assert plain.norm() > 1e-3
        torch.testing.assert_close(mine, plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 1.0, 0.5])
def test_fixed_decays_and_a_plain_initial_membrane_agree_too(decay):
    response = lif_response(currents(), (2, 4), Neuron(decay=decay, v_init=0.5))
    spikes, to_current, *_ = plain_eligibility(currents(), (2, 4), decay=decay, v_init=0.5)
    assert torch.equal(response.spikes, spikes)
    torch.testing.assert_close(response.to_current, to_current, rtol=0, atol=1e-12)
    assert response.to_decay is None
    assert response.to_v_init is None
    assert response.to_threshold is None


def test_two_steps_by_hand():
    # decay 1/2, soft detached reset, triangle: currents 0.5, 1.0 -> u = 0.5, 1.25; g = 0.5, 0.75
    # du1/dI = 1, du2/dI = 1 + 1/2; dr/dI = (0.5 * 1 + 0.75 * 1.5) / 2
    # dr/d(decay) = 0.75 * v_1 / 2 with v_1 = 0.5;  dr/d(v_init) = (0.5 * 1/2 + 0.75 * 1/4) / 2
    # dx1 = dx2 = -1, because nothing fired before; dr/d(threshold) = -(0.5 + 0.75) / 2
    response = lif_response(
        torch.tensor([[0.5], [1.0]], dtype=f64),
        (2,),
        Neuron(detach_reset=True, surrogate="triangular"),
        LEARNED,
    )
    assert response.spikes.flatten().tolist() == [0, 1]
    assert response.to_current.item() == pytest.approx((0.5 + 1.125) / 2)
    assert response.to_decay.item() == pytest.approx(0.75 * 0.5 / 2)
    assert response.to_v_init.item() == pytest.approx((0.25 + 0.1875) / 2)
    assert response.to_threshold.item() == pytest.approx(-1.25 / 2)


def test_the_initial_membrane_reaches_only_the_first_segment():
    response = lif_response(currents(), (2, 3, 1), Neuron(), ("v_init",))
    assert response.to_v_init[0].abs().min() > 0
    assert response.to_v_init[1:].eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_spikes_are_those_of_lif_in_every_precision_and_slopes_are_float32(dtype):
    x = currents(dtype)
    for threshold in (0.3, 1.0):
        response = lif_response(x, (2, 4), Neuron(threshold=threshold))
        assert torch.equal(response.spikes, lif(x, threshold=threshold))
        assert response.to_current.dtype == torch.float32


def test_nothing_of_the_response_carries_a_graph():
    response = lif_response(
        currents().requires_grad_(), (3, 3), Neuron(decay=torch.tensor(0.5, requires_grad=True)), ("decay",)
    )
    assert not any(part.requires_grad for part in response if part is not None)


@pytest.mark.parametrize("chunk", [1, 2, 4, 9])
@pytest.mark.parametrize("lengths", SEGMENTS)
@pytest.mark.parametrize("options", [{"detach_reset": True}, {}, {"v_reset": 0.1}])
def test_in_chunks_it_is_equal(options, lengths, chunk):
    tensors = {"decay": torch.tensor(0.6), "v_init": torch.full((4,), 0.2), "threshold": torch.full((1,), 0.9)}
    rest = Neuron(**options, **tensors), LEARNED
    reads = []

    def read(start, stop):
        reads.append((start, stop))
        return currents()[start:stop]

    response = lif_response_in_chunks(read, lengths, chunk, *rest)
    whole = lif_response(currents(), lengths, *rest)
    assert torch.equal(response.spikes.read(0, T, f64), whole.spikes)
    for mine, expected in zip(response[1:5], whole[1:5], strict=True):
        assert torch.equal(mine, expected)
    assert [t for start, stop in reads for t in range(start, stop)] == list(range(T)), (
        "each timestep is read once, in order"
    )
    assert max(stop - start for start, stop in reads) <= chunk
