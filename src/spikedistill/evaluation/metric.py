"""Accuracy after every number of timesteps as a metric of torchmetrics, to be updated batch by batch."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from ..errors import UserError
from ..objectives.checks import check_labels
from ..objectives.submodels import prefix_means


class AccuracyAtEveryK(Metric):
    """Accuracy at every k = 1..T, batch by batch: of the mean of the first k timesteps' logits, and of timestep k only.

    It is a `torchmetrics.Metric`, so `compute` adds up all processes, and `to`, `forward`, `reset` and checkpoints
    work as usual. It counts as `evaluate` does: a sample is right if its label's logit is among the `top_k` largest,
    equal logits going to the class with the smaller index, and means are taken in float64.

        metric = AccuracyAtEveryK(timesteps=4)
        for images, labels in loader:
            metric.update(model(images, timesteps=4), labels)
        metric.compute()  # {"ensemble": tensor [4], "single": tensor [4]}

    In a LightningModule, keep it as an attribute, update it in `validation_step`, and in `on_validation_epoch_end` call
    `self.log_dict(metric.scalars())` and `metric.reset()`.

    Args:
        timesteps: T.
        num_classes: C, if logits are to be checked against it.
        top_k: how many classes the label may be among.
        options: of `torchmetrics.Metric`.

    Raises:
        UserError: for T or `top_k` below 1, or fewer than two classes.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    right_ensemble: Tensor
    right_single: Tensor
    total: Tensor

    def __init__(self, timesteps: int, num_classes: int | None = None, top_k: int = 1, **options: Any) -> None:
        super().__init__(**options)
        for name, value, least in (("timesteps", timesteps, 1), ("num_classes", num_classes, 2), ("top_k", top_k, 1)):
            if value is not None and (not isinstance(value, int) or value < least):
                raise UserError(f"{name} is {value!r}, expected an integer, {least} or more")
        self.timesteps = timesteps
        self.num_classes = num_classes
        self.top_k = top_k
        for name, shape in (("right_ensemble", (timesteps,)), ("right_single", (timesteps,)), ("total", ())):
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Take in a batch.

        Args:
            logits: `[T, B, C]`, any floating dtype.
            target: `[B]`, class indices.

        Raises:
            UserError: for shapes, dtypes or classes that do not fit, or logits that are not finite.
        """
        T, C = self.timesteps, self.num_classes
        if logits.ndim != 3 or len(logits) != T or C not in (None, logits.shape[2]) or not logits.is_floating_point():
            raise UserError(
                f"expected floating-point logits [T, B, C] = [{T}, B, {C or 'C'}], got {logits.dtype} {list(logits.shape)}"
            )
        if (
            target.shape != logits.shape[1:2]
            or target.is_floating_point()
            or target.is_complex()
            or target.dtype == torch.bool
        ):
            raise UserError(
                f"expected integer target [{logits.shape[1]}] for logits {list(logits.shape)}, got {target.dtype} "
                f"{list(target.shape)}"
            )
        if not logits.isfinite().all():
            raise UserError("expected finite logits, got some that are NaN or infinite")
        target = target.long()
        check_labels(target, logits.shape[2])
        single = logits.detach().double()
        self.right_ensemble += self._right(prefix_means(single), target)
        self.right_single += self._right(single, target)
        self.total += len(target)

    def compute(self) -> dict[str, Tensor]:
        """Fractions that are right, `{"ensemble": [T], "single": [T]}`: of the first k timesteps together, and of timestep k only.

        Raises:
            UserError: if `update` has not been called with any sample.
        """
        if not self.total:
            raise UserError("there is no sample to compute an accuracy of: call update first")
        total = self.total.double()
        return {"ensemble": self.right_ensemble / total, "single": self.right_single / total}

    def scalars(self) -> dict[str, Tensor]:
        """`compute` as one number per key, as Lightning's `log_dict` takes it: `accuracy_1`, ..., `single_accuracy_1`, ..."""
        found = self.compute()
        names = {"ensemble": "accuracy", "single": "single_accuracy"}
        return {f"{names[kind]}_{k}": value for kind, values in found.items() for k, value in enumerate(values, 1)}

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """`compute` with shapes `[T]`, also for one timestep, of which torchmetrics makes numbers."""
        wrapped = super()._wrap_compute(compute)

        @functools.wraps(compute)
        def of_every_k(*args: Any, **kwargs: Any) -> dict[str, Tensor]:
            return {kind: values.view(self.timesteps) for kind, values in wrapped(*args, **kwargs).items()}

        return of_every_k

    def _right(self, logits: Tensor, target: Tensor) -> Tensor:
        """How many samples are right at each k, `[T]`."""
        own = logits.gather(2, target.view(1, -1, 1).expand(len(logits), -1, 1))
        is_before = torch.arange(logits.shape[2], device=logits.device) < target[:, None]
        rank = ((logits > own) | ((logits == own) & is_before)).sum(2)
        return (rank < self.top_k).sum(1)
