"""The logits of a network on all samples of a set."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..data import Samples, as_network_input, lengths_of, of_one_length
from ..models import Branched
from ..objectives.submodels import until
from ..through_time import NotFiniteInput, Temporal


@torch.no_grad()
def collect_logits(
    model: Temporal,
    samples: Samples,
    kind: str,
    timesteps: int,
    batch_size: int = 250,
    after_batch: Callable[[int], None] | None = None,
    heads: bool = False,
) -> Tensor:
    """Logits `[T, N, C]` in float32 of a network in eval mode on all samples, in their order.

    Args:
        model: the network.
        samples: N samples.
        kind: "image" or "events".
        timesteps: T; after the end of a shorter recording its logits are the mean of those before, so that it keeps its answer.
        batch_size: samples per forward pass.
        after_batch: called with the size of each batch once it has run.
        heads: return the logits `[S, N, C]` of the auxiliary heads instead.

    Raises:
        UserError: if samples hold NaN or infinite values; on a CPU the message names them.
    """
    model.eval()
    device = next(model.parameters()).device
    parts: list[Tensor] = []
    order: list[Tensor] = []
    for places, inputs in of_one_length(samples, batch_size):
        x = as_network_input(inputs.to(device), kind)
        T = None if kind == "events" else timesteps
        try:
            logits = model.heads(x, T)[1] if heads and isinstance(model, Branched) else model(x, T)
        except NotFiniteInput as error:
            raise NotFiniteInput(error.count, error.size, places[error.samples].tolist()) from None
        parts.append(logits.float().cpu())
        order.append(places)
        if after_batch is not None:
            after_batch(len(inputs))
    if lengths_of(samples) is None:
        return torch.cat(parts, 1)
    ends = [until(part, timesteps) for part in parts]
    return torch.cat(ends, 1)[:, torch.cat(order).argsort()]
