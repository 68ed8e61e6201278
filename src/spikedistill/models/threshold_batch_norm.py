"""Threshold-dependent batch-norm (Zheng et al., Going Deeper With Directly-Trained Larger Spiking Neural Networks, AAAI 2021)."""

import math

from torch import nn

from ..errors import UserError
from ..neurons import SpikingNeuron
from .layers import Layout
from .layouts.resnet import BasicBlock


def start_at_threshold(layout: Layout) -> None:
    """Initialise the weight of every batch-norm to alpha * threshold, so that currents have the threshold as standard deviation.

        y = weight * (x - mean) / sqrt(var + eps) + bias

    with statistics over time, batch and space. alpha is 1, and 1 / sqrt(2) for the batch-norms whose outputs a residual block adds.
    The paper multiplies a weight that starts at 1 by alpha * threshold, which is the same function. Here, as in SpikingJelly, the
    weight contains the factor, and a step of SGD changes it (alpha * threshold)^-2 times as much as it changes their product there.

    Raises:
        UserError: for a layout without spiking neurons, or one whose shortcuts carry currents.
    """
    neuron = next((module for module in layout.modules() if isinstance(module, SpikingNeuron)), None)
    if neuron is None:
        raise UserError(
            "norm='tdbn' scales currents to the threshold of spiking neurons, and the ReLU twin has none: use norm='batch'"
        )
    threshold = getattr(neuron, "threshold", None)
    if not isinstance(threshold, int | float) or threshold <= 0:
        raise UserError(
            f"norm='tdbn' scales currents to the threshold of neurons, and {type(neuron).__name__} has none: set self.threshold to "
            "a positive number, or use norm='batch'"
        )
    if any(getattr(module, "adds_currents", False) for module in layout.modules()):
        raise UserError(
            "norm='tdbn' scales currents to the next threshold, and this layout adds up currents over its blocks before "
            "any threshold: use norm='batch', or a layout such as resnet18 or spiking_resnet34"
        )
    added = {norm for block in layout.modules() if isinstance(block, BasicBlock) for norm in block.added_norms()}
    for module in layout.modules():
        if isinstance(module, nn.BatchNorm2d):
            alpha = 1 / math.sqrt(2) if module in added else 1.0
            nn.init.constant_(module.weight, alpha * threshold)
