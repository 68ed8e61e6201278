"""Processes that are killed, or asked to stop, at random moments; the same command again leads to the same bytes."""

import contextlib
import json
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .attempts import Kind, Verdict
from .data_files import image_folder
from .processes import Ended, Running, begin, command, run
from .workshop import HOLDOUT, SMALL, Whole, Workshop, compared, done, files_below, outcome, train, wrong_end

MARGIN = 3.0  # seconds beyond the grace that a machine with other work may take
NOTES = "what somebody wrote down"


@dataclass(frozen=True)
class Scene:
    """A command, what is there before it, and what it leads to.

    Attributes:
        arguments: of the command, given its folder.
        prepare: fills the folder.
        expected: the outcome without trouble.
        found: the outcome in a folder.
        seconds: how long it takes.
        begins: the file with which the time begins in which it is killed; None for the start of the process.
        check: what is wrong with the folder right after it was killed, if anything.
        grace: seconds that it may take to stop.
    """

    arguments: Callable[[Path], list[str | Path]]
    prepare: Callable[[Path], object]
    expected: dict[str, str]
    found: Callable[[Path], dict[str, str]]
    seconds: float
    begins: str | None = None
    check: Callable[[Path, bool], Verdict | None] = lambda folder, had: None
    grace: float = 10.0


def training(options: tuple[str, ...], workshop: Workshop, *, after: bool = False) -> Scene:
    whole = workshop.whole(*options)
    return Scene(
        lambda folder: train(folder / "run", *options),
        lambda folder: None,
        dict(whole.outcome),
        lambda folder: outcome(folder / "run"),
        whole.after_training if after else whole.seconds,
        "run/model.safetensors" if after else None,
        checkpoint_is_left,
    )


def overwriting(workshop: Workshop) -> Scene:
    """A run that begins anew in the folder of another one, in which somebody keeps notes and a run of another name."""
    whole, other = workshop.whole(), workshop.whole(*HOLDOUT)

    def prepare(folder: Path) -> None:
        shutil.copytree(other.folder, folder / "run")
        shutil.copytree(other.folder, folder / "run" / "kept")
        (folder / "run" / "notes.md").write_text(NOTES)

    def notes_are_left(folder: Path, had: bool) -> Verdict | None:
        left = folder / "run"
        kept = (left / "notes.md").is_file() and files_below(left / "kept") == files_below(other.folder)
        return None if kept else Verdict("lost", "files that no run had written")

    return Scene(
        lambda folder: train(folder / "run", "--overwrite"),
        prepare,
        dict(whole.outcome),
        lambda folder: outcome(folder / "run"),
        whole.seconds,
        check=notes_are_left,
    )


def checkpoint_is_left(folder: Path, had: bool) -> Verdict | None:
    """Where there was a checkpoint, one can be read."""
    from spikedistill.training.checkpoints import read_checkpoint

    checkpoints = folder / "run" / "checkpoints"
    for name in ("last.ckpt", "previous.ckpt"):
        with contextlib.suppress(ValueError, FileNotFoundError):
            read_checkpoint(checkpoints / name)
            return None
    return Verdict("lost", "no checkpoint can be read") if had else None


def of_trained(name: str, workshop: Workshop) -> Scene:
    """`evaluate` or `report` of a finished run."""
    whole = workshop.whole(*HOLDOUT)
    trained = ("config.yaml", "metrics.csv", "model.safetensors", "selected.safetensors", "cost.json")

    def seconds(folder: Path) -> float:
        shutil.copytree(whole.folder, folder / "run")
        begun = time.monotonic()
        done(run([name, folder / "run"], folder / "said"))
        return time.monotonic() - begun

    def rest_is_left(folder: Path, had: bool) -> Verdict | None:
        for file in trained:
            if (folder / "run" / file).read_bytes() != (whole.folder / file).read_bytes():
                return Verdict("lost", file)
        return _reads_right_or_refuses(folder / "run", whole)

    return Scene(
        lambda folder: [name, folder / "run"],
        lambda folder: shutil.copytree(whole.folder, folder / "run"),
        dict(whole.outcome),
        lambda folder: outcome(folder / "run"),
        workshop.kept(f"seconds of {name}", seconds),
        check=rest_is_left,
    )


def _reads_right_or_refuses(run: Path, whole: Whole) -> Verdict | None:
    from spikedistill.run_folder import RunFolder

    folder = RunFolder(run)
    try:
        results = folder.read_results()
        folder.read_tensors(folder.logits)
    except ValueError:
        return None
    same = json.dumps(results) == json.dumps(RunFolder(whole.folder).read_results())
    return None if same else Verdict("different", "results between a kill and the repetition")


def comparing(workshop: Workshop) -> Scene:
    def arguments(folder: Path) -> list[str | Path]:
        recipes = ("--recipes", "digits-sce", "digits-twsd", "--seeds", "0")
        return ["compare", *recipes, *SMALL, "--out", folder / "comparison"]

    def make(folder: Path) -> tuple[float, dict[str, str]]:
        begun = time.monotonic()
        done(run(arguments(folder), folder / "said"))
        return time.monotonic() - begun, outcome_of_comparison(folder)

    seconds, expected = workshop.kept("comparison", make)
    return Scene(arguments, lambda folder: None, expected, outcome_of_comparison, seconds, grace=15.0)


