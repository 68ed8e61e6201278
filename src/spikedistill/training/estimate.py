"""Training steps on trial: how long a run will take, before it starts.

A trial trains a network of its own and changes no generator of random numbers, so a run is the same to the bit without it.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from statistics import median

import torch

from ..run_folder import device_of
from ..sparse import sparse_layers
from ..through_time import Captured
from .mixed_timesteps import SAMPLES, Draw, usual_timesteps
from .plan import Plan

# A run of fewer steps is not estimated: it ends about as soon as the estimate would be ready.
FEWEST_STEPS = 80
_STEPS, _ENOUGH_SECONDS = 3, 10.0


@contextmanager
def trial(plan: Plan, draw: Draw = usual_timesteps) -> Iterator[Callable[[int], float]]:
    """A function that trains one step on so many images of the training set, and returns how many seconds it took.

    The step is that of the run, on one device: augmentation, student, teacher, objective, gradients and optimiser.

    Args:
        plan: the run.
        draw: the numbers of timesteps that each step runs for. By default two steps in a row take as long as two of the run do on
            average.
    """
    from .module import DistillationModule  # and Lightning with it, which takes seconds to import
    from .optimizers import make_optimizer

    device, options = device_of(plan.config.trainer), plan.config.trainer
    on_gpu = device.type == "cuda"
    dtype = torch.float16 if options.precision == "16-mixed" else torch.bfloat16
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        module = DistillationModule(plan, draw=draw).to(device).train()
        if options.precision == "64-true":
            module.double()
        module.begin_on_device(torch.zeros(len(plan.train), len(plan.dataset.classes), device=device))
        optimizer = make_optimizer(module, plan.config.optimizer, fused=on_gpu)
        numbers = count()

        def step(size: int) -> float:
            started = time.perf_counter()
            places = torch.arange(min(size, len(plan.train)))
            inputs, mix = module.prepared(
                plan.train.inputs(places).to(device), plan.train.targets[places].to(device), 0
            )
            target, places = plan.train.targets[places].to(device), places.to(device)
            inputs = inputs.double() if options.precision == "64-true" else inputs
            with torch.autocast(device.type, dtype, enabled=options.precision.endswith("-mixed")):
                drawn = module.draw(plan, 0, next(numbers))
                value = module.passes(inputs, target, places, mix, drawn).value
            optimizer.zero_grad()
            module.scaled(value.total).backward()
            optimizer.step()
            if on_gpu:
                torch.cuda.synchronize(device)
            return time.perf_counter() - started

        try:
            yield step
        finally:
            if isinstance(module.student, Captured):
                module.student.release()
            if on_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)


def estimate_line(plan: Plan, steps_done: int = 0) -> str | None:
    """The estimated time of the epochs that remain after so many steps, measured on a few trial steps; and which layers on spikes
    run sparse, if some may.

    None for a short run, and for several devices, because one device does not show how long their exchange takes.
    """
    size, options = plan.config.data.batch_size, plan.config.trainer
    batches = -(-len(plan.train) // size)
    epochs = plan.config.epochs - steps_done // -(-batches // options.accumulate)
    if options.devices * options.nodes > 1 or batches * epochs < FEWEST_STEPS:
        return None
    draws = plan.config.timestep_draws
    together = 1 if draws is None else 2  # of numbers that are drawn, two steps in a row are as long as on average
    with sparse_layers(options.sparse) as chosen, trial(plan) as step:
        for _ in range(together):
            step(size)  # the first step compiles loops
        seconds: list[float] = []
        while len(seconds) < _STEPS and sum(seconds) < _ENOUGH_SECONDS:
            seconds += [step(size) for _ in range(together)]
    scored = (0 if plan.holdout is None else len(plan.holdout)) + options.track_test * len(plan.dataset.test)
    # a forward pass takes about a third of a step
    share = 1 / 3
    if draws is not None:
        scored += min(SAMPLES, len(plan.train))  # for the statistics of batch-norms
        share *= plan.config.timesteps / (draws * (plan.config.timesteps + 1) / 2)
    epoch = median(seconds) * (batches + scored / size * share)
    of_one = f"{about(epoch)} an epoch, " if epochs > 1 else ""
    in_all = f"for the {epochs} epochs that are left" if steps_done else "in all"
    measured = f"{len(seconds)} step{'s' if len(seconds) > 1 else ''}"
    line = f"about {of_one}{about(epoch * epochs)} {in_all} (measured on {measured})"
    return f"{line}\n{chosen}" if chosen else line


_UNITS = (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48), ("days", 86_400, math.inf))


def about(seconds: float) -> str:
    """A time in the unit that people would use, with two digits or so: 0.4 s, 35 s, 12 min, 3.5 h, 2.1 days."""
    seconds = max(seconds, 0.1)
    value, unit = next((seconds / length, unit) for unit, length, most in _UNITS if seconds / length < most)
    return f"{value:.0f} {unit}" if value >= 9.95 else f"{value:.1f} {unit}"
