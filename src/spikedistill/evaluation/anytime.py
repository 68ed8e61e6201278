"""One network that takes for each sample the timesteps that it needs."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UserError
from ..through_time import CompiledStep, Temporal
from .exits import ExitPoint, Policy, Progress, advance, calibrate_threshold, check_policy, exit_score


class AnytimeOutput(NamedTuple):
    """What a batch of B samples was answered, and when.

    Attributes:
        predictions: `[B]` int64, classes.
        exit_times: `[B]` int64, the timestep at which each sample was answered, 1 to T.
        logits: `[B, C]` float64, the mean of each sample's logits up to then.
    """

    predictions: Tensor
    exit_times: Tensor
    logits: Tensor


class AnytimeClassifier:
    """Early exit in which samples that are finished leave the batch, so that the time they save is real.

    The network runs step by step. After each one the samples whose score is at or above the threshold are answered, and the next
    step runs on the others alone. `exit_times` decides alike from stored logits. The scores, of s, the sum of the logits so far, m,
    their mean, and p = softmax(m), computed in float64:

    - "confidence": max p, of the mean.
    - "sum_confidence": max softmax(s), of the sum, as SEENN's released code has it.
    - "entropy": 1 - H(p) / log C.
    - "margin": the difference of the two largest p.
    - "stability": for how many of the latest timesteps in a row argmax m has been the same, from 1.

    Args:
        model: a network from `load`, `create_model` or `temporal`; it is put in eval mode.
        policy: "confidence", "sum_confidence", "entropy", "margin" or "stability".
        threshold: a higher one is stricter; `math.inf` lets all samples run to the end, until `calibrate` finds another.
        max_timesteps: T, after which a sample is answered in any case.
        compiled: run each timestep as one compiled function, see `spikedistill.through_time.CompiledStep`: faster, once the first
            two timesteps have been compiled, which takes up to a minute each.

    Raises:
        UserError: for no such network, an unknown policy, a threshold outside its scores, or T below 1.

    Reference: Teerapittayanon et al., "BranchyNet", ICPR 2016, for early exit; over timesteps, with "sum_confidence", Li et al.,
        "SEENN", NeurIPS 2023.
    """

    def __init__(
        self, model: Temporal, policy: Policy, threshold: float, max_timesteps: int, *, compiled: bool = False
    ) -> None:
        if not isinstance(model, Temporal):
            raise UserError(
                f"model is a {type(model).__name__}, expected a network from load, create_model or temporal(module)"
            )
        check_policy(policy, threshold)
        if max_timesteps < 1:
            raise UserError(f"max_timesteps is {max_timesteps}, expected 1 or more")
        self.model = model.eval()
        self.policy: Policy = policy
        self.threshold = threshold
        self.max_timesteps = max_timesteps
        self._step = CompiledStep(self.model) if compiled else self.model.step

    @torch.no_grad()
    def __call__(self, x: Tensor) -> AnytimeOutput:
        """Classify a batch.

        Args:
            x: images `[B, C, H, W]`, in [0, 1] for a network from `load`, or event frames `[T, B, C, H, W]`, of which step t takes
                frame t, and no more than `max_timesteps`.

        Raises:
            UserError: for inputs that do not fit the network, or a network whose state has other rows than samples.
        """
        inputs, timesteps = self._inputs(x)
        still = timesteps is not None and isinstance(self._step, CompiledStep)  # what plain steps would not gain from
        frames = [inputs] * timesteps if timesteps is not None else inputs.unbind(0)
        B = len(frames[0])
        waiting = torch.arange(B, device=inputs.device)
        exit_times = torch.zeros_like(waiting)
        logits, state = inputs.new_empty(0, dtype=torch.float64), None
        progress: Progress | None = None
        for t, frame in enumerate(frames, 1):
            step_logits, state = self._step(frame if len(waiting) == B else frame[waiting], state, still=still)
            if t == 1:
                _check_rows(step_logits, state, B)
                logits = torch.empty_like(step_logits, dtype=torch.float64)
            progress = advance(progress, step_logits)
            done = exit_score(progress, self.policy) >= self.threshold
            if t == len(frames) or done.all():
                exit_times[waiting], logits[waiting] = t, progress.mean
                break
            if done.any():
                left, stay = done.nonzero().flatten(), (~done).nonzero().flatten()
                exit_times[waiting[left]], logits[waiting[left]] = t, progress.mean[left]
                waiting, progress = waiting[stay], progress.keep(stay)
                state = {path: rows[stay] for path, rows in state.items()}
        return AnytimeOutput(logits.argmax(-1), exit_times, logits)

    @torch.no_grad()
    def calibrate(
        self,
        loader: Iterable[tuple[Tensor, Tensor]],
        *,
        max_drop: float | None = None,
        max_latency: float | None = None,
    ) -> ExitPoint:
        """Choose the threshold on held-out samples, and keep it; exactly one target is given.

        Args:
            loader: batches of (inputs, targets `[B]`), inputs as for a call.
            max_drop: accuracy that may be lost against all timesteps, in percentage points: the lowest threshold that loses no
                more.
            max_latency: mean exit time that may be reached, in timesteps: the highest threshold that takes no longer.

        Returns:
            The threshold with its accuracy and mean exit time on these samples.

        Raises:
            UserError: for an empty loader, or as `calibrate_threshold`.
        """
        self.model.eval()
        logits, targets = [], []
        for x, target in loader:
            inputs, timesteps = self._inputs(x)
            logits.append(self.model(inputs, timesteps).float().cpu())
            targets.append(target.cpu())
        lengths = sorted({len(part) for part in logits})
        if len(lengths) != 1:
            raise UserError(
                f"the loader gave batches of {lengths} timesteps, expected at least one batch, and equally many in all"
            )
        point = calibrate_threshold(
            torch.cat(logits, 1), torch.cat(targets), self.policy, max_drop=max_drop, max_latency=max_latency
        )
        self.threshold = point.threshold
        return point

    def _inputs(self, x: Tensor) -> tuple[Tensor, int | None]:
        """The inputs on the network's device, as it is called with them: images with T, frames with None."""
        if x.ndim not in (4, 5) or 0 in x.shape or not x.is_floating_point():
            raise UserError(
                f"got {x.dtype} {list(x.shape)}, expected floating-point images [B, C, H, W], or event frames [T, B, C, H, W]; "
                "images of 0 to 255 are divided by 255 first"
            )
        x = x.to(next(self.model.parameters(), x).device)
        inputs, timesteps = (x, self.max_timesteps) if x.ndim == 4 else (x[: self.max_timesteps], None)
        self.model.check_input(inputs, timesteps)
        return inputs, timesteps


def _check_rows(logits: Tensor, state: dict[str, Tensor], samples: int) -> None:
    """Refuse a network whose samples cannot leave.

    Raises:
        UserError: where logits or state do not have a row for each sample.
    """
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"the network returned {got} for a timestep, expected logits [B, C] of 2 classes or more")
    for path, rows in state.items():
        if len(rows) != samples:
            raise UserError(
                f"layer {path!r} keeps {len(rows)} rows of state for {samples} samples, so samples cannot leave the batch: "
                "expected a network that keeps one row for each"
            )
