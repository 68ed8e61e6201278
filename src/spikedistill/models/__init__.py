"""Networks by name, and their ANN twins."""

from .branches import Branched
from .files import ModelFile, build_model, check_finite, load_model, load_weights, read_model, read_weights, save_model
from .initial import Start, starting_weights
from .joint import Joint
from .layers import Normalize
from .registry import count_heads, create_model, list_models
from .spikingjelly import load_spikingjelly
from .timestep_batch_norm import TimestepBatchNorm

__all__ = [
    "Branched",
    "Joint",
    "ModelFile",
    "Normalize",
    "Start",
    "TimestepBatchNorm",
    "build_model",
    "check_finite",
    "count_heads",
    "create_model",
    "list_models",
    "load_model",
    "load_spikingjelly",
    "load_weights",
    "read_model",
    "read_weights",
    "save_model",
    "starting_weights",
]
