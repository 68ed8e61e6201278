"""Training passes on a GPU as CUDA graphs, without the gaps in which Python prepares the next kernel."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger("spikedistill")

# The batches of an epoch have at most two sizes.
_KINDS = 2


class Captured:
    """A module on a GPU whose forward and backward passes are recorded at the first training call and replayed afterwards.

    A replay takes inputs of the recorded shape, dtype and autocast, with the same modules frozen or in evaluation. Two kinds of
    input are recorded, which share memory, because an epoch may have batches of two sizes. All other inputs, inputs that need a
    gradient and calls without gradients run the module itself. If recording fails, the module itself always runs, and one log line
    says so. The next replay overwrites the gradients: use or copy them before. Dropout draws as usual. Hooks that are added later
    do not run.

    Args:
        module: takes one tensor `[B, ...]` and returns a tensor or a tuple of them.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._replays: dict[tuple[Any, ...], nn.Module | None] = {}
        self._pool: Any = None

    def __call__(self, x: Tensor) -> Any:
        if not (x.is_cuda and torch.is_grad_enabled() and self.module.training) or x.requires_grad:
            return self.module(x)
        kind = self._kind_of(x)
        if kind not in self._replays and len(self._replays) < _KINDS:
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            self._replays[kind] = _record(self.module, x, self._pool)
        replay = self._replays.get(kind)
        return self.module(x) if replay is None else replay(x)

    def release(self) -> None:
        """Give back the memory of the recordings."""
        if not self._replays:
            return
        for replay in self._replays.values():
            if replay is not None:
                del replay.forward  # a reference cycle
        self._replays, self._pool = {}, None
        torch.cuda.empty_cache()

    def _kind_of(self, x: Tensor) -> tuple[Any, ...]:
        autocast = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        trained = tuple(p.requires_grad for p in self.module.parameters())
        return x.shape, x.dtype, x.device, *autocast, trained, tuple(m.training for m in self.module.modules())


class _Recorded(nn.Module):
    """A module whose forward PyTorch replaces by the replay."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        return self.module(x)


def _record(module: nn.Module, x: Tensor, pool: Any) -> nn.Module | None:
    """The module's replay on batches like x, in the memory of a pool; None if it cannot be recorded."""
    # the recording keeps the nodes that accumulate gradients, which belong to its stream
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    # a cast that autocast has cached would be missing from the recorded graph
    dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
    try:
        with _nothing_happened(module, x.device), torch.autocast("cuda", dtype, enabled, cache_enabled=False):
            recorded = _Recorded(module)
            torch.cuda.make_graphed_callables(recorded, (x.detach().clone(),), allow_unused_input=True, pool=pool)
            return recorded
    except (RuntimeError, AssertionError) as error:
        logger.warning("training runs without CUDA graphs: %s", (str(error).splitlines() or ["no reason given"])[0])
        return None


@contextmanager
def _nothing_happened(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore buffers and the random generator afterwards, because recording runs the module several times."""
    kept = [buffer.clone() for buffer in module.buffers()]
    draws = torch.cuda.get_rng_state(device)
    try:
        yield
    finally:
        torch.cuda.set_rng_state(draws, device)
        with torch.no_grad():
            for buffer, before in zip(module.buffers(), kept, strict=True):
                buffer.copy_(before)
