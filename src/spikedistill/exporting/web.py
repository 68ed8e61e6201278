"""A folder that shows a network in a browser, offline: draw or drop an image, and see when it stops.

The step runs in onnxruntime-web, of the npm package of that name, whose WebAssembly is in the folder. All is in scripts and not in
files that a script would fetch, because browsers fetch nothing for a page that is opened from disk.
"""

import base64
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import UserError
from .description import Description

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
_SCRIPT, _GLUE, _WASM = "ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"
_PAGE = ("index.html", "app.js")
_EXAMPLES = 12


def page_of(
    content: bytes, description: Description, images: Tensor, labels: Tensor, runtime: Path | None
) -> dict[str, bytes]:
    """The files of the folder, by name.

    Args:
        content: the step as ONNX.
        description: of it.
        images: test images `[N, C, H, W]` in [0, 1], of which the first are examples on the page.
        labels: of these images.
        runtime: the folder of the npm package onnxruntime-web; default ./node_modules/onnxruntime-web, or what npm finds.

    Raises:
        UserError: for a network of event frames, or if the package is not to be had.
    """
    if description.input.kind == "events":
        raise UserError("the page takes images, and the network takes event frames: export it as onnx")
    if description.input.channels not in (1, 3):
        raise UserError(
            f"the page takes grey or coloured images, and the network takes {description.input.channels} channels"
        )
    examples = [
        {"pixels": _text((255 * image).round().byte().numpy().tobytes()), "label": description.classes[int(label)]}
        for image, label in zip(images[:_EXAMPLES], labels[:_EXAMPLES], strict=True)
    ]
    model = {"description": description.written(), "onnx": _text(content), "examples": examples}
    with _package(runtime) as folder:
        try:
            script = (folder / "dist" / _SCRIPT).read_bytes()
            parts = {
                "script": _text((folder / "dist" / _GLUE).read_bytes()),
                "wasm": _text((folder / "dist" / _WASM).read_bytes()),
            }
            licence = (folder / "README.md").read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"{folder} is not the package {PACKAGE} {VERSION}: it has no {error.filename}") from None
    shown = {name: (files(__package__) / "page" / name).read_bytes() for name in _PAGE}
    return {
        **shown,
        "model.js": _assigned("MODEL", model),
        "runtime.js": _assigned("RUNTIME", parts),
        _SCRIPT: script,
        f"{PACKAGE}.md": licence,
    }


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _assigned(name: str, value: Any) -> bytes:
    return f"window.{name} = {json.dumps(value)};\n".encode()


@contextmanager
def _package(runtime: Path | None) -> Iterator[Path]:
    """The folder of the npm package: the given one, the one beside the working folder, or a download by npm.

    Raises:
        UserError: if there is none.
    """
    beside = Path("node_modules") / PACKAGE
    if runtime is not None or beside.is_dir():
        yield beside if runtime is None else runtime
        return
    npm = shutil.which("npm")
    how = f"npm install {PACKAGE}@{VERSION}, and then --runtime node_modules/{PACKAGE}"
    if npm is None:
        raise UserError(
            f"the page needs the npm package {PACKAGE} {VERSION}, and there is no npm here: where there is one, {how}"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", f"{PACKAGE}@{VERSION}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or not archives:
            said = " ".join(done.stderr.split())[:200]
            raise UserError(f"npm could not get {PACKAGE} {VERSION} ({said}): {how}")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder) / "package"
