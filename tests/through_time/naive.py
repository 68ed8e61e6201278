"""Networks over time the obvious way: time folded into the batch, torch's own layers, neurons as a plain loop over [T, B, ...].

A copy of a plain network is made and the `forward` of those layers that must know of time is replaced, so that parameters and
buffers keep their names. "rate" is the two-pass form: a pass on spikes without a graph that records rates, eligibilities,
batch-norm statistics and products, then a pass on the rates of all segments, folded into the batch, with the records swapped in.
"dsr" is the same with means whose weights fade with the neurons' decay, and with the slope of a clamp for the eligibility. The
package is used for nothing but recognising `LIF` and reading its options.
"""

import copy
from dataclasses import dataclass, field
from functools import partial

import torch
from plain_lif import PRIMITIVES, cubic_bump, cubic_bump_primitive, plain_eligibility, plain_lif, segment_of
from torch import nn
from zoo import Product

from spikedistill import LIF

MAX_POOLS = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclass
class Clock:
    """What the replaced layers know: how time lies in the batch, and in the second pass what the first one recorded."""

    lengths: tuple[int, ...]
    samples: int
    cut_membrane: bool = False
    on_rates: bool = False
    decay: float | None = None
    records: dict = field(default_factory=dict)

    @property
    def timesteps(self):
        return sum(self.lengths)

    @property
    def leading(self):
        """Size of the time axis that is folded into the batch in this pass."""
        return len(self.lengths) if self.on_rates else self.timesteps

    def unfold(self, x):
        return x.unflatten(0, (self.leading, -1))

    def segment_means(self, x):
        """[T*B, ...] -> [m*B, ...]"""
        if self.decay is not None:
            powers = torch.tensor(
                [self.decay ** (self.timesteps - 1 - t) for t in range(self.timesteps)], dtype=x.dtype
            )
            return torch.einsum("t,t...->...", powers / powers.sum(), self.unfold(x))
        return torch.cat([part.mean(0) for part in self.unfold(x).split(list(self.lengths))])

    def record(self, module, value):
        self.records.setdefault(module, []).append(value)

    def recall(self, module):
        """The records of a module in the order of its calls."""
        return self.records[module].pop(0)


def with_slope(value, source, slope):
    """`value`, with the gradient `slope` to `source`."""
    return value + (source * slope - (source * slope).detach())


def lif_options(module, ndim):
    def over_channels(option):
        return option.reshape(1, -1, *[1] * (ndim - 2)) if isinstance(option, torch.Tensor) else option

    threshold = module.threshold if module.log_threshold is None else over_channels(torch.exp(module.log_threshold))
    decay = module.decay if module.decay_logit is None else 1 / (1 + torch.exp(-over_channels(module.decay_logit)))
    return {
        "decay": decay,
        "v_init": threshold / 2 if module.v_init == "half" else over_channels(module.v_init),
        "threshold": threshold,
        "v_reset": module.v_reset,
        "detach_reset": module.detach_reset,
        "primitive": cubic_bump_primitive if module.surrogate is cubic_bump else PRIMITIVES[module.surrogate],
    }


def lif(module, clock, folded):
    options = lif_options(module, folded.ndim)
    if not clock.on_rates:
        current = clock.unfold(folded)
        spikes = plain_lif(current, cuts=range(1, clock.timesteps) if clock.cut_membrane else (), **options)
        if clock.decay is not None:
            mean = clock.segment_means(folded)
            threshold = torch.as_tensor(options["threshold"], dtype=mean.dtype).detach()
            inside = ((mean > 0) & (mean < threshold)).to(mean.dtype)
            slopes = inside / threshold, None, None, -inside * mean / threshold**2
            rate = clock.segment_means(spikes.flatten(0, 1))
            clock.record(module, (rate, *(slope if slope is None else slope.unsqueeze(0) for slope in slopes)))
        elif not torch.is_grad_enabled():
            with torch.enable_grad():
                _, *slopes = plain_eligibility(current, clock.lengths, **options)
            clock.record(module, (clock.segment_means(spikes.flatten(0, 1)), *slopes))
        return spikes.flatten(0, 1)
    rate, to_current, to_decay, to_v_init, to_threshold = clock.recall(module)
    out = with_slope(clock.unfold(rate), clock.unfold(folded), to_current)
    if module.decay_logit is not None:
        out = with_slope(out, options["decay"], to_decay)
    if isinstance(options["v_init"], torch.Tensor):
        out = with_slope(out, options["v_init"], to_v_init)
    if module.log_threshold is not None:
        out = with_slope(out, options["threshold"], to_threshold)
    return out.flatten(0, 1)


