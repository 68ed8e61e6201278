"""Several methods and seeds trained, tuned and compared."""

from .compare import compare

__all__ = ["compare"]
