"""When to stop: exit policies over the timesteps of one network, replayed from its logits.

Shapes: T timesteps, N samples, C classes; z_1 .. z_T are a sample's logits, and after t timesteps it is judged by their sum
s_t = z_1 + ... + z_t or their mean m_t = s_t / t, with p = softmax(m_t). A policy gives a score. A sample exits at the first
timestep at which its score reaches the threshold, and at T if none does. A sample whose sequence is shorter exits at its end.
So a higher threshold is always stricter:

    confidence        max softmax(m_t)                              0 to 1, of the mean
    sum_confidence    max softmax(s_t)                              0 to 1, of the sum
    entropy           1 - H(p) / log C                              0 to 1, 1 if the entropy H is zero
    margin            largest p - second largest p                  0 to 1
    gap               largest s_t - second largest s_t              0 and more, in units of the logits
    stability         latest timesteps in a row with one argmax     1, 2, ..., of m_t

"sum_confidence" is the rule of SEENN's released code (Li et al., NeurIPS 2023). Thresholds that were used with that code mean
the same under this policy only; in that code a sample exits if its score exceeds the threshold. The sum is t times the mean, so
its confidence is never below that of the mean, and both predict the same class. "gap" is the score of Wu et al. (2023), who have a
threshold for each timestep: `calibrate_each_timestep`. Everything is computed in float64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

from ..errors import UserError
from ..objectives.submodels import held_after
from .calibration import as_arrays

Policy = Literal["confidence", "sum_confidence", "entropy", "margin", "gap", "stability"]
POLICIES: tuple[Policy, ...] = ("confidence", "sum_confidence", "entropy", "margin", "gap", "stability")
"""Scores for early exit by name; see `AnytimeClassifier`."""
Threshold = float | Sequence[float]
"""The score at which a sample exits: one for all timesteps, or one for each."""


class Progress(NamedTuple):
    """The values that policies compute scores from, after some timesteps. Each row is a sample, so that finished
    samples can be removed.

    Attributes:
        timesteps: t.
        total: sum of the logits so far, `[B, C]`.
        answer: the class with the largest mean logit, `[B]`; the first of equal ones.
        unchanged: the number of latest timesteps in a row with that class, `[B]`.
    """

    timesteps: int
    total: Tensor
    answer: Tensor
    unchanged: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean of the logits so far, `[B, C]`."""
        return self.total / self.timesteps

    def keep(self, rows: Tensor) -> Self:
        """The state of some of the samples."""
        return type(self)(self.timesteps, self.total[rows], self.answer[rows], self.unchanged[rows])


def advance(progress: Progress | None, logits: Tensor) -> Progress:
    """Add the logits `[B, C]` of the next timestep; `progress` is None before the first."""
    if progress is None:
        total = logits.double()
        answer = total.argmax(-1)
        return Progress(1, total, answer, torch.ones_like(answer))
    total, timesteps = progress.total + logits.double(), progress.timesteps + 1
    answer = (total / timesteps).argmax(-1)
    unchanged = torch.where(answer == progress.answer, progress.unchanged + 1, 1)
    return Progress(timesteps, total, answer, unchanged)


def exit_score(progress: Progress, policy: Policy) -> Tensor:
    """The score `[B]` of a policy, in float64."""
    if policy == "stability":
        return progress.unchanged.double()
    if policy == "sum_confidence":
        return progress.total.softmax(-1).amax(-1)
    if policy == "gap":
        return _lead(progress.total)
    p = progress.mean.softmax(-1)
    if policy == "confidence":
        return p.amax(-1)
    if policy == "margin":
        return _lead(p)
    return (1 - torch.special.entr(p).sum(-1) / math.log(p.shape[-1])).clamp(0, 1)


def threshold_at(threshold: Threshold, timestep: int) -> float:
    """The threshold of a timestep, which counts from 1."""
    return threshold[timestep - 1] if isinstance(threshold, Sequence) else threshold


