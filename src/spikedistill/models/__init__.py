"""Networks by name, and their ANN twins."""

from .branches import Branched
from .files import ModelFile, build_model, check_finite, load_model, load_weights, read_model, read_weights, save_model
from .initial import Start, starting_weights
from .joint import Joint
from .layers import MODELS, Normalize
from .own import register_model
from .plain import normalised, plain_module
from .registry import count_heads, create_model, has_stages, list_models, model_options, takes_neuron
from .spikingjelly import load_spikingjelly
from .timestep_batch_norm import TimestepBatchNorm

__all__ = [
    "MODELS",
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
    "has_stages",
    "list_models",
    "load_model",
    "load_spikingjelly",
    "load_weights",
    "model_options",
    "normalised",
    "plain_module",
    "read_model",
    "read_weights",
    "register_model",
    "save_model",
    "starting_weights",
    "takes_neuron",
]
