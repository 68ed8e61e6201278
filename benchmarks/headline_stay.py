"""What leaves a machine that is lent for a short stay: few, small files, the most important first."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from spikedistill.evaluation.comparison.records import RECORDS, Records
from spikedistill.files import write_atomically
from spikedistill.run_folder import RunFolder

from .headline_runs import Run, teacher_file
from .shards import MIB, Whole, write_shards

# What tells everything about finished runs; the other files are made of the records again.
_FIRST = (RECORDS, "results.json", "table.csv", "headline.png", "log.txt")
_BROUGHT = "brought.json"


def bring(
    runs: Sequence[Run], out: Path, to: Path, *, unfinished: bool, files: int = 8, mib: float = 64.0, each: float = 16.0
) -> list[str]:
    """Copy records and tables into a folder, and of what was not brought before as many shards as fit.

    Shards are of teachers first, then of the run that was stopped, then of the networks of finished runs. What has been brought is
    noted in `brought.json`, so the next call brings the rest; deleting that file begins anew.

    Args:
        runs: the list.
        out: folder of all runs.
        to: where to copy.
        unfinished: bring the run that was stopped too. It changes as it goes on, so its shards must come out without training in
            between.
        files: how many files may be brought.
        mib: how many MiB together.
        each: how many MiB a file.

    Returns:
        The names of the files.
    """
    to.mkdir(parents=True, exist_ok=True)
    first = [out / name for name in _FIRST if (out / name).is_file()]
    for file in first:
        shutil.copyfile(file, to / file.name)
    noted = out / _BROUGHT
    known: list[str] = json.loads(noted.read_text()) if noted.is_file() else []
    written = write_shards(
        _wholes(runs, out, unfinished),
        to,
        files=files - len(first),
        mib=mib - sum(file.stat().st_size for file in first) / MIB,
        each=each,
        known=set(known),
    )
    write_atomically(noted, json.dumps([*known, *written], indent=1))
    return [*(file.name for file in first), *written]


def _wholes(runs: Sequence[Run], out: Path, unfinished: bool) -> Iterator[Whole]:
    """What to bring, read one after the other."""
    for dataset in dict.fromkeys(run.study.dataset for run in runs):
        if (file := teacher_file(out, dataset)).is_file():
            yield Whole.of(out, file.relative_to(out).as_posix())
    ended = Records(out).runs()
    for run in runs:
        if unfinished and run.name not in ended and (out / run.name).is_dir():
            yield Whole.of(out, run.name)
    for run in runs:
        if run.method != "ann" and run.name in ended and (model := RunFolder(out / run.name).model).is_file():
            yield Whole.of(out, model.relative_to(out).as_posix())
