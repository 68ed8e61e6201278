"""Detects in-place changes of tensors between the time they are passed and the time they are read."""

from typing import Any

import torch
from torch import Tensor

from ...errors import UserError


class ReadLater:
    """Notes the versions of some tensors, and refuses them if they have changed.

    Two cases are not checked: tensors made in inference mode, which have no version, and compiled code, because the compiler
    orders reads and writes.

    Args:
        given: tensors; other values are ignored.
    """

    def __init__(self, *given: Any) -> None:
        self._versions: list[tuple[Tensor, int]] = []
        if not torch.compiler.is_compiling():
            for part in given:
                if isinstance(part, Tensor) and not part.is_inference():
                    self._versions.append((part, part._version))

    def check(self) -> None:
        """Check that no tensor has changed.

        Raises:
            UserError: if one has.
        """
        for tensor, version in self._versions:
            if tensor._version != version:
                raise UserError(
                    f"the network changed a tensor {list(tensor.shape)} in place after using it, but the next neurons "
                    "or the backward pass still need the old values: write k = k + 1 instead of k += 1, or change it before"
                )
