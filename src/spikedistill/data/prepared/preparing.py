"""Turns recordings into frames once, in files that are mapped into memory when they are used.

A folder of prepared samples has parts of some samples each, `train-00000.npy` and so on, and a manifest. Each part is
written as a whole, then a note on it; the manifest is written when all are there, and the notes are removed. So a process
that is killed leaves whole parts, and the next makes those that are missing.
"""

import hashlib
import io
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ...errors import UserError
from ...files import alone_in, parse_json, sha256, write_atomically
from ..files import data_error
from ..recordings import SLICING_VERSION, Recording
from .clips import Asked, Clip, Clips, Cut
from .manifest import SCHEMA, SPLITS, Part, PreparedManifest, Split

# Of the frames of a part, so that memory stays bounded.
_PART_BYTES = 2**25
_MOST_ROWS = 256
_FEW = 4
_ANNOUNCED = "files.json"

Track = Callable[[Iterable[Part], int], Iterable[Part]]


class _Task(NamedTuple):
    folder: Path
    name: str
    source: Path
    clips: tuple[Clip, ...]
    cut: Cut
    skip_bad: bool


def prepare(
    asked: Asked,
    clips: Clips,
    root: Path,
    *,
    workers: int | None = None,
    skip_bad: bool = False,
    track: Track | None = None,
) -> PreparedManifest:
    """Prepare the samples of a data set, or what a call before has left.

    Args:
        asked: which data set, and how.
        clips: its recordings.
        root: the data root.
        workers: processes that read recordings; default one for each core.
        skip_bad: leave out recordings that cannot be read, and list them in the manifest, in place of an error.
        track: shows progress over the parts, of which it gets the number.

    Returns:
        The manifest.

    Raises:
        FileNotFoundError: a recording is missing.
        UserError: if a recording is damaged and not skipped, a class has no samples left, or the recordings are others than
            those that an unfinished preparation began with.
    """
    folder = asked.folder(root)
    with alone_in(folder, wait=True):  # processes of one run begin together
        found = _finished(folder)
        if found is None:
            source = source_of(clips)
            _announce(folder, source)
            found = _prepared(asked, clips, folder, source, workers or os.cpu_count() or 1, skip_bad, track)
        _clean(folder)
    return found


def _prepared(
    asked: Asked,
    clips: Clips,
    folder: Path,
    source: dict[str, str | int],
    workers: int,
    skip_bad: bool,
    track: Track | None,
) -> PreparedManifest:
    tasks = {split: list(_tasks(clips, folder, split, skip_bad)) for split in SPLITS}
    wanted = [task for split in SPLITS for task in tasks[split]]
    notes = {task.name: note for task in wanted if (note := _note(task)) is not None}
    missing = [task for task in wanted if task.name not in notes]
    made = _in_processes(missing, workers)
    for part in made if track is None else track(made, len(missing)):
        notes[part.name] = part
    parts = {split: tuple(notes[task.name] for task in tasks[split]) for split in SPLITS}
    empty = set(range(len(clips.classes))) - {target for part in parts["train"] for target in part.targets}
    if empty:
        names = ", ".join(clips.classes[k] for k in sorted(empty)[:5])
        raise data_error(clips.folder, f"has no training samples of {names} that can be read", "add some")
    manifest = PreparedManifest(
        schema_version=SCHEMA,
        dataset=asked.dataset,
        made_with={"spikedistill": version("spikedistill"), "slicing": SLICING_VERSION},
        options=asked.options(),
        source=source,
        shape=clips.cut.shape,
        classes=clips.classes,
        parts=parts,
    )
    manifest.write(folder)
    return manifest


def source_of(clips: Clips) -> dict[str, str | int]:
    """How many recordings there are, and a digest of their names, sizes and classes.

    Raises:
        FileNotFoundError: one is missing.
    """
    digest, files = hashlib.sha256(), sorted({clip.file for clip in (*clips.train, *clips.test)})
    for file in files:
        path = clips.folder / file
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing")
        digest.update(f"{path.stat().st_size} {file}\n".encode())
    for clip in (*clips.train, *clips.test):
        digest.update(f"{clip}\n".encode())
    return {"recordings": len(files), "sha256_of_names_and_sizes": digest.hexdigest()}


