"""Training on several numbers of timesteps at once: which a batch runs for, and batch-norm statistics for all of them.

Du et al.: Temporal Flexibility in Spiking Neural Networks: Towards Generalization Across Time Steps and Deployment Friendliness
(MTT, ICLR 2025). In its global form the whole network has one number of timesteps, otherwise each stage has its own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..data import as_network_input, balanced_order
from ..evaluation import recalibrate
from ..evaluation.fitting_batches import in_fitting_batches
from ..seeds import derive_seed
from ..through_time import Temporal
from .plan import Plan
from .student import Timesteps

# As many training samples as the released code takes by default, ten batches of 256.
SAMPLES, BATCH = 2560, 256

# The numbers of timesteps that a batch runs for, of the plan, the epoch and the number of the batch.
Draw = Callable[[Plan, int, int], Sequence[Timesteps]]


def drawn_timesteps(plan: Plan, epoch: int, batch_index: int) -> list[Timesteps]:
    """The numbers of timesteps that a batch runs for, each drawn evenly from 1 to T, for the network or for each stage.

    One None if it runs once, for T. They are the same in all processes that share the batch.
    """
    config, stages = plan.config, max(1, len(plan.stages))
    if config.timestep_draws is None:
        return [None]
    dice = torch.Generator().manual_seed(derive_seed(config.seed, epoch, batch_index))
    drawn = torch.randint(1, config.timesteps + 1, (config.timestep_draws, stages), generator=dice).tolist()
    return [tuple(each) if plan.stages else each[0] for each in drawn]


def usual_timesteps(plan: Plan, epoch: int, batch_index: int) -> list[Timesteps]:
    """Numbers of timesteps that make a batch cost as much as one costs on average: as `drawn_timesteps`, but none is by chance.

    They are the two numbers about (T + 1) / 2 in turn, the same for all stages. Two batches in a row together have that mean
    exactly.
    """
    config = plan.config
    if config.timestep_draws is None:
        return [None]
    return [(config.timesteps + (epoch + batch_index + i) % 2 + 1) // 2 for i in range(config.timestep_draws)]


def most_timesteps(plan: Plan, epoch: int, batch_index: int) -> list[Timesteps]:
    """Numbers of timesteps that make a batch need the most memory: as `drawn_timesteps`, but all are T."""
    return [None] * (plan.config.timestep_draws or 1)


@contextmanager
def separate_statistics(module: nn.Module) -> Iterator[Callable[[], None]]:
    """Let batch-norms run several times before gradients are taken: call what this yields before each pass.

    A pass updates the running statistics in place, and its gradients need those that it began with. So each pass gets a copy, and
    the last copy is written back into the tensors that were there, which other processes and recordings refer to.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    kept = [dict(norm.named_buffers(recurse=False)) for norm in norms]

    def renew() -> None:
        for norm in norms:
            for name, buffer in norm.named_buffers(recurse=False):
                setattr(norm, name, buffer.clone())

    yield renew
    for norm, buffers in zip(norms, kept, strict=True):
        for name, buffer in buffers.items():
            buffer.copy_(getattr(norm, name))
            setattr(norm, name, buffer)


def recalibrate_mixed(plan: Plan, network: Temporal) -> None:
    """Compute the batch-norm statistics anew at T timesteps, if training mixed those of fewer into them."""
    if plan.config.timestep_draws is None:
        return
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    trained = [norm for norm in norms if norm.track_running_stats and norm.training]  # the others are frozen

    def anew(size: int) -> None:
        recalibrate(network, _batches(plan, network, size), lambda own, x: own(x, plan.config.timesteps), norms=trained)

    if trained:
        in_fitting_batches(anew, BATCH)


def _batches(plan: Plan, network: Temporal, size: int) -> Iterator[Tensor]:
    """Training images as the network takes them, without augmentation."""
    device = next(network.parameters()).device
    for part in balanced_order(plan.train.targets)[:SAMPLES].split(size):
        yield as_network_input(plan.train.inputs(part), plan.dataset.kind).to(device)
