"""What is there before the trouble: commands of seconds, what they lead to without trouble, and folders to be spoilt."""

import contextlib
import fcntl
import hashlib
import json
import os
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .attempts import Verdict
from .processes import MOST_MIB, Ended, in_fork, run

# Two epochs of seven steps, so that two windows of accumulation do not fill an epoch; a checkpoint after each step.
SMALL = (
    *("--epochs", "2", "--timesteps", "2", "--model.width", "0.25"),
    *("--data.train-samples", "140", "--data.batch-size", "20"),
    *("--trainer.accelerator", "cpu", "--trainer.no-progress", "--trainer.checkpoint-seconds", "0"),
)
HOLDOUT = ("--data.holdout", "0.2")
RESULTS = ("model.safetensors", "selected.safetensors", "metrics.csv", "logits.safetensors", "samples.safetensors")


class Workshop:
    """A folder for all of it.

    Args:
        folder: for what is kept between attempts and calls, and for scratch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder that is gone afterwards."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="try-") as name:
            yield Path(name)

    def kept(self, name: str, make: Callable[[Path], Any]) -> Any:
        """What `make` returns and leaves in the folder that it gets, made once, whoever comes first."""
        folder = self.folder / "kept" / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        value = folder.with_name(f"{name}.pickle")
        with folder.with_name(f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not value.is_file():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                made = pickle.dumps(make(folder))
                partial = value.with_suffix(".partial")
                partial.write_bytes(made)
                os.replace(partial, value)
            return pickle.loads(value.read_bytes())

    def sound(self, make: Callable[[Path], object]) -> Path:
        """The folder that `make` fills, in a process of its own."""

        def fill(folder: Path) -> None:
            done(in_fork(lambda: make(folder) and None, folder.with_name(f"{folder.name} said"))[0])

        name = " ".join(("made by", name_of(make)))
        self.kept(name, fill)
        return self.folder / "kept" / name

    def whole(self, *options: str) -> "Whole":
        """The run `digits-twsd` with these options, uninterrupted."""
        name = "run " + (" ".join(options) or "plain").replace("/", "_")

        def make(folder: Path) -> Whole:
            begun = time.monotonic()
            done(run(train(folder / "run", *options), folder / "said"))
            seconds = time.monotonic() - begun
            model_at = time.time() - (folder / "run" / "model.safetensors").stat().st_mtime
            return Whole(folder / "run", seconds, max(0.05, min(seconds, model_at)), outcome(folder / "run"))

        return self.kept(name, make)


class Whole:
    """An uninterrupted run: where it is, the seconds that it took, those after training, and its outcome."""

    def __init__(self, folder: Path, seconds: float, after_training: float, outcome: Mapping[str, str]) -> None:
        self.folder = folder
        self.seconds = seconds
        self.after_training = after_training
        self.outcome = outcome


def train(out: Path, *options: str) -> list[str | Path]:
    """A training command that goes on where it was stopped."""
    again = () if "--overwrite" in options else ("--resume", "auto")
    return ["train", "digits-twsd", *SMALL, *options, *again, "--out", out]


def done(ended: Ended) -> Ended:
    """What has to succeed, without any trouble.

    Raises:
        RuntimeError: where it did not.
    """
    if ended.code != 0:
        raise RuntimeError(f"exit code {ended.code} without any trouble: {ended.errors[-2000:]}")
    return ended


def outcome(run: Path) -> dict[str, str]:
    """Digests of what a run has found out; costs are measurements, and of the page it counts that it is whole.

    Raises:
        ValueError: where the manifest does not fit the files.
    """
    from spikedistill.run_folder import RunFolder

    folder = RunFolder(run)
    manifest = folder.manifest()
    if manifest is None or not folder.is_complete:
        raise ValueError(f"{run} is not complete: {manifest}")
    for name in manifest.files:
        folder.read(run / name)
    found = {name: digest((run / name).read_bytes()) for name in RESULTS if (run / name).is_file()}
    results = json.loads(folder.read(folder.results))
    results.pop("cost")
    found["results.json"] = digest(json.dumps(results, sort_keys=True).encode())
    found["report.html"] = "whole" if folder.report.read_text().rstrip().endswith("</html>") else "cut"
    return found


def name_of(function: Callable[..., object]) -> str:
    """What tells a function, with what it is given in advance, from others."""
    if isinstance(function, partial):
        given = (*function.args, *function.keywords.values())
        return " ".join((name_of(function.func), *(str(value).replace("/", "_") for value in given)))
    return function.__name__


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def files_below(folder: Path) -> dict[str, str]:
    """Digests of all files below a folder, locks left out."""
    return {
        str(path.relative_to(folder)): digest(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def wrong_end(ended: Ended, *expected: int) -> Verdict | None:
    """What is wrong with how a process ended, if anything."""
    tail = ended.errors.strip()[-1500:]
    if ended.code is None:
        return Verdict("hang", tail)
    if ended.code < 0:
        return Verdict("crash", f"signal {-ended.code}: {tail}")
    if ended.mib > MOST_MIB:
        return Verdict("crash", f"took {ended.mib} MiB: {tail}")
    if "Traceback" in ended.errors or ended.code not in expected:
        return Verdict("traceback", f"exit code {ended.code}: {tail}")
    return None


def compared(found: Mapping[str, str], expected: Mapping[str, str]) -> Verdict:
    """Whether an outcome is the one without trouble."""
    names = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    return Verdict("different", f"in {', '.join(names)}") if names else Verdict("survived")
