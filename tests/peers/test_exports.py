"""Exported networks in ExecuTorch, and NIR files in snnTorch."""

import sys
from pathlib import Path

import pytest
import torch

from spikedistill import export, load
from spikedistill.exporting import Exit, FlatStep, verify

sys.path += [str(Path(__file__).parents[1] / name) for name in ("exporting", "docs", "")]

from exact_networks import dyadic
from pages import fences
from quick_runs import quick

from spikedistill import train
from spikedistill.config import DataConfig
from spikedistill.data import Preprocess, load_dataset
from spikedistill.exporting import Description
from spikedistill.exporting import executorch as files
from spikedistill.exporting.nir_reading import evaluated, ordered

T = 4
# of executorch, torchao and snntorch
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def hard_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = DataConfig(name="digits", batch_size=60, train_samples=600)
    config = quick("digits-twce", out=tmp_path_factory.mktemp("runs") / "hard", epochs=12, data=data)
    lif = config.model.lif.model_copy(update={"v_reset": 0.0})
    return Path(train(config.model_copy(update={"model": config.model.model_copy(update={"lif": lif, "width": 0.5})})))


def quarters(count: int = 40) -> torch.Tensor:
    return torch.randint(5, (count, 1, 10, 10), generator=torch.Generator().manual_seed(1)) / 4


def test_executorch_agrees_spike_by_spike_where_all_sums_are_exact():
    pytest.importorskip("executorch")
    for v_reset in (None, 0.0):
        step = FlatStep(dyadic(v_reset), quarters()[:4])
        about = Description("step", T, list("abcde"), Preprocess("image", 1, (10, 10)), step.state, Exit())
        content = files.program_of(step, [quarters()[:1], *step.initial(1)], about)
        found = verify(step, files.runner(content), [quarters()] * T, Exit("confidence", 0.9))
        assert (found.different, found.flips, found.largest) == (0, 0, 0.0)


def test_a_trained_run_in_executorch(hard_run: Path, tmp_path: Path):
    pytest.importorskip("executorch")
    made = export(hard_run, "executorch", tmp_path / "step.pte")
    assert made.verified.different <= 0.005 * made.verified.samples
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(tmp_path / "step.pte")
    assert '"form": "step"' in program.load_method("spikedistill").execute([])[0]


def test_a_nir_file_gives_the_same_spikes_in_snntorch(hard_run: Path, tmp_path: Path):
    """Each layer of neurons as snnTorch's own, which resets one timestep later unless it is told not to."""
    pytest.importorskip("nirtorch")
    snntorch = pytest.importorskip("snntorch")
    import nir as format

    export(hard_run, "nir", tmp_path / "net.nir")
    graph = format.read(tmp_path / "net.nir")
    network = load(hard_run)
    images = load_dataset("digits").test.inputs(torch.arange(100)) / 255
    order = [name for name in ordered(graph) if name != "input"]
    own = FlatStep(network, images[:4])
    expected = {}
    state = own.initial(100)
    for t in range(3):
        _, *state = own(images, *state)
        expected[t] = dict(zip([each.key for each in own.state], state, strict=True))
    assert {name for name in order if type(graph.nodes[name]).__name__ == "LIF"} == set(expected[0])
    neurons = {}
    for name in expected[0]:
        node = graph.nodes[name]
        beta = float(1 - 1 / node.tau.flat[0])
        neurons[name] = snntorch.Leaky(
            beta=beta, threshold=float(node.v_threshold.flat[0]), reset_mechanism="zero", reset_delay=False
        )
    membranes = {name: torch.zeros(100, *graph.nodes[name].v_threshold.shape) for name in neurons}
    different = 0
    for t in range(3):
        values = {"input": images}
        for name in order:
            given = sum(values[source] for source, target in graph.edges if target == name)
            if name in neurons:
                values[name], membranes[name] = neurons[name](given, membranes[name])
                different += int((membranes[name] - expected[t][name]).abs().gt(1e-3).sum())
            else:
                values[name], _ = evaluated(graph.nodes[name], given, None)
    assert different == 0


def test_the_page_on_executorch_runs_as_it_stands(hard_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("executorch")
    export(hard_run, "executorch", tmp_path / "digits.pte")
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "deploy" / "executorch.md"
    (code,) = [fence.code for fence in fences(page, "python") if fence.peer == "executorch"]
    exec(compile(code, str(page), "exec"), {})
