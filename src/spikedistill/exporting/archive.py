"""Archives of `torch.export`: a step with an explicit state, or a whole sequence, for PyTorch without this library."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .description import KEY, Description
from .graph import exported, quietly
from .verify import Runner

_ENTRY = f"{KEY}.json"


def archive_of(module: nn.Module, inputs: Sequence[Tensor], description: Description) -> bytes:
    """The archive of a `FlatStep` or a `WholeSequence`, for any batch size.

    Args:
        module: what is exported.
        inputs: examples, of at least 2 samples.
        description: what the archive says of itself, in its entry `spikedistill.json`.
    """
    batch = torch.export.Dim("batch")
    axis = 1 if description.form == "sequence" and description.input.kind == "events" else 0
    dynamic: list[dict[int, Any]] = [{axis: batch}, *({0: batch} for _ in description.state)]
    content = io.BytesIO()
    with quietly():
        torch.export.save(exported(module, inputs, dynamic), content, extra_files={_ENTRY: description.text()})
    return content.getvalue()


def runner(content: bytes | Path) -> Runner:
    """An archived step in PyTorch."""
    given = io.BytesIO(content) if isinstance(content, bytes) else content
    with quietly():
        module = torch.export.load(given).module()

    @torch.no_grad()
    def run(x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        out = module(x, *state)
        return (out, []) if isinstance(out, Tensor) else (out[0], list(out[1:]))

    return run
