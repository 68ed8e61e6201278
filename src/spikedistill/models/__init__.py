"""Networks by name, and their ANN twins."""

from .files import load_model, read_model_file, save_model
from .layers import Normalize
from .registry import create_model, list_models

__all__ = ["Normalize", "create_model", "list_models", "load_model", "read_model_file", "save_model"]
