"""The trained ANN that teaches, as a file of half the size, so that a later stay can carry it in.

All runs learn from this file, the first ones too, so that every run of a study has the same teacher to the last bit.
"""

from pathlib import Path

import torch

from spikedistill.config import Config
from spikedistill.models import load_model, read_model, save_model
from spikedistill.run_folder import RunFolder

from .headline_runs import Run, teacher_file


def keep_teacher(run: Run, config: Config, out: Path) -> None:
    """Write the file of a run that teaches others, where it is missing and the run's own model is there."""
    file, model = teacher_file(out, run.study.dataset), RunFolder(config.run_folder).model
    if run.method == "ann" and model.is_file() and not file.is_file():
        write_half(model, file)


def write_half(model: Path, file: Path) -> None:
    """A model file again, with the weights of convolutions and linear layers in half precision.

    Vectors, such as the statistics of batch-norm, stay as they are; reading it gives a network in float32. Weights are off by a
    relative 2^-11 at most, or by 3e-8 where they are below 6e-5.

    Raises:
        ValueError: where a weight is above 65504, the largest number in half precision.
    """
    described, network = read_model(model), load_model(model)
    for name, parameter in network.module.named_parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.to(torch.float16)
            if not parameter.isfinite().all():
                raise ValueError(f"{model}: a weight of {name} is too large for half precision, which ends at 65504")
    kept = {name: getattr(described, name) for name in ("classes", "input", "timesteps", "imports")}
    save_model(network, described.network, file, **kept)
