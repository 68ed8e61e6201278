"""What it costs to look at every number of a training step, beside the step itself."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from spikedistill import temporal
from spikedistill.config import OptimizerConfig
from spikedistill.through_time.finite import check_finite
from spikedistill.training.finite import not_finite
from spikedistill.training.optimizers import make_optimizer

from .workloads import NetworkWorkload


def check_seconds(work: NetworkWorkload, timesteps: int, rounds: int) -> list[tuple[float, float]]:
    """Seconds of the checks, timed alone, and of the whole step before them, in each round after one that warms up.

    The checks are those of a run on a CPU: of the images, of the loss, gradients and running statistics before the update, and of
    the weights after it.
    """
    work.prepare()
    network = temporal(work.network()).train()
    optimizer = make_optimizer(network, OptimizerConfig())
    images, target = work.images(), work.labels()
    weights = list(network.parameters())
    statistics = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    found = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        optimizer.zero_grad()
        with work.autocast():
            logits = network(images, timesteps=timesteps)
            loss = F.cross_entropy(logits.float().mean(0), target)
        loss.backward()
        optimizer.step()
        step = time.perf_counter() - begun
        gradients = [p.grad for p in weights if p.grad is not None]
        looked_at = [loss.detach(), logits.detach()], statistics, gradients, weights
        found.append((_seconds(lambda looked_at=looked_at: _checks(images, looked_at)), step))  # type: ignore[misc]
    return found[1:]


def _checks(images: torch.Tensor, looked_at: Sequence[list[torch.Tensor]]) -> None:
    check_finite(images)
    for tensors in looked_at:
        assert not not_finite(tensors)


def _seconds(function: Callable[[], None]) -> float:
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def describe_checks(found: list[tuple[float, float]]) -> str:
    """The medians and the share in words, with its range over the rounds."""
    shares = [100 * checks / step for checks, step in found]
    checks, step = (1000 * statistics.median(column) for column in zip(*found, strict=True))
    return (
        f"checks {checks:.2f} ms, step {step:.0f} ms: {statistics.median(shares):.2f} percent of a step, "
        f"{min(shares):.2f} to {max(shares):.2f} over {len(found)} rounds"
    )
