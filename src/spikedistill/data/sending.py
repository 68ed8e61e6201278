"""Copies from the host to a device without synchronisation."""

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A copy of a host tensor on a device; host and device go on computing during the transfer."""
    values = values if dtype is None else values.to(dtype)
    if values.device == device or device.type in ("cpu", "mps"):  # these devices have no pinned memory
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
