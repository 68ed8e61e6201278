"""What a run, a comparison and the cache consist of, and the commands that read it."""

import csv
import errno
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .damage import Sort
from .workshop import HOLDOUT, SMALL, digest, outcome, train

TEACHER = "teacher.safetensors"
COMPARISON = ("compare", "--recipes", "digits-sce", "digits-twsd", "--seeds", "0", *SMALL, "--out", "comparison")


def call(arguments: Sequence[str | Path]) -> None:
    """The command line in this process, which ends where it fails."""
    from spikedistill.cli import main

    if code := main([str(argument) for argument in arguments]):
        sys.exit(code)


def make_run(folder: Path) -> None:
    """A finished run, with everything that a run can hold."""
    call(train(folder / "run", *HOLDOUT))
    call(["gradients", folder / "run", "--timesteps", "2", "--segments", "1", "--batches", "1", "--batch-size", "8"])


def evaluated() -> dict[str, Any]:
    from spikedistill.evaluation.results import read_results
    from spikedistill.run_folder import RunFolder

    call(["evaluate", "run"])
    return {**outcome(Path("run")), "cost": read_results(RunFolder("run")).cost.model_dump(exclude_unset=True)}


def reported() -> str:
    call(["report", "run"])
    return digest(Path("run/report.html").read_bytes())


def overwritten() -> None:
    call(train(Path("run"), "--overwrite"))


def forget_manifest() -> None:
    """Leave a run as version 0.1.0 did: nothing else protects its files then."""
    Path("run/manifest.json").unlink(missing_ok=True)


def make_stopped(folder: Path) -> None:
    """A run that breaks off a step before the end."""
    from spikedistill.cli import main
    from spikedistill.training.module import DistillationModule

    step = DistillationModule.training_step

    def break_off(module: Any, batch: Any, index: int) -> Any:
        if (module.current_epoch, index) == (1, 6):
            raise OSError(errno.EIO, "as if the process were killed")
        return step(module, batch, index)

    DistillationModule.training_step = break_off  # type: ignore[assignment]
    assert main([str(argument) for argument in train(folder / "run")]) == 2


def make_stopped_without_previous(folder: Path) -> None:
    make_stopped(folder)
    (folder / "run" / "checkpoints" / "previous.ckpt").unlink()


def resumed() -> dict[str, str]:
    call(train(Path("run")))
    return outcome(Path("run"))


def make_teacher(folder: Path) -> None:
    call(["train", "digits-ann", *SMALL, "--out", folder / "teacher"])
    shutil.move(folder / "teacher" / "model.safetensors", folder / TEACHER)
    shutil.rmtree(folder / "teacher")


def taught() -> dict[str, str]:
    call(["train", "digits-skd", *SMALL, "--epochs", "1", "--teacher", TEACHER, "--out", "run"])
    return outcome(Path("run"))


def make_comparison(folder: Path) -> None:
    """A comparison, with speeds, of which the runs' folders are gone."""
    os.chdir(folder)
    call(COMPARISON)
    speeds()
    for run in Path("comparison").glob("digits-*"):
        shutil.rmtree(run)


def compared() -> list[dict[str, str]]:
    """The leaderboard without what was measured, which is another number where a run is trained anew."""
    call(COMPARISON)
    with open("comparison/leaderboard.csv") as file:
        rows = list(csv.DictReader(file))
    measured = ("training_s", "images_per_s", "peak_mib")
    return [{key: value for key, value in row.items() if key not in measured} for row in rows]


def speeds() -> list[float]:
    from spikedistill.comparisons import speeds as measuring
    from spikedistill.recipes import recipe
    from spikedistill.recipes.settings import parse_config

    measuring.ROUNDS, measuring.SECONDS = 2, 0.05  # where they are measured anew
    configs = [parse_config(recipe(name), SMALL) for name in ("digits-sce", "digits-twsd")]
    return measuring.relative_speeds(configs, Path("comparison/speeds.csv"))


COMPILER = """#!/bin/sh
# The compiler, which makes everything once; what is asked for again is copied.
key=$(printf '%s\\n' "$@" | sed 's#.*/##' | sha256sum | cut -c1-32)
for argument in "$@"; do [ "$before" = -o ] && made=$argument; before=$argument; done
kept="$(dirname "$0")/$key"
[ -f "$kept" ] || { c++ "$@" && cp "$made" "$kept.$$" && mv "$kept.$$" "$kept"; } || exit 1
cp "$kept" "$made"
"""


def compiled() -> str:
    """Spikes of one layer, by the compiled loops."""
    import torch

    from spikedistill.neurons import lif

    workshop = next(folder for folder in Path.cwd().parents if (folder / "kept").is_dir())
    compiler = workshop / "compiler" / "c++"
    if not compiler.is_file():
        compiler.parent.mkdir()
        compiler.write_text(COMPILER)
        compiler.chmod(0o755)
    os.environ |= {"XDG_CACHE_HOME": str(Path("cache").resolve()), "CXX": str(compiler)}
    currents = torch.rand(4, 2**18, generator=torch.Generator().manual_seed(0))
    return digest(lif(currents).numpy().tobytes())


def make_cache(folder: Path) -> None:
    os.chdir(folder)
    compiled()


def _of_run(name: str, read: Callable[[], Any]) -> Sort:
    return Sort(name, f"run/{name}", make_run, read)


SORTS = (
    *(
        _of_run(name, evaluated)
        for name in ("config.yaml", "manifest.json", "model.safetensors", "selected.safetensors", "cost.json")
    ),
    *(
        _of_run(name, reported)
        for name in ("results.json", "logits.safetensors", "samples.safetensors", "metrics.csv", "gradients.csv")
    ),
    Sort("last.ckpt, with the one before it", "run/checkpoints/last.ckpt", make_stopped, resumed),
    Sort("last.ckpt alone", "run/checkpoints/last.ckpt", make_stopped_without_previous, resumed),
    Sort("a model file as a teacher", TEACHER, make_teacher, taught),
    Sort("records.jsonl", "comparison/records.jsonl", make_comparison, compared),
    Sort("manifest.json of a comparison", "comparison/manifest.json", make_comparison, compared),
    Sort("speeds.csv", "comparison/speeds.csv", make_comparison, speeds),
    Sort("a compiled loop in the cache", "cache/spikedistill/*.so", make_cache, compiled),
)
