"""Seconds of a step."""

import time

import torch

from .workloads import Step


def seconds(step: Step, device: str) -> float:
    """Run the step once, to its end on the device, and drop the gradients it leaves behind; the seconds without that."""
    _wait(device)
    start = time.perf_counter()
    step.run()
    _wait(device)
    elapsed = time.perf_counter() - start
    step.forget()
    return elapsed


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
