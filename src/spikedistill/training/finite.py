"""Numbers that are no longer finite are found in their step: the update does not happen, and the run says where it went wrong.

Spikes hide NaN, because NaN reaches no threshold: a broken network answers, and scores as chance. So the loss, gradients, running
statistics and, after the update, weights are looked at in every step.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..run_folder import RunDiverged
from ..temporal.signal import Signal

if TYPE_CHECKING:
    from .module import DistillationModule

# On a GPU the device is asked after so many steps, because each question waits for it.
EVERY = 16
_NAMED = 8


class Batch(NamedTuple):
    """A batch of training and where it stands, so that it can be made again.

    Attributes:
        epoch: counted from 0.
        number: of the batch in the epoch, from 0.
        places: of its samples in the training set, `[B]`.
        loss: detached, a scalar.
    """

    epoch: int
    number: int
    places: Tensor
    loss: Tensor


class Watch:
    """Looks at the numbers of every step of a training module.

    Args:
        module: it.
        skip: leave out a step that is not finite, rather than stop.
        lazily: keep the answer on the device: updates after the first bad step do nothing there, and `settle` asks for it. Needs a
            fused optimiser. Weights are then found in the step after.
        every: steps between two questions, where `lazily`.
    """

    def __init__(self, module: "DistillationModule", *, skip: bool, lazily: bool, every: int = EVERY) -> None:
        assert not (skip and lazily)
        self.module = module
        self.skip = skip
        self.lazily = lazily
        self.every = every
        self.step = 0
        self.window: list[Batch] = []
        self.past: deque[tuple[int, list[Batch]]] = deque(maxlen=every)
        self.first: Tensor | None = None
        self.left_out = False
        self.before: _State | None = None

    def begin(self, optimizer: torch.optim.Optimizer, first_of_window: bool) -> None:
        """Before a batch: under `skip`, remember everything that its step may change."""
        if first_of_window:
            self.window = []
            self.before = _State(self.module, optimizer) if self.skip else None

    def saw(self, batch: Batch) -> None:
        """After a batch's loss is known."""
        self.window.append(batch)

    def before_update(self, optimizer: torch.optim.Optimizer, *, gradients: bool) -> None:
        """Find a loss, a gradient or a running statistic that is not finite, and keep the update from happening.

        Args:
            optimizer: it.
            gradients: look at them, which a scaler of fp16 does by itself.

        Raises:
            RunDiverged: where there is one, unless the step is left out.
        """
        self.step += 1
        self.left_out = False
        named = dict(self._of_step(gradients=gradients))
        if self.lazily:
            self._note(optimizer, named)
            return
        found = first_not_finite(named.items())
        if not self._agree(found is not None):
            return
        self._leave_out_or_stop(found, self.window)
        if gradients:
            for parameter in self.module.parameters():
                parameter.grad = None  # upon which the optimiser leaves it as it is

    def after_update(self) -> None:
        """Find a weight that the update has made infinite.

        Raises:
            RunDiverged: where there is one, unless the step is left out.
        """
        if self.lazily:
            self.past.append((self.step, self.window))
            if self.step % self.every == 0:
                self.settle()
            return
        if not self.left_out:
            weights = ((f"the weight {_plain(name)}", p.detach()) for name, p in self.module.named_parameters())
            found = first_not_finite(weights)
            if self._agree(found is not None):
                self._leave_out_or_stop(found, self.window)
        if self.left_out:
            assert self.before is not None
            self.before.restore()

    def settle(self) -> None:
        """Ask the device whether all steps so far were finite.

        Raises:
            RunDiverged: where one was not; that batch is computed again to say why.
        """
        if self.first is None or (first := int(self.first)) < 0:
            return
        window = next((batches for step, batches in self.past if step == first), self.window)
        raise self._diverged(None, window, first)

    def _of_step(self, *, gradients: bool) -> Iterator[tuple[str, Tensor]]:
        for batch in self.window:
            yield f"the loss of batch {batch.number + 1}", batch.loss
        if gradients:
            for name, parameter in self.module.named_parameters():
                if parameter.grad is not None:
                    yield f"the gradient of {_plain(name)}", parameter.grad
        for name, buffer in self.module.named_buffers():
            if buffer.is_floating_point():
                yield f"the running statistic {_plain(name)}", buffer

    def _note(self, optimizer: torch.optim.Optimizer, named: Mapping[str, Tensor]) -> None:
        """Write down on the device whether this step is the first that is not finite; from then on updates do nothing."""
        bad = ~_sums(named.values()).isfinite().all()
        if self.module.trainer.world_size > 1:
            shared = bad.float()
            torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
            bad = shared > 0
        if self.first is None:
            self.first = torch.full((), -1, dtype=torch.int64, device=bad.device)
        self.first = torch.where(bad & (self.first < 0), self.step, self.first)
        optimizer.grad_scale = None  # type: ignore[attr-defined] # what a fused optimiser reads of a scaler
        optimizer.found_inf = (self.first >= 0).float()  # type: ignore[attr-defined]

    def _agree(self, found: bool) -> bool:
        """Whether any process has found something: all must go the same way."""
        strategy = self.module.trainer.strategy
        return strategy.reduce_boolean_decision(found, all=False) if self.module.trainer.world_size > 1 else found

    def _leave_out_or_stop(self, found: str | None, window: list[Batch]) -> None:
        if not self.skip:
            raise self._diverged(found, window, self.step)
        self.left_out = True
        self.module.skipped += 1

    def _diverged(self, found: str | None, window: list[Batch], step: int) -> RunDiverged:
        """What to raise, with everything that helps to find the reason."""
        batch = next((batch for batch in window if not bool(batch.loss.isfinite().all())), window[-1])
        layer, samples, terms = explain(self.module, batch)
        what = found or ("the loss" if not bool(batch.loss.isfinite().all()) else "a gradient or running statistic")
        details = {
            "step": step,
            "epoch": batch.epoch + 1,
            "what": what,
            "layer": layer,
            "terms": terms,
            "samples": samples,
        }
        where = f"the first layer to return it is {layer}" if layer else "no layer returns it in that batch"
        count = len(batch.places)
        of_batch = f"all {count} samples of the batch" if len(samples) == count else f"samples {_some(samples)}"
        shown = ", ".join(f"{name} {value:g}" for name, value in terms.items())
        message = (
            f"{what} became NaN or infinite in step {step}, epoch {batch.epoch + 1}; {where}, on {of_batch}; terms of the loss: "
            f"{shown or 'none'}. The update was not made, and the last checkpoint stays; try a lower --optimizer.lr, "
            "--trainer.clip, or --trainer.on-nonfinite skip"
        )
        return RunDiverged(message, details | {"message": message})


