"""SpikingJelly's own frames of events and ours, of the same recordings."""

import importlib
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("spikingjelly")

from spikedistill.data import Recording
from spikedistill.data.recordings import frames_of
from spikedistill.data.sets.nmnist import SIDE, read_events

pytestmark = pytest.mark.filterwarnings("ignore")
REAL = 20
FIELDS = {"t": "time", "x": "x", "y": "y", "p": "polarity"}


def recordings() -> list[Recording]:
    """Sixty: of 1 to 40 events, of hundreds and thousands, and real ones of N-MNIST where $SPIKEDISTILL_DATA has it."""
    generator = np.random.default_rng(0)
    files = sorted((Path(os.environ.get("SPIKEDISTILL_DATA", "nowhere")) / "N-MNIST").rglob("*.bin"))[:REAL]
    lengths = [*range(1, 41), *generator.integers(41, 5000, 60 - 40 - len(files))]
    synthetic = [
        Recording(
            *generator.integers(0, SIDE, (2, N)).astype(np.uint16),
            generator.integers(0, 2, N).astype(np.uint8),
            np.sort(generator.integers(0, 10**5, N)),
        )
        for N in lengths
    ]
    return [*synthetic, *(read_events(file) for file in files)]


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Their functions on events, without their data sets, which import torchvision to download themselves."""
    import spikingjelly

    torchvision, package = types.ModuleType("torchvision"), types.ModuleType("spikingjelly.datasets")
    torchvision.transforms = None
    package.__path__ = [str(Path(path) / "datasets") for path in spikingjelly.__path__]
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    monkeypatch.setitem(sys.modules, "spikingjelly.datasets", package)
    module = importlib.import_module("spikingjelly.datasets.utils")
    del sys.modules["spikingjelly.datasets.utils"]
    return module


@pytest.mark.parametrize("slicing", ["number", "time"])
def test_frames_are_theirs_and_hold_every_event(theirs: types.ModuleType, slicing: str) -> None:
    found = recordings()
    assert len(found) == 60
    compared = 0
    for events in found:
        fields = {name: getattr(events, field).astype(np.int64) for name, field in FIELDS.items()}
        for T in (1, 4, 10, 16):
            ours = frames_of(events, T, slicing, (SIDE, SIDE)).numpy()
            assert ours.sum() == len(events)
            try:
                expected = theirs.integrate_events_by_fixed_frames_number(fields, slicing, T, SIDE, SIDE)
            except IndexError:  # theirs knows no time without events
                assert slicing == "time"
                continue
            assert np.array_equal(ours, expected), (len(events), T)
            compared += 1
    assert compared >= 150
