"""Refuses signals that a network stores on its modules, because the next call would read them."""

from collections.abc import Collection, Iterable, Mapping
from typing import NoReturn

from torch import Tensor, nn

from ..errors import UserError
from .signal import Signal, signals_in

# attributes that every module has, which hold no signals; a buffer may be one
_OWN = frozenset(vars(nn.Module())) - {"_buffers"}


def refuse_left_signals(network: nn.Module) -> None:
    """Refuse a network with a signal in an attribute of one of its modules, or in a container or object that is one.

    It reads every attribute, so call it only if a signal outlives its call.

    Raises:
        UserError: naming the module and the attribute.
    """
    for path, module in network.named_modules():
        for name, value in vars(module).items():
            if name in _OWN:
                continue
            if isinstance(value, Signal) or signals_in(*_members(value)):
                _refuse(path, name)


def _members(value: object) -> Iterable[object]:
    """The members of a container or an object; modules, tensors and functions have none."""
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, Collection) and not isinstance(value, (Tensor, nn.Module, str)):
        return value
    if isinstance(value, (Tensor, nn.Module, type)) or callable(value):
        return ()
    return getattr(value, "__dict__", {}).values()


def _refuse(path: str, name: str) -> NoReturn:
    raise UserError(
        f"the network left a signal on {f'module {path!r}' if path else 'itself'}, as {name!r}, after its call: carry values "
        "through time with Recurrent(layer, feedback) or Delay(n), or return the values that you need"
    )
