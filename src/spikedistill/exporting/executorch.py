"""ExecuTorch: a step of one sample for phones and boards, with XNNPACK's kernels where it has them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .description import KEY, Description
from .graph import exported, needed, quietly
from .verify import Runner


def program_of(step: nn.Module, inputs: Sequence[Tensor], description: Description) -> bytes:
    """The `.pte` file of a `FlatStep`. Its method `spikedistill` returns the description.

    Args:
        step: what is exported.
        inputs: examples, of one sample.
        description: what the file says of itself.

    Raises:
        UserError: if executorch is not installed.
    """
    needed("executorch", "executorch")
    with quietly():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        program = to_edge_transform_and_lower(
            exported(step, inputs, [{} for _ in inputs]),
            partitioner=[XnnpackPartitioner()],
            constant_methods={KEY: description.text()},
        ).to_executorch()
        content: bytes = bytes(program.buffer)
    return content


def runner(content: bytes | Path) -> Runner:
    """An exported step in ExecuTorch's runtime, one sample after another."""
    needed("executorch", "executorch")
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(content)
    method = program.load_method("forward")
    assert method is not None
    kept = program, content  # the method reads their memory, and does not keep them itself

    def run(x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        assert kept
        rows = []
        for n in range(len(x)):
            given = [tensor[n : n + 1].contiguous() for tensor in (x, *state)]
            rows.append([each.clone() for each in method.execute(given)])
        logits, *after = (torch.cat(parts) for parts in zip(*rows, strict=True))
        return logits, after

    return run
