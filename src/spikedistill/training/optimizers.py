"""The optimiser of a run and its learning rate over epochs."""

import math

import torch

from ..config import OptimizerConfig


def make_optimizer(network: torch.nn.Module, options: OptimizerConfig, *, fused: bool = False) -> torch.optim.Optimizer:
    """The optimiser, by default with weight decay on the weights of convolutions and linear layers only.

    Biases, batch-norm and parameters of neurons have one dimension or none, and no decay unless `options.decayed` is "all". A fused
    one updates in one kernel, and a flag on the device can make it skip the update.
    """
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    of_others = options.weight_decay if options.decayed == "all" else 0.0
    groups = [{"params": weights, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": of_others}]
    optimizer: torch.optim.Optimizer
    if options.name == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=options.lr, fused=fused or None)
    else:
        optimizer = torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum, fused=fused or None)
    if fused:
        # Lightning refuses to clip for an optimiser that unscales gradients itself; without a scaler there is nothing to unscale
        optimizer._step_supports_amp_scaling = False
    return optimizer


def learning_rate_factor(epoch: float, epochs: int, options: OptimizerConfig) -> float:
    """The factor on the highest learning rate after so many (fractional) epochs.

    A linear rise over the warm-up, then 0.5 (1 + cos(pi p)) with p the share of the remaining epochs done, or
    `step_factor ** floor(epoch / step_epochs)`, or 1. Under `schedule_per="epoch"` the cosine is that of the epoch's first step.
    """
    if epoch < options.warmup_epochs:
        # a learning rate of zero would waste the first step
        return max(epoch, 1e-3) / options.warmup_epochs
    if options.schedule == "step":
        return options.step_factor ** (int(epoch) // options.step_epochs)
    if options.schedule == "constant":
        return 1.0
    if options.schedule_per == "epoch":
        epoch = max(math.floor(epoch), options.warmup_epochs)  # a warm-up may end within an epoch
    progress = (epoch - options.warmup_epochs) / max(epochs - options.warmup_epochs, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
