"""Which arithmetic and memory format a training step is fastest in, measured on this machine."""

import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F

from ..data import as_network_input
from ..neurons import uncompiled
from ..run_folder import device_of
from ..through_time import Captured
from .plan import Plan
from .student import StudentPass

Choice = tuple[Literal["32-true", "bf16-mixed"], bool]
CHOICES: tuple[Choice, ...] = (("32-true", False), ("32-true", True), ("bf16-mixed", False), ("bf16-mixed", True))


def with_fastest_precision(plan: Plan) -> Plan:
    """The plan with `trainer.precision="auto"` replaced by what is fastest, and a line printed that says why."""
    seconds = {choice: step_seconds(with_precision(plan, choice)) for choice in CHOICES}
    best, *others = sorted(seconds, key=lambda choice: seconds[choice])
    slower = ", ".join(f"{_name(choice)} {seconds[choice] / seconds[best]:.2f} times that" for choice in others)
    print(f"precision: {_name(best)}, {1000 * seconds[best]:.0f} ms a step before compiling; {slower}", flush=True)
    return with_precision(plan, best)


def with_precision(plan: Plan, choice: Choice) -> Plan:
    """The plan with that precision and memory format."""
    precision, channels_last = choice
    trainer = plan.config.trainer.model_copy(update={"precision": precision, "channels_last": channels_last})
    return replace(plan, config=plan.config.model_copy(update={"trainer": trainer}))


def step_seconds(plan: Plan, repeats: int = 3) -> float:
    """Seconds of one step on a batch of the training set, the fastest of some after one that warms up; no optimiser."""
    config, device = plan.config, device_of(plan.config.trainer)
    batch = torch.arange(min(config.data.batch_size, len(plan.train)))
    inputs = as_network_input(plan.train.inputs(batch), plan.dataset.kind).to(device)
    target = plan.train.targets[batch].to(device)
    network = plan.build_network().to(device).train()
    student = StudentPass(network, None if plan.dataset.kind == "events" else config.timesteps, ())
    # a GPU is measured as it trains: its kernels are there at once, and Python alone would take longer than they do
    run = Captured(student) if device.type == "cuda" and config.trainer.captures else student
    taken = []
    with uncompiled() if device.type == "cpu" else nullcontext():
        for _ in range(1 + repeats):
            network.zero_grad()
            started = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=config.trainer.precision == "bf16-mixed"):
                loss = F.cross_entropy(run(inputs)[0].float().mean(0), target)
            loss.backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            taken.append(time.perf_counter() - started)
    if isinstance(run, Captured):
        run.release()
    return min(taken[1:])


def _name(choice: Choice) -> str:
    precision, channels_last = choice
    return f"{precision} with channels last" if channels_last else precision
