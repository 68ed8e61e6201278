"""From currents to spikes: leaky integrate-and-fire neurons, the base class for your own neurons, and surrogate gradients."""

from ..learned import Learned
from .dynamics import lif, lif_in_bits, lif_step, membrane_precision, norm_lif, norm_lif_step
from .eligibility import Response, lif_response, lif_response_in_chunks, norm_lif_response
from .loops import (
    NormaliseBatch,
    NormalisedCurrent,
    PackedSpikes,
    Path,
    ReadLater,
    SpikesInBits,
    batch_moments,
    can_wait,
    compiler_works,
    is_channels_last,
    is_dense,
    may_compile,
    may_wait,
    mean_in_time,
    normalise,
    path_of,
    uncompiled,
)
from .modules import LIF
from .neuron import Neuron
from .registry import NEURONS, list_neurons, neuron_options, register_neuron
from .smoothed_lif import SmoothedLif
from .spiking_neuron import SpikingNeuron
from .surrogate import SURROGATES, Surrogate, register_surrogate, spike
from .timestep_leak import TimestepLeak

__all__ = [
    "LIF",
    "NEURONS",
    "SURROGATES",
    "Learned",
    "Neuron",
    "NormaliseBatch",
    "NormalisedCurrent",
    "PackedSpikes",
    "Path",
    "ReadLater",
    "Response",
    "SmoothedLif",
    "SpikesInBits",
    "SpikingNeuron",
    "Surrogate",
    "TimestepLeak",
    "batch_moments",
    "can_wait",
    "compiler_works",
    "is_channels_last",
    "is_dense",
    "lif",
    "lif_in_bits",
    "lif_response",
    "lif_response_in_chunks",
    "lif_step",
    "list_neurons",
    "may_compile",
    "may_wait",
    "mean_in_time",
    "membrane_precision",
    "neuron_options",
    "norm_lif",
    "norm_lif_response",
    "norm_lif_step",
    "normalise",
    "path_of",
    "register_neuron",
    "register_surrogate",
    "spike",
    "uncompiled",
]