class _State:
    """Everything that a step changes, to be put back."""

    def __init__(self, module: "DistillationModule", optimizer: torch.optim.Optimizer) -> None:
        self.module, self.optimizer = module, optimizer
        self.tensors = [(tensor, tensor.detach().clone()) for tensor in (*module.parameters(), *module.buffers())]
        self.of_optimizer = {
            parameter: {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}
            for parameter, state in optimizer.state.items()
        }
        self.sums, self.seen = dict(module.sums), module.seen

    @torch.no_grad()
    def restore(self) -> None:
        for tensor, kept in self.tensors:
            tensor.copy_(kept)
        self.optimizer.state.clear()
        self.optimizer.state.update(
            {
                parameter: {
                    name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()
                }
                for parameter, state in self.of_optimizer.items()
            }
        )
        self.module.sums, self.module.seen = dict(self.sums), self.seen


def first_not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor that holds NaN or infinity; None where there is none."""
    pairs = list(named)
    if not pairs or bool(_sums(tensor for _, tensor in pairs).isfinite().all()):
        return None
    # a sum may overflow where no number does
    return next((name for name, tensor in pairs if not bool(tensor.isfinite().all())), None)


def _sums(tensors: Iterable[Tensor]) -> Tensor:
    """The sum of each tensor, `[n]`: the fastest pass over memory that NaN and infinity survive."""
    return torch.stack([tensor.detach().sum().double() for tensor in tensors])


@torch.no_grad()
def explain(module: "DistillationModule", batch: Batch) -> tuple[str | None, list[int], dict[str, float]]:
    """Compute a batch again, and look at what every layer returns.

    Returns:
        The first layer with a value that is not finite ("the input" for the input, None where all are finite); the places in the
        training set of the samples that have one, or of all; and the terms of the loss.
    """
    places = batch.places.cpu()
    seen: list[tuple[str, Tensor]] = []

    def look(name: str, output: Any) -> None:
        values = output.over_time() if isinstance(output, Signal) else output
        if isinstance(values, Tensor) and values.is_floating_point() and not seen and not bool(values.isfinite().all()):
            seen.append((name, _bad_samples(values, len(places))))

    with _kept(module), _hooked(module.network, look):
        inputs, target = module.made_again(batch)
        if not bool(inputs.isfinite().all()):
            axis = 1 if module.plan.dataset.kind == "events" else 0
            rows = (~inputs.isfinite()).movedim(axis, 0).flatten(1).any(1)
            return "the input", places[rows.cpu()].tolist(), {}
        terms = module.terms_of(inputs, target, places.to(inputs.device), batch)
    if not seen:
        return None, places.tolist(), terms
    layer, rows = seen[0]
    return layer, places[rows.cpu()].tolist(), terms


def _bad_samples(values: Tensor, count: int) -> Tensor:
    """Which samples have a value that is not finite, bool `[B]`; all where that cannot be told."""
    for axis in (1, 0):
        if values.ndim > axis and values.shape[axis] == count:
            return (~values.isfinite()).movedim(axis, 0).reshape(count, -1).any(1)
    return torch.ones(count, dtype=torch.bool, device=values.device)


@contextmanager
def _hooked(network: nn.Module, look: Any) -> Iterator[None]:
    """Call `look(name, output)` after every layer, inner ones first."""

    def looking(name: str) -> Any:
        return lambda layer, inputs, output: look(name, output)

    handles = [layer.register_forward_hook(looking(_plain(path))) for path, layer in network.named_modules() if path]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _kept(module: nn.Module) -> Iterator[None]:
    """Put the running statistics back afterwards."""
    kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in kept:
            buffer.copy_(value)


def _plain(name: str) -> str:
    """A layer's name as in the network that is saved."""
    for prefix in ("network.", "module.", "network."):
        name = name.removeprefix(prefix)
    return name


def _some(places: list[int]) -> str:
    shown = ", ".join(map(str, places[:_NAMED]))
    return shown if len(places) <= _NAMED else f"{shown} and {len(places) - _NAMED} more"
