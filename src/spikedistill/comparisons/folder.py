"""The folder of a comparison: which files a comparison writes, and the manifest that shows that it wrote them."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError
from ..evaluation.comparison.records import RECORDS, Records
from ..files import clear_partial
from ..manifest import MANIFEST, Manifest
from ..report import PAPER_FILES
from ..run_folder import VERSIONS, RunFolder

_TABLES = (
    "leaderboard.csv",
    "runs.csv",
    "timesteps.csv",
    "regret.csv",
    "chosen.csv",
    "teachers.csv",
    "tuning.csv",
    "speeds.csv",
)
FILES = (MANIFEST, RECORDS, *_TABLES, "report.html", *PAPER_FILES)


def check_own(folder: Path) -> None:
    """Refuse a folder in which a comparison would overwrite files that no comparison wrote.

    The folder of a comparison has a manifest, or from version 0.1.0 its records.

    Raises:
        FileExistsError: if there are such files; the message names them.
    """
    there = [name for name in FILES if os.path.lexists(folder / name)]
    if wrong := next((name for name in there if (folder / name).is_dir()), None):
        raise FileExistsError(f"{folder / wrong} is a folder, and a comparison has a file there: choose another --out")
    if RunFolder(folder).is_run():
        raise FileExistsError(f"{folder} is the folder of a run: choose another --out for the comparison")
    try:
        proven = Manifest.read(folder, "comparison") is not None or bool(Records(folder).runs())
    except UserError as error:
        raise FileExistsError(f"{error}. Repair it, or choose another --out") from None
    if there and not proven:
        raise FileExistsError(
            f"{folder} holds {there[0]}, and nothing shows that a comparison wrote it: choose another --out"
        )


def begin(folder: Path) -> None:
    """Write the manifest that marks the folder as a comparison's; only one process may work in it."""
    clear_partial(folder, FILES)
    if Manifest.read(folder, "comparison") is None:
        Manifest.new("comparison", **VERSIONS).write(folder)


def read_checked(file: Path) -> bytes:
    """The content of a file of a comparison, checked against the manifest if that lists it.

    Raises:
        UserError: if it is damaged.
    """
    content, manifest = file.read_bytes(), Manifest.read(file.parent, "comparison")
    if manifest is not None and file.name in manifest.files and not manifest.files[file.name].fits(content):
        raise UserError(f"{file} is damaged: it is not the file that {MANIFEST} lists; delete it, and it is made anew")
    return content


@contextlib.contextmanager
def rewriting(file: Path) -> Iterator[None]:
    """Remove a file from the manifest, if there is one, while it is written; then list it with its new checksum."""
    manifest = Manifest.read(file.parent, "comparison")
    if manifest is not None and file.name in manifest.files:
        manifest.without([file.name]).write(file.parent)
    yield
    if manifest is not None:
        manifest.with_files(file.parent, [file.name]).write(file.parent)
