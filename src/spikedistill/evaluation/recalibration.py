"""Batch-norm statistics computed anew for fewer timesteps, from training samples and without training.

A spiking network's first timesteps differ from the others, because its membranes begin empty, and batch-norm shares one mean and
one variance between all. That is one reason why a network that was trained for T timesteps is poor after one.

- For one k: the statistics of the first k timesteps. The network then serves k timesteps only.
- For every timestep: those of timestep t alone, in part. With the share a_t the statistics are those of a mixture of timestep t and
  of training,

      mean = a_t mean_t + (1 - a_t) mean,  var = a_t var_t + (1 - a_t) var + a_t (1 - a_t) (mean_t - mean)^2

  By default a_t = 1 - t / T, so that the last timestep keeps the statistics of training. It also runs one step at a time.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import UserError
from ..models import TimestepBatchNorm
from ..through_time import Bptt, Temporal
from ..through_time.steps import evaluating
from ..trained import Trained


@torch.no_grad()
def recalibrate(
    network: nn.Module,
    batches: Iterable[Any],
    run: Callable[[nn.Module, Any], Any] | None = None,
    *,
    norms: Sequence[nn.Module] | None = None,
) -> int:
    """Compute the running statistics of every batch-norm anew, as means over batches. Everything else stays as it is.

    So do those of a batch-norm that no pass comes to, and all of them if a pass fails.

    It serves any network with batch-norm of PyTorch, of other libraries too: `run` is what makes a pass with a batch.

    Args:
        network: the network, which is changed.
        batches: inputs of training samples, not augmented.
        run: makes a pass, `run(network, batch)`; default `network(batch)`.
        norms: its batch-norms with running statistics that are computed anew; default all.

    Returns:
        How many these are.

    Raises:
        UserError: for a network without running statistics, or no batch.
    """
    chosen = [
        module
        for module in (network.modules() if norms is None else norms)
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    if not chosen:
        raise UserError("the network has no batch-norm with running statistics: there is nothing to recalibrate")
    before = [(norm.momentum, copy.deepcopy(dict(norm.named_buffers(recurse=False)))) for norm in chosen]
    count, ended = 0, False
    try:
        with _only_training(network, chosen):
            for norm in chosen:
                norm.reset_running_stats()
                norm.momentum = None  # the mean over all batches
            for batch in batches:
                network(batch) if run is None else run(network, batch)
                count += 1
        ended = True
    finally:
        for norm, (momentum, buffers) in zip(chosen, before, strict=True):
            if not (ended and norm.num_batches_tracked):
                for name, buffer in norm.named_buffers(recurse=False):
                    buffer.copy_(buffers[name])
            norm.momentum = momentum
    if not count:
        raise UserError("the samples held no batch, expected at least one to compute statistics from")
    return len(chosen)


def recalibrated(
    network: Temporal,
    batches: Iterable[Tensor],
    timesteps: int,
    *,
    k: int | None = None,
    shares: Sequence[float] | None = None,
) -> Temporal:
    """A copy of a network whose batch-norm statistics are for k timesteps, or for each of T.

    Args:
        network: the network; it is not changed.
        batches: training samples: images `[B, ...]`, or event frames `[T, B, ...]`. They are gone through once.
        timesteps: T of training.
        k: recalibrate for these timesteps together; default for every timestep by itself.
        shares: a_t of timestep 1 to T, in [0, 1]; default 1 - t / T.

    Raises:
        UserError: for k out of range, other shares than T of [0, 1], or a network without batch-norm over all timesteps.
    """
    if k is not None and (shares is not None or not 1 <= k <= timesteps):
        raise UserError(f"k is {k} with shares {shares}, expected k from 1 to {timesteps}, and no shares beside it")
    if shares is not None and (len(shares) != timesteps or not all(0 <= share <= 1 for share in shares)):
        raise UserError(f"shares is {list(shares)}, expected {timesteps} numbers from 0 to 1")
    made = Temporal(copy.deepcopy(network.module), Bptt(), network.sample_axes).eval()
    if k is not None:
        recalibrate(made, batches, lambda own, x: _pass(own, x, k))
        return made
    given = [1 - t / timesteps for t in range(1, timesteps + 1)] if shares is None else list(shares)
    _per_timestep(made, batches, torch.tensor(given))
    return made


def _pass(network: Any, x: Tensor, T: int) -> None:
    network(x[:T]) if x.ndim == 5 else network(x, T)


@torch.no_grad()
def _per_timestep(network: Temporal, batches: Iterable[Tensor], shares: Tensor) -> None:
    """Put a batch-norm with statistics per timestep in the place of each, and mix them with those that were there."""
    found = [
        (path, norm)
        for path, norm in network.named_modules()
        if isinstance(norm, _BatchNorm) and norm.track_running_stats
    ]
    if not found:
        raise UserError(
            "the network has no batch-norm with statistics over all timesteps: there is nothing to recalibrate"
        )
    norms: list[tuple[_BatchNorm, TimestepBatchNorm]] = []
    for path, old in found:
        new = TimestepBatchNorm(old.num_features, len(shares), eps=old.eps).to(old.running_mean)
        if old.affine:
            new.weight.copy_(old.weight)
            new.bias.copy_(old.bias)
        network.set_submodule(path, new)
        norms.append((old, new))
    count = 0
    with _only_training(network, [new for _, new in norms]):
        for count, x in enumerate(batches, 1):
            for _, new in norms:
                new.momentum = 1 / count
            _pass(network, x, len(shares))
    if not count:
        raise UserError("the samples held no batch, expected at least one to compute statistics from")
    network.eval()
    for old, new in norms:
        assert old.running_mean is not None
        assert old.running_var is not None
        new.momentum = 0.1 if old.momentum is None else old.momentum
        own = shares.to(new.running_mean)[:, None]
        apart = new.running_mean - old.running_mean
        new.running_var.copy_(own * new.running_var + (1 - own) * old.running_var + own * (1 - own) * apart.square())
        new.running_mean.copy_(old.running_mean + own * apart)


@contextmanager
def _only_training(network: nn.Module, norms: Sequence[nn.Module]) -> Iterator[None]:
    """The network in eval mode but for its batch-norms, and afterwards every module as it was."""
    with evaluating(network):
        for norm in norms:
            norm.train()
        yield


def spec_of(network: Trained, timesteps: int) -> dict[str, Any]:
    """The arguments of `create_model` for a copy with statistics of each timestep.

    Raises:
        UserError: for a network that was made in Python, or has such statistics already.
    """
    spec = {} if network.file is None else network.file.network
    if "name" not in spec or spec.get("norm") == "timestep_batch":
        raise UserError(
            "a model file with statistics of each timestep is of a network by name, with batch-norm over all timesteps"
        )
    return {**spec, "norm": "timestep_batch", "norm_timesteps": timesteps}
