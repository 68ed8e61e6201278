"""Every kind of trouble."""

from . import kills
from .attempts import Kind


def all_kinds() -> list[Kind]:
    return [*kills.kinds()]
