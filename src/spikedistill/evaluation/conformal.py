"""Early exit with a guarantee: each sample gets a set of classes that holds its label as often as promised, whenever it exits.

Shapes: T timesteps, N samples, C classes. After t timesteps a sample is judged by p = softmax(m_t), where m_t is the mean of its
logits so far. Class c does not conform by a_t(c) = -log p_c. The prediction set holds the classes with a_t(c) <= q_t, and a sample
exits when its set is small enough.

With n calibration samples, K timesteps at which a sample may exit, and the promised coverage 1 - α, q_t is the
ceil((n + 1)(1 - α / K))-th smallest of their a_t(label). Each single set then misses the label with probability α / K at most, so
any of the K does with α at most: also the one that the exit selects. Without the division by K there would be no guarantee, because
the exit prefers timesteps at which the set is small.

Chen, Park, Simeone: Knowing When to Stop: Delay-Adaptive Spiking Neural Network Classifiers with Reliability Guarantees (SpikeCP,
2023).
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from ..errors import UserError
from ..objectives.submodels import held_after
from .calibration import as_arrays
from .exits import Progress, advance, check_lengths, first_met

NAME = "conformal"


@dataclass(frozen=True)
class Conformal:
    """When to stop so that the set of classes at the exit holds the label as often as promised; `calibrate_conformal` makes one.

    Attributes:
        quantiles: q_t of each timestep, T of them; `math.inf` where a sample may not exit, because its set is then all classes.
        coverage: the promised share of samples whose label is in their set, for calibration and later samples together.
        max_size: a sample exits when its set has at most this many classes.
    """

    quantiles: tuple[float, ...]
    coverage: float
    max_size: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.coverage < 1:
            raise UserError(f"coverage is {self.coverage}, expected a probability between 0 and 1, such as 0.9")
        if not isinstance(self.max_size, int) or self.max_size < 1:
            raise UserError(f"max_size is {self.max_size!r}, expected a number of classes, 1 or more: 1 is usual")
        if not self.quantiles:
            raise UserError("got no quantile, expected one for each timestep: calibrate_conformal finds them")
        if wrong := [q for q in self.quantiles if not isinstance(q, float) or math.isnan(q)]:
            raise UserError(f"got the quantile {wrong[0]}, expected numbers, or inf where no sample may exit")

    def stops(self, progress: Progress) -> Tensor:
        """Which samples may exit, bool `[B]`: those whose set is small enough."""
        return self._sets(progress.mean, self.quantiles[progress.timesteps - 1]).sum(-1) <= self.max_size

    def exit_times(self, logits: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The timestep, 1 to T, at which each sample exits: the decisions of `AnytimeClassifier`, from stored logits.

        Args:
            logits: `[T, N, C]`, any floating dtype.
            lengths: the timesteps of each sample, `[N]`, if they differ: it exits at its end at the latest.

        Returns:
            `[N]` int64.

        Raises:
            UserError: for anything but finite logits of T timesteps.
        """
        self.check_timesteps(len(logits))
        progress, met = None, []
        for t, step in enumerate(_checked(logits, lengths), 1):
            progress = advance(progress, step)
            done = self.stops(progress)
            met.append(done if lengths is None else done | (torch.as_tensor(lengths).to(done.device) <= t))
        return first_met(met)

    def sets(self, logits: Tensor, exit_times: Tensor) -> Tensor:
        """The prediction sets, bool `[N, C]`: which classes each sample's set holds.

        A sample that ended at a timestep where none may exit has the quantile of the next one where they may: there its prediction
        is still that of its end.

        Args:
            logits: mean logits at the exit, `[N, C]`, as an `AnytimeOutput` has them.
            exit_times: the timesteps of the exits, `[N]`, from 1.
        """
        last, limits = math.inf, []
        for q in reversed(self.quantiles):
            last = last if math.isinf(q) else q
            limits.append(last)
        of_times = torch.tensor(limits[::-1], dtype=torch.float64, device=logits.device)
        return self._sets(logits.double(), of_times[exit_times.to(logits.device) - 1].unsqueeze(-1))

    def check_timesteps(self, timesteps: int) -> None:
        """Refuse another number of timesteps than the rule was calibrated for.

        Raises:
            UserError: saying both.
        """
        if timesteps != len(self.quantiles):
            raise UserError(
                f"the conformal rule is calibrated for {len(self.quantiles)} timesteps, got {timesteps}: calibrate one for these"
            )

    def written(self) -> dict[str, Any]:
        """As it is in files, with null for quantiles that are infinite."""
        quantiles = [None if math.isinf(q) else q for q in self.quantiles]
        timesteps = len(quantiles)
        rule = {"policy": NAME, "quantiles": quantiles, "coverage": self.coverage, "max_size": self.max_size}
        return rule | {"max_timesteps": timesteps}

    @classmethod
    def from_written(cls, values: Mapping[str, Any]) -> Self:
        """Read what `written` returned; KeyError, TypeError or ValueError for anything else."""
        quantiles = tuple(math.inf if q is None else float(q) for q in values["quantiles"])
        return cls(quantiles, float(values["coverage"]), int(values["max_size"]))

    def _sets(self, mean: Tensor, limits: float | Tensor) -> Tensor:
        return -mean.log_softmax(-1) <= limits


