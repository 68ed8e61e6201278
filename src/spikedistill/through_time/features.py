"""What the layers of a network return on the way, by their names."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..errors import UserError


@contextmanager
def outputs_of(module: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Keep what the named layers return while the block runs: `with outputs_of(model, ["stages.0"]) as outputs: model(x)`.

    The one way to intermediate features: for auxiliary heads, for distilling features, for looking. The outputs are signals, of
    which `mean_rate` makes tensors `[B, ...]` with their graph; those of an ANN are tensors already.

    Args:
        module: the network.
        layers: names as `named_modules` gives them.

    Raises:
        UserError: for a layer that there is not.
    """
    known = dict(module.named_modules())
    outputs: dict[str, Any] = {}
    for name in layers:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3) or list(known)[1:4]
            raise UserError(f"the network has no layer {name!r}: did you mean {' or '.join(map(repr, close))}?")

    def keep(name: str) -> Any:
        return lambda layer, inputs, output: outputs.__setitem__(name, output)

    handles = [known[name].register_forward_hook(keep(name)) for name in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
