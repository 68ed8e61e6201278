"""Reads pickles of plain values and arrays of bytes, without calling what they name or allocating what they announce."""

import io
import math
import pickle
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

import numpy as np

MOST_READS = 2**20  # twice as many as the largest official file of CIFAR takes
# Instructions that plain values do not need: sets, registered types, names of other processes' objects, buffers of a stated length.
UNUSED = (
    *(pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.EXT1, pickle.EXT2, pickle.EXT4),
    *(pickle.PERSID, pickle.BINPERSID, pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
)


def load_plain(content: bytes) -> Any:
    """The content of a pickle: dictionaries, lists, tuples, numbers, text, and arrays of unsigned bytes as `ByteArray`.

    Raises:
        ForbiddenNameError: if it names anything else to import.
        Exception: of any kind, if it is damaged.
    """
    return _Unpickler(_Content(content), encoding="bytes").load()


class ForbiddenNameError(Exception):
    """A pickle names something to import that is not allowed."""


class _Dtype:
    """Replaces `numpy.dtype` in a pickle."""

    def __init__(self, code: bytes, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which unsigned bytes do not have."""


class ByteArray:
    """Replaces `numpy.ndarray` in a pickle, and accepts only plain unsigned bytes."""

    def __init__(self, *_: Any) -> None:
        self.array = np.empty(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran_order, data = state
        if dtype.code != b"u1" or fortran_order or math.prod(shape) != len(data):
            raise pickle.UnpicklingError("an array is not made of unsigned bytes, or does not match its own shape")
        self.array = np.frombuffer(data, np.uint8).reshape(shape)


class _Content:
    """The bytes of a pickle; the number of reads is limited."""

    def __init__(self, content: bytes) -> None:
        self.content = io.BytesIO(content)
        self.reads = 0

    def read(self, size: int) -> bytes:
        return self._checked(part := self.content.read(size), len(part) == size)

    def readline(self) -> bytes:
        return self._checked(line := self.content.readline(), line.endswith(b"\n"))

    def _checked(self, part: bytes, complete: bool) -> bytes:
        self.reads += 1
        if not complete:
            raise pickle.UnpicklingError("it ends too early")
        if self.reads > MOST_READS:
            raise pickle.UnpicklingError("more instructions than any official file has")
        return part


class _Instructions(dict[int, Callable[[Any], None]]):
    """The function that runs each instruction of a pickle, by its code."""

    def __missing__(self, code: int) -> NoReturn:
        raise pickle.UnpicklingError(f"no official file has the instruction {bytes([code])!r}")


class _Unpickler(pickle._Unpickler):
    """Accepts only the names that arrays of bytes need, and replaces them: nothing that a pickle names is ever called.

    This is the reader of Python's library that is written in Python. The reader written in C allocates any memory that
    an instruction demands, and deeply nested tuples as a key crash the process.
    """

    read: Callable[[int], bytes]
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    STAND_INS: ClassVar[dict[tuple[str, str], type]] = {
        ("numpy.core.multiarray", "_reconstruct"): ByteArray,
        ("numpy", "ndarray"): ByteArray,
        ("numpy", "dtype"): _Dtype,
    }
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = _Instructions(
        {code: run for code, run in pickle._Unpickler.dispatch.items() if code not in b"".join(UNUSED)}
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.STAND_INS:
            raise ForbiddenNameError(f"{module}.{name}")
        return self.STAND_INS[module, name]

    def load_frame(self) -> None:
        self.read(8)  # the length of a part, which would be read at once

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_items(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def _set_items(self, items: list[Any]) -> None:
        if not all(isinstance(key, bytes | str) for key in items[::2]):
            raise pickle.UnpicklingError("a key is no text")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    dispatch |= {
        pickle.FRAME[0]: load_frame,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }
