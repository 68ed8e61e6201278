"""Functions of one image, compiled with their weights as constants."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Frozen:
    """A function that `torch.compile` compiles at its first call, with the weights that it reads as constants.

    Args:
        function: takes images `[B, C, H, W]` of one size.
    """

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        self._function = torch.compile(function, dynamic=False)
        self._is_new = True

    def __call__(self, x: Tensor) -> Any:
        if not self._is_new:
            return self._function(x)
        self._is_new = False
        # of PyTorch's limit only a warning would tell, and the rest would run eagerly
        strict = torch._dynamo.config.patch(fail_on_recompile_limit_hit=True)
        with warnings.catch_warnings(), torch._inductor.config.patch(freezing=True), strict:
            warnings.simplefilter("ignore")  # of the compiler's own parts
            return self._function(x)
