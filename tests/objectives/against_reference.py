"""Random batches, and a loss held against its reference."""

import numpy as np
import pytest
import torch


def batch(S=4, B=5, C=3, seed=0):
    """Logits `[S, B, C]` and labels `[B]`."""
    rng = np.random.default_rng(seed)
    return 2 * rng.standard_normal((S, B, C)), rng.integers(0, C, B)


def check_against(loss, expected, Z):
    """Value and gradient of loss(logits) agree with expected = (value, gradient)."""
    logits = torch.tensor(Z, requires_grad=True)
    value = loss(logits)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == pytest.approx(expected[0], rel=1e-12, abs=1e-14)
    np.testing.assert_allclose(gradient.numpy(), expected[1], rtol=1e-10, atol=1e-14)
