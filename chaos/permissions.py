"""Permissions that are missing: a message or work without, nothing lost, and with them back the same outcome."""

import ctypes
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from .attempts import Kind, Verdict
from .disk import twice
from .files_of_runs import compiled
from .processes import in_fork
from .scenes import Scene, comparing, of_trained, overwriting, resuming, training, verifying
from .workshop import Workshop, wrong_end

_OVERRIDE = (1, 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, with which root may do anything
_VERSION, _DROP = 0x20080522, 24  # of capset(2) and prctl(2)


def without_privileges() -> None:
    """Let permissions hold for this process and those it begins, root's too."""
    if os.geteuid():
        return
    system = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    system.capget(header, sets)
    for capability in _OVERRIDE:
        system.prctl(_DROP, capability, 0, 0, 0)  # of programs that it executes
        for place in range(3):  # effective, permitted, inheritable
            sets[place] &= ~(1 << capability)
    if system.capset(header, sets):
        raise PermissionError(os.strerror(ctypes.get_errno()))


class Case(NamedTuple):
    """A path of a scene's folder that gets a mode for the time of a command; "." is the folder itself."""

    scene: Callable[[Workshop], Scene]
    path: str
    mode: int


_EVALUATE, _REPORT = (partial(of_trained, name) for name in ("evaluate", "report"))
CASES = (
    Case(partial(training, ()), ".", 0o555),
    *(Case(resuming, "run", mode) for mode in (0o555, 0o000)),
    *(Case(resuming, "run/checkpoints", mode) for mode in (0o555, 0o000)),
    *(Case(resuming, f"run/checkpoints/{name}.ckpt", 0o000) for name in ("last", "previous")),
    *(Case(resuming, f"run/{name}", 0o000) for name in ("config.yaml", "manifest.json")),
    *(Case(overwriting, path, 0o555) for path in ("run", "run/checkpoints")),
    *(Case(overwriting, path, 0o000) for path in ("run", "run/checkpoints", "run/manifest.json", "run/kept")),
    *(Case(_EVALUATE, "run", mode) for mode in (0o555, 0o000)),
    *(Case(_EVALUATE, f"run/{name}", 0o000) for name in ("config.yaml", "manifest.json", "model.safetensors")),
    *(Case(_EVALUATE, f"run/{name}", 0o000) for name in ("selected.safetensors", "cost.json", "metrics.csv")),
    *(Case(_EVALUATE, f"run/{name}", 0o444) for name in ("results.json", ".lock")),
    *(Case(_REPORT, f"run/{name}", 0o000) for name in ("results.json", "logits.safetensors", "report.html")),
    Case(_REPORT, "run", 0o555),
    Case(verifying, "data", 0o000),
    Case(verifying, "data/train/cat", 0o000),
    Case(verifying, "data/train/cat/007.png", 0o000),
    Case(comparing, ".", 0o555),
)


def attempt(workshop: Workshop, number: int) -> Verdict:
    """A command that lacks a permission, and again with it."""
    case = CASES[number * 7 % len(CASES)]  # the first ones are of every command
    scene = case.scene(workshop)
    with workshop.scratch() as scratch:
        place = scratch / "place"
        place.mkdir()
        scene.prepare(place)
        path = place / case.path
        before = path.stat().st_mode
        path.chmod(case.mode)
        try:
            verdict = twice(scene, place, without_privileges, lambda: path.chmod(before))
        finally:
            path.chmod(before)  # so that it can be deleted
        return verdict._replace(detail=f"{case.path} {case.mode:03o}: {verdict.detail}")


def cache(workshop: Workshop, number: int) -> Verdict:
    """A cache of compiled loops that cannot be written, read or made: what they compute is the same."""
    mode, name = ((0o555, "cache"), (0o000, "cache"), (0o555, "cache/spikedistill"), (0o555, "."))[number]

    def spikes(folder: Path) -> str:
        os.chdir(folder)
        without_privileges()
        return compiled()

    expected = workshop.kept("spikes", lambda folder: in_fork(partial(spikes, folder), folder.with_name("said"))[1])
    with workshop.scratch() as scratch:
        place = scratch / "place"
        (place / name).mkdir(parents=True)
        (place / name).chmod(mode)
        ended, answer = in_fork(partial(spikes, place), scratch / "said")
        (place / name).chmod(0o755)
    return wrong_end(ended, 0) or Verdict("survived" if answer == expected else "different", str(answer))


def kinds() -> Iterator[Kind]:
    yield Kind("permissions removed: folders and files", len(CASES), 6, attempt)
    yield Kind("permissions removed: cache of compiled loops", 4, 4, cache)
