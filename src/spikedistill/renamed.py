"""What says that an old name was used. The old names of version 0.1.0 work in 0.2.0, and docs/changes.md lists them."""

import warnings


def say_renamed(old: str, new: str, *, stacklevel: int = 2) -> None:
    """Warn that a name is an old one.

    Args:
        old: the name that was used.
        new: the name to use.
        stacklevel: of `warnings.warn`, counted from the caller: 2 names the line that called the caller.
    """
    warnings.warn(
        f"{old} is the name of version 0.1.0: use {new}; version 0.3.0 removes the old name",
        FutureWarning,
        stacklevel=stacklevel + 1,
    )
