"""What would make a host wait for its device, refused: for tests that have no device.

Meta tensors stand for those of a device: they have no values, so whoever reads one, or makes a shape of values, fails. All code
goes the way of a device for them. What PyTorch lets pass is refused here: a tensor of the host among theirs, and a copy that is
not pinned.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")
_READS = {"_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "equal", "is_nonzero"}


class Waits(AssertionError):
    """The host would wait."""


class NoWaiting(TorchDispatchMode):
    """Refuses every operation on meta tensors for which the host of a GPU would wait; counts the pinned copies."""

    def __init__(self) -> None:
        super().__init__()
        self.pinned: list[Tensor] = []
        self.copies = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        if name == "is_pinned":
            return any(args[0] is tensor for tensor in self.pinned)
        if name == "_pin_memory":
            self.pinned.append(args[0].clone())
            return self.pinned[-1]
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_device = [tensor for tensor in tensors if tensor.device == DEVICE]
        # a number of the host goes along as an argument
        on_host = [tensor for tensor in tensors if tensor.device != DEVICE and tensor.ndim]
        target = kwargs.get("device") or (DEVICE if on_device else None)
        if target == DEVICE and (on_device or on_host):
            self._check(name, args, kwargs, on_device, on_host)
        if on_device and kwargs.get("device") is not None and torch.device(kwargs["device"]) != DEVICE:
            raise Waits(f"{name} reads {list(on_device[0].shape)} back")
        return function(*args, **kwargs)

    def _check(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], on_device: list[Tensor], on_host: list[Tensor]
    ) -> None:
        if name in ("_to_copy", "copy_") and on_host:
            non_blocking = kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,))
            if not (non_blocking and all(any(x is tensor for tensor in self.pinned) for x in on_host)):
                raise Waits(f"{name} of {list(on_host[0].shape)} from memory that is not pinned, or blocking")
            self.copies += 1
        elif on_host:
            raise Waits(f"{name} takes {list(on_host[0].shape)} of the host beside tensors of the device")
        if on_device and name in _READS:
            raise Waits(f"{name} reads {list(on_device[0].shape)}")
        if name.startswith("index") and any(
            isinstance(x, Tensor) and x.dtype == torch.bool for x in tree_leaves(args[1])
        ):
            raise Waits(f"{name} takes a mask")