def exit_times(logits: Tensor, policy: Policy, threshold: Threshold, lengths: Tensor | None = None) -> Tensor:
    """The timestep, 1 to T, at which each sample exits: the decisions of `AnytimeClassifier`, from stored logits.

    Args:
        logits: `[T, N, C]`, any floating dtype, such as those of a run's logits.safetensors.
        policy: one of `POLICIES`.
        threshold: a sample exits when its score reaches it; with `math.inf` all run to T. One for all timesteps, or T of them.
        lengths: the timesteps of each sample, `[N]`, if they differ.

    Returns:
        `[N]` int64.

    Raises:
        UserError: for an unknown policy, a threshold outside the policy's scores, another number of thresholds than timesteps, or
            anything but finite logits `[T, N, C]`.
    """
    check_policy(policy, threshold, len(logits))
    scores = _replay(_checked(logits), policy, lengths)[0]
    limits = threshold if isinstance(threshold, Sequence) else [threshold] * len(scores)
    return first_met([each >= limit for each, limit in zip(scores, limits, strict=True)])


def first_met(met: Sequence[Tensor]) -> Tensor:
    """The first timestep, 1 to T, at which a sample may leave, `[N]` int64, of T tensors bool `[N]`; T if there is none."""
    every = torch.stack(list(met))
    every[-1] = True
    return every.int().argmax(0) + 1


@dataclass(frozen=True)
class ExitCurve:
    """Accuracy and mean exit time of one policy on N samples, at K thresholds from the mildest to the strictest.

    Attributes:
        policy: the policy.
        thresholds: `[K]` float64, ascending: every one at which some decision changes, and last `inf`, all T timesteps. A
            threshold between two of them gives the decisions of the larger one.
        accuracy: `[K]` float64, fraction of samples that are right when they exit.
        mean_exit: `[K]` float64, mean exit time in timesteps.
        active: `[K, T]` float64, fraction of samples that run timestep t. Its sum over t is `mean_exit`; multiply it by a
            cost per timestep, such as an energy.
    """

    policy: Policy
    thresholds: Tensor
    accuracy: Tensor
    mean_exit: Tensor
    active: Tensor

    def point(self, index: int) -> "ExitPoint":
        """One threshold with its accuracy and mean exit time."""
        return ExitPoint(
            self.policy,
            float(self.thresholds[index]),
            float(self.accuracy[index]),
            float(self.mean_exit[index]),
            100 * float(self.accuracy[-1] - self.accuracy[index]),
        )


class ExitPoint(NamedTuple):
    """A threshold, with accuracy and mean exit time on the samples it was chosen on.

    Attributes:
        policy: the policy.
        threshold: the threshold.
        accuracy: fraction of samples that are right when they exit.
        mean_exit: mean exit time in timesteps.
        drop: accuracy lost against all T timesteps, in percentage points.
    """

    policy: Policy
    threshold: float
    accuracy: float
    mean_exit: float
    drop: float


def exit_curve(logits: Tensor, targets: Tensor, policy: Policy, lengths: Tensor | None = None) -> ExitCurve:
    """Accuracy and mean exit time of a policy at every threshold that makes a difference, in O(TN log TN).

    Let M_t be the largest score of a sample up to timestep t. Under a threshold θ the sample runs timestep t+1 if and only if
    M_t < θ. So counts are positions in sorted lists of M, and the accuracy is that at t=1 plus all changes from t to t+1 with
    M_t < θ.

    Args:
        logits: `[T, N, C]`, any floating dtype.
        targets: `[N]`, class indices.
        policy: one of `POLICIES`.
        lengths: the timesteps of each sample, `[N]`, if they differ.

    Raises:
        UserError: for an unknown policy, or logits and targets that do not fit.
    """
    check_policy(policy)
    scores, answers = _replay(_checked(logits, targets), policy, lengths)
    right = (answers == targets.to(answers.device)).long()
    reached = scores[:-1].cummax(0).values
    thresholds = torch.cat([reached.flatten(), scores.new_tensor([math.inf])]).unique()
    N = right.shape[1]
    running = torch.stack(
        [torch.full_like(thresholds, N, dtype=torch.int64)]
        + [torch.searchsorted(best.sort().values, thresholds) for best in reached],
        dim=1,
    )
    order = reached.flatten().argsort()
    gains = torch.cat([order.new_zeros(1), right.diff(dim=0).flatten()[order].cumsum(0)])
    hits = right[0].sum() + gains[torch.searchsorted(reached.flatten()[order], thresholds)]
    return ExitCurve(policy, thresholds, hits.double() / N, running.sum(1).double() / N, running.double() / N)


