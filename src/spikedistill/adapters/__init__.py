"""Networks of other libraries, run one timestep at a time with their state outside of their modules."""

from .snntorch import from_snntorch
from .spikingjelly import from_spikingjelly

__all__ = ["from_snntorch", "from_spikingjelly"]
