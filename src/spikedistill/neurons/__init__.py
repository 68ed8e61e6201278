"""Currents to spikes: leaky integrate-and-fire dynamics over a sequence, one step of them, and their surrogate gradients."""

from .dynamics import lif, lif_step
from .eligibility import Response, lif_response
from .modules import LIF
from .surrogate import SURROGATES, Surrogate

__all__ = ["LIF", "SURROGATES", "Response", "Surrogate", "lif", "lif_response", "lif_step"]