def calibrate_threshold(
    logits: Tensor,
    targets: Tensor,
    policy: Policy = "confidence",
    *,
    max_drop: float | None = None,
    max_latency: float | None = None,
    lengths: Tensor | None = None,
) -> ExitPoint:
    """The threshold that meets a target on held-out samples.

    Args:
        logits: `[T, N, C]`, of samples neither trained on nor to be reported.
        targets: `[N]`, class indices.
        policy: one of `POLICIES`.
        max_drop: the largest loss of accuracy against all T timesteps, in percentage points; gives the lowest threshold that loses
            no more.
        max_latency: the largest mean exit time, in timesteps; gives the highest threshold that takes no longer.
        lengths: the timesteps of each sample, `[N]`, if they differ.

    Returns:
        The threshold with its accuracy and mean exit time on these samples. On other samples the accuracy is usually a
        little lower.

    Raises:
        UserError: for no target or both, a target that no threshold can meet, and for what `exit_curve` refuses.
    """
    if (max_drop is None) == (max_latency is None):
        raise UserError(f"max_drop={max_drop} and max_latency={max_latency}: expected exactly one of the two targets")
    if max_drop is not None and not max_drop >= 0:
        raise UserError(f"max_drop is {max_drop}, expected percentage points of accuracy, 0 or more, such as 0.5")
    if max_latency is not None and not max_latency >= 1:
        raise UserError(f"max_latency is {max_latency}, expected a mean number of timesteps, 1 or more, such as 2.0")
    curve = exit_curve(logits, targets, policy, lengths)
    if max_drop is None:
        return curve.point(int((curve.mean_exit <= (max_latency or 1)).nonzero()[-1]))
    # 1e-9 points are less than one sample: this tolerance covers only the rounding of fractions
    met = 100 * (curve.accuracy[-1] - curve.accuracy) <= max_drop + 1e-9
    return curve.point(int(met.nonzero()[0]))


class TimestepThresholds(NamedTuple):
    """A threshold for each timestep, with accuracy and mean exit time on the samples that they were chosen on.

    Attributes:
        policy: the policy.
        thresholds: T of them; `math.inf` where no threshold meets the target. At timestep T all samples exit.
        accuracy: fraction of samples that are right when they exit.
        mean_exit: mean exit time in timesteps.
        drop: accuracy lost against all T timesteps, in percentage points.
    """

    policy: Policy
    thresholds: tuple[float, ...]
    accuracy: float
    mean_exit: float
    drop: float


def calibrate_each_timestep(
    logits: Tensor,
    targets: Tensor,
    policy: Policy = "gap",
    *,
    max_error: float = 0.0,
    lengths: Tensor | None = None,
) -> TimestepThresholds:
    """The lowest threshold of each timestep under which few of the samples that meet it are not settled.

    A sample is settled at timestep t if its prediction is right after t and after every later timestep. The threshold of t is the
    lowest score θ such that, among the samples whose score at t is θ or more, at most a share `max_error` is not settled. Samples
    whose sequence has ended by t leave whatever the threshold, and do not count.

    Args:
        logits: `[T, N, C]`, of samples neither trained on nor to be reported.
        targets: `[N]`, class indices.
        policy: one of `POLICIES`.
        max_error: that share, 0 to 1.
        lengths: the timesteps of each sample, `[N]`, if they differ.

    Raises:
        UserError: for a share outside 0..1, and for what `exit_curve` refuses.

    Wu et al.: Optimising Event-Driven Spiking Neural Network with Regularisation and Cutoff (2023), whose code takes the lowest of
    100 evenly spaced gaps on training samples; here every score that occurs is tried.
    """
    check_policy(policy)
    if not 0 <= max_error <= 1:
        raise UserError(f"max_error is {max_error}, expected a share of the samples that exit, 0 to 1, such as 0.01")
    scores, answers = _replay(_checked(logits, targets), policy, lengths)
    right = answers == targets.to(answers.device)
    settled = right.flip(0).long().cummin(0).values.flip(0)
    of_running = [(each[some], done[some]) for each, done, some in zip(scores, settled, scores.isfinite(), strict=True)]
    thresholds = tuple(_lowest(*pair, max_error) for pair in of_running)
    times = first_met([each >= threshold for each, threshold in zip(scores, thresholds, strict=True)])
    accuracy = float(right.gather(0, times[None] - 1).double().mean())
    drop = 100 * (float(right[-1].double().mean()) - accuracy)
    return TimestepThresholds(policy, thresholds, accuracy, float(times.double().mean()), drop)


