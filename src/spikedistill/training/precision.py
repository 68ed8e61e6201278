"""Chooses the precision and memory format in which a training step is fastest, measured on this machine."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Literal

from ..neurons import uncompiled
from ..run_folder import device_of
from .estimate import trial
from .plan import Plan

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
    """Seconds of one training step, the fastest of some after one that warms up.

    If numbers of timesteps are drawn, it is the shorter of two steps that alternate, for every choice alike.
    """
    on_cpu = device_of(plan.config.trainer).type == "cpu"
    with trial(plan) as step, uncompiled() if on_cpu else nullcontext():
        return min([step(plan.config.data.batch_size) for _ in range(1 + repeats)][1:])


def _name(choice: Choice) -> str:
    precision, channels_last = choice
    return f"{precision} with channels last" if channels_last else precision
