"""Whether this code computes what an earlier commit did, to the bit, and as fast.

Both sides run in processes of their own, by `against_child.py`, which uses nothing but the public interface.
"""

import json
import math
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[1]
CHILD = Path(__file__).with_name("against_child.py")
RECIPES = ("sce", "tet", "tks", "twsd", "twkd", "tser-unofficial", "s2w", "esd")
TAUGHT = {"twkd", "tser-unofficial"}  # which learn from an ANN, trained for twenty steps too
RULES: dict[str, dict[str, Any]] = {
    "bptt": {"gradient": "bptt"},
    "bptt, checkpoint": {"gradient": "bptt", "checkpoint": True},
    "sltt": {"gradient": "sltt"},
    "rate": {"gradient": "rate"},
    "rate, 2 segments": {"gradient": "rate", "segments": 2},
    "rate, chunks of 2": {"gradient": "rate", "chunk": 2},
    "dsr": {"gradient": "dsr"},
}


class Side:
    """A process that answers one line of JSON with another, under the code in a folder.

    Args:
        source: the folder that holds the package.
    """

    def __init__(self, source: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(source)}
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        found = Path(self.ask("where")["file"])
        if not found.is_relative_to(source):
            raise ValueError(f"spikedistill was imported from {found}, expected a file in {source}")

    def ask(self, what: str, **options: Any) -> Any:
        """The answer to a question; `against_child.py` says which there are."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"ask": what, **options}) + "\n")
        self.process.stdin.flush()
        if not (line := self.process.stdout.readline()):
            raise ValueError(f"the process that was asked for {what} ended, exit code {self.process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def source_of(commit: str) -> Iterator[Path]:
    """The folder `src` of a commit.

    Raises:
        ValueError: where git knows no such commit.
    """
    archive = subprocess.run(["git", "archive", commit, "src"], cwd=ROOT, capture_output=True)
    if archive.returncode:
        raise ValueError(f"git finds no commit {commit!r}: {archive.stderr.decode().strip()}")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=BytesIO(archive.stdout)) as tar:
            tar.extractall(folder, filter="data")
        yield Path(folder).resolve() / "src"


def compare_losses(commit: str, recipes: Sequence[str] = RECIPES) -> dict[str, tuple[Any, Any]]:
    """What twenty steps leave, there and here, of every recipe under every gradient rule: losses, weights, or a refusal."""
    found = {}
    with source_of(commit) as source, Side(source) as there, Side(ROOT / "src") as here:
        for name, (rule, options) in product(recipes, RULES.items()):
            asked = {"recipe_name": f"digits-{name}", "options": options, "taught": name in TAUGHT}
            found[f"{name}, {rule}"] = there.ask("losses", **asked), here.ask("losses", **asked)
    return found


def compare_steps(
    commit: str, rounds: int, rules: Sequence[str] = ("bptt", "rate"), **network: Any
) -> dict[str, tuple[float, float, float]]:
    """The seconds of a training step here over those of the commit: the mean of paired ratios and its 95 percent interval.

    The two sides take turns, in random order, and each waits while the other one computes.
    """
    found, order = {}, random.Random(0)
    with source_of(commit) as source, Side(source) as there, Side(ROOT / "src") as here:
        for rule in rules:
            for side in (there, here):
                side.ask("prepare", options=RULES[rule], **network)
            ratios = []
            for _ in range(rounds):
                seconds = {}
                for side in order.sample((there, here), 2):
                    seconds[side] = side.ask("step")["seconds"]
                ratios.append(math.log(seconds[here] / seconds[there]))
            found[rule] = mean_ratio(ratios)
    return found


def compare_imports(commit: str, rounds: int) -> tuple[float, float, float]:
    """The seconds of `python -c "import spikedistill"` here over those of the commit, as `compare_steps` has them."""
    order, ratios = random.Random(0), []
    with source_of(commit) as there:
        here = ROOT / "src"
        for source in (there, here):  # writes the files of bytecode
            _import_seconds(source)
        for _ in range(rounds):
            seconds = {source: _import_seconds(source) for source in order.sample((there, here), 2)}
            ratios.append(math.log(seconds[here] / seconds[there]))
    return mean_ratio(ratios)


def _import_seconds(source: Path) -> float:
    command = [sys.executable, "-c", "import spikedistill"]
    begin = time.perf_counter()
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(source)})
    return time.perf_counter() - begin


def mean_ratio(logarithms: Sequence[float]) -> tuple[float, float, float]:
    """The mean of ratios and its 95 percent interval, from their logarithms."""
    from scipy.stats import t

    mean, count = statistics.mean(logarithms), len(logarithms)
    half = t.ppf(0.975, count - 1) * statistics.stdev(logarithms) / math.sqrt(count)
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)
