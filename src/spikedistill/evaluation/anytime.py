"""Early exit: each sample runs only as many timesteps as it needs."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..models import save_model
from ..objectives.submodels import until
from ..run_folder import load
from ..through_time import CompiledStep, Steps, Temporal, logits_over_time
from ..through_time.finite import check_finite
from ..through_time.steps import check_nothing_kept, check_steps, frames_of, in_eval_mode, map_state, one_step, sent_to
from ..trained import Trained
from .conformal import NAME as CONFORMAL
from .conformal import Conformal, calibrate_conformal
from .exits import (
    ExitPoint,
    Policy,
    Progress,
    Threshold,
    TimestepThresholds,
    advance,
    calibrate_each_timestep,
    calibrate_threshold,
    check_lengths,
    check_policy,
    exit_score,
    threshold_at,
)


class AnytimeOutput(NamedTuple):
    """The predictions for a batch of B samples, and the timestep after which each sample left the batch.

    Attributes:
        predictions: `[B]` int64, classes.
        exit_times: `[B]` int64, the timestep after which each sample left, 1 to T.
        logits: `[B, C]` float64, the mean of each sample's logits up to then.
    """

    predictions: Tensor
    exit_times: Tensor
    logits: Tensor


class AnytimeClassifier:
    """Early exit in which finished samples leave the batch, so that the time they save is real.

    The network runs step by step. After each timestep, samples whose score reaches the threshold leave the batch, and the
    next timestep runs only on the others. `exit_times` makes the same decisions from stored logits. The scores are computed in
    float64 from s, the sum of the logits so far, m, their mean, and p = softmax(m):

    - "confidence": max p, of the mean.
    - "sum_confidence": max softmax(s), of the sum, as in SEENN's released code.
    - "entropy": 1 - H(p) / log C.
    - "margin": the difference of the two largest p.
    - "gap": the difference of the two largest s. It is in units of the logits and grows with the timesteps, so each usually has its
      own threshold.
    - "stability": how many of the latest timesteps in a row had the same argmax m, from 1.

    Args:
        model: a network from `load`, `create_model` or `temporal`, or anything with `step(x, state) -> (logits, state)` (see
            `spikedistill.through_time.Steps`), such as `from_spikingjelly(net)`. It is put in eval mode.
        policy: "confidence", "sum_confidence", "entropy", "margin", "gap" or "stability"; or a `Conformal` rule, which needs no
            threshold and knows T.
        threshold: a higher one is stricter; with `math.inf` all samples run to the end. One for all timesteps, or T of them.
            `calibrate` and `calibrate_each_timestep` replace it.
        max_timesteps: T, after which every sample leaves.
        sequence: whether inputs are sequences `[T, B, ...]` or static `[B, ...]`. By default the number of axes decides: images
            `[B, C, H, W]` are static, event frames `[T, B, C, H, W]` are not, and any other input is refused.
        compiled: run each timestep as one compiled function, see `spikedistill.through_time.CompiledStep`: faster after the first
            two timesteps have been compiled, which takes up to a minute each. For networks of this library only.

    Raises:
        UserError: for a model without `step`, an unknown policy, a threshold outside its scores, another number of thresholds than
            T, or T below 1.

    References: Teerapittayanon et al., "BranchyNet", ICPR 2016 (early exit); Li et al., "SEENN", NeurIPS 2023 (over
    timesteps, "sum_confidence"); Wu et al., "Optimising Event-Driven SNN with Regularisation and Cutoff", 2023 ("gap"); Chen et
    al., "Knowing When to Stop", 2023 (`Conformal`).
    """

    def __init__(
        self,
        model: Steps,
        policy: Policy | Conformal,
        threshold: Threshold | None = None,
        max_timesteps: int | None = None,
        *,
        sequence: bool | None = None,
        compiled: bool = False,
    ) -> None:
        check_steps(model, compiled=compiled)
        self.model = in_eval_mode(model)
        self.policy, self.threshold, self.max_timesteps = _checked_rule(policy, threshold, max_timesteps)
        self.sequence = sequence
        self._step = CompiledStep(self.model) if compiled else self.model.step
        self._is_checked = isinstance(model, Temporal)  # it keeps nothing between calls

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        model: nn.Module | Callable[[], nn.Module] | None = None,
        compiled: bool = False,
    ) -> "AnytimeClassifier":
        """What `save` wrote, or an exported bundle.

        Args:
            path: the file or the folder.
            model: the network to fill, as in `spikedistill.load`.
            compiled: as in the constructor.

        Raises:
            FileNotFoundError: if there is no such file.
            UserError: if it is damaged, or does not say when samples stop.
        """
        network = load(path, model=model)
        exit = None if network.file is None else network.file.exit
        if exit is None:
            raise UserError(
                f"{path} does not say when samples stop: AnytimeClassifier(load(path), 'confidence', 0.9, max_timesteps=4) does"
            )
        try:
            if exit["policy"] == CONFORMAL:
                return cls(network, Conformal.from_written(exit), compiled=compiled)
            policy, threshold, T = exit["policy"], exit["threshold"], exit["max_timesteps"]
            given = tuple(map(_number, threshold)) if isinstance(threshold, list) else _number(threshold)
            return cls(network, policy, given, int(T), compiled=compiled)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} says when samples stop by {str(dict(exit))[:120]}, expected policy, threshold and max_timesteps"
            ) from error

    def save(self, path: Path | str) -> None:
        """Write network, classes, preprocessing, policy and threshold into one file, which `load` and `spikedistill.load` read.

        Args:
            path: the file, such as classifier.safetensors. An existing one is replaced only when the new one is complete.

        Raises:
            UserError: for a network that did not come from `spikedistill.load`, which does not say how to build it.
        """
        if not isinstance(self.model, Trained) or self.model.file is None:
            raise UserError(
                "the classifier's network does not say how to build it again: save one whose network came from spikedistill.load"
            )
        file = self.model.file
        exit: dict[str, Any] = {}
        if isinstance(self.policy, Conformal):
            exit = self.policy.written()
        else:
            limits = self.threshold
            threshold = [*map(_written, limits)] if isinstance(limits, Sequence) else _written(limits)
            exit = {"policy": self.policy, "threshold": threshold, "max_timesteps": self.max_timesteps}
        input, T = file.input, file.timesteps
        save_model(
            self.model,
            file.network,
            path,
            classes=file.classes,
            input=input,
            timesteps=T,
            imports=file.imports,
            exit=exit,
        )

    @torch.no_grad()
    def __call__(self, x: Tensor, lengths: Tensor | None = None) -> AnytimeOutput:
        """Classify a batch.

        Args:
            x: images `[B, C, H, W]`, in [0, 1] for a network from `load`, or event frames `[T, B, C, H, W]`: step t takes frame t,
                up to `max_timesteps`. Other inputs, `[B, ...]` or `[T, B, ...]`, need `sequence`.
            lengths: the frames of each recording, `[B]` int64, if they differ: it leaves after its last one at the latest, and what
                follows in `x` is not read.

        Raises:
            UserError: for inputs that do not fit the network, or a network that keeps state in its modules, or whose
            state does not have
                a row for each sample.
        """
        inputs, timesteps = self._inputs(x)
        ends = None if lengths is None else self._ends(lengths, x, timesteps)
        compiled = isinstance(self._step, CompiledStep)
        # only compiled steps are faster if the input is known to be static
        options = {"still": timesteps is not None} if compiled else {}
        frames = [inputs] * timesteps if timesteps is not None else inputs.unbind(0)
        B = len(frames[0])
        waiting = torch.arange(B, device=inputs.device)
        exit_times = torch.zeros_like(waiting)
        logits, state = inputs.new_empty(0, dtype=torch.float64), None
        progress: Progress | None = None
        for t, frame in enumerate(frames, 1):
            step_logits, state = one_step(self._step, frame if len(waiting) == B else frame[waiting], state, **options)
            if t == 1:
                logits = torch.empty_like(step_logits, dtype=torch.float64)
            progress = advance(progress, step_logits)
            done = self._may_leave(progress)
            if ends is not None:
                done |= ends[waiting] <= t
            if t == len(frames) or done.all():
                exit_times[waiting], logits[waiting] = t, progress.mean
                break
            if done.any():
                left, stay = done.nonzero().flatten(), (~done).nonzero().flatten()
                exit_times[waiting[left]], logits[waiting[left]] = t, progress.mean[left]
                waiting, progress = waiting[stay], progress.keep(stay)
                state = map_state(state, _rows(stay))
        return AnytimeOutput(logits.argmax(-1), exit_times, logits)

    @torch.no_grad()
    def calibrate(
        self,
        loader: Iterable[tuple[Tensor, ...]],
        *,
        max_drop: float | None = None,
        max_latency: float | None = None,
    ) -> ExitPoint:
        """Choose the threshold on held-out samples, and keep it. Give exactly one of the two targets.

        Args:
            loader: batches of (inputs, targets `[B]`), or of (inputs, targets, lengths `[B]`), as for a call.
            max_drop: the largest loss of accuracy against all timesteps, in percentage points; gives the lowest threshold that
                loses no more.
            max_latency: the largest mean exit time, in timesteps; gives the highest threshold that takes no longer.

        Returns:
            The threshold with its accuracy and mean exit time on these samples.

        Raises:
            UserError: for an empty loader, a conformal rule, and for what `calibrate_threshold` refuses.
        """
        policy = self._score()
        logits, targets, lengths = self._collected(loader)
        point = calibrate_threshold(
            logits, targets, policy, max_drop=max_drop, max_latency=max_latency, lengths=lengths
        )
        self.threshold = point.threshold
        return point

    @torch.no_grad()
    def calibrate_each_timestep(
        self, loader: Iterable[tuple[Tensor, ...]], *, max_error: float = 0.0
    ) -> TimestepThresholds:
        """Choose a threshold for each timestep on held-out samples, and keep them.

        Args:
            loader: as for `calibrate`.
            max_error: the largest share, among the samples that could exit at a timestep, of those that are not right from then
                on; see `spikedistill.evaluation.calibrate_each_timestep`.

        Returns:
            The thresholds with their accuracy and mean exit time on these samples.

        Raises:
            UserError: for an empty loader, a conformal rule, and for what `calibrate_each_timestep` refuses.
        """
        policy = self._score()
        logits, targets, lengths = self._collected(loader)
        found = calibrate_each_timestep(logits, targets, policy, max_error=max_error, lengths=lengths)
        check_policy(policy, found.thresholds, self.max_timesteps)
        self.threshold = found.thresholds
        return found

    @torch.no_grad()
    def calibrate_conformal(
        self,
        loader: Iterable[tuple[Tensor, ...]],
        *,
        coverage: float = 0.9,
        max_size: int = 1,
        stops: Collection[int] | None = None,
    ) -> Conformal:
        """Let samples exit by sets of classes that hold the label as often as promised; the rule replaces policy and threshold.

        Args:
            loader: as for `calibrate`.
            coverage: the promised share of samples whose label is in their set.
            max_size: a sample exits when its set has at most this many classes.
            stops: the timesteps at which a sample may exit; default all.

        Returns:
            The rule; `rule.sets(out.logits, out.exit_times)` are the sets of an output.

        Raises:
            UserError: for an empty loader, and for what `spikedistill.evaluation.calibrate_conformal` refuses.
        """
        logits, targets, lengths = self._collected(loader)
        rule = calibrate_conformal(logits, targets, coverage=coverage, max_size=max_size, stops=stops, lengths=lengths)
        rule.check_timesteps(self.max_timesteps)
        self.policy, self.threshold = rule, math.inf
        return rule

    def _may_leave(self, progress: Progress) -> Tensor:
        """Which samples leave after this timestep, bool `[B]`."""
        if isinstance(self.policy, Conformal):
            return self.policy.stops(progress)
        return exit_score(progress, self.policy) >= threshold_at(self.threshold, progress.timesteps)

    def _score(self) -> Policy:
        """The policy, unless it is a conformal rule, which has no threshold."""
        if isinstance(self.policy, Conformal):
            raise UserError(
                "the classifier exits by a conformal rule, which has no threshold: use calibrate_conformal, or make a classifier "
                "with a policy such as 'confidence'"
            )
        return self.policy

    def _collected(self, loader: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits `[T, N, C]` of all batches, targets `[N]`, and the lengths `[N]` if they differ."""
        in_eval_mode(self.model)
        logits, targets, ends = [], [], []
        for x, target, *lengths in loader:
            inputs, timesteps = self._inputs(x)
            found = logits_over_time(self.model, inputs, timesteps).float().cpu()
            whole = torch.full((found.shape[1],), len(found))
            ends.append(self._ends(lengths[0], x, timesteps).cpu() if lengths else whole)
            logits.append(found)
            targets.append(target.cpu())
        if not logits:
            raise UserError("the loader gave no batch, expected at least one batch of (inputs, targets)")
        T, of_all = max(len(part) for part in logits), torch.cat(ends)
        lengths_differ = int(of_all.min()) < T
        joined = torch.cat([until(part, T) for part in logits], 1)
        return joined, torch.cat(targets), of_all if lengths_differ else None

    def _ends(self, lengths: Tensor, x: Tensor, timesteps: int | None) -> Tensor:
        """The timestep after which each sample leaves."""
        if timesteps is not None:
            raise UserError("lengths came for static inputs, expected them with sequences [T, B, ...]")
        return sent_to(self.model, check_lengths(torch.as_tensor(lengths), x)).clamp(max=self.max_timesteps)

    def _inputs(self, x: Tensor) -> tuple[Tensor, int | None]:
        """The inputs on the network's device, and T for static ones or None for a sequence."""
        sequence = x.ndim == 5 if self.sequence is None else self.sequence
        fits = x.ndim in (4, 5) if self.sequence is None else x.ndim >= 1 + sequence
        if not fits or 0 in x.shape or not x.is_floating_point():
            raise UserError(
                f"got {x.dtype} {list(x.shape)}, expected floating-point images [B, C, H, W], or event frames [T, B, C, H, W]; "
                "images of 0 to 255 are divided by 255 first; for any other input say sequence=True or sequence=False"
            )
        x = sent_to(self.model, x)
        inputs, timesteps = (x[: self.max_timesteps], None) if sequence else (x, self.max_timesteps)
        if isinstance(self.model, Temporal):
            self.model.check_input(inputs, timesteps)
        else:
            check_finite(inputs, axis=int(sequence))
        if not self._is_checked:
            check_nothing_kept(self.model, frames_of(inputs, timesteps))
            self._is_checked = True
        return inputs, timesteps


def _checked_rule(
    policy: Policy | Conformal, threshold: Threshold | None, max_timesteps: int | None
) -> tuple[Policy | Conformal, Threshold, int]:
    """When samples leave, with the last timestep.

    Raises:
        UserError: for what does not fit together.
    """
    if isinstance(policy, Conformal):
        if threshold is not None:
            raise UserError(f"threshold is {threshold}, but a conformal rule has its own quantiles: leave it out")
        policy.check_timesteps(len(policy.quantiles) if max_timesteps is None else max_timesteps)
        return policy, math.inf, len(policy.quantiles)
    check_policy(policy)
    if threshold is None or max_timesteps is None:
        raise UserError(f"policy {policy!r} needs a threshold and max_timesteps: give both, such as 0.9 and 4")
    if max_timesteps < 1:
        raise UserError(f"max_timesteps is {max_timesteps}, expected 1 or more")
    check_policy(policy, threshold, max_timesteps)
    return policy, threshold, max_timesteps


def _number(written: float | None) -> float:
    """A threshold as files have it, with null for one that no score reaches."""
    return math.inf if written is None else float(written)


def _written(threshold: float) -> float | None:
    return None if threshold == math.inf else threshold


def _rows(kept: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda rows: rows[kept.to(rows.device)]
