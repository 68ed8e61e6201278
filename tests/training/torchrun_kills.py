"""Kills a rank of a run under torchrun, or torchrun itself, and says how that ends.

    python tests/training/torchrun_kills.py FOLDER [TIMES]

kills rank 0, rank 1 and both in turn, and every eighth time torchrun, at random moments, and prints a table. It reads /proc, and
takes about half a minute each time.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "3")
RUN = (
    *("-m", "spikedistill", "train", "digits-twsd", "--epochs", "40", "--timesteps", "2", "--model.width", "0.25"),
    *("--data.train-samples", "240", "--trainer.checkpoint-seconds", "0", "--trainer.no-progress"),
    *("--trainer.devices", "2", "--trainer.accelerator", "cpu", "--resume", "auto", "--out"),
)
LONGEST = 120.0  # seconds from a kill to the end
BOTH, AGENT = -1, -2
NAMES = {0: "rank 0", 1: "rank 1", BOTH: "both ranks", AGENT: "torchrun"}


def kill_a_rank(folder: Path, rank: int, seconds: float) -> str:
    """Kill a rank, `BOTH` or torchrun (`AGENT`), so many seconds after the ranks have started.

    Args:
        folder: for the run, and for one that is not interrupted, which the next call finds there.

    Returns:
        "finished" where the run is that of no kill, bit for bit; "refused: ..." where it has ended with these messages, and the
        same command finishes it so. Else "different", "traceback: ..." or "hang: ...", and the run is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    uninterrupted, run = folder / "uninterrupted", folder / "killed"
    if not (uninterrupted / "report.html").is_file() and (wrong := _Launch(uninterrupted).wait()):
        raise RuntimeError(wrong)
    shutil.rmtree(run, ignore_errors=True)
    launch = _Launch(run)
    killed = launch.kill(rank, seconds)
    ended = launch.wait()
    if ended.startswith(("traceback", "hang")):
        return ended
    if ended and (again := _Launch(run, "again").wait()):
        return f"different: refused again, {again}"
    same = (run / "model.safetensors").read_bytes() == (uninterrupted / "model.safetensors").read_bytes()
    if not (same and (run / "report.html").is_file()):
        return "different"
    return f"refused: {ended}" if ended else "finished" if killed else "finished: before the kill"


def ranks_below(torchrun: int) -> dict[int, int]:
    """The process ids of the ranks that a torchrun process has started, by rank."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            rank = re.search(rb"\0RANK=(\d+)\0", (process / "environ").read_bytes())
        except (OSError, IndexError):
            continue  # it has just ended
        if parent == torchrun and rank:
            found[int(rank[1])] = int(process.name)
    return found


class _Launch:
    """A torchrun process with a run of two ranks."""

    def __init__(self, run: Path, try_: str = "first") -> None:
        self.said = run.with_name(f"{run.name}, {try_} try.txt")
        with self.said.open("w") as file:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self.torchrun = subprocess.Popen([*TORCHRUN, *RUN, str(run)], stdout=file, stderr=file, env=environment)
        self.ranks: set[int] = set()

    def kill(self, rank: int, seconds: float) -> bool:
        """Kill so many seconds after the ranks have started, and return whether the run was still there."""
        while len(ranks_below(self.torchrun.pid)) < 2 and self.torchrun.poll() is None:
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.torchrun.wait(seconds)
        ranks = ranks_below(self.torchrun.pid)
        self.ranks = set(ranks.values())
        struck = [self.torchrun.pid] if rank == AGENT else [ranks[r] for r in ranks if rank in (r, BOTH)]
        if self.torchrun.poll() is not None or not struck:
            return False
        for process in struck:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return True

    def wait(self) -> str:
        """How it has ended, once no rank is left: "" where it went well, else the messages, of a "traceback: " or "hang: " too."""
        last = time.monotonic() + LONGEST
        while self.torchrun.poll() is None or self._left():
            if time.monotonic() > last:
                left = self._left() | set(ranks_below(self.torchrun.pid).values())
                self.torchrun.kill()
                for process in left:
                    os.kill(process, signal.SIGKILL)
                return f"hang: {self._messages()}"
            time.sleep(0.05)
        if re.search(r"^\[rank\d+\]: Traceback", self.said.read_text(), re.MULTILINE):
            return f"traceback: {self._messages()}"
        return self._messages() if self.torchrun.returncode else ""

    def _left(self) -> set[int]:
        """The ranks of the first start that are still there; a killed torchrun leaves them behind."""
        return {process for process in self.ranks if _runs(process)}

    def _messages(self) -> str:
        lines = [
            line for line in self.said.read_text().splitlines() if "spikedistill train: " in line or "stopped" in line
        ]
        return "; ".join(dict.fromkeys(lines)) or self.said.read_text()[-500:]


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main(folder: Path, times: int) -> None:
    draw = random.Random(times)
    table: dict[int, Counter[str]] = {rank: Counter() for rank in NAMES}
    kill_a_rank(folder, 0, LONGEST)  # which comes too late; the run that is not interrupted is there then
    begun = time.monotonic()
    kill_a_rank(folder, 0, LONGEST)
    length = time.monotonic() - begun
    for number in range(times):
        rank = AGENT if number % 8 == 7 else (0, 1, BOTH)[number % 3]
        seconds = draw.uniform(0, length)
        ended = kill_a_rank(folder, rank, seconds)
        table[rank][ended if ended.startswith("finished") else ended.partition(":")[0]] += 1
        print(f"{number}: {NAMES[rank]} after {seconds:.1f} s: {ended}", flush=True)
        if not ended.startswith(("finished", "refused")):
            (folder / "killed").rename(folder / f"killed{number}")
    for rank, outcomes in table.items():
        print(f"{NAMES[rank]:12}", *(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())), sep="  ")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 40)
