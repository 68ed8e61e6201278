"""Interrupts the headline command's dry run at random moments, and says whether its table is that of an undisturbed one.

    python tests/benchmarks/headline_kills.py FOLDER [SEED] [RUNS]

trains the first RUNS of the list (4 by default) twice, networks at full width, one epoch of 512 images, on the CPU, the second
time with five interruptions by three signals. It takes some ten minutes of two cores for four.
"""

import random
import signal
import subprocess
import sys
from pathlib import Path

SIGNALS = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)
SECONDS = (8.0, 40.0)  # until an interruption


def headline(out: Path, runs: int) -> list[str]:
    command = [sys.executable, "-m", "benchmarks", "headline", "--dry-run", "--minutes", "60"]
    return [*command, "--first", str(runs), "--out", str(out)]


def interrupted(command: list[str], kind: signal.Signals, seconds: float) -> str:
    """What became of a call that was sent a signal after so many seconds."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(kind)
        return f"{kind.name} after {seconds:.0f} s, exit code {process.wait()}"
    return f"ended before it was interrupted, exit code {process.returncode}"


def main(folder: Path, seed: int = 0, runs: int = 4) -> int:
    """The exit code: 0 where both tables are the same to the byte."""
    moments = random.Random(seed)
    whole, broken = folder / "whole", folder / "interrupted"
    for kind in SIGNALS:
        print(interrupted(headline(broken, runs), kind, moments.uniform(*SECONDS)), flush=True)
    for out in (broken, whole):
        subprocess.run(headline(out, runs), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    same = (broken / "table.csv").read_bytes() == (whole / "table.csv").read_bytes()
    print("the tables are", "the same" if same else "different")
    return not same


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
