"""Train deep spiking neural networks by distillation across time; deploy the one network at any number of timesteps."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .neurons import LIF, Learned, lif, lif_step
from .through_time import Delay, Recurrent, mean_rate, temporal

if TYPE_CHECKING:
    from . import objectives
    from .comparisons import compare
    from .config import Config
    from .evaluation import evaluate
    from .models import create_model, list_models
    from .run_folder import load
    from .training import train

__all__ = [
    "LIF",
    "Config",
    "Delay",
    "Learned",
    "Recurrent",
    "compare",
    "create_model",
    "evaluate",
    "lif",
    "lif_step",
    "list_models",
    "load",
    "mean_rate",
    "objectives",
    "temporal",
    "train",
]

# Imported when they are first asked for: neurons, time and objectives need torch alone, these need more.
_ROOMS = {
    "Config": "config",
    "compare": "comparisons",
    "create_model": "models",
    "evaluate": "evaluation",
    "list_models": "models",
    "load": "run_folder",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name == "objectives":
        return import_module(f"{__name__}.objectives")
    if name in _ROOMS:
        return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
