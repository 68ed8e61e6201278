"""Every kind of trouble."""

from . import damage, disk, hostile, kills, permissions
from .attempts import Kind


def all_kinds() -> list[Kind]:
    return [*kills.kinds(), *damage.kinds(), *disk.kinds(), *permissions.kinds(), *hostile.kinds()]
