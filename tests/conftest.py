"""What all tests share."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real data sets, for tests marked `data`; they are skipped where $SPIKEDISTILL_DATA is unset."""
    root = os.environ.get("SPIKEDISTILL_DATA")
    if not root:
        pytest.skip("$SPIKEDISTILL_DATA is not set")
    return Path(root)
