"""Processes that are killed, or asked to stop, at random moments; the same command again leads to the same bytes."""

import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from .attempts import Kind, Verdict
from .processes import Ended, Running, begin, command
from .scenes import Scene, comparing, has_checkpoint, of_trained, overwriting, repeated, training, verifying
from .workshop import HOLDOUT, Workshop, wrong_end

MARGIN = 3.0  # seconds beyond the grace that a machine with other work may take
UNHEARD = 0.5  # seconds after which an end of its own is no answer to a signal


def struck(
    scene: Scene, folder: Path, draw: random.Random, strike: Callable[[Running], None], *, listening: bool = False
) -> tuple[Ended, float]:
    """How a process ended that met `strike` at a random moment, and the seconds from then on; it is begun anew where it was faster.

    Args:
        scene: what is run. The clock starts with the process, or as the scene's file appears.
        folder: where, emptied at first.
        draw: the moment.
        strike: what happens then.
        listening: the clock starts not before the process has set handlers for signals.

    Raises:
        WentWrong: something is wrong right after it.
    """
    while (found := _struck_once(scene, folder, draw, strike, listening)) is None:
        pass
    return found


def _struck_once(
    scene: Scene, folder: Path, draw: random.Random, strike: Callable[[Running], None], listening: bool
) -> tuple[Ended, float] | None:
    """As `struck`; None where the process was faster."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    scene.prepare(folder)
    process = begin(command(scene.arguments(folder)), folder / "said")
    _wait(process, lambda: not listening or process.listens())
    _wait(process, lambda: scene.begins is None or (folder / scene.begins).is_file())
    moment = time.monotonic() + draw.uniform(0, scene.seconds)
    _wait(process, lambda: time.monotonic() > moment)
    if process.has_ended():
        process.wait()
        return None
    had = has_checkpoint(folder)
    begun = time.monotonic()
    strike(process)
    ended = process.wait()
    seconds = ended.at - begun
    if ended.code == 0:
        if listening and seconds > UNHEARD:
            raise WentWrong(Verdict("hang", f"went on to its end, {seconds:.1f} s, as if nothing had been asked"))
        return None
    if wrong := scene.check(folder, had):
        raise WentWrong(wrong)
    return ended, seconds


def _wait(process: Running, condition: Callable[[], bool]) -> None:
    """Until something is so, or the process has ended."""
    while not process.has_ended() and not condition():
        time.sleep(0.001)


class WentWrong(Exception):
    """Something was wrong right after the trouble.

    Args:
        verdict: what.
    """

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict)
        self.verdict = verdict


def killed(make: Callable[[Workshop], Scene], name: str, workshop: Workshop, number: int) -> Verdict:
    """Kill a process and all that it began; or, of a comparison, every other time the process alone."""
    draw, scene = random.Random(f"{name} {number}"), make(workshop)
    alone = scene.grace > 10 and number % 2 == 1

    def strike(process: Running) -> None:
        process.kill(all_of_them=not alone)
        deadline = time.monotonic() + scene.grace + MARGIN
        while alone and not process.session_has_ended():
            if time.monotonic() > deadline:
                process.end_session()
                raise WentWrong(Verdict("hang", "its runs go on"))
            time.sleep(0.01)

    with workshop.scratch() as scratch:
        try:
            struck(scene, scratch / "place", draw, strike)
        except WentWrong as error:
            return error.verdict
        return repeated(scene, scratch / "place")


def stopped(make: Callable[[Workshop], Scene], name: str, workshop: Workshop, number: int) -> Verdict:
    """Ask a process to stop: by SIGTERM, or by SIGINT to all that it began, as a terminal does."""
    draw, scene = random.Random(f"{name} {number}"), make(workshop)
    interrupt = number % 2 == 1

    def strike(process: Running) -> None:
        process.kill(signal.SIGINT if interrupt else signal.SIGTERM, all_of_them=interrupt)

    with workshop.scratch() as scratch:
        try:
            ended, seconds = struck(scene, scratch / "place", draw, strike, listening=True)
        except WentWrong as error:
            return error.verdict
        if wrong := wrong_end(ended, 1):
            return wrong
        if "stopped" not in ended.errors:
            return Verdict("traceback", f"no message: {ended.errors}")
        if seconds > scene.grace + MARGIN:
            return Verdict("hang", f"stopped after {seconds:.1f} s")
        return repeated(scene, scratch / "place")


def kinds() -> Iterator[Kind]:
    plain, ema, accumulation = (), ("--trainer.ema", "0.9"), ("--trainer.accumulate", "2")
    # in the short form none of those that tests of training and comparing kill
    scenes: dict[str, tuple[Callable[[Workshop], Scene], int, int, int, int]] = {
        "train": (partial(training, plain), 40, 0, 8, 1),
        "train with averaged weights": (partial(training, ema), 20, 0, 4, 0),
        "train with a hold-out": (partial(training, HOLDOUT), 20, 0, 4, 0),
        "train with accumulation": (partial(training, accumulation), 20, 0, 4, 0),
        "train, while it evaluates and reports": (partial(training, plain, after=True), 20, 0, 4, 1),
        "train --overwrite over a run": (overwriting, 20, 1, 0, 0),
        "compare": (comparing, 20, 0, 8, 0),
        "evaluate": (partial(of_trained, "evaluate"), 16, 1, 4, 1),
        "report": (partial(of_trained, "report"), 14, 1, 2, 0),
        "data --verify": (verifying, 10, 1, 4, 1),
    }
    for name, (make, kills, short, _, _) in scenes.items():
        yield Kind(f"killed: {name}", kills, short, partial(killed, make, name))
    for name, (make, _, _, stops, short) in scenes.items():
        if stops:
            yield Kind(f"stopped: {name}", stops, short, partial(stopped, make, name))
