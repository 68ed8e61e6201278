"""Raw figures as they come, one line of JSON each, in a file that a later call goes on with.

There are three kinds of line. `session`: who measured what, where, with which code. `fresh`: first step and peak memory of one
contender at one T. `round`: the seconds of one step of each contender at one T, taken in turn. One file is one benchmark of one
workload on one machine, so that its figures can stand in one table.
"""

import json
import os
import platform
import subprocess
from collections import Counter, defaultdict
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from .workloads import Workload

ROOT = Path(__file__).parents[1]
_LIBRARIES = ("torch", "spikedistill", "spikingjelly", "snntorch", "norse")


class Results:
    """The figures in a file, and the way to add to them.

    Attributes:
        sessions: the calls that measured.
        fresh: what was measured in processes of their own, by (contender, T).
        rounds: seconds by contender, for each round, by T.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sessions: list[dict[str, Any]] = []
        self.fresh: dict[tuple[str, int], dict[str, Any]] = {}
        self.rounds: dict[int, list[dict[str, float]]] = defaultdict(list)
        self._begin: dict[str, Any] | None = None
        if path.exists():
            for line in path.read_text().splitlines():
                self._take(json.loads(line))

    def begin(self, suite: str, workload: Workload, command: str) -> None:
        """Say what is to be measured; the session is written before its first figure, so that none is left by a call without any.

        Raises:
            ValueError: where the file holds figures of something else.
        """
        session = {
            "record": "session",
            "suite": suite,
            "workload": asdict(workload),
            "machine": machine(workload.device),
            "versions": versions(),
            **commit(),
            "command": command,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        for earlier in self.sessions[:1]:
            for key in ("suite", "workload", "machine"):
                if earlier[key] != session[key]:
                    raise ValueError(
                        f"{self.path} holds figures of {key} {earlier[key]}, this is {session[key]}: choose another --out"
                    )
        self._begin = session

    def add(self, record: str, **values: Any) -> None:
        """Append one figure."""
        if self._begin is not None:
            session, self._begin = self._begin, None
            self._append(session)
        self._append({"record": record, **values})

    def count(self, timesteps: int) -> Counter[str]:
        """How many rounds each contender has at T."""
        return Counter(name for seconds in self.rounds[timesteps] for name in seconds)

    def _append(self, line: dict[str, Any]) -> None:
        self._take(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _take(self, line: dict[str, Any]) -> None:
        if line["record"] == "session":
            self.sessions.append(line)
        elif line["record"] == "fresh":
            self.fresh[line["contender"], line["timesteps"]] = line
        else:
            self.rounds[line["timesteps"]].append(line["seconds"])


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on beside the code."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.device(device).type == "cuda" else None,
        "torch": torch.__version__,
    }


def versions() -> dict[str, str]:
    """The libraries that are installed."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> dict[str, Any]:
    """The commit of the repository, and whether the code that is measured differs from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "src", "benchmarks"))}
    except (FileNotFoundError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
