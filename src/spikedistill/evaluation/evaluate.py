"""A trained run, scored on its test set at every number of timesteps."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ..data import Samples, as_network_input, in_order, load_dataset
from ..files import write_atomically
from ..run_folder import RunFolder, load
from ..temporal import Temporal
from .timesteps import timestep_metrics

SCHEMA = 1


def evaluate(run: Path | str, *, batch_size: int = 250, root: Path | None = None) -> dict[str, Any]:
    """Score a trained run on its test set at every k = 1..T from one forward pass, and write what came out.

    Args:
        run: the run folder; results.json and logits.safetensors are written into it.
        batch_size: samples per forward pass.
        root: folder of the data sets, where it is no longer the one that the run was trained with.

    Returns:
        What results.json holds: `{schema, timesteps, last: {ensemble: [{k, accuracy, nll, ece, confidence, ...}],
        single: [...]}, cost: {images_per_s, peak_mib}, ...}`; `ensemble` scores the mean logits of the first k timesteps,
        `single` those of timestep k alone.

    Raises:
        FileNotFoundError: where the run or its data set is missing.
    """
    folder = RunFolder.trained(run)
    config = folder.config()
    dataset = load_dataset(config.data.name, root or config.data.root, timesteps=config.timesteps)
    logits = collect_logits(load(run), dataset.test, dataset.kind, config.timesteps, batch_size)
    targets = dataset.test.targets
    results = {
        "schema": SCHEMA,
        "recipe": config.recipe,
        "dataset": dataset.name,
        "classes": list(dataset.classes),
        "samples": len(targets),
        "timesteps": config.timesteps,
        "last": timestep_metrics(logits, targets),
        "cost": folder.read_cost(),
    }
    write_atomically(folder.logits, save({"logits": logits.contiguous(), "targets": targets}))
    write_atomically(folder.results, json.dumps(results, indent=1))
    return results


@torch.no_grad()
def collect_logits(model: Temporal, samples: Samples, kind: str, timesteps: int, batch_size: int = 250) -> Tensor:
    """Logits `[T, N, C]` in float32 of a network in eval mode on all samples, in their order.

    Args:
        model: the network.
        samples: N samples.
        kind: "image" or "events".
        timesteps: T.
        batch_size: samples per forward pass.
    """
    model.eval()
    device = next(model.parameters()).device
    parts = []
    for inputs, _ in in_order(samples, batch_size):
        x = as_network_input(inputs.to(device), kind)
        logits = model(x) if kind == "events" else model(x, timesteps=timesteps)
        parts.append(logits.float().cpu())
    return torch.cat(parts, 1)
