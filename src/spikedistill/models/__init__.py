"""Networks by name, and their ANN twins."""

from .layers import Normalize
from .registry import create_model, list_models

__all__ = ["Normalize", "create_model", "list_models"]
