"""Finds numbers that are not finite in the step in which they appear: no update uses them, and the run stops or skips the step.

Spikes hide NaN, because a membrane that is NaN never reaches the threshold: a broken network still predicts, at chance level. So
every step checks inputs, running statistics, the loss, gradients and, after the update, weights.
"""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..run_folder import RunDiverged
from .divergence import diverged, plain_name

if TYPE_CHECKING:
    from .module import DistillationModule

# What is checked, in the order in which a step computes it.
KINDS = ("input", "running statistic", "loss", "gradient", "weight")
# Steps between two reads of a GPU's flags, because each read waits for the GPU.
EVERY = 16


class Batch(NamedTuple):
    """A training batch and its place, so that it can be computed again.

    Attributes:
        number: the number of the batch in the epoch, from 0.
        places: the places of its samples in the training set, `[B]`.
        loss: detached, a scalar.
        terms: the terms of the loss by name, detached scalars.
    """

    number: int
    places: Tensor
    loss: Tensor
    terms: Mapping[str, Tensor]


class Window:
    """A step of the optimiser: its batches, and of each kind of number whether one is not finite.

    Attributes:
        step: from 1.
        epoch: from 1.
        batches: several if gradients are added up.
        flags: above 0 if a number of that kind is not finite, `[5]` in the order of `KINDS`, on the device.
        what: what was not finite first, if that is known already.
    """

    def __init__(self, step: int, epoch: int, device: torch.device) -> None:
        self.step, self.epoch = step, epoch
        self.batches: list[Batch] = []
        self.flags = torch.zeros(len(KINDS), device=device)
        self.what: str | None = None

    def flag(self, kind: str, bad: Tensor) -> None:
        self.flags[KINDS.index(kind)] += bad


class Watch:
    """Checks the numbers of every step of a training module.

    Args:
        module: the module, as it begins to train.
        skip: skip a step that is not finite, rather than stop.
        lazily: keep the flags on the device, and read them every `every` steps and in `settle`. From the first bad step on,
            updates do nothing until then. It needs a fused optimiser.
        every: steps between two reads, if `lazily`.
    """

    def __init__(self, module: "DistillationModule", *, skip: bool, lazily: bool, every: int = EVERY) -> None:
        assert not (skip and lazily)
        self.module = module
        self.skip, self.lazily, self.every = skip, lazily, every
        self.weights = {plain_name(name): p for name, p in module.named_parameters()}
        self.statistics = {
            plain_name(name): buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()
        }
        options = module.plan.config
        # clipping divides by the norm of the gradients, and AdamW stores their squares: both must be finite too
        self.needs_norms = options.trainer.clip is not None or options.optimizer.name == "adamw"
        self.window: Window | None = None
        self.unread: list[Window] = []
        self.stopped = torch.zeros((), device=module.device)
        self.left_out = False
        self.last_left_out: Window | None = None
        self.before: _State | None = None

    def begin(self, optimizer: torch.optim.Optimizer, samples: Tensor, first_of_window: bool) -> Tensor:
        """Check a batch. Returns its samples, on a CPU with zeros for what is not finite, which the network would refuse.

        The step is lost with such a sample, but all processes go through it alike.
        """
        if first_of_window or self.window is None:
            trainer = self.module.trainer
            self.window = Window(trainer.global_step + 1, trainer.current_epoch + 1, self.module.device)
            self.before = _State(self.module, optimizer) if self.skip else None
        if samples.is_floating_point():
            bad = not_finite([samples])
            self.window.flag("input", bad)
            if samples.device.type == "cpu" and bad:
                return samples.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        return samples

    def saw(self, batch: Batch, logits: Tensor) -> None:
        """Check the loss of a batch."""
        assert self.window is not None
        self.window.batches.append(batch)
        self.window.flag("loss", not_finite([batch.loss, logits]))

    def before_update(self, optimizer: torch.optim.Optimizer, *, gradients: bool) -> None:
        """Prevent the update if something is not finite; a step that is skipped is undone in `after_update`.

        Args:
            optimizer: which makes it.
            gradients: look at them.

        Raises:
            RunDiverged: if something is not, unless the step is skipped.
        """
        window = self.window
        assert window is not None
        window.flag("running statistic", not_finite(list(self.statistics.values())))
        found = {name: p.grad for name, p in self.weights.items() if p.grad is not None} if gradients else {}
        if found:
            values = list(found.values())
            window.flag("gradient", without_norm(values) if self.needs_norms else not_finite(values))
        window.flags = self._of_all(window.flags)
        if self.lazily:
            self._stop(window)
            # a fused optimiser reads this on the device, and skips the update; usually a gradient scaler sets it
            optimizer.found_inf = self.stopped  # type: ignore[attr-defined]
            return
        self.left_out = False
        if kind := first_kind(window.flags.tolist()):
            # gradients flow backward, so the last one in the network is the first that was not finite
            window.what = self._name(kind, dict(reversed(found.items())))
            self._leave_out_or_stop(window, kind)

    def after_update(self) -> None:
        """Find a weight that the update has made infinite.

        Raises:
            RunDiverged: if there is one, unless the step is skipped.
        """
        window = self.window
        assert window is not None
        self.window = None
        if self.lazily:
            self.look_after(window)
            self.keep(window)
            return
        if not self.left_out:
            window.flag("weight", not_finite(list(self.weights.values())))
        if not self.left_out and self._of_all(window.flags)[-1] > 0:
            window.what = self._name("weight", {})
            self._leave_out_or_stop(window, "weight")
        if self.left_out:
            assert self.before is not None
            self.before.restore()

    def look_after(self, window: Window) -> None:
        """Flag a weight that the update has made infinite, on the device."""
        window.flag("weight", not_finite(list(self.weights.values())))
        self._stop(window)

    def keep(self, window: Window) -> None:
        """Keep the flags of a step that is done, and read them once there are enough.

        Raises:
            RunDiverged: as `settle`.
        """
        self.unread.append(window)
        if len(self.unread) >= self.every:
            self.settle()

    def settle(self) -> None:
        """Read from the device whether all steps so far were finite.

        Raises:
            RunDiverged: if one was not; that batch is computed again to find out why.
        """
        if not self.unread:
            return
        table = self._of_all(torch.stack([window.flags for window in self.unread])).tolist()
        for window, flags in zip(self.unread, table, strict=True):
            if kind := first_kind(flags):
                window.what = self._name(kind, {}) if kind != "gradient" else None
                raise diverged(self.module, window, kind)
        self.unread.clear()

    def nothing_is_left(self) -> RunDiverged:
        """The error to raise if every step of an epoch was skipped."""
        window = self.last_left_out
        assert window is not None
        kind = first_kind(window.flags.tolist())
        assert kind is not None
        return diverged(self.module, window, kind, f"every step of epoch {window.epoch} was skipped; in the last one ")

    def _stop(self, window: Window) -> None:
        """From a step that is not finite on, no update is made; changed in place, because a recorded step reads it."""
        torch.maximum(self.stopped, (window.flags > 0).any().float(), out=self.stopped)

    def _leave_out_or_stop(self, window: Window, kind: str) -> None:
        if not self.skip:
            raise diverged(self.module, window, kind)
        self.left_out, self.last_left_out = True, window
        self.module.skipped += 1

    def _name(self, kind: str, gradients: Mapping[str, Tensor]) -> str | None:
        """What is not finite, in words, from the tensors as they are now; None if it is in another process."""
        looked_at: dict[str, Mapping[str, Tensor]] = {
            "running statistic": self.statistics,
            "weight": self.weights,
            "gradient": gradients,
        }
        if kind not in looked_at:
            return f"the {kind}"
        is_bad = without_norm if kind == "gradient" and self.needs_norms else not_finite
        name = next((name for name, value in looked_at[kind].items() if is_bad([value])), None)
        return name and (f"the gradient of {name}" if kind == "gradient" else f"the {kind} {name}")

    def _of_all(self, flags: Tensor) -> Tensor:
        """The flags of all processes together, because all must skip or stop at the same step."""
        return self.module.trainer.strategy.reduce(flags, reduce_op="sum")


