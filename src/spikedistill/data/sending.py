"""From the host to a device without waiting for it."""

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of the host on a device; the host goes on while it is on its way, beside whatever the device computes."""
    values = values if dtype is None else values.to(dtype)
    if values.device == device or device.type in ("cpu", "mps"):  # which have no memory that is pinned
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
