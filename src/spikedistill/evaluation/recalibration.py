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
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import UserError
from ..models import TimestepBatchNorm
from ..through_time import Bptt, SyncBatchNorm, Temporal
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

    So do those of a batch-norm that no pass comes to, and all of them if a pass fails. A batch that is a tensor counts by its size.

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
    given = dict.fromkeys(network.modules() if norms is None else norms)
    chosen = [module for module in given if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not chosen:
        raise UserError("the network has no batch-norm with running statistics: there is nothing to recalibrate")
    before = [(norm.momentum, copy.deepcopy(dict(norm.named_buffers(recurse=False)))) for norm in chosen]
    ended = False
    try:
        for norm in chosen:
            norm.reset_running_stats()
        _average(network, chosen, batches, run or nn.Module.__call__)
        ended = True
    finally:
        for norm, (momentum, buffers) in zip(chosen, before, strict=True):
            if not (ended and norm.num_batches_tracked):
                for name, buffer in norm.named_buffers(recurse=False):
                    buffer.copy_(buffers[name])
            norm.momentum = momentum
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
        UserError: for k out of range, other shares than T of [0, 1], a network without batch-norm over all timesteps, or one with a
            batch-norm that computes something else.
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
        for path, norm in network.named_modules(remove_duplicate=False)
        if isinstance(norm, _BatchNorm) and norm.track_running_stats
    ]
    if not found:
        raise UserError(
            "the network has no batch-norm with statistics over all timesteps: there is nothing to recalibrate"
        )
    norms: dict[_BatchNorm, TimestepBatchNorm] = {}  # one for a batch-norm that has several paths
    for path, old in found:
        if type(old).forward not in (_BatchNorm.forward, SyncBatchNorm.forward):
            raise UserError(f"{path} is a {type(old).__name__} with a forward of its own: recalibrate for one k")
        if old not in norms:
            norms[old] = TimestepBatchNorm(old.num_features, len(shares), eps=old.eps).to(old.running_mean)
            if old.affine:
                norms[old].weight.copy_(old.weight)
                norms[old].bias.copy_(old.bias)
        network.set_submodule(path, norms[old])
    reached = _average(network, [*norms.values()], batches, lambda own, x: _pass(own, x, len(shares)))
    network.eval()
    for old, new in norms.items():
        assert old.running_mean is not None
        assert old.running_var is not None
        new.momentum = 0.1 if old.momentum is None else old.momentum
        own = shares.to(new.running_mean)[:, None] if new in reached else new.running_mean.new_zeros(())
        apart = new.running_mean - old.running_mean
        new.running_var.copy_(own * new.running_var + (1 - own) * old.running_var + own * (1 - own) * apart.square())
        new.running_mean.copy_(old.running_mean + own * apart)


def _average(
    network: nn.Module, norms: Sequence[nn.Module], batches: Iterable[Any], run: Callable[[Any, Any], Any]
) -> set[nn.Module]:
    """Make a pass with every batch, after which the running statistics of batch-norms are means over batches.

    The rest of the network is in eval mode meanwhile, and afterwards every module in the mode that it was in.

    Returns:
        The batch-norms that some pass came to.

    Raises:
        UserError: if there is no batch.
    """
    weight, seen, some = 0, dict.fromkeys(norms, 0), False

    def count(norm: Any, _: Any) -> None:
        seen[norm] += weight
        norm.momentum = weight / seen[norm]

    hooks = [norm.register_forward_pre_hook(count) for norm in norms]
    try:
        with evaluating(network):
            for norm in norms:
                norm.train()
            for batch in batches:
                some = True
                weight = batch.numel() if isinstance(batch, Tensor) else 1
                if weight:
                    run(network, batch)
    finally:
        for hook in hooks:
            hook.remove()
    if not some:
        raise UserError("the samples held no batch, expected at least one to compute statistics from")
    return {norm for norm, values in seen.items() if values}


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
