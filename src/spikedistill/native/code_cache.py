"""Compiled libraries, kept on disk for the next process.

Loading a library executes its code. So libraries are kept in, and loaded from, only folders in which no other user can write. The
name of a library ends with its SHA-256. A truncated or damaged library is built again, because loading it would crash the process
without a message. One rename publishes a library with its digest, so processes may be killed at any moment, and several may build
the same library.
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

# Folders in which libraries are built. Each process locks its own; the system releases the lock when the process ends.
BUILDING = ".spikedistill-building-"
LOCK = "lock"
# After so many seconds a folder without a lock counts as abandoned, because building takes seconds.
ABANDONED = 3600

logger = logging.getLogger("spikedistill")


def load_or_build(name: str, build: Callable[[Path], None]) -> ctypes.CDLL:
    """Load the library of that name from `cache_folder`, or build it.

    If other users can write in that folder, or nothing can be kept there, one log line says so, and the library is built in a
    temporary folder.

    Args:
        name: different for any two different libraries.
        build: writes the library into a given file. It may write other files in the same folder.

    Raises:
        OSError: if the library cannot be built or loaded.
    """
    try:
        folder = cache_folder()
        return _load(folder, name) or _built(folder, name, build, keep=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: the user's home is unknown
        library = _built(_temporary(), name, build, keep=False)
        _say_once(f"compiled loops are not kept for the next process: {error}; XDG_CACHE_HOME may name another folder")
        return library


def cache_folder() -> Path:
    """The folder in which compiled code is kept, `$XDG_CACHE_HOME/spikedistill` (default `~/.cache/spikedistill`).

    Raises:
        OSError: if other users can write in it, or it cannot be made.
        RuntimeError: if the user's home is unknown.
    """
    return private_folder(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spikedistill")


def private_folder(folder: Path, *, own_group: bool = False) -> Path:
    """Return a folder of this user in which no other user can add or replace files; a missing one is made, with mode 0700.

    Args:
        folder: the folder.
        own_group: accept a folder that the user's own group can write, if that group has no other members.

    Returns:
        The folder, with links in the path to it resolved.

    Raises:
        PermissionError: if it or a folder above it belongs to another user, or others can write in it.
        OSError: if it cannot be made, or is no folder.
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
    """Refuse a folder in which another user can rename entries, and so replace what is below it."""
    status = folder.lstat()
    # the owner of / can do anything; in a container this may be another user than 0
    if status.st_uid not in (os.geteuid(), 0, os.lstat("/").st_uid):
        raise PermissionError(f"{folder} belongs to another user")
    if (
        _others_write(status) and not status.st_mode & stat.S_ISVTX
    ):  # a sticky folder, such as /tmp, in which users rename only their own entries
        raise PermissionError(_open_to_others(folder, status))


def _open_to_others(folder: Path, status: os.stat_result) -> str:
    return f"other users can write in {folder} (mode {stat.S_IMODE(status.st_mode):04o})"


def _others_write(status: os.stat_result) -> bool:
    """Whether another user can write; a group in which the user is the only member does not count."""
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
    """Load a library from a private folder; None if there is no undamaged one."""
    for file in folder.glob(f"{name}-*.so"):
        if _digest(file) != file.stem.rpartition("-")[2]:
            file.unlink(missing_ok=True)
            continue
        with contextlib.suppress(OSError):  # such as one that another machine with the same home built
            return ctypes.CDLL(str(file))
    return None


def _digest(file: Path) -> str | None:
    """The SHA-256 of a file that only this user can write; None for other files."""
    try:  # O_NONBLOCK: opening a pipe must not block
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as content:
            status = os.fstat(content.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022:
                return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        pass
    return None


def _built(place: Path, name: str, build: Callable[[Path], None], *, keep: bool) -> ctypes.CDLL:
    """Build a library in a new folder below `place`, load it, and keep it in `place` if `keep`."""
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
    """A new, locked folder, which is removed at the end."""
    import fcntl

    folder = Path(tempfile.mkdtemp(prefix=BUILDING, dir=place))
    try:
        folder.chmod(0o700)
        with open(folder / "unlocked", "w") as lock:
            with contextlib.suppress(OSError):  # on a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.rename(lock.name, folder / LOCK)  # after locking, so that no other process finds it unlocked
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear(folders: Iterable[Path]) -> None:
    """Remove the folders of processes that were killed while they built a library."""
    import fcntl

    for folder in folders:
        with contextlib.suppress(OSError):  # in use, or just removed by another process
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
