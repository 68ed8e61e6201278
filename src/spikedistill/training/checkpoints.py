"""Checkpoints: a kill during writing loses none, damage is detected, and reading them executes no code.

A checkpoint is what `torch.save` writes, and behind it a line with the SHA-256 of all before, which `torch.load` ignores. It holds
tensors, numbers, strings and containers of them only. The one before the last is kept next to it.
"""

import copy
import io
import os
import pickle
import threading
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from ..errors import UserError
from ..files import sha256, write_atomically
from ..run_folder import RunFolder

_MARK = b"\nspikedistill checkpoint, sha256 "
# The entries that Lightning and this package need.
_ENTRIES = {
    "state_dict",
    "optimizer_states",
    "lr_schedulers",
    "loops",
    "callbacks",
    "epoch",
    "global_step",
    "epoch_means",
}


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file, and renames it when it is complete; the one before it becomes `previous.ckpt`.

    A checkpoint is written before `save_checkpoint` returns. If `storage_options` is a function, a thread writes it while training
    goes on, and then calls the function. One is written at a time: saving the next one, and the end of training, wait for it.

    Args:
        made_from: what the run is made from, by name: fingerprints of the data and the teacher. Every checkpoint carries them.
    """

    def __init__(self, made_from: Mapping[str, str]) -> None:
        super().__init__()
        self.made_from = dict(made_from)
        self._writer: threading.Thread | None = None
        self._error: BaseException | None = None

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Callable[[], None] | None = None,
    ) -> None:
        """Save a checkpoint, when the one before is written.

        Raises:
            OSError: if it cannot be written, or the one before could not.
        """
        self.wait()
        if storage_options is None:
            self._write(checkpoint, Path(path))
            return
        # a copy, because training changes the tensors while the checkpoint is written
        arguments = _copied_to_host(checkpoint), Path(path), storage_options
        self._writer = threading.Thread(target=self._write_beside, args=arguments, name="checkpoint")
        self._writer.start()

    def wait(self) -> None:
        """Wait until no checkpoint is being written.

        Raises:
            OSError: if one could not be written.
        """
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def teardown(self) -> None:
        self.wait()

    def _write_beside(self, checkpoint: dict[str, Any], path: Path, written: Callable[[], None]) -> None:
        try:
            self._write(checkpoint, path)
            written()
        except BaseException as error:  # `wait` raises it in the thread that trains
            self._error = error

    def _write(self, checkpoint: dict[str, Any], last: Path) -> None:
        buffer = io.BytesIO()
        torch.save({**checkpoint, "made_from": self.made_from}, buffer)
        content = buffer.getvalue()
        following = last.with_name("next.ckpt")
        write_atomically(following, content + _MARK + sha256(content).encode() + b"\n")
        if last.is_file():
            os.replace(last, last.with_name("previous.ckpt"))
        os.replace(following, last)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))


def _copied_to_host(value: Any) -> Any:
    """The same with every tensor and container copied."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        copied = copy.copy(value)  # a state_dict also has attributes
        copied.update({key: _copied_to_host(inner) for key, inner in value.items()})
        return copied
    if type(value) in (list, tuple):
        return type(value)(map(_copied_to_host, value))
    return value


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint with its checksum verified; nothing in it is executed.

    A checkpoint of version 0.1.0, which has no checksum, is verified by the checksums inside its archive.

    Raises:
        UserError: if it is damaged, holds anything but tensors, numbers, strings and containers of them, or is not of a run.
    """
    content = path.read_bytes()
    payload, mark, digest = content.rpartition(_MARK)
    if mark:
        whole = digest.strip() == sha256(payload).encode()
    else:
        payload, whole = content, _archive_is_whole(content)
    if not whole:
        raise UserError(f"{path} is damaged: its checksum does not fit")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about formats of tensors that we do not use
            checkpoint = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds more than tensors and numbers, and reading it would run code: it is refused, and nothing of it was run"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())[:120]})") from None
    if not isinstance(checkpoint, dict) or not checkpoint.keys() >= _ENTRIES:
        raise UserError(f"{path} is no checkpoint of a run")
    return checkpoint


def _archive_is_whole(content: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError, ValueError):
        return False


def last_good_checkpoint(run: RunFolder) -> dict[str, Any] | None:
    """The last checkpoint of a run that is whole, moved to its place; None if none was written.

    If it is damaged, a message says so, and the one before it is used.

    Raises:
        UserError: if all checkpoints are damaged, or one would run code.
    """
    said = []
    for path in (run.checkpoint, run.earlier_checkpoint):
        if not path.is_file():
            continue
        try:
            checkpoint = read_checkpoint(path)
        except UserError as error:
            if "would run code" in str(error):
                raise
            said.append(str(error))
            continue
        if path != run.checkpoint:
            what = said[0] if said else f"{run.checkpoint} was being replaced when a process was killed"
            print(f"{what}: going on from the one before it, in epoch {checkpoint['epoch'] + 1}", flush=True)
            os.replace(path, run.checkpoint)
        return checkpoint
    if said:
        raise UserError(f"{' and '.join(said)}: no other checkpoint is left; --overwrite begins the run anew")
    return None


def check_made_from(run: Path, checkpoint: Mapping[str, Any], now: Mapping[str, str]) -> None:
    """Refuse to resume a run if its data or its teacher have changed since it was begun.

    Checkpoints of version 0.1.0 do not record these.

    Raises:
        UserError: naming what has changed.
    """
    begun = checkpoint.get("made_from", now)
    changed = [name for name in sorted({*begun, *now}) if begun.get(name) != now.get(name)]
    if changed:
        raise UserError(
            f"{run} cannot go on, because {' and '.join(_NAMES.get(name, name) for name in changed)} changed since it was begun: "
            "restore it, or train with another --out"
        )


_NAMES = {
    "train": "the training samples",
    "test": "the test samples",
    "teacher": "the teacher",
    "init_from": "the file of --init-from",
    "augmentation": "the augmentation",
    "slicing": "the version of event slicing",
}


def check_fits(path: Path, checkpoint: Mapping[str, Any], own: Mapping[str, Tensor]) -> None:
    """Refuse the checkpoint of another network.

    Raises:
        UserError: naming the first tensor that is missing, unknown or of another shape.
    """
    theirs = checkpoint["state_dict"]
    for name in [*own, *(name for name in theirs if name not in own)]:
        shapes = [list(found[name].shape) if name in found else "none" for found in (own, theirs)]
        if shapes[0] != shapes[1]:
            raise UserError(f"{path} is of another network: {name} is {shapes[1]} there, expected {shapes[0]}")
