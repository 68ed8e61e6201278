"""Train, tune and compare several methods over several seeds."""

from .compare import compare

__all__ = ["compare"]