def outcome_of_comparison(folder: Path) -> dict[str, str]:
    """Of the runs, and of what is kept of them."""
    comparison = folder / "comparison"
    found: dict[str, str] = {}
    for run_ in sorted(comparison.glob("*/seed0")):
        found |= {f"{run_.parent.name} {name}": value for name, value in outcome(run_).items()}
    for line in (comparison / "records.jsonl").read_text().splitlines():
        row = json.loads(line)
        found[f"record of {row['run']}"] = json.dumps([row["results"], row["metrics"], row["right"]])
    page = (comparison / "report.html").read_text().rstrip()
    return found | {"report.html": "whole" if page.endswith("</html>") else "cut"}


def verifying(workshop: Workshop) -> Scene:
    """`data image_folder --verify`, which changes nothing."""

    def make(folder: Path) -> tuple[float, dict[str, str]]:
        image_folder(folder / "data", 150)
        begun = time.monotonic()
        done(run(["data", "image_folder", "--verify", "--data.root", folder / "data"], folder / "said"))
        return time.monotonic() - begun, files_below(folder / "data")

    seconds, expected = workshop.kept("images", make)
    root = workshop.folder / "kept" / "images" / "data"
    return Scene(
        lambda folder: ["data", "image_folder", "--verify", "--data.root", root],
        lambda folder: None,
        expected,
        lambda folder: files_below(root),
        seconds,
    )


def struck(scene: Scene, folder: Path, draw: random.Random, strike: Callable[[Running], None]) -> tuple[Ended, float]:
    """How a process ended that met `strike` at a random moment, and the seconds from then on; it is begun anew where it was faster.

    The clock starts with the process, or as the scene's file appears.
    """
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        scene.prepare(folder)
        process = begin(command(scene.arguments(folder)), folder / "said")
        start = process.begun
        if scene.begins is not None:
            while not (folder / scene.begins).is_file() and not process.has_ended():
                time.sleep(0.001)
            start = time.monotonic()
        moment = start + draw.uniform(0, scene.seconds)
        while time.monotonic() < moment and not process.has_ended():
            time.sleep(0.001)
        if process.has_ended():
            process.wait()
            continue
        had = any((folder / "run" / "checkpoints").glob("*.ckpt"))
        struck_at = time.monotonic()
        strike(process)
        ended = process.wait()
        if ended.code == 0:
            continue
        seconds = time.monotonic() - struck_at
        if wrong := scene.check(folder, had):
            raise WentWrong(wrong)
        return ended, seconds


class WentWrong(Exception):
    """Something was wrong right after the trouble.

    Args:
        verdict: what.
    """

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict)
        self.verdict = verdict


def repeated(scene: Scene, folder: Path) -> Verdict:
    """What the same command comes to."""
    ended = run(scene.arguments(folder), folder / "said")
    if wrong := wrong_end(ended, 0):
        return wrong
    try:
        return compared(scene.found(folder), scene.expected)
    except (ValueError, OSError) as error:
        return Verdict("lost", str(error))


def killed(make: Callable[[Workshop], Scene], name: str, workshop: Workshop, number: int) -> Verdict:
    """Kill a process and all that it began; or, of a comparison, every other time the process alone."""
    draw, scene = random.Random(f"{name} {number}"), make(workshop)
    alone = scene.grace > 10 and number % 2 == 1

    def strike(process: Running) -> None:
        process.kill(all_of_them=not alone)
        while alone and not process.session_has_ended():
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
            ended, seconds = struck(scene, scratch / "place", draw, strike)
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
    scenes: dict[str, tuple[Callable[[Workshop], Scene], int, int, int, int]] = {
        "train": (partial(training, plain), 40, 2, 8, 1),
        "train with averaged weights": (partial(training, ema), 20, 1, 4, 0),
        "train with a hold-out": (partial(training, HOLDOUT), 20, 1, 4, 0),
        "train with accumulation": (partial(training, accumulation), 20, 1, 4, 0),
        "train, while it evaluates and reports": (partial(training, plain, after=True), 20, 1, 4, 1),
        "train --overwrite over a run": (overwriting, 20, 1, 0, 0),
        "compare": (comparing, 20, 1, 8, 1),
        "evaluate": (partial(of_trained, "evaluate"), 16, 1, 4, 1),
        "report": (partial(of_trained, "report"), 14, 1, 2, 0),
        "data --verify": (verifying, 10, 1, 4, 1),
    }
    for name, (make, kills, short, _, _) in scenes.items():
        yield Kind("killed (SIGKILL)", f"killed: {name}", kills, short, partial(killed, make, name))
    for name, (make, _, _, stops, short) in scenes.items():
        if stops:
            yield Kind("stopped (SIGTERM, SIGINT)", f"stopped: {name}", stops, short, partial(stopped, make, name))
