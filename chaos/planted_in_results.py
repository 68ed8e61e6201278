"""Hostile results and records, and links and pipes in the place of files."""

import base64
import json
import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from .files_of_runs import (
    compared,
    evaluated,
    forget_manifest,
    make_comparison,
    make_run,
    make_stopped,
    overwritten,
    reported,
    resumed,
)
from .hostile import PRECIOUS, Case, bomb, payload

RECORDS = Path("comparison/records.jsonl")


def results(kind: str, trap: Path) -> None:
    forget_manifest()
    path = Path("run/results.json")
    found = json.loads(path.read_text())
    match kind:
        case "a pickle":
            path.write_bytes(payload(trap))
        case "100,000 brackets":
            path.write_text('{"last": ' + "[" * 100_000)
        case "infinite accuracy":
            found["last"]["single"][0]["accuracy"] = float("inf")
            path.write_text(json.dumps(found))
        case "words for numbers":
            found["last"]["ensemble"] = "all of them"
            path.write_text(json.dumps(found))


RESULTS = ("a pickle", "100,000 brackets", "infinite accuracy", "words for numbers")


def records(kind: str, trap: Path) -> None:
    from spikedistill.evaluation.comparison.record_format import sealed

    lines = RECORDS.read_text().splitlines()
    row = json.loads(lines[0])
    row.pop("sha256", None)
    match kind:
        case "a pickle":
            RECORDS.write_bytes(payload(trap))
            return
        case "100,000 brackets":
            RECORDS.write_text("[" * 100_000 + "\n")
            return
        case "answers of 4 GiB":
            row["right"]["bits"] = base64.b64encode(bomb(4096, 15)).decode()
        case "a shape of 10^18":
            row["right"]["shape"] = [10**9, 10**9]
        case "a path to elsewhere":
            row["run"] = str(PRECIOUS)
    RECORDS.write_text("\n".join([sealed(json.dumps(row, separators=(",", ":"))), *lines[1:]]) + "\n")


RECORD_KINDS = ("a pickle", "100,000 brackets", "answers of 4 GiB", "a shape of 10^18", "a path to elsewhere")

# Links and pipes in the place of files


def links(names: Sequence[str], trap: Path) -> None:
    """Links with the names of a run's files, or of its folder of checkpoints, to what is of somebody else."""
    for path in (Path("run") / name for name in names):
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        aim = PRECIOUS if path.name == "checkpoints" else PRECIOUS / "notes.md"
        path.symlink_to(os.path.relpath(aim, path.parent))


def pipe(name: str, trap: Path) -> None:
    path = Path("run") / name
    path.unlink()
    os.mkfifo(path)


def endless(name: str, trap: Path) -> None:
    path = Path("run") / name
    path.unlink()
    path.symlink_to("/dev/zero")


def manifest(trap: Path) -> None:
    """A manifest that lists a file of somebody else."""
    from spikedistill.manifest import Entry, Manifest

    sound = Manifest.read(Path("run"), "run")
    assert sound is not None
    files = sound.files | {"../../precious/notes.md": Entry.of((PRECIOUS / "notes.md").read_bytes())}
    sound.model_copy(update={"files": files}).write(Path("run"))


INPUTS = ("metrics.csv", "model.safetensors", "selected.safetensors", "cost.json", "checkpoints/last.ckpt")
OUTPUTS = ("results.json", "logits.safetensors", "samples.safetensors", "report.html")
READ: dict[Callable[[], object], tuple[str, ...]] = {
    evaluated: ("config.yaml", "model.safetensors", "manifest.json", "cost.json", "metrics.csv"),
    reported: ("results.json", "logits.safetensors", "config.yaml"),
}

CASES: dict[str, list[Case]] = {
    "results and records": [
        *(Case(kind, make_run, partial(results, kind), reported) for kind in RESULTS),
        *(Case(f"{kind} in a record", make_comparison, partial(records, kind), compared) for kind in RECORD_KINDS),
    ],
    "links and pipes": [
        Case("outputs are links, evaluate", make_run, partial(links, OUTPUTS), evaluated),
        Case("the lock is a link, evaluate", make_run, partial(links, (".lock",)), evaluated),
        Case("files are links, train --overwrite", make_run, partial(links, (*OUTPUTS, *INPUTS)), overwritten),
        Case("the lock is a link, train --overwrite", make_run, partial(links, (".lock",)), overwritten),
        Case("checkpoints is a link, train --overwrite", make_run, partial(links, ("checkpoints",)), overwritten),
        Case("the manifest is a link, train --overwrite", make_run, partial(links, ("manifest.json",)), overwritten),
        Case("last.ckpt is a link, train", make_stopped, partial(links, ("checkpoints/last.ckpt",)), resumed),
        Case("outputs are links, train", make_stopped, partial(links, (*OUTPUTS, "model.safetensors")), resumed),
        *(
            Case(f"{name} is a pipe", make_run, partial(pipe, name), read)
            for read, names in READ.items()
            for name in names
        ),
        Case("last.ckpt is a pipe", make_stopped, partial(pipe, "checkpoints/last.ckpt"), resumed),
        Case("cost.json is a link to /dev/zero", make_run, partial(endless, "cost.json"), evaluated),
        Case("results.json is a link to /dev/zero", make_run, partial(endless, "results.json"), reported),
        Case("last.ckpt is a link to /dev/zero", make_stopped, partial(endless, "checkpoints/last.ckpt"), resumed),
        Case("a manifest lists another's file, evaluate", make_run, manifest, evaluated),
        Case("a manifest lists another's file, train --overwrite", make_run, manifest, overwritten),
    ],
}
