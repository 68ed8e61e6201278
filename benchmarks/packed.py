"""Whether samples are right, as text for JSON."""

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


def packed(right: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """An array of bools as its shape and its compressed bits."""
    bits = base64.b64encode(zlib.compress(np.packbits(right).tobytes(), 9)).decode()
    return {"shape": list(right.shape), "bits": bits}


def unpacked(found: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """The array that `packed` was given."""
    count = int(np.prod(found["shape"]))
    raw = np.frombuffer(zlib.decompress(base64.b64decode(found["bits"])), np.uint8)
    return np.unpackbits(raw, count=count).reshape(found["shape"]).astype(bool)
