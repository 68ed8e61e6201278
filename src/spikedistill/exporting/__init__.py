"""Trained networks for other runtimes, each checked on real samples before it is written."""

from . import archive, executorch, nir, nir_reading, onnx, web
from .description import Description, Exit
from .flat import FlatStep, StateTensor, WholeSequence
from .nir import CannotExpress
from .nir_reading import from_nir
from .run import Exported, Options, export
from .verify import ExportDiffers, Verified, verify

__all__ = [
    "CannotExpress",
    "Description",
    "Exit",
    "ExportDiffers",
    "Exported",
    "FlatStep",
    "Options",
    "StateTensor",
    "Verified",
    "WholeSequence",
    "archive",
    "executorch",
    "export",
    "from_nir",
    "nir",
    "nir_reading",
    "onnx",
    "verify",
    "web",
]
