"""Tensors that are given now and read later: nobody may write to them in between."""

from typing import Any

import torch
from torch import Tensor

from ...errors import UserError


class ReadLater:
    """Notes what version some tensors are of, to refuse to read another one.

    Tensors made in inference mode have no versions, and a compiler orders reads and writes itself: neither are checked.

    Args:
        given: tensors; anything else among them is left out.
    """

    def __init__(self, *given: Any) -> None:
        self._versions: list[tuple[Tensor, int]] = []
        if not torch.compiler.is_compiling():
            for part in given:
                if isinstance(part, Tensor) and not part.is_inference():
                    self._versions.append((part, part._version))

    def check(self) -> None:
        """Refuse tensors that have been written to.

        Raises:
            UserError: in that case.
        """
        for tensor, version in self._versions:
            if tensor._version != version:
                raise UserError(
                    f"the network changed a tensor {list(tensor.shape)} in place after using it, and reads it once more "
                    "when the next neurons fire, or backward: write that without in-place, as k = k + 1, or change it before"
                )
