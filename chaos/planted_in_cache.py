"""Hostile files in the cache of compiled loops."""

import ctypes
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

from .files_of_runs import compiled, make_cache
from .hostile import Case, payload
from .workshop import digest

_LIBRARY = "#include <sys/stat.h>\n__attribute__((constructor)) static void spring(void) { mkdir(TRAP, 0777); }\n"
FOLDER = Path("cache/spikedistill")


def library(trap: Path) -> bytes:
    """A library that makes the trap as it is loaded, which is tried here."""
    Path("trap.c").write_text(_LIBRARY)
    subprocess.run(["cc", "-shared", "-fPIC", f'-DTRAP="{trap}"', "trap.c", "-o", "trap.so"], check=True)
    ctypes.CDLL(os.path.abspath("trap.so"))
    trap.rmdir()
    return Path("trap.so").read_bytes()


def plant(kind: str, trap: Path) -> None:
    content = library(trap)
    for file in sorted(FOLDER.glob("*.so")):
        # where its name ends with a digest of its content, that of the planted one fits too
        stem, dash, _ = file.stem.rpartition("-")
        fitting = file.with_name(f"{stem}{dash}{digest(content)}.so")
        file.unlink()
        match kind:
            case "in the place of each":
                file.write_bytes(content)
            case "with a digest that fits, and others may write there":
                fitting.write_bytes(content)
            case "with a digest that fits, of another user":
                fitting.write_bytes(content)
                os.chown(fitting, 65534, 65534)
            case "with a digest that fits, that others may write":
                fitting.write_bytes(content)
                fitting.chmod(0o666)
            case "a link to it":
                fitting.symlink_to(os.path.abspath("trap.so"))
            case "a pipe":
                os.mkfifo(fitting)
            case "a pickle":
                file.write_bytes(payload(trap))
            case "the cache is a link to it":
                fitting.write_bytes(content)
    if kind == "with a digest that fits, and others may write there":
        FOLDER.chmod(0o777)
    if kind == "the cache is a link to it":
        shutil.move(FOLDER, "elsewhere")
        Path("elsewhere").chmod(0o777)
        FOLDER.symlink_to(os.path.abspath("elsewhere"))


_KINDS = (
    *("in the place of each", "with a digest that fits, and others may write there", "a link to it", "a pipe"),
    *("with a digest that fits, that others may write", "a pickle", "the cache is a link to it"),
    *(["with a digest that fits, of another user"] if os.geteuid() == 0 else []),
)
CASES = {"cache of compiled loops": [Case(kind, make_cache, partial(plant, kind), compiled) for kind in _KINDS]}
