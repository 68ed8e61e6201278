"""Folders that are written as a whole."""

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from ..errors import UserError
from ..files import PARTIAL, sha256, write_atomically
from ..run_folder import BUNDLE


def write_folder(out: Path, form: str, files: Mapping[str, bytes]) -> None:
    """Write files into a folder of another name, and rename it when it is complete. `export.json` lists them with checksums.

    Args:
        out: the folder. One that an earlier export wrote is replaced.
        form: the format, which `export.json` names.
        files: contents by name.

    Raises:
        UserError: if something else has that name.
        OSError: if it cannot be written.
    """
    if out.exists() and not (out / BUNDLE).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and no export wrote it: choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    new = out.with_name(f".{out.name}.{uuid.uuid4().hex[:12]}{PARTIAL}")
    old = out.with_name(f".{out.name}.{uuid.uuid4().hex[:12]}.old{PARTIAL}")
    for left in out.parent.glob(f".{out.name}.*{PARTIAL}"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        for name, content in files.items():
            write_atomically(new / name, content)
        listed = {"schema": 1, "format": form, "sha256": {name: sha256(content) for name, content in files.items()}}
        write_atomically(new / BUNDLE, json.dumps(listed, indent=1) + "\n")
        if out.exists():
            os.replace(out, old)
        os.replace(new, out)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
