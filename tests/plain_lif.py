"""LIF written plainly: one loop over timesteps, and surrogates as the autograd derivative of their antiderivative.

Nothing here comes from the package, so that every comparison with it is between two programs.
"""

import math

import torch

# S(x) with dS/dx the surrogate at x = u - threshold; each rises from 0 to 1.
PRIMITIVES = {
    "sigmoid": lambda x: 1 / (1 + torch.exp(-4 * x)),
    "rectangular": lambda x: (x + 0.5).clamp(0, 1),
    "triangular": lambda x: torch.where(x < 0, (1 + x).clamp(min=0) ** 2 / 2, 1 - (1 - x).clamp(min=0) ** 2 / 2),
    "arctan": lambda x: torch.atan(math.pi * x) / math.pi + 0.5,
    "dspike": lambda x: torch.tanh(2.5 * x.clamp(-1, 1)) / (2 * math.tanh(2.5)) + 0.5,
}


def cubic_bump(x):
    """A surrogate of the user's own: (3/4) (1 - x^2) where |x| < 1."""
    return 0.75 * (1 - x**2).clamp(min=0)


def cubic_bump_primitive(x):
    x = x.clamp(-1, 1)
    return 0.5 + 0.75 * (x - x**3 / 3)


def plain_lif(
    current,
    *,
    decay=0.5,
    threshold=1.0,
    v_reset=None,
    detach_reset=False,
    primitive=PRIMITIVES["sigmoid"],
    v_init=0.0,
    cuts=(),
):
    """Spikes [T, B, ...] of currents [T, B, ...].

    `decay`, `threshold` and `v_init` broadcast over [B, ...]; for the first two, a function of t is asked at every timestep
    instead. The gradient's path through the membrane is cut before each timestep in `cuts`.
    """
    v = torch.zeros_like(current[0]) + v_init
    spikes = []
    for t in range(current.shape[0]):
        if t in cuts:
            v = v.detach()
        decay_t = decay(t) if callable(decay) else decay
        threshold_t = threshold(t) if callable(threshold) else threshold
        u = decay_t * v + current[t]
        fired = (u >= threshold_t).to(u.dtype)
        smooth = primitive(u - threshold_t)
        s = fired + (smooth - smooth.detach())
        r = s.detach() if detach_reset else s
        v = u - threshold_t * r if v_reset is None else (1 - r) * u + v_reset * r
        spikes.append(s)
    return torch.stack(spikes)


def segment_of(lengths):
    """The segment that each timestep belongs to: (1, 3) -> [0, 1, 1, 1]."""
    return [segment for segment, length in enumerate(lengths) for _ in range(length)]


def plain_eligibility(current, lengths, *, decay=0.5, v_init=0.0, threshold=1.0, **options):
    """What the mean rate of each segment owes to a lasting change, by autograd on the plain loop.

    The current, the decay, the threshold and the initial membrane of every neuron get their own perturbation in every segment (the
    initial membrane only has one), and the membrane at a segment's start is held fixed.

    Returns:
        Spikes [T, B, ...]; and dr/dI, dr/d(decay), dr/d(v_init), dr/d(threshold), each [m, B, ...].
    """
    where = segment_of(lengths)
    starts = [where.index(segment) for segment in range(1, len(lengths))]
    current = current.detach()
    zeros = torch.zeros(len(lengths), *current.shape[1:], dtype=current.dtype)
    to_current, to_decay, to_threshold = (zeros.clone().requires_grad_() for _ in range(3))
    to_v_init = zeros[0].clone().requires_grad_()
    decay = torch.as_tensor(decay, dtype=current.dtype).detach()
    threshold = torch.as_tensor(threshold, dtype=current.dtype).detach()
    v_init = torch.as_tensor(v_init, dtype=current.dtype).detach()
    perturbed = torch.stack([current[t] + to_current[where[t]] for t in range(len(where))])
    spikes = plain_lif(
        perturbed,
        decay=lambda t: decay + to_decay[where[t]],
        threshold=lambda t: threshold + to_threshold[where[t]],
        v_init=v_init + to_v_init,
        cuts=starts,
        **options,
    )
    rates = torch.stack([part.mean(0) for part in spikes.split(list(lengths))])
    slopes = torch.autograd.grad(rates.sum(), (to_current, to_decay, to_v_init, to_threshold), allow_unused=True)
    first = torch.zeros_like(zeros)
    first[0] = slopes[2]
    return spikes.detach(), slopes[0], slopes[1], first, slopes[3]
