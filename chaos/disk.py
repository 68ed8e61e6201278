"""Disks that are full while something is written: a message, nothing lost, and with space again the same outcome."""

import ctypes
import functools
import os
import random
import resource
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from .attempts import Kind, Verdict
from .files_of_runs import compiled
from .processes import in_fork, run
from .scenes import Scene, comparing, has_checkpoint, of_trained, repeated, resuming, training
from .workshop import Workshop, done, wrong_end

SPACE = 256 << 20  # bytes
LEAST, MOST = 1 << 10, 8 << 20  # bytes that are left; a run needs about 5 MiB, most of it for its page
_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000  # of unshare(2)
_REMOUNT, _PRIVATE = 32, 1 << 18 | 1 << 14  # of mount(2)


def put_disk(place: Path) -> Callable[[int], None]:
    """Put a disk in memory at a place, for this process and those it begins; returns what changes its size in bytes.

    Raises:
        PermissionError: where this machine does not let this user do it.
    """
    system = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()

    def check(code: int) -> None:
        if code:
            raise PermissionError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def mount(kind: bytes | None, at: bytes, flags: int, options: bytes | None) -> None:
        check(system.mount(b"none", at, kind, ctypes.c_ulong(flags), options))

    check(system.unshare(_NEW_MOUNTS if user == 0 else _NEW_MOUNTS | _NEW_USER))
    if user:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path(f"/proc/self/{name}").write_text(text)
    mount(None, b"/", _PRIVATE, None)
    mount(b"tmpfs", os.fsencode(place), 0, f"size={SPACE}".encode())
    return lambda size: mount(b"tmpfs", os.fsencode(place), _REMOUNT, f"size={size}".encode())


@functools.cache
def disks_are_possible() -> bool:
    """Whether this user may put a disk in memory somewhere."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "disk"
        place.mkdir()

        def try_it() -> None:
            put_disk(place)

        return in_fork(try_it, Path(folder) / "said")[0].code == 0


def leave(size: int, place: Path, resize: Callable[[int], None]) -> None:
    """Make a disk so small that only so many bytes are left, which the system rounds up to pages."""
    disk = os.statvfs(place)
    resize((disk.f_blocks - disk.f_bfree) * disk.f_frsize + size)


def full(make: Callable[[Workshop], Scene], name: str, workshop: Workshop, number: int) -> Verdict:
    """A command on a disk that is soon full, and again on one that is large."""
    scene, size = make(workshop), _size(name, number)

    def story() -> Verdict:
        place = scratch / "place"
        place.mkdir()
        resize = put_disk(place)
        scene.prepare(place)
        leave(size, place, resize)
        return twice(scene, place, lambda: None, lambda: resize(SPACE))

    with workshop.scratch() as scratch:
        ended, verdict = in_fork(story, scratch / "said")
        done(ended)
        return _with_size(verdict, size)


def limited(make: Callable[[Workshop], Scene], name: str, workshop: Workshop, number: int) -> Verdict:
    """A command that may write no file larger than so many bytes, and again without that limit."""
    scene, size = make(workshop), _size(name, number)
    with workshop.scratch() as scratch:
        place = scratch / "place"
        place.mkdir()
        scene.prepare(place)
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        return _with_size(twice(scene, place, limit, lambda: None), size)


def twice(scene: Scene, place: Path, before: Callable[[], None], after: Callable[[], None]) -> Verdict:
    """A command that meets trouble, `before` in its process, and its repetition once that is over, `after`."""
    had = has_checkpoint(place)
    first = run(scene.arguments(place), place.parent / "said command", before)
    after()
    if wrong := wrong_end(first, 0, 1, 2) or scene.check(place, had):
        return wrong
    message = first.errors.strip()
    if first.code and not message:
        return Verdict("traceback", f"exit code {first.code} without a message")
    verdict = repeated(scene, place)
    return Verdict("refused", message[:300]) if first.code and verdict.outcome == "survived" else verdict


def full_cache(workshop: Workshop, number: int) -> Verdict:
    """Compiled loops that cannot be kept: what they compute is the same."""

    def spikes(folder: Path) -> str:
        os.chdir(folder)
        return compiled()

    def story() -> str:
        place = scratch / "place" / "cache"
        place.mkdir(parents=True)
        leave(_size("cache", number), place, put_disk(place))
        return spikes(place.parent)

    expected = workshop.kept("spikes", lambda folder: in_fork(partial(spikes, folder), folder.with_name("said"))[1])
    with workshop.scratch() as scratch:
        ended, answer = in_fork(story, scratch / "said")
    return wrong_end(ended, 0) or Verdict("survived" if answer == expected else "different", str(answer))


def _size(name: str, number: int) -> int:
    """How much is left in that attempt: anything from nearly nothing to more than enough."""
    return round(LEAST * (MOST / LEAST) ** random.Random(f"{name} {number}").random())


def _with_size(verdict: Verdict, size: int) -> Verdict:
    return verdict._replace(detail=f"{size} bytes: {verdict.detail}")


def kinds() -> Iterator[Kind]:
    scenes: dict[str, Callable[[Workshop], Scene]] = {
        "train": partial(training, ()),
        "train --resume auto": resuming,
        "evaluate": partial(of_trained, "evaluate"),
        "report": partial(of_trained, "report"),
        "compare": comparing,
    }
    tries = {"compare": 10}
    for name, make in scenes.items():
        yield Kind(
            f"disk full: {name}",
            tries.get(name, 20),
            int(name != "compare"),
            partial(full, make, name),
            disks_are_possible,
        )
    yield Kind("disk full: cache of compiled loops", 20, 1, full_cache, disks_are_possible)
    for name, make in scenes.items():
        yield Kind(
            f"files too large: {name}",
            tries.get(name, 20),
            int(name != "compare"),
            partial(limited, make, name),
        )