def calibrate_conformal(
    logits: Tensor,
    targets: Tensor,
    *,
    coverage: float = 0.9,
    max_size: int = 1,
    stops: Collection[int] | None = None,
    lengths: Tensor | None = None,
) -> Conformal:
    """The rule whose sets hold the label of later samples with at least this probability, however they exit.

    The probability is over calibration samples and later ones together, which must come from one distribution. It does not
    depend on how good the network is: a worse one gets larger sets and exits later.

    Args:
        logits: `[T, N, C]`, of samples that the network was not trained on.
        targets: `[N]`, class indices.
        coverage: the probability, between 0 and 1.
        max_size: a sample exits when its set has at most this many classes, 1 to C-1.
        stops: timesteps at which a sample may exit, from 1; T is always one of them. Default all. The fewer, the smaller the sets.
        lengths: the timesteps of each sample, `[N]`, if they differ.

    Raises:
        UserError: for a coverage outside 0..1, timesteps or sizes that do not exist, fewer samples than K / (1 - coverage) - 1, and
            logits and targets that do not fit.
    """
    as_arrays(logits, targets, "[T, N, C]")
    T, n, C = logits.shape
    allowed = {*range(1, T + 1)} if stops is None else {*stops, T}
    rule = Conformal((math.inf,) * T, coverage, max_size)
    if max_size >= C:
        raise UserError(f"max_size is {max_size}, expected fewer than the {C} classes: 1 is usual")
    if wrong := [t for t in allowed if t not in range(1, T + 1)]:
        raise UserError(f"stops name timestep {wrong[0]!r}, expected timesteps from 1 to {T}")
    K = len(allowed)
    # rounding must not move a rank that is a whole number: 0.9 * 1000 is below 900 by a part in 1e16
    rank = math.ceil((n + 1) * (1 - (1 - coverage) / K) - 1e-9)
    if rank > n:
        raise UserError(
            f"got {n} samples, expected {math.ceil(K / (1 - coverage) - 1e-9) - 1} or more for a coverage of {coverage:g} at {K} "
            "timesteps: give more samples, fewer stops or a lower coverage"
        )
    progress, quantiles = None, []
    for t, step in enumerate(_checked(logits, lengths), 1):
        progress = advance(progress, step)
        misfit = -progress.mean.log_softmax(-1).gather(-1, targets.to(step.device).unsqueeze(-1)).squeeze(-1)
        quantiles.append(float(misfit.sort().values[rank - 1]) if t in allowed else math.inf)
    return replace(rule, quantiles=tuple(quantiles))


def _checked(logits: Tensor, lengths: Tensor | None) -> Tensor:
    """The logits in float64, after a check that they fit; after the end of a sample they keep its prediction."""
    as_arrays(logits, torch.zeros(logits.shape[1:2], dtype=torch.int64), "[T, N, C]")
    logits = logits.detach().double()
    return logits if lengths is None else held_after(logits, check_lengths(lengths, logits).to(logits.device))
