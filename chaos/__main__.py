"""The command line: `python -m chaos --out runs/chaos`, from the root of the repository."""

import os

# before anything is imported that reads them: every process here computes on one core
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONWARNINGS="ignore")

import argparse
import gc
import importlib
import sys
import time
import traceback
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

from .attempts import WRONG, Attempt, Kind, Tried, Verdict, code_version
from .table import print_table, to_markdown
from .workshop import Workshop

# What commands import as they go, so that forks have it.
_IMPORTED = (
    *("lightning", "sklearn.datasets", "plotly.graph_objects", "plotly.io", "plotly.offline", "jinja2", "tyro"),
    *("rich.console", "rich.table", "rich.progress", "PIL.Image", "PIL.ImageOps", "matplotlib.figure"),
    *("matplotlib.backends.backend_svg", "matplotlib.backends.backend_pdf"),
    *("spikedistill.cli", "spikedistill.training.callbacks", "spikedistill.training.checkpoints"),
    *("spikedistill.training.module", "spikedistill.report.terminal", "spikedistill.recipes.settings"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try what is not tried yet, print the table, and return 1 where anything was wrong or time was up, else 0."""
    parser = argparse.ArgumentParser("python -m chaos", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/chaos"), help="folder, with which a later call goes on")
    parser.add_argument("--minutes", type=float, default=60, help="begin no further attempt after so many")
    parser.add_argument("--jobs", type=int, default=2, help="attempts at a time, one core each")
    parser.add_argument("--short", action="store_true", help="a few attempts of each kind")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="kinds with one of these in their name")
    parser.add_argument(
        "--markdown", action="store_true", help="print the table for docs/reliability.md, and try nothing"
    )
    options = parser.parse_args(arguments)

    from .kinds import all_kinds

    version = code_version()
    tried = Tried(options.out / "tried.jsonl", version)
    named = [kind for kind in all_kinds() if not options.only or any(word in kind.name for word in options.only)]
    kinds = [kind for kind in named if kind.possible()]
    if options.markdown:
        print(to_markdown(kinds, tried.read()))
        return 0
    begun = time.monotonic()
    left = try_all(kinds, tried, Workshop(options.out / version), options)
    found = tried.read()
    print_table(kinds, found)
    wrong = [attempt for attempt in found.values() if attempt.verdict.outcome in WRONG]
    for attempt in wrong:
        print(
            f"{attempt.kind}, {attempt.number}: {attempt.verdict.outcome}: {attempt.verdict.detail}\n", file=sys.stderr
        )
    print(f"{len(found)} attempts, {len(wrong)} wrong, in {(time.monotonic() - begun) / 60:.1f} minutes")
    if left:
        print(f"{left} attempts are left: the same command goes on")
    return int(bool(wrong or left))


def try_all(kinds: Sequence[Kind], tried: Tried, workshop: Workshop, options: argparse.Namespace) -> int:
    """Make the attempts that are not made yet, several at a time; how many are left when the time is up."""
    known = tried.read()
    todo = [
        (kind, number)
        for kind in kinds
        for number in range(kind.short if options.short else kind.tries)
        if (kind.name, number) not in known
    ]
    if not todo:
        return 0
    import torch

    torch.set_num_threads(1)
    for name in _IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that forks do not copy what they never collect
    deadline = time.monotonic() + 60 * options.minutes
    processes = get_context("fork")
    place = processes.Value("l", 0)

    def work() -> None:
        while time.monotonic() < deadline:
            with place.get_lock():
                taken = place.value
                place.value += 1
            if taken >= len(todo):
                return
            kind, number = todo[taken]
            begun = time.monotonic()
            verdict = attempt(kind, number, workshop)
            tried.add(Attempt(kind.name, number, verdict), time.monotonic() - begun)

    workers = [processes.Process(target=work) for _ in range(options.jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    gc.unfreeze()
    return len([1 for kind, number in todo if (kind.name, number) not in tried.read()])


def attempt(kind: Kind, number: int, workshop: Workshop) -> Verdict:
    """One attempt; an error of this package's own is no verdict on the library, and is shown as wrong all the same."""
    try:
        return kind.attempt(workshop, number)
    except Exception:
        return Verdict("traceback", f"in the attempt itself: {traceback.format_exc()[-800:]}")


if __name__ == "__main__":
    sys.exit(main())
