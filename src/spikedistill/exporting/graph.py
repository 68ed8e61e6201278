"""A network as PyTorch's own exporter sees it, and what exporters have in common."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError


def exported(
    module: nn.Module, inputs: Sequence[Tensor], dynamic: Sequence[dict[int, Any]]
) -> torch.export.ExportedProgram:
    """The graph of a module, as PyTorch's own exporter finds it.

    Raises:
        UserError: for a module whose operations depend on values, or that it does not know.
    """
    shapes = (dynamic[0], tuple(dynamic[1:])) if len(dynamic) > 1 else (dynamic[0],)
    # the strides of a view would become constants
    given = tuple(tensor.clone(memory_format=torch.contiguous_format) for tensor in inputs)
    try:
        return torch.export.export(module, given, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # of many types, none of them of its own
        said = " ".join(str(error).split())[:300]
        raise UserError(f"torch.export cannot take this network: {type(error).__name__}: {said}") from error


def needed(extra: str, *packages: str) -> None:
    """Refuse to go on without the packages of an extra.

    Raises:
        UserError: naming those that are missing, and what installs them.
    """
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UserError(f"this needs {', '.join(missing)}: pip install 'spikedistill[{extra}]'")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep what exporters print, log and warn of to themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
