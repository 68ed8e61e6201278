"""Readers that do what no reader may do, given to the harness in a process that has imported nothing else."""

import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from chaos import processes, workshop
from chaos.attempts import Verdict
from chaos.damage import Sort, attempt
from chaos.hostile import Case, payload
from chaos.hostile import attempt as plant_and_read

processes.PATIENCE = 1.0
workshop.MOST_MIB = 200


def make(folder: Path) -> None:
    (folder / "file").write_bytes(bytes(range(256)))


def content() -> str:
    return Path("file").read_bytes().hex()


def sound() -> bool:
    return Path("file").read_bytes() == bytes(range(256))


def refuse_with(message: str) -> str:
    if not sound():
        raise ValueError(message)
    return content()


def die() -> str:
    if not sound():
        os.kill(os.getpid(), signal.SIGSEGV)
    return content()


def wait() -> str:
    if not sound():
        time.sleep(60)
    return content()


def fail() -> str:
    return content() if sound() else {}["nothing"]


READERS = {
    "what it finds": content,
    "nothing of it": lambda: "always the same",
    "names the file": partial(refuse_with, "file is damaged"),
    "names nothing": partial(refuse_with, "something is damaged"),
    "dies": die,
    "waits": wait,
    "fails": fail,
}


def run_it() -> None:
    import pickle

    pickle.loads(Path("file").read_bytes())


def touch() -> None:
    Path("../precious/notes.md").write_text("mine now")


def take() -> None:
    bytearray(b"x") * (400 << 20)


def arm(trap: Path) -> None:
    Path("file").write_bytes(payload(trap))


CASES = {
    "is refused": Case("", make, arm, partial(refuse_with, "file is no text")),
    "is executed": Case("", make, arm, run_it),
    "touches what is precious": Case("", make, arm, touch),
    "takes memory": Case("", make, arm, take),
}


def main(folder: str) -> dict[str, str]:
    place = workshop.Workshop(Path(folder))
    found: dict[str, Verdict] = {}
    for name, reader in READERS.items():
        found[name] = attempt(Sort(name, "file", make, reader), place, 0)
    found["what it finds, without a checksum"] = attempt(Sort("?", "file", make, content, sealed=False), place, 0)
    for name, case in CASES.items():
        found[name] = plant_and_read([case], place, 0)
    return {name: verdict.outcome for name, verdict in found.items()}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
