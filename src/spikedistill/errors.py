"""Errors that are not the program's: what was given is wrong, or the machine has too little."""

import errno

__all__ = ["UserError"]

_NO_MEMORY = ("can't allocate memory", "out of memory", "alloc_failed", "bad_alloc")
# What a user can mend: a file that is not there, is there already, or may not be read; a disk that is full, damaged or read-only.
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
    """A value from a user that is refused.

    Its message is one line: what came, what was expected, what to do. The command line prints it without a traceback and ends with
    exit code 2; every other error is a bug, of the library or of what a user wrote, and keeps its traceback.
    """


def said_of(error: BaseException) -> str | None:
    """What is said, in one line, of an error that its user can mend: a wrong value, a file, too little memory; None of a bug."""
    if _is_out_of_memory(error):
        detail = _one_line(error)[:160]
        return (
            f"there is not enough memory{f' ({detail})' if detail else ''}: a smaller batch, a narrower network or fewer "
            "timesteps take less"
        )
    if isinstance(error, UserError):
        return _one_line(error)
    if isinstance(error, _OF_FILES) or (isinstance(error, OSError) and error.errno in _OF_DISKS):
        # without the number, which says nothing
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part is not None) or _one_line(error)
    return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, NumPy or PyTorch could not get memory, on a CPU or a GPU."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)