def check_policy(policy: str, threshold: Threshold = math.inf, timesteps: int | None = None) -> None:
    """Refuse an unknown policy, a threshold outside its scores, or another number of thresholds than timesteps.

    Raises:
        UserError: naming what is expected.
    """
    if policy not in POLICIES:
        raise UserError(f"policy is {policy!r}, expected one of {', '.join(POLICIES)}")
    if isinstance(threshold, Sequence) and timesteps not in (None, len(threshold)):
        raise UserError(
            f"got {len(threshold)} thresholds, expected one for each of {timesteps} timesteps, or one for all"
        )
    if isinstance(threshold, str) or not isinstance(threshold, Sequence | Real):
        raise UserError(
            f"threshold is a {type(threshold).__name__}, expected a number, or a list with one for each timestep, such as "
            "thresholds.tolist()"
        )
    low, high, scores = _RANGES.get(policy, (0.0, 1.0, "between 0 and 1"))
    for each in threshold if isinstance(threshold, Sequence) else [threshold]:
        if not (low <= each <= high or each == math.inf):
            raise UserError(
                f"threshold is {each} under policy {policy!r}, whose scores are {scores}: expected one of these, or inf for all "
                "timesteps"
            )


_RANGES = {
    "stability": (1.0, math.inf, "numbers of timesteps, 1 or more"),
    "gap": (0.0, math.inf, "differences of logits, 0 or more"),
}


def _lead(values: Tensor) -> Tensor:
    """The largest of each row less the second largest, `[B]`."""
    first, second = values.topk(2, dim=-1).values.unbind(-1)
    return first - second


def _lowest(scores: Tensor, settled: Tensor, max_error: float) -> float:
    """The lowest of the scores `[N]` from which on at most a share `max_error` is not settled, `[N]`; inf if there is none."""
    values, places = scores.unique(return_inverse=True)
    counts, wrong = (torch.zeros(len(values), dtype=torch.float64, device=scores.device) for _ in range(2))
    counts.index_add_(0, places, torch.ones_like(scores))
    wrong.index_add_(0, places, (1 - settled).double())
    from_here = [each.flip(0).cumsum(0).flip(0) for each in (wrong, counts)]
    # 1e-9 is less than one sample: it covers only the rounding of the share
    met = (from_here[0] <= max_error * from_here[1] + 1e-9).nonzero()
    return float(values[met[0]]) if len(met) else math.inf


def _checked(logits: Tensor, targets: Tensor | None = None) -> Tensor:
    """The logits, after a check that they and the targets fit."""
    as_arrays(logits, torch.zeros(logits.shape[1:2], dtype=torch.int64) if targets is None else targets, "[T, N, C]")
    return logits.detach()


def _replay(logits: Tensor, policy: Policy, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scores and predicted classes after every timestep, both `[T, N]`. At the end of its sequence a sample meets any threshold."""
    if lengths is not None:
        logits = held_after(logits.double(), check_lengths(lengths, logits).to(logits.device))
    progress, scores, answers = None, [], []
    for step in logits.unbind(0):
        progress = advance(progress, step)
        scores.append(exit_score(progress, policy))
        answers.append(progress.answer)
    found = torch.stack(scores)
    if lengths is not None:
        lengths = torch.as_tensor(lengths)
        ended = torch.arange(1, len(found) + 1, device=found.device)[:, None] >= lengths.to(found.device)
        found = found.masked_fill(ended, math.inf)
    return found, torch.stack(answers)


def check_lengths(lengths: Tensor, logits: Tensor) -> Tensor:
    """The lengths of sequences, after a check that they fit `[T, N, ...]`.

    Raises:
        UserError: for anything but int64 `[N]` from 1 to T.
    """
    T, N = logits.shape[:2]
    lengths = torch.as_tensor(lengths)
    if lengths.dtype != torch.int64 or lengths.shape != (N,) or not bool(((lengths >= 1) & (lengths <= T)).all()):
        raise UserError(
            f"got lengths {lengths.dtype} {list(lengths.shape)} for {list(logits.shape)}, expected int64 [{N}], the timesteps of "
            f"each sample, from 1 to {T}"
        )
    return lengths
