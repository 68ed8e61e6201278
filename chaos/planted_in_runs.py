"""Hostile checkpoints, networks, teachers and configurations."""

import io
import json
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from .files_of_runs import (
    TEACHER,
    call,
    evaluated,
    forget_manifest,
    make_run,
    make_stopped,
    make_teacher,
    resumed,
    taught,
)
from .hostile import Case, Payload, payload

LAST, PREVIOUS = Path("run/checkpoints/last.ckpt"), Path("run/checkpoints/previous.ckpt")


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
    forget_manifest()
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
    forget_manifest()


CONFIGURATIONS = (
    *("a function to call", "an object to make", "a function in a valid one", "ten lines of aliases", "3,000 brackets"),
    *("3,000 levels", "16 MiB", "a number of 100,000 digits", "an alias to itself"),
)

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
}
