"""Hostile files in the folders of runs and comparisons."""

import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from .files_of_runs import (
    TEACHER,
    call,
    compared,
    evaluated,
    make_comparison,
    make_run,
    make_stopped,
    make_teacher,
    reported,
    resumed,
    taught,
    train,
)
from .hostile import PRECIOUS, Case, Payload, bomb, payload

LAST, PREVIOUS = Path("run/checkpoints/last.ckpt"), Path("run/checkpoints/previous.ckpt")
RECORDS = Path("comparison/records.jsonl")


def overwritten() -> None:
    call(train(Path("run"), "--overwrite"))


def repeated() -> None:
    call(["train", "run/config.yaml", "--out", "again"])


# Checkpoints


def checkpoint(kind: str, trap: Path) -> None:
    import torch

    from spikedistill.training.checkpoints import AtomicCheckpoints

    valid = torch.load(LAST, weights_only=True)
    armed, buffer = payload(trap), io.BytesIO()
    PREVIOUS.unlink()
    match kind:
        case "a payload alone":
            torch.save(Payload(trap), LAST)
        case "a payload in a valid one":
            torch.save(valid | {"callbacks": {"Checkpoints": Payload(trap)}}, LAST)
        case "a payload in a valid one with its checksum":
            _seal(valid | {"epoch_means": Payload(trap)}, AtomicCheckpoints({}))
        case "a payload, and no newer one":
            torch.save(valid | {"epoch_means": Payload(trap)}, buffer)
            LAST.unlink()
            PREVIOUS.write_bytes(buffer.getvalue())
        case "a plain pickle":
            LAST.write_bytes(armed)
        case "an old pickle of PyTorch's":
            torch.save(valid | {"x": Payload(trap)}, LAST, _use_new_zipfile_serialization=False)
        case "other values":
            _seal(valid | {"optimizer_states": 5}, AtomicCheckpoints(valid["made_from"]))
        case "no loops":
            _seal(valid | {"loops": {}}, AtomicCheckpoints(valid["made_from"]))
        case "callbacks of another kind":
            _seal(valid | {"callbacks": {"Checkpoints": [], "EpochRecord": 3}}, AtomicCheckpoints(valid["made_from"]))


def _seal(content: dict[str, Any], files: Any) -> None:
    LAST.unlink()
    files.save_checkpoint(content, LAST)


CHECKPOINTS = (
    *("a payload alone", "a payload in a valid one", "a payload in a valid one with its checksum"),
    *("a payload, and no newer one", "a plain pickle", "an old pickle of PyTorch's"),
    *("other values", "no loops", "callbacks of another kind"),
)

# Networks and teachers


def model(kind: str, file: str, trap: Path) -> None:
    import torch
    from safetensors.torch import save

    from spikedistill.models import files

    path = Path(file)
    sound = files.read_model(path)
    _forget("run")
    network, tensors = dict(sound.network), dict(sound.tensors)
    match kind:
        case "a pickle":
            path.write_bytes(payload(trap))
            return
        case "what torch.save writes":
            torch.save({"state_dict": Payload(trap)}, path)
            return
        case "a header of 2^63 bytes":
            path.write_bytes(b"\xff" * 7 + b"\x7f" + b"{}")
            return
        case "a description of 100,000 brackets":
            path.write_bytes(save(tensors, metadata={"spikedistill": '{"network":' + "[" * 100_000}))
            return
        case "a network of endless width":
            network["width"] = 1e9
        case "a name that is a module":
            network["name"] = "os.system"
        case "NaN in a weight":
            tensors[next(name for name in tensors if name.endswith("weight"))].view(-1)[0] = float("nan")
    described = {"schema": files.SCHEMA, "network": network, "classes": sound.classes, "input": sound.input}
    described["sha256"] = files._checksum(described, tensors)
    path.write_bytes(save(tensors, metadata={"spikedistill": json.dumps(described)}))


def _forget(folder: str) -> None:
    """Without its manifest nothing else protects a folder, as in version 0.1.0."""
    (Path(folder) / "manifest.json").unlink(missing_ok=True)


MODELS = (
    *("a pickle", "what torch.save writes", "a header of 2^63 bytes", "a description of 100,000 brackets"),
    *("a network of endless width", "a name that is a module", "NaN in a weight"),
)

# Configurations


def configuration(kind: str, trap: Path) -> None:
    import yaml

    sound = Path("run/config.yaml").read_text()
    aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    aliases += "".join(f"a{n + 1}: &a{n + 1} [" + ", ".join([f"*a{n}"] * 10) + "]\n" for n in range(10))
    texts = {
        "a function to call": f"recipe: !!python/object/apply:os.mkdir [{str(trap)!r}]\n",
        "an object to make": f"recipe: !!python/object/new:os.mkdir [{str(trap)!r}]\n",
        "a function in a valid one": sound + f"teacher: !!python/object/apply:os.mkdir [{str(trap)!r}]\n",
        "ten lines of aliases": aliases,
        "3,000 brackets": "recipe: " + "[" * 3000,
        "3,000 levels": "".join(" " * n + f"k{n}:\n" for n in range(3000)),
        "16 MiB": "recipe: " + "x" * (16 << 20),
        "a number of 100,000 digits": sound.replace("seed: 0", "seed: " + "9" * 100_000),
        "an alias to itself": "recipe: &a [*a]\n",
        "another pipe": sound,
    }
    if "make" in kind or "call" in kind:
        yaml.unsafe_load(texts[kind])
        trap.rmdir()
    Path("run/config.yaml").write_text(texts[kind])
    _forget("run")


CONFIGURATIONS = (
    *("a function to call", "an object to make", "a function in a valid one", "ten lines of aliases", "3,000 brackets"),
    *("3,000 levels", "16 MiB", "a number of 100,000 digits", "an alias to itself"),
)

# Results and records


def results(kind: str, trap: Path) -> None:
    _forget("run")
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
    import base64

    from spikedistill.evaluation.record_format import sealed

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
    "checkpoints": [Case(kind, make_stopped, partial(checkpoint, kind), resumed) for kind in CHECKPOINTS],
    "networks and teachers": [
        *(Case(kind, make_run, partial(model, kind, "run/model.safetensors"), evaluated) for kind in MODELS),
        *(Case(f"{kind}, as a teacher", make_teacher, partial(model, kind, TEACHER), taught) for kind in MODELS[:4]),
    ],
    "configurations": [
        Case(kind, make_run, partial(configuration, kind), read)
        for kind, read in product(CONFIGURATIONS, (evaluated, repeated))
    ],
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
            Case(f"{name} is {what}", make_run, partial(plant, name), read)
            for plant, what in ((pipe, "a pipe"), (endless, "a link to /dev/zero"))
            for read, names in READ.items()
            for name in names
        ),
        *(
            Case(f"last.ckpt is {what}", make_stopped, partial(plant, "checkpoints/last.ckpt"), resumed)
            for plant, what in ((pipe, "a pipe"), (endless, "a link to /dev/zero"))
        ),
        Case("a manifest lists another's file, evaluate", make_run, manifest, evaluated),
        Case("a manifest lists another's file, train --overwrite", make_run, manifest, overwritten),
    ],
}