def batch_norm(module, clock, folded):
    own = type(module).forward
    if not (module.training or module.running_mean is None):
        return own(module, folded)
    others = [d for d in range(folded.ndim) if d != 1]
    if not clock.on_rates:
        if not torch.is_grad_enabled():
            clock.record(module, (folded.mean(others), folded.var(others, unbiased=False)))
        return own(module, folded)
    spike_mean, spike_var = clock.recall(module)
    shape = (1, -1, *[1] * (folded.ndim - 2))
    share = folded.new_tensor([length / clock.timesteps for length in clock.lengths])
    over_samples = [d for d in range(folded.ndim + 1) if d not in (0, 2)]

    def mean(x):
        return (clock.unfold(x).mean(over_samples) * share[:, None]).sum(0)

    m = mean(folded)
    mu = spike_mean + m - m.detach()
    w = mean((folded - mu.detach().view(shape)) ** 2)  # deviations from the mean do not see it move
    var = spike_var + w - w.detach()
    y = (folded - mu.view(shape)) / (var.view(shape) + module.eps).sqrt()
    return y * module.weight.view(shape) + module.bias.view(shape) if module.affine else y


def max_pool(module, clock, folded):
    own = type(module).forward
    out = own(module, folded)
    if not clock.on_rates:
        if not torch.is_grad_enabled():
            clock.record(module, clock.segment_means(out))
        return out
    return with_slope(clock.recall(module), out, 1.0)


def product(module, clock, *folded):
    """Its mean is known from the pass on spikes; its slope to each factor is the other's mean rate."""
    out = type(module).forward(module, *folded)
    if not clock.on_rates:
        if not torch.is_grad_enabled():
            clock.record(module, clock.segment_means(out))
        return out
    return with_slope(clock.recall(module), out, 1.0)


def dropout(module, clock, folded):
    """The mask that torch draws for one timestep, for all of them: y = scale * x + shift."""
    if not clock.on_rates:
        ones = torch.ones_like(clock.unfold(folded)[0])
        before = torch.get_rng_state()
        shift = type(module).forward(module, ones * 0)
        torch.set_rng_state(before)
        scale = type(module).forward(module, ones) - shift
        clock.record(module, (scale, shift))
    else:
        scale, shift = clock.recall(module)
    return (clock.unfold(folded) * scale + shift).flatten(0, 1)


def replacement(module):
    if isinstance(module, LIF):
        return lif
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return batch_norm
    if isinstance(module, MAX_POOLS):
        return max_pool
    if isinstance(module, DROPOUTS):
        return dropout
    return product if isinstance(module, Product) else None


class Naive:
    """The reference of `temporal(network, gradient=..., segments=...)`.

    Attributes:
        network: the copy that runs; its parameters' gradients and its buffers are the ones to compare with.
        rates: after a run under "rate" or "dsr", the mean logits [m, B, ...] of the second pass, with their graph.
        spikes: the mean of every neuron layer's output in the last pass on spikes.
    """

    def __init__(self, network, gradient="bptt", lengths=None, decay=None):
        self.network = copy.deepcopy(network)
        self.gradient = gradient
        self.lengths = lengths
        self.decay = decay
        self.rates = None
        self.spikes = []

    def __call__(self, x, timesteps=None):
        values = x.unsqueeze(0).expand(timesteps, *x.shape) if timesteps else x
        T, B = values.shape[:2]
        clock = Clock(tuple(self.lengths or (T,)), B, cut_membrane=self.gradient == "sltt", decay=self.decay)
        self._replace_layers(clock)
        if self.gradient not in ("rate", "dsr"):
            return clock.unfold(self.network(values.flatten(0, 1)))
        with torch.no_grad():
            logits = clock.unfold(self.network(values.flatten(0, 1)))
        means = clock.segment_means(values.flatten(0, 1))
        clock.on_rates = True
        self.rates = clock.unfold(self.network(means))
        # z_t = zbar_segment + sg(z_t - zbar_segment)
        of_segment = self.rates[segment_of(clock.lengths)]
        return of_segment + (logits - of_segment).detach()

    def _replace_layers(self, clock):
        self.spikes.clear()
        for module in self.network.modules():
            if swapped := replacement(module):
                module.forward = partial(self._watched if swapped is lif else swapped, module, clock)

    def _watched(self, module, clock, folded):
        out = lif(module, clock, folded)
        if not clock.on_rates:
            self.spikes.append(out.mean().item())
        return out
