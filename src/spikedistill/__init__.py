"""Train deep spiking neural networks by distillation across time; deploy the one network at any number of timesteps."""

from .models import create_model, list_models
from .neurons import LIF, lif, lif_step
from .temporal import mean_rate, temporal

__all__ = ["LIF", "create_model", "lif", "lif_step", "list_models", "mean_rate", "temporal"]
