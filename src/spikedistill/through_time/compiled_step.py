"""One timestep of a trained network as one compiled function."""

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..neurons import compiler_works
from .finite import check_finite
from .model import Temporal


class CompiledStep:
    """`model.step` of a trained network as one compiled function for every size of the batch.

    An ordinary `step` calls layer after layer from Python, and every convolution reorders its weights for the processor. Compiled,
    a timestep is one call, weights and state stay in the processor's order, and all operations between two convolutions are one
    loop. Compiling takes seconds to a minute, twice: for the first timestep and for those after it. If `torch.compile` does not
    work, `model.step` itself runs, and one log line says so.

    Args:
        model: a network in eval mode. Its weights are copied at the first call; later changes have no effect.
    """

    def __init__(self, model: Temporal) -> None:
        self.model = model
        self._frozen: Temporal | None = None
        self._function = torch.compile(self._step, fullgraph=True)
        # (several samples or one, first timestep or a later one, still or not, kind of input)
        self._compiled_for: set[tuple[Any, ...]] = set()

    def __reduce__(self) -> tuple[type["CompiledStep"], tuple[Temporal]]:
        return CompiledStep, (self.model,)  # a copy of this object compiles its own network

    @torch.no_grad()
    def __call__(
        self, x: Tensor, state: Mapping[str, Tensor] | None = None, *, still: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Temporal.step`, without gradients.

        Raises:
            RuntimeError: in training mode.
            UserError: for a state of another network or batch size, a network that torch.compile cannot take as a whole, an input
                that is no tensor or, on a CPU, holds NaN or infinite values.
            UnsupportedOperationError: for a network that draws random numbers.
        """
        if self.model.training or not compiler_works():
            return self.model.step(x, state, still=still)
        self.model.check_step(x, state)
        if not (still and state):
            check_finite(x)
        if len(x) == 1 and {samples for samples, *_ in self._compiled_for} == {"several"}:
            # PyTorch would compile again for a batch of one, which takes longer than the last sample of a batch saves
            logits, after = self._run(_twice(x), state and {key: _twice(rows) for key, rows in state.items()}, still)
            if all(len(rows) == 2 for rows in after.values()):
                return logits[:1], {key: rows[:1] for key, rows in after.items()}
        return self._run(x, state, still)

    def _step(self, x: Tensor, state: Mapping[str, Tensor] | None, still: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """One timestep, with its state in the order in which compiled convolutions read and write."""
        assert self._frozen is not None
        logits, after = self._frozen.step(x, state, still=still)
        return logits, {key: _channels_last(rows) for key, rows in after.items()}

    def _run(self, x: Tensor, state: Mapping[str, Tensor] | None, still: bool) -> tuple[Tensor, dict[str, Tensor]]:
        # a copy, because PyTorch would compile again for views and other memory orders
        x = x.detach().clone(memory_format=torch.contiguous_format)
        rows = {key: _channels_last(part.detach()) for key, part in state.items()} if state else None
        if len(x) > 1:
            for tensor in (x, *(rows or {}).values()):
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        kind = ("several" if len(x) > 1 else "one", rows is None, still, x.shape[1:], x.dtype, x.device)
        try:
            if kind in self._compiled_for:
                # PyTorch compiles again for each new form of state, and stops after eight over all networks
                with suppress(torch._dynamo.exc.FailOnRecompileLimitHit):
                    return self._function(x, rows, still)
            if self._frozen is None:
                # raises errors that the compiler would miss, such as for random numbers
                self.model.step(x, still=still)
                self._frozen = copy.deepcopy(self.model)
            with _frozen_weights():  # entering this costs as much as a small network's step
                out = self._function(x, rows, still)
            self._compiled_for.add(kind)
            return out
        except torch._dynamo.exc.TorchDynamoException as error:
            self.model.step(x, rows, still=still)  # if the input is at fault, this says so
            raise UserError(
                f"torch.compile cannot take this network as a whole ({str(error).splitlines()[0]}): use its step() as it is"
            ) from error


@contextmanager
def _frozen_weights() -> Iterator[None]:
    """Compile with weights as constants, and allow more networks than PyTorch's limit for one function."""
    freezing = torch._inductor.config.patch(freezing=True)
    many = torch._dynamo.config.patch(recompile_limit=256)
    with warnings.catch_warnings(), freezing, many:
        warnings.simplefilter("ignore")  # of the compiler's own parts
        yield


def _channels_last(rows: Tensor) -> Tensor:
    return rows.contiguous(memory_format=torch.channels_last) if rows.ndim == 4 else rows


def _twice(rows: Tensor) -> Tensor:
    return torch.cat([rows, rows])
