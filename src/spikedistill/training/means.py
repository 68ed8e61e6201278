"""Means over the samples of an epoch: summed on the device, and read once."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..objectives.submodels import prefix_means, right_submodels


class EpochMeans:
    """The running sums behind the means of an epoch.

    Attributes:
        names: the names of the means.
        totals: sums over samples, `[len(names)]` float32, on the device; always the same tensor there, because a recorded step
            adds to it.
        seen: samples so far.
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.totals = torch.zeros(0)
        self.seen = 0
        self._has_begun = False

    def reset(self) -> None:
        """Begin an epoch."""
        self.totals.zero_()
        self.seen = 0

    @torch.no_grad()
    def add(self, step: Mapping[str, Tensor], count: int) -> None:
        """Add means `[n]` or scalars over `count` samples to the totals; the caller counts `seen`.

        A vector under the name "x" has the means "x_1", "x_2", ...
        """
        values = torch.cat([value.reshape(-1).float() for value in step.values()])
        if not self._has_begun:
            self._begin(step, values)
        self.totals += values * count

    def _begin(self, step: Mapping[str, Tensor], values: Tensor) -> None:
        """Make room on the device; sums from a checkpoint stay."""
        self._has_begun = True
        kept = self.as_sums()
        self.names = tuple(
            name
            for key, value in step.items()
            for name in ([f"{key}_{k}" for k in range(1, len(value) + 1)] if value.ndim else [key])
        )
        self.totals = torch.zeros_like(values)
        if kept:
            self.totals += torch.tensor([kept.get(name, 0.0) for name in self.names]).to(values.device)

    def so_far(self) -> Tensor:
        """The first three means of the epoch so far, on the device: loss, accuracy at T and accuracy at 1."""
        return self.totals[:3] / max(self.seen, 1)

    def as_sums(self) -> dict[str, float]:
        """The totals by name, for a checkpoint; waits for the device."""
        return dict(zip(self.names, self.totals.tolist(), strict=True))

    def load(self, sums: Mapping[str, float], seen: int) -> None:
        self.names, self.totals, self.seen = tuple(sums), torch.tensor([*sums.values()], dtype=torch.float32), seen
        self._has_begun = False

    def state(self) -> tuple[Any, ...]:
        """A copy of the sums for `restore`, to undo a skipped step."""
        return self.names, self.totals.clone(), self.seen, self._has_begun

    def restore(self, state: tuple[Any, ...]) -> None:
        self.names, self.totals, self.seen, self._has_begun = state


@torch.no_grad()
def means_of_step(
    logits: Tensor,
    submodels: Tensor,
    target: Tensor,
    scores: Tensor | None,
    total: Tensor,
    terms: Mapping[str, Tensor],
    *,
    heads: bool,
) -> dict[str, Tensor]:
    """The loss, its terms, and accuracy and cross-entropy over the timesteps `[T]`, of one batch.

    Args:
        logits: the logits of the timesteps, `[T, B, C]`.
        submodels: those that the objective takes, `[S, B, C]`.
        target: labels, `[B]`.
        scores: how strong each submodel is, `[S]`, if the objective ranks them.
        total: the loss.
        terms: the terms of the loss, by name.
        heads: whether the submodels are others than the timesteps.
    """
    T, B = logits.shape[:2]
    logits = logits.float()
    prefixes = prefix_means(logits)
    right = (prefixes.argmax(-1) == target).float().mean(1)
    step = {"train_loss": total.detach(), "train_accuracy": right[-1], "train_accuracy_1": right[0]}
    step |= {f"loss/{name}": value for name, value in terms.items()}
    answers = torch.cat([logits, prefixes]).flatten(0, 1)
    ce = F.cross_entropy(answers, target.repeat(2 * T), reduction="none").view(2 * T, B).mean(1)
    step |= {"ce_single": ce[:T], "ce_prefix": ce[T:]}
    if heads:
        right_heads = right_submodels(submodels, target)
        step |= {"head_accuracy": right_heads.float().mean(1), "no_head_right": 1 - right_heads.any(0).float().mean()}
    if scores is not None:
        places = torch.arange(len(scores), device=scores.device)
        step |= {"strongest": (places == scores.argmax()).float(), "weakest": (places == scores.argmin()).float()}
    return step