def _announce(folder: Path, source: dict[str, str | int]) -> None:
    """Note which recordings a preparation is of, or check it."""
    path = folder / _ANNOUNCED
    if not path.is_file():
        write_atomically(path, json.dumps(source))
    elif parse_json(path.read_bytes(), path) != source:
        raise UserError(
            f"{folder} was begun with other recordings (their names or sizes differ): remove it, and prepare it again"
        )


def _finished(folder: Path) -> PreparedManifest | None:
    try:
        return PreparedManifest.read(folder)
    except FileNotFoundError:
        return None


def _clean(folder: Path) -> None:
    """Remove what only an unfinished preparation needs."""
    (folder / _ANNOUNCED).unlink(missing_ok=True)
    for note in folder.glob("*-*.json"):
        note.unlink()
    for partial in folder.glob(".*.partial"):
        partial.unlink()


def _tasks(clips: Clips, folder: Path, split: Split, skip_bad: bool) -> Iterator[_Task]:
    rows = min(_MOST_ROWS, max(1, _PART_BYTES // (4 * int(np.prod(clips.cut.shape)))))
    every: Sequence[Clip] = getattr(clips, split)
    for k, start in enumerate(range(0, len(every), rows)):
        yield _Task(
            folder, f"{split}-{k:05d}.npy", clips.folder, tuple(every[start : start + rows]), clips.cut, skip_bad
        )


def _note(task: _Task) -> Part | None:
    """The note on a part that a call before has written; None if it is to be made."""
    path, file = _note_of(task), task.folder / task.name
    try:
        part = Part.model_validate(parse_json(path.read_bytes(), path))
        whole = part.bytes == file.stat().st_size and part.name == task.name
    except (OSError, ValueError):
        return None
    return part if whole and (task.skip_bad or not part.bad) else None


def _note_of(task: _Task) -> Path:
    return task.folder / Path(task.name).with_suffix(".json")


def _in_processes(tasks: Sequence[_Task], workers: int) -> Iterator[Part]:
    """Make parts in several processes, with few of them waiting at a time."""
    if workers <= 1 or len(tasks) < _FEW:  # sooner done than processes begin
        yield from map(_make, tasks)
        return
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(
        min(workers, len(tasks)), context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        left = iter(tasks)
        running: set[Future[Part]] = {pool.submit(_make, task) for task in islice(left, 2 * workers)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                running |= {pool.submit(_make, task) for task in islice(left, len(done))}
        finally:
            pool.shutdown(cancel_futures=True)


def _make(task: _Task) -> Part:
    """Write a part and the note on it."""
    rows: list[np.ndarray] = []
    targets, events, lengths, bad = [], [], [], []
    last: tuple[str, Recording] | None = None
    for clip in task.clips:
        try:
            if last is None or last[0] != clip.file:
                last = clip.file, task.cut.read(task.source / clip.file)
            frames = task.cut.frames(last[1], clip)
            if not frames.any():
                raise data_error(task.source / clip.file, "holds no events" + _of(clip), "remove it")
        except UserError as error:
            if not task.skip_bad:
                raise
            last = None
            bad.append(str(error))
            continue
        rows.append(frames.numpy())
        targets.append(clip.target)
        events.append(len(last[1]))
        lengths.append(task.cut.length(last[1], clip))
    stored = np.stack(rows) if rows else np.zeros((0, *task.cut.shape), np.float32)
    if task.cut.is_counts:  # which fit into fewer bytes
        stored = stored.astype(
            np.uint8 if stored.max(initial=0) < 2**8 else np.uint16 if stored.max() < 2**16 else np.float32
        )
    content = io.BytesIO()
    np.save(content, stored)
    raw = content.getvalue()
    write_atomically(task.folder / task.name, raw)
    part = Part(
        name=task.name,
        rows=len(stored),
        bytes=len(raw),
        sha256=sha256(raw),
        targets=tuple(targets),
        events=tuple(events),
        lengths=None if task.cut.milliseconds is None else tuple(lengths),
        bad=tuple(bad),
    )
    write_atomically(_note_of(task), part.model_dump_json())
    return part


def _of(clip: Clip) -> str:
    return "" if clip.start is None else f" from {clip.start} to {clip.stop} microseconds"
