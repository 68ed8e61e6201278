"""Where the time of a training step goes: the kernels that take longest, and the images per second without anything around them."""

from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from .contenders import SUITES
from .timing import seconds
from .workloads import NetworkWorkload

_STEPS = 5  # that are profiled


def kernels(work: NetworkWorkload, timesteps: int, top: int = 20, measure_s: float = 5.0) -> dict[str, Any]:
    """Time a training step of BPTT, on a GPU recorded and replayed, and profile some.

    Returns:
        `{ms, images_per_s, kernels}`: of the step, and for each of the kernels that take longest `{name, ms, share, calls}`, of one
        step.

    Raises:
        ValueError: where there is no GPU to measure on.
    """
    if work.device != "cpu" and not torch.cuda.is_available():
        raise ValueError(
            f"--device {work.device} needs a GPU, and PyTorch finds none: --device cpu measures on the processor"
        )
    work.prepare()
    contender = "bptt" if work.device == "cpu" else "bptt-captured"
    step = SUITES["step"].contenders[contender](work, timesteps)
    for _ in range(3):  # compiles, chooses algorithms and records
        step.run()
        step.forget()
    each = seconds(step, work.device, at_least=measure_s)
    kinds = [ProfilerActivity.CPU] if work.device == "cpu" else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=kinds, acc_events=True) as profiled:
        for _ in range(_STEPS):
            step.run()
            step.forget()
        if work.device != "cpu":
            torch.cuda.synchronize()
    of = "self_cpu_time_total" if work.device == "cpu" else "self_device_time_total"
    found = sorted(profiled.key_averages(), key=lambda entry: getattr(entry, of), reverse=True)
    whole = sum(getattr(entry, of) for entry in found) or 1.0
    return {
        "ms": round(1000 * each, 3),
        "images_per_s": round(work.batch / each, 1),
        "kernels": [
            {
                "name": entry.key[:100],
                "ms": round(getattr(entry, of) / 1000 / _STEPS, 4),
                "share": round(getattr(entry, of) / whole, 4),
                "calls": entry.count / _STEPS,
            }
            for entry in found[:top]
        ],
    }
