"""Which layers run on spikes, and the file of what was measured."""

import json
import stat
import subprocess
import sys

import pytest
import torch
from shapes import rows_of

from spikedistill import UserError, files
from spikedistill.sparse import Geometry, SparseLayer, choice, crossovers, kernels, runs_sparse, sparse_layers
from spikedistill.sparse.crossovers import DEFAULTS, crossover

pytestmark = pytest.mark.skipif(not kernels.available(), reason="needs a C++ compiler")

SMALL = Geometry.of((2, 8, 8, 8), (8, 8, 3, 3), (1, 1), (1, 1), (1, 1), 1)
LARGE = Geometry.of((2, 64, 16, 16), (64, 64, 3, 3), (1, 1), (1, 1), (1, 1), 1)
HUGE = LARGE._replace(images=16)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for known in (crossovers._file, crossovers._known):
        known.cache_clear()
    yield crossovers._file()
    for known in (crossovers._file, crossovers._known):
        known.cache_clear()


@pytest.fixture
def measured(monkeypatch):
    """What is measured, in place of measuring."""
    asked = []

    def measure(geometry, timesteps, operator, dtype):
        asked.append((geometry.images, timesteps, operator))
        return 0.25

    monkeypatch.setattr(crossovers, "measure", measure)
    return asked


def layer(geometry, density, timesteps=2):
    torch.manual_seed(0)
    spikes = torch.rand(timesteps, geometry.images, geometry.channels, geometry.height, geometry.width) < density
    return SparseLayer(rows_of(spikes), geometry, torch.float32)


def test_the_density_decides(file, measured):
    with sparse_layers("auto") as choices:
        assert runs_sparse(layer(HUGE, 0.2), "inference")
        assert not runs_sparse(layer(HUGE._replace(images=9), 0.3), "inference")
    assert measured == [(16, 2, "inference")]  # batches of 9 to 16 are one problem
    assert str(choices) == (
        "layers on spikes by their sizes: 1 sparse at densities of 0.20 to 0.20, 1 dense at densities of 0.30 to 0.30"
    )


@pytest.mark.parametrize(("mode", "sparse"), [("always", True), ("never", False)])
def test_a_mode_forces_either(mode, sparse, measured):
    with sparse_layers(mode):
        assert choice.may_run_sparse(torch.device("cpu"), torch.float32) == sparse
        if sparse:
            assert runs_sparse(layer(SMALL, 0.9), "forward")
    assert measured == []


def test_another_mode_is_refused():
    with pytest.raises(UserError, match="mode is 'alway', expected one of auto, always, never"), sparse_layers("alway"):
        pass


def test_layers_of_few_operations_run_dense_or_by_the_default(measured):
    assert SMALL.operations * 2 < choice.SMALLEST < LARGE.operations < crossovers.MEASURED_FROM
    assert not runs_sparse(layer(SMALL, 0.01), "inference")
    assert runs_sparse(layer(LARGE, DEFAULTS["inference"] - 0.01, 1), "inference")
    assert not runs_sparse(layer(LARGE, DEFAULTS["inference"] + 0.01, 1), "inference")
    assert measured == []


def test_other_devices_and_dtypes_run_dense():
    assert not choice.may_run_sparse(torch.device("meta"), torch.float32)
    assert not choice.may_run_sparse(torch.device("cpu"), torch.float64)
    assert choice.may_run_sparse(torch.device("cpu"), torch.bfloat16)


def test_a_crossover_is_measured_once_and_kept(file, measured):
    assert [crossover(HUGE, 2, operator, torch.float32) for operator in DEFAULTS] == [0.25] * 3
    assert len(json.loads(file.read_bytes())) == 3
    crossovers._known.cache_clear()  # as in another process
    assert crossover(HUGE, 2, "gradient", torch.float32) == 0.25
    assert len(measured) == 3
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": "b"}', b"\xff\xfe", b'{"x": 7}'])
def test_a_damaged_file_is_measured_anew(content, file, measured):
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    assert crossover(HUGE, 2, "forward", torch.float32) == 0.25
    assert list(json.loads(file.read_bytes()).values()) == [0.25]


def test_where_nothing_can_be_kept_it_is_measured_in_each_process(file, measured, monkeypatch):
    def refuse(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(files, "write_atomically", refuse)
    assert crossover(HUGE, 2, "forward", torch.float32) == 0.25
    assert not file.exists()
    crossovers._known.cache_clear()
    monkeypatch.setattr(crossovers, "cache_folder", refuse)
    crossovers._file.cache_clear()
    assert crossover(HUGE, 2, "forward", torch.float32) == 0.25


def test_two_processes_keep_what_both_measured(file, measured):
    code = (
        "from spikedistill.sparse import crossovers, Geometry\n"
        "import torch\n"
        "crossovers.measure = lambda *_: 0.5\n"
        "for t in range(1, 6): crossovers.crossover(Geometry(*{}), t, {!r}, torch.float32)\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code.format(tuple(HUGE), operator)])
        for operator in ("forward", "gradient")
    ]
    assert [process.wait() for process in running] == [0, 0]
    # one may miss what the other wrote in between, and then measures it again; the file is always whole
    assert set(json.loads(file.read_bytes()).values()) == {0.5}


def test_what_is_measured_lies_between_0_and_1():
    """Numbers of this machine, of which only the range is certain."""
    torch.set_num_threads(1)
    for operator in DEFAULTS:
        assert 0 <= crossovers.measure(LARGE, 2, operator, torch.float32) <= 1
