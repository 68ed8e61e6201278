"""Currents to spikes: leaky integrate-and-fire dynamics over a sequence, one step of them, and their surrogate gradients."""

from .dynamics import lif, lif_step
from .eligibility import Response, lif_response, lif_response_in_chunks
from .modules import LIF
from .packed import PackedSpikes
from .surrogate import SURROGATES, Surrogate

__all__ = [
    "LIF",
    "SURROGATES",
    "PackedSpikes",
    "Response",
    "Surrogate",
    "lif",
    "lif_response",
    "lif_response_in_chunks",
    "lif_step",
]
