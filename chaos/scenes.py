"""Commands that meet trouble: what is there before them, and what they lead to without it."""

import contextlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .attempts import Verdict
from .files_of_data import make_images
from .files_of_runs import COMPARISON, make_stopped
from .processes import run
from .workshop import HOLDOUT, Whole, Workshop, compared, done, files_below, outcome, train, wrong_end

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


CHECKPOINTS = ("last.ckpt", "previous.ckpt")


def has_checkpoint(folder: Path) -> bool:
    return any((folder / "run" / "checkpoints" / name).is_file() for name in CHECKPOINTS)


def checkpoint_is_left(folder: Path, had: bool) -> Verdict | None:
    """Where there was a checkpoint, one can be read."""
    from spikedistill.training.checkpoints import read_checkpoint

    for name in CHECKPOINTS:
        with contextlib.suppress(ValueError, FileNotFoundError):
            read_checkpoint(folder / "run" / "checkpoints" / name)
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
    from spikedistill.evaluation.results import read_results
    from spikedistill.run_folder import RunFolder

    folder = RunFolder(run)
    try:
        results = read_results(folder)
        folder.read_tensors(folder.logits)
    except ValueError:
        return None
    same = results == read_results(RunFolder(whole.folder))
    return None if same else Verdict("different", "results between a kill and the repetition")


def comparing(workshop: Workshop) -> Scene:
    def arguments(folder: Path) -> list[str | Path]:
        return [*COMPARISON[:-1], folder / COMPARISON[-1]]

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
        make_images(folder / "data", 150)
        begun = time.monotonic()
        done(run(["data", "image_folder", "--verify", "--data.root", folder / "data"], folder / "said"))
        return time.monotonic() - begun, files_below(folder / "data")

    seconds, expected = workshop.kept("images", make)
    return Scene(
        lambda folder: ["data", "image_folder", "--verify", "--data.root", folder / "data"],
        lambda folder: shutil.copytree(workshop.folder / "kept" / "images" / "data", folder / "data"),
        expected,
        lambda folder: files_below(folder / "data"),
        seconds,
    )


def resuming(workshop: Workshop) -> Scene:
    """A run that goes on, a step before its end."""
    whole, stopped = workshop.whole(), workshop.sound(make_stopped)
    return Scene(
        lambda folder: train(folder / "run"),
        lambda folder: shutil.copytree(stopped / "run", folder / "run"),
        dict(whole.outcome),
        lambda folder: outcome(folder / "run"),
        whole.seconds,
        check=checkpoint_is_left,
    )


def repeated(scene: Scene, folder: Path) -> Verdict:
    """What the same command comes to."""
    ended = run(scene.arguments(folder), folder / "said")
    if wrong := wrong_end(ended, 0):
        return wrong
    try:
        return compared(scene.found(folder), scene.expected)
    except (ValueError, OSError) as error:
        return Verdict("lost", str(error))
