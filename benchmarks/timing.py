"""Seconds of a step."""

import time

import torch

from .workloads import Step


def seconds(step: Step, device: str, *, at_least: float = 0.0) -> float:
    """Run the step, each time to its end on the device, and drop the gradients it leaves behind; the mean seconds without that.

    Args:
        step: the work.
        device: where it runs.
        at_least: seconds of work after which it is enough; one run where it is 0.
    """
    elapsed, runs = 0.0, 0
    while not runs or elapsed < at_least:
        _wait(device)
        start = time.perf_counter()
        step.run()
        _wait(device)
        elapsed += time.perf_counter() - start
        runs += 1
        step.forget()
    return elapsed / runs


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
