"""Train deep spiking neural networks by distillation across time; deploy the one network at any number of timesteps."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .neurons import LIF, Learned, Neuron, SpikingNeuron, lif, lif_step, register_neuron, register_surrogate, spike
from .through_time import Delay, Recurrent, mean_rate, rules, temporal
from .through_time.rules import *  # noqa: F403

if TYPE_CHECKING:
    from . import (  # noqa: F401
        adapters,
        comparisons,
        config,
        data,
        evaluation,
        exporting,
        models,
        objectives,
        recipes,
        report,
        run_folder,
        training,
    )
    from .adapters import from_snntorch, from_spikingjelly
    from .comparisons import compare
    from .config import Config
    from .data import register_augmentation, register_dataset
    from .evaluation import evaluate
    from .exporting import export, from_nir
    from .models import create_model, list_models, register_model
    from .objectives import register_objective
    from .recipes import register_recipe
    from .run_folder import load
    from .training import train

__all__ = [
    "LIF",
    "Config",
    "Delay",
    "Learned",
    "Neuron",
    "Recurrent",
    "SpikingNeuron",
    "UserError",
    "compare",
    "create_model",
    "evaluate",
    "export",
    "from_nir",
    "from_snntorch",
    "from_spikingjelly",
    "lif",
    "lif_step",
    "list_models",
    "load",
    "mean_rate",
    "objectives",
    "register_augmentation",
    "register_dataset",
    "register_model",
    "register_neuron",
    "register_objective",
    "register_recipe",
    "register_surrogate",
    "spike",
    "temporal",
    "train",
]
__all__ += rules.__all__

# Imported when they are first used: neurons and time need torch only, these need more.
_ROOMS = (
    "adapters",
    "comparisons",
    "config",
    "data",
    "evaluation",
    "exporting",
    "models",
    "objectives",
    "recipes",
    "report",
    "run_folder",
    "training",
)
_ROOM_OF = {
    "Config": "config",
    "compare": "comparisons",
    "create_model": "models",
    "evaluate": "evaluation",
    "export": "exporting",
    "from_nir": "exporting",
    "from_snntorch": "adapters",
    "from_spikingjelly": "adapters",
    "list_models": "models",
    "load": "run_folder",
    "register_augmentation": "data",
    "register_dataset": "data",
    "register_model": "models",
    "register_objective": "objectives",
    "register_recipe": "recipes",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name in _ROOM_OF:
        return getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS, *_ROOM_OF})
