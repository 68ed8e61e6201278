"""Whether an exported network computes what the network does, on samples on which it fires.

A flipped spike travels far, so a tolerance on logits would be the wrong check. Instead: layer by layer, from identical inputs and
states, membranes agree to rounding. A neuron may fire on one side only if its membrane lies within rounding of its threshold. And
on their own, from the first timestep to the last, both give the same predictions and the same exit times, but for a few samples.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UserError
from ..evaluation import exit_times, record
from ..objectives.submodels import prefix_means
from ..sparse import sparse_layers
from .description import Exit
from .flat import FlatStep, StateTensor, is_live

Runner = Callable[[Tensor, Sequence[Tensor]], tuple[Tensor, list[Tensor]]]
"""One timestep of an exported network: from an input `[B, ...]` and a state to logits `[B, C]` and the next state."""

LEAST_SAMPLES = 500
MOST_DIFFERENT = 0.5  # percent of the samples
ROUNDING = 1e-5  # of the largest membrane of a layer, or of 1 if that is less
_BATCH = 100


class Verified(NamedTuple):
    """What was checked.

    Attributes:
        samples: how many.
        timesteps: of each.
        different: samples whose prediction at some k, or whose exit time, differs.
        flips: neurons that fired on one side only, from identical inputs; each was within rounding of its threshold.
        largest: the largest difference of a membrane, from identical inputs, apart from flips, in units of the rounding allowed.
        silent: layers that never fired on these samples, so that nothing is known about what follows.
    """

    samples: int
    timesteps: int
    different: int
    flips: int
    largest: float
    silent: tuple[str, ...]

    def __str__(self) -> str:
        words = (
            f"checked on {self.samples} samples and {self.timesteps} timesteps: {self.different} differ in a prediction or an exit "
            f"time, {self.flips} spikes flipped at their threshold"
        )
        return words + (f"; these layers never fired: {', '.join(self.silent)}" if self.silent else "")


class ExportDiffers(UserError):
    """An exported network computes something else; nothing was written."""


def verify(step: FlatStep, run: Runner, frames: Sequence[Tensor], exit: Exit) -> Verified:
    """Check an exported step.

    Args:
        step: the network.
        run: the exported one.
        frames: the inputs `[N, ...]` of T timesteps; images are the same at each.
        exit: when samples stop.

    Raises:
        ExportDiffers: if it computes something else.
        UserError: if the last layer of neurons never fires on these samples, because silent networks agree with anything.
    """
    N = len(frames[0])
    ours, theirs, flips, largest = [], [], 0, 0.0
    fired: dict[str, bool] = {}
    for start in range(0, N, _BATCH):
        x = [frame[start : start + _BATCH] for frame in frames]
        own = _Run(step, x)
        theirs.append(_alone(step, run, x))
        ours.append(torch.stack(own.logits))
        for t, (frame, before, after) in enumerate(zip(x, own.before, own.after, strict=True), 1):
            found = run(frame, before)[1]
            count, worst = _compare(step.state, after, found, t)
            flips, largest = flips + count, max(largest, worst)
        for key, any_fired in _firing(step, x).items():
            fired[key] = fired.get(key, False) or any_fired
    if fired and not [*fired.values()][-1]:
        raise UserError(
            f"the last layer of neurons, {[*fired][-1]!r}, never fires on these samples, and a silent network agrees with "
            "anything: train it further"
        )
    different = _different(torch.cat(ours, 1), torch.cat(theirs, 1), exit)
    if different > MOST_DIFFERENT / 100 * N:
        raise ExportDiffers(
            f"the exported network differs in a prediction or an exit time on {different} of {N} samples, expected at most "
            f"{MOST_DIFFERENT} percent; nothing was written"
        )
    silent = tuple(key for key, any_fired in fired.items() if not any_fired)
    return Verified(N, len(frames), different, flips, largest, silent)


class _Run:
    """The network itself from the first timestep to the last, with the states between them."""

    @torch.no_grad()
    def __init__(self, step: FlatStep, x: Sequence[Tensor]) -> None:
        self.logits: list[Tensor] = []
        self.before: list[list[Tensor]] = []
        self.after: list[list[Tensor]] = []
        state = step.initial(len(x[0]))
        with sparse_layers("never"):
            for frame in x:
                logits, *after = step(frame, *state)
                self.logits.append(logits)
                self.before.append(state)
                self.after.append(after)
                state = after


@torch.no_grad()
def _firing(step: FlatStep, x: Sequence[Tensor]) -> dict[str, bool]:
    """Which layers of neurons fire at all."""
    if not is_live(step.network):
        return {}
    with record(step.network) as recording:
        step.network(torch.stack(list(x)))
    return {key: bool((spikes != 0).any()) for key, spikes in recording.spikes.items()}


@torch.no_grad()
def _alone(step: FlatStep, run: Runner, x: Sequence[Tensor]) -> Tensor:
    state, logits = step.initial(len(x[0])), []
    for frame in x:
        out, state = run(frame, state)
        logits.append(out)
    return torch.stack(logits)


def _compare(
    layers: Sequence[StateTensor], ours: Sequence[Tensor], theirs: Sequence[Tensor], timestep: int
) -> tuple[int, float]:
    """Flips at thresholds, and the largest other difference, of states after one step from identical ones.

    What follows a flip differs by more than rounding, so samples are compared up to the first layer with one.

    Raises:
        ExportDiffers: naming the first layer that differs otherwise.
    """
    flips, largest = 0, 0.0
    same = torch.ones(len(ours[0]) if ours else 0, dtype=torch.bool)
    for layer, mine, other in zip(layers, ours, theirs, strict=True):
        mine, other = mine.double(), other.double()
        rounding = ROUNDING * max(1.0, float(mine.abs().max()) if mine.numel() else 1.0)
        away = (mine - other).abs()
        flipped = away > rounding
        if layer.threshold is not None:
            threshold = torch.tensor(layer.threshold, dtype=torch.float64)
            at_threshold = (torch.maximum(mine, other) - threshold).abs() <= rounding
            traced = flipped & at_threshold
        else:
            traced = torch.zeros_like(flipped)
        wrong = (flipped & ~traced).reshape(len(mine), -1).any(1) & same
        if wrong.any():
            n = int(wrong.nonzero()[0])
            raise ExportDiffers(
                f"the exported network differs at {layer.key!r} in timestep {timestep}, from identical inputs: by "
                f"{float(away[n].max()):.2g}, expected at most {rounding:.2g}; nothing was written"
            )
        flips += int(traced[same].sum())
        largest = max(largest, float(torch.where(flipped, 0, away)[same].max()) / rounding if same.any() else 0.0)
        same = same & ~flipped.reshape(len(mine), -1).any(1)
    return flips, largest


def _different(ours: Tensor, theirs: Tensor, exit: Exit) -> int:
    """Samples whose prediction at some k, or whose exit time, differs."""
    wrong = (prefix_means(ours.double()).argmax(-1) != prefix_means(theirs.double()).argmax(-1)).any(0)
    if exit.threshold is not None:
        wrong |= exit_times(ours, exit.policy, exit.threshold) != exit_times(theirs, exit.policy, exit.threshold)
    return int(wrong.sum())
