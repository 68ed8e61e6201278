"""Compiled libraries, kept on disk for the next process.

Whoever loads a library executes it. So a library is kept, and loaded, only where this user alone can write. Its name ends with its
SHA-256: one that was cut off or damaged is built anew, because loading it would end the process without a message. One rename
publishes a library with its digest, so that a process may be killed at any moment, and several may build the same.
"""

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

# Folders in which libraries are built. A process holds the lock of its own; the system releases it when the process ends.
BUILDING = ".spikedistill-building-"
LOCK = "lock"
# After so many seconds a folder without a lock is nobody's: building takes seconds.
ABANDONED = 3600

logger = logging.getLogger("spikedistill")


def load_or_build(name: str, build: Callable[[Path], None]) -> ctypes.CDLL:
    """The library of that name, from `$XDG_CACHE_HOME/spikedistill` (else `~/.cache/spikedistill`), or built.

    Where others can write there, or nothing can be kept, one log line says so, and the library is built in a temporary folder.

    Args:
        name: tells apart all libraries that differ.
        build: writes the library into the file that it is given. It may write other files beside it.

    Raises:
        OSError: where it cannot be built or loaded.
    """
    try:
        folder = private_folder(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spikedistill")
        return _load(folder, name) or _built(folder, name, build, keep=True)
    except (OSError, RuntimeError) as error:  # the latter where nobody knows the user's home
        library = _built(_temporary(), name, build, keep=False)
        _say_once(f"compiled loops are not kept for the next process: {error}; XDG_CACHE_HOME may name another folder")
        return library


def private_folder(folder: Path, *, own_group: bool = False) -> Path:
    """A folder of this user in which nobody else can put or replace a file; it is made where it is missing, with mode 0700.

    Args:
        folder: the folder.
        own_group: accept a folder that the user's own group can write, where that group has no other members.

    Returns:
        The folder, with links above it resolved.

    Raises:
        PermissionError: for a folder of another user, one that others can write, or one below such a folder.
        OSError: where it cannot be made, or is no folder.
    """
    folder = folder.parent.resolve() / folder.name
    for part in reversed(folder.parents):
        _make(part)
        _check_above(part)
    _make(folder)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(f"{folder} is no folder, or a link to one")
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to another user")
    if _others_write(status) if own_group else status.st_mode & 0o022:
        raise PermissionError(_open_to_others(folder, status))
    return folder


def _make(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        if not os.path.lexists(folder):
            folder.mkdir(mode=0o700)
            folder.chmod(0o700)  # whatever the umask


def _check_above(folder: Path) -> None:
    """Refuse a folder whose entries another user can rename: what is below it can be exchanged."""
    status = folder.lstat()
    # the owner of the root can do anything, whoever that is in a container
    if status.st_uid not in (os.geteuid(), 0, os.lstat("/").st_uid):
        raise PermissionError(f"{folder} belongs to another user")
    if _others_write(status) and not status.st_mode & stat.S_ISVTX:  # sticky, as /tmp: each renames only what is theirs
        raise PermissionError(_open_to_others(folder, status))


def _open_to_others(folder: Path, status: os.stat_result) -> str:
    return f"other users can write in {folder} (mode {stat.S_IMODE(status.st_mode):04o})"


def _others_write(status: os.stat_result) -> bool:
    """Whether the mode lets another user write; the user's own group, with no other members, does not count."""
    if status.st_mode & stat.S_IWOTH:
        return True
    if not status.st_mode & stat.S_IWGRP:
        return False
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(status.st_gid)
    except KeyError:
        return True
    own = group.gr_gid == user.pw_gid and group.gr_name == user.pw_name
    return not (own and set(group.gr_mem) <= {user.pw_name})


def _temporary() -> Path:
    folder = Path(tempfile.gettempdir()).resolve()
    for part in (folder, *folder.parents):
        _check_above(part)
    return folder


def _load(folder: Path, name: str) -> ctypes.CDLL | None:
    """A library from a private folder; None where none is whole."""
    for file in folder.glob(f"{name}-*.so"):
        if _digest(file) != file.stem.rpartition("-")[2]:
            file.unlink(missing_ok=True)
            continue
        with contextlib.suppress(OSError):  # of another machine with the same home, say
            return ctypes.CDLL(str(file))
    return None


def _digest(file: Path) -> str | None:
    """The SHA-256 of a file that only this user can write; None for anything else."""
    try:  # without waiting for a pipe's other end
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as content:
            status = os.fstat(content.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022:
                return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        pass
    return None


def _built(place: Path, name: str, build: Callable[[Path], None], *, keep: bool) -> ctypes.CDLL:
    """Build a library in a folder of its own in that place, load it, and keep it there if asked to."""
    _clear(place.glob(f"{BUILDING}*"))
    with _folder_to_build_in(place) as folder:
        file = folder / f"{name}.so"
        build(file)
        library = ctypes.CDLL(str(file))
        if keep:
            file.chmod(0o700)
            file.replace(place / f"{name}-{_digest(file)}.so")
    return library


@contextlib.contextmanager
def _folder_to_build_in(place: Path) -> Iterator[Path]:
    """A new folder with its lock held, removed at the end."""
    import fcntl

    folder = Path(tempfile.mkdtemp(prefix=BUILDING, dir=place))
    try:
        folder.chmod(0o700)
        with open(folder / "unlocked", "w") as lock:
            with contextlib.suppress(OSError):  # on a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.rename(lock.name, folder / LOCK)  # once it is held: no other process sees it free
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear(folders: Iterable[Path]) -> None:
    """Remove those of these folders that processes left which were killed while they built something."""
    import fcntl

    for folder in folders:
        with contextlib.suppress(OSError):  # in use, or cleared by another process just now
            status = folder.lstat()
            if status.st_uid != os.geteuid():
                continue
            if (folder / LOCK).exists():
                with open(folder / LOCK, "r+") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
            elif time.time() - status.st_mtime > ABANDONED:
                shutil.rmtree(folder)


@functools.cache
def _say_once(message: str) -> None:
    logger.warning(message)
