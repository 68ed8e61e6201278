"""Is it the authors'? TWKD trained by its authors' code and by ours: both pipelines whole, the same images and the same teacher.

Runs of the two share no random number, so seeds are not paired; test images are.

The authors' code is not part of this repository: `--reference` names a copy of it. Their training step, their data sets with their
augmentation, their network, their groups of parameters and their learning rates run as they stand, in `authors_child`; only the
channels of the network are divided by four in both. Ours is `spikedistill train cifar10-twkd --protocol twkd`.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from spikedistill.comparisons.side_by_side import without_progress
from spikedistill.config import Config
from spikedistill.evaluation.comparison.record_format import Answers
from spikedistill.evaluation.comparison.records import RunRecord
from spikedistill.recipes import recipe
from spikedistill.recipes.settings import parse_config
from spikedistill.training import train

from .detectable import unpaired
from .plans import TEACHER_SEED, step_seconds
from .study_file import StudyFile

WIDTH = 0.25
Right = npt.NDArray[np.bool_]


class Plan(NamedTuple):
    """What is trained.

    Attributes:
        reference: a copy of the authors' code.
        libraries: a folder that torchvision and spikingjelly 0.0.0.0.14 were installed into, apart from everything else.
        root: of the data sets.
        out: folder of the runs.
        seeds: of both.
        samples: images of training, whole batches: in a last batch of a few images the authors' code takes a step as large as in
            others.
        epochs: of training.
        timesteps: T.
    """

    reference: Path
    libraries: Path
    root: Path
    out: Path
    seeds: tuple[int, ...]
    samples: int
    epochs: int
    timesteps: int

    def config(self, method: str, folder: Path, seed: int) -> Config:
        """Ours, under the protocol."""
        words = [
            *("--data.root", str(self.root.resolve()), "--data.train-samples", str(self.samples)),
            *("--epochs", str(self.epochs), "--model.width", str(WIDTH), "--seed", str(seed), "--out", str(folder)),
            *("--resume", "auto"),
        ]
        if method == "ann":
            words += ["--model.name", "resnet18"]  # a teacher of the student's layout and width
        else:
            words += ["--timesteps", str(self.timesteps)]
        if method == "twkd":
            words += ["--teacher", str(self.teacher)]
        return without_progress(parse_config(recipe(f"cifar10-{method}", protocol="twkd"), words))

    @property
    def teacher(self) -> Path:
        return self.out / "teacher"

    def theirs(self, seed: int) -> Path:
        return self.out / "authors" / f"seed{seed}.npz"

    def settings(self) -> dict[str, Any]:
        """All that an outcome depends on but the seed, as numbers and texts."""
        named = {name: getattr(self, name) for name in ("samples", "epochs", "timesteps")}
        return named | {"width": WIDTH, "reference": _digest(self.reference), "libraries": _versions(self.libraries)}

    def ours(self, seed: int) -> Path:
        return self.out / "ours" / f"seed{seed}"


def budget(plan: Plan) -> str:
    """About how many hours of one core the whole will take, by the time of our training steps here; theirs took twice as long."""
    student, teacher = (step_seconds(plan.config(method, plan.out / "unused", 0), steps=3) for method in ("sce", "ann"))
    each = 3.2 * len(plan.seeds) * student + 1.1 * teacher
    return f"about {plan.epochs * plan.samples * each / 3600:.1f} CPU hours"


def _digest(reference: Path) -> str:
    """Of the Python files of the authors' code."""
    found = hashlib.sha256()
    for path in sorted(reference.rglob("*.py")):
        found.update(path.relative_to(reference).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def _versions(libraries: Path) -> list[str]:
    """Names and versions of what was installed there."""
    return sorted(path.name.removesuffix(".dist-info") for path in libraries.glob("*.dist-info"))


def train_teacher(plan: Plan) -> None:
    """The ANN that teaches both, unless it is there."""
    train(plan.config("ann", plan.teacher, TEACHER_SEED))


def run_one(plan: Plan, who: str, seed: int) -> Right:
    """Train one network, unless it is there, and say which test images are right after each k, `[T, N]`."""
    if who == "ours":
        train(plan.config("twkd", plan.ours(seed), seed))
        return RunRecord.of(plan.ours(seed)).right[: plan.timesteps]
    file, about = plan.theirs(seed), json.dumps(plan.settings())
    if not file.is_file() or str(np.load(file)["about"]) != about:
        file.parent.mkdir(parents=True, exist_ok=True)
        numbers = {"samples": plan.samples, "epochs": plan.epochs, "timesteps": plan.timesteps, "seed": seed}
        paths = {name: getattr(plan, name) for name in ("reference", "libraries", "root", "teacher")} | {"out": file}
        child = numbers | {"about": about} | {name: str(path.resolve()) for name, path in paths.items()}
        subprocess.run([sys.executable, "-m", "benchmarks.authors_child", json.dumps(child)], check=True)
    right: Right = np.load(file)["right"]
    return right


def study(plan: Plan, file: Path, command: str) -> list[dict[str, Any]]:
    """Train all, seed by seed, and add what came of each run to a file; goes on where it was stopped.

    Returns:
        `{who, seed, right}` for each run, with its packed answers.

    Raises:
        ValueError: if the file holds a study with another plan, or the images are no whole batches.
    """
    batch = plan.config("sce", plan.out, 0).data.batch_size
    if plan.samples % batch:
        raise ValueError(
            f"got {plan.samples} samples, expected whole batches of {batch}, such as {plan.samples // batch * batch}"
        )
    found = StudyFile(file, {"seeds": plan.seeds, **plan.settings()}, command)
    done = {(run["who"], run["seed"]) for run in found.runs}
    for seed in plan.seeds:
        for who in ("authors", "ours"):
            if (who, seed) not in done:
                train_teacher(plan)
                right = Answers.packed(run_one(plan, who, seed)).model_dump()
                found.add({"who": who, "seed": seed, "right": right})
                print(f"{len(found.runs)} of {2 * len(plan.seeds)} runs", flush=True)
    return found.runs


def to_markdown(runs: list[dict[str, Any]]) -> str:
    """Accuracy of both at every k, and the difference with its interval and the smallest that would have been found."""
    ours, theirs = (
        np.stack([Answers(**run["right"]).unpacked() for run in runs if run["who"] == who]).astype(float)
        for who in ("ours", "authors")
    )
    lines = [
        "| k | authors' code | ours | difference [95 %] | found in four of five from | power for one point |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for k in range(ours.shape[1]):
        both = [100 * right[:, k].mean(-1) for right in (theirs, ours)]
        cells = [f"{each.mean():.2f} ± {each.std(ddof=1):.2f}" for each in both]
        found = unpaired(ours[:, k], theirs[:, k])
        low, high = found.interval
        cells.append(f"{100 * found.mean:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]")
        cells.append(f"{100 * found.detectable():.2f}")
        cells.append(f"{100 * found.power(0.01):.0f} %")
        lines.append(f"| {k + 1} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
