"""What all tests share."""

import importlib
import importlib.util
import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

if importlib.util.find_spec("triton") and not torch.cuda.is_available():
    # Triton decides as it is imported, which PyTorch's compiler may do at any time, whether kernels can be interpreted
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        importlib.import_module("triton.language")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real data sets, for tests marked `data`; they are skipped where $SPIKEDISTILL_DATA is unset."""
    root = os.environ.get("SPIKEDISTILL_DATA")
    if not root:
        pytest.skip("$SPIKEDISTILL_DATA is not set")
    return Path(root)
