"""Batches of evaluation that get smaller until they fit into memory."""

from collections.abc import Callable
from typing import TypeVar

from ..errors import is_out_of_memory

T = TypeVar("T")


def in_fitting_batches(function: Callable[[int], T], size: int) -> T:
    """What `function(size)` returns; it is called again with half the size for as long as memory runs out, down to 1.

    Args:
        function: evaluates in batches of a size, begins anew at each call, and returns the same for every size up to rounding.
        size: the first size to try.
    """
    while True:
        try:
            return function(size)
        except Exception as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        size //= 2  # here the memory of the failed call is free again
