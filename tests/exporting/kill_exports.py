"""Run as a program: export a run again and again, kill it at random moments, and print what each attempt left.

A process that has imported everything forks one child for each attempt, so that moments fall into the export itself.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from spikedistill import export
from spikedistill.exporting import Options


def begin(run: str, format: str, out: str) -> int:
    child = os.fork()
    if child == 0:
        export(run, format, out, Options(threshold=0.8))
        os._exit(0)
    return child


def left(out: Path) -> list[tuple[str, int]]:
    """The names and sizes of what is there; contents of ONNX files name PyTorch's own temporary values."""
    files = [out] if out.is_file() else sorted(out.rglob("*"))
    return [(file.name, file.stat().st_size) for file in files]


def main(run: str, format: str, out: str, moments: str) -> None:
    path, dice = Path(out), random.Random(0)
    torch.set_num_threads(1)
    export(run, format, out, Options(threshold=0.8))  # imports everything
    begun = time.monotonic()
    os.waitpid(begin(run, format, out), 0)
    taken = time.monotonic() - begun
    whole, found = left(path), []
    for _ in range(int(moments)):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        child = begin(run, format, out)
        time.sleep(1.1 * taken * dice.random())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found.append(left(path))
    os.waitpid(begin(run, format, out), 0)
    print(json.dumps({"whole": whole, "left": found, "after": left(path)}))


main(*sys.argv[1:])
