"""Errors that a user can solve: a wrong value, a file, or too little memory."""

import errno
import re

__all__ = ["UserError"]

# The messages of Python, NumPy, PyTorch, CUDA and oneDNN; those of oneDNN do not mention memory.
_NO_MEMORY = re.compile(
    "can(not|'t) allocate memory|out of memory|alloc_failed|bad_alloc|can't start new thread|"
    "could not create a (primitive(?! desc)|memory)",
    re.IGNORECASE,
)
# Errors that a user can solve: a file is missing, exists already or may not be read; a disk is full, damaged or read-only.
_OF_FILES = (
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
    BlockingIOError,
)
_OF_DISKS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ENXIO, errno.ESTALE, errno.EXDEV),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY, errno.EBUSY, errno.ETXTBSY, errno.EMFILE, errno.ENFILE),
}


class UserError(ValueError):
    """A user's value is refused.

    The message is one line: what was given, what is expected, what to do. The command line prints it without a traceback and
    exits with code 2. Every other error is a bug in the library or in a user's code, and keeps its traceback.
    """


def said_of(error: BaseException) -> str | None:
    """The message in one line for an error that a user can solve: a wrong value, a file, too little memory. None for others."""
    if isinstance(error, UserError):
        return _one_line(error)
    if is_out_of_memory(error):
        return (
            f"{not_enough_memory(error)}: use a smaller batch (--data.batch-size auto chooses one), fewer timesteps (--timesteps), "
            "a narrower network (--model.width 0.5), --gradient rate, or --checkpoint under bptt and sltt"
        )
    if isinstance(error, _OF_FILES) or (isinstance(error, OSError) and error.errno in _OF_DISKS):
        # without the error number
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part is not None) or _one_line(error)
    return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def not_enough_memory(error: BaseException) -> str:
    """A message that there is not enough memory, with the size of the request if the error says it."""
    asked = re.search(r"allocate ([\d.]+) (bytes|[KMGTP]iB)", str(error))
    if asked is None:
        return "there is not enough memory"
    units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"]
    number, place = float(asked[1]), units.index(asked[2])
    while number >= 1024 and place + 1 < len(units):
        number, place = number / 1024, place + 1
    return f"there is not enough memory ({number:.4g} {units[place]} more were needed)"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, NumPy or PyTorch could not get memory, on a CPU or a GPU."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None