class _State:
    """A copy of everything that a step changes, to undo the step."""

    def __init__(self, module: "DistillationModule", optimizer: torch.optim.Optimizer) -> None:
        self.module, self.optimizer = module, optimizer
        self.tensors = [(tensor, tensor.detach().clone()) for tensor in (*module.parameters(), *module.buffers())]
        self.of_optimizer = {
            parameter: {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}
            for parameter, state in optimizer.state.items()
        }
        self.means = module.means.state()

    @torch.no_grad()
    def restore(self) -> None:
        for tensor, kept in self.tensors:
            tensor.copy_(kept)
        self.optimizer.state.clear()
        self.optimizer.state.update(self.of_optimizer)
        self.module.means.restore(self.means)


def first_kind(flags: Iterable[float]) -> str | None:
    """The first kind of number that is flagged."""
    return next((kind for kind, flag in zip(KINDS, flags, strict=True) if flag > 0), None)


@torch.no_grad()
def not_finite(tensors: list[Tensor]) -> Tensor:
    """Whether a value in the tensors is NaN or infinite: a bool on their device, without waiting for it."""
    if not tensors:
        return torch.tensor(False)
    if tensors[0].device.type != "cpu":
        return ~torch.stack(torch._foreach_norm(tensors, math.inf)).isfinite().all()
    # the fastest way to read all values: a sum is not finite if one of them is not, or if it overflows
    suspects = [tensor for tensor in tensors if not math.isfinite(tensor.sum().item())]
    return torch.tensor(any(not tensor.isfinite().all() for tensor in suspects))


@torch.no_grad()
def without_norm(tensors: list[Tensor]) -> Tensor:
    """Whether a tensor's Euclidean norm is NaN or infinite: a bool on their device, without waiting for it."""
    return ~torch.stack(torch._foreach_norm(tensors, 2)).isfinite().all()
