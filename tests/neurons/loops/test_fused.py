"""The dynamics compiled by PyTorch, as surrogates of one's own have them, against the eager ones, on the same currents."""

import os
import subprocess
import sys

import pytest
import torch
from torch._dynamo.utils import counters
from torch.utils.flop_counter import FlopCounterMode

from spikedistill.neurons import Neuron, lif, lif_in_bits, lif_response
from spikedistill.neurons.eligibility import lif_response_in_chunks
from spikedistill.neurons.loops import compiler, fused, paths
from spikedistill.neurons.loops.packed import PackedSpikes, pack
from spikedistill.neurons.surrogate import dspike, rectangular, sigmoid

needs_compiler = pytest.mark.skipif(not compiler.compiler_works(), reason="torch.compile needs a C++ compiler")


@pytest.fixture(autouse=True)
def _without_kernels(monkeypatch):
    monkeypatch.setattr(paths, "_cpu_kernels", lambda: None)


def graphs_compiled():
    return counters["stats"]["unique_graphs"]


OPTIONS = {
    "soft": {"decay": 0.5},
    "hard": {"decay": 0.8, "v_reset": 0.1, "surrogate": "triangular", "v_init": 0.4, "threshold": 0.7},
    "hard, detached": {"v_reset": 0.0, "detach_reset": True, "surrogate": "rectangular"},
    "soft, a tanh": {"decay": 0.5, "surrogate": "dspike", "threshold": 0.6},
    "soft, detached, cut": {"detach_reset": True, "detach_membrane": True, "surrogate": "arctan", "decay": 1.0},
}


@needs_compiler
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_spikes_are_equal_and_gradients_too(options, dtype, monkeypatch):
    for T, shape in ((3, (4, 5)), (3, (2, 3, 7, 7))):
        torch.manual_seed(T)
        current = torch.randn(T, *shape).to(dtype).requires_grad_()
        grad = torch.randn(T, *shape).to(dtype)
        outcomes = []
        for smallest in (2**60, 0):
            monkeypatch.setattr(paths, "MIN_ELEMENTS", smallest)
            spikes = lif(current, **options)
            outcomes.append((spikes.detach(), torch.autograd.grad(spikes, current, grad)[0]))
        (eager, eager_grad), (fast, fast_grad) = outcomes
        assert fast.dtype == dtype
        assert 0 < eager.float().mean() < 1
        assert torch.equal(eager, fast)
        # in bfloat16 the eager path rounds at each timestep what the compiled one adds up in float32
        tolerance = 1e-6 if dtype == torch.float32 else 1e-2
        assert (fast_grad - eager_grad).norm() <= tolerance * eager_grad.norm()


@needs_compiler
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("T", [8, 9, 17])
def test_membranes_and_gradients_pass_from_block_to_block(T, monkeypatch):
    """The loops take so many timesteps at a time: one block, two, three, the last a short one."""
    torch.manual_seed(0)
    current = torch.randn(T, 2, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(T, 2, 3, dtype=torch.float64)
    outcomes = []
    for smallest, block in ((2**60, 8), (0, 8), (0, 16)):
        monkeypatch.setattr(paths, "MIN_ELEMENTS", smallest)
        monkeypatch.setattr(fused, "BLOCK", block)
        spikes, packed = lif_in_bits(current, Neuron(decay=0.9, v_init=0.3))
        outcomes.append((spikes, torch.autograd.grad(spikes, current, weights)[0]))
        assert packed is None or torch.equal(packed.read(0, T, torch.float64), spikes)
    for spikes, grad in outcomes[1:]:
        assert torch.equal(spikes, outcomes[0][0])
        torch.testing.assert_close(grad, outcomes[0][1], rtol=1e-12, atol=1e-14)


def test_code_is_for_numbers_of_timesteps_and_options_but_for_every_size():
    x = torch.zeros(4, 6, 5)
    kind = compiler.kind_of((x, 0.5, None, (torch.zeros(6, 1),)))
    assert kind == compiler.kind_of((x.new_zeros(4, 60, 7), 0.5, None, (torch.zeros(60, 1),)))
    for other in (
        (x[:3], 0.5, None, (torch.zeros(6, 1),)),
        (x, 0.25, None, (torch.zeros(6, 1),)),
        (x, 0.5, 0.0, (torch.zeros(6, 1),)),
        (x.bfloat16(), 0.5, None, (torch.zeros(6, 1),)),
        (x[:, :1], 0.5, None, (torch.zeros(1, 1),)),
        (x.transpose(1, 2), 0.5, None, (torch.zeros(6, 1),)),
    ):
        assert compiler.kind_of(other) != kind


@needs_compiler
@pytest.mark.filterwarnings("ignore")
def test_all_blocks_of_one_size_take_the_same_code(monkeypatch):
    monkeypatch.setattr(paths, "MIN_ELEMENTS", 0)
    loops = [compiler.compiled(loop).versions for loop in (fused._fire, fused._gradient_of_block)]
    before, traced = [len(versions) for versions in loops], graphs_compiled()
    lif(torch.randn(24, 2, 3, requires_grad=True), decay=0.3).sum().backward()
    assert [len(versions) for versions in loops] == [count + 1 for count in before]
    assert graphs_compiled() == traced + 2


@needs_compiler
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("surrogate", [sigmoid, dspike])
def test_the_slope_of_compiled_loops_is_exact_to_2e_6(surrogate):
    distance = torch.linspace(-8, 8, 10_001)
    exact = surrogate(distance.double())
    found = torch.compile(surrogate)(distance).double()
    near = distance.abs() < (2.25 if surrogate is sigmoid else 1)  # 5e-4 of the peak is left there
    assert ((found - exact).abs() <= 2e-6 * exact)[near].all()
    assert (found - exact).abs().max() <= 2e-6


@pytest.mark.parametrize("surrogate", [sigmoid, dspike])
def test_compiled_loops_on_a_cpu_call_no_function_for_an_exponential(surrogate):
    called = []

    def record(graph, inputs):
        called.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    torch.compile(surrogate, backend=record)(torch.zeros(3))
    assert called
    assert not [name for name in called if "exp" in name or "tanh" in name]


@needs_compiler
@pytest.mark.filterwarnings("ignore")
def test_with_the_channels_last_in_memory(monkeypatch):
    torch.manual_seed(0)
    current = torch.randn(2, 2, 3, 4, 4).permute(0, 1, 4, 2, 3).requires_grad_()  # [2, 2, 4, 3, 4], the channels last
    grad, outcomes = torch.randn(current.shape), []
    for smallest in (2**60, 0):
        monkeypatch.setattr(paths, "MIN_ELEMENTS", smallest)
        spikes = lif(current)
        outcomes.append((spikes.detach(), torch.autograd.grad(spikes, current, grad)[0]))
    assert torch.equal(outcomes[0][0], outcomes[1][0])
    torch.testing.assert_close(outcomes[1][1], outcomes[0][1], rtol=1e-5, atol=1e-6)


@needs_compiler
@pytest.mark.filterwarnings("ignore")
def test_spikes_of_more_timesteps_than_a_byte_has_bits(monkeypatch):
    torch.manual_seed(0)
    T = 9
    packed = PackedSpikes(T, pack(list((torch.rand(T, 5, 6) < 0.5).float())))
    residual = packed.read(0, T, torch.float32)
    x, to_spikes, scale, shift = torch.randn(T, 5, 6), torch.randn(T, 5, 6), torch.rand(5, 1), torch.rand(5, 1)
    neuron, outcomes = Neuron(surrogate=rectangular), []
    for smallest, kept in ((2**60, residual), (0, packed)):
        monkeypatch.setattr(paths, "MIN_ELEMENTS", smallest)
        path = paths.path_of(x, neuron)
        spikes, bits, starts = fused.fire_sequence(x, scale, shift, residual, neuron, path, for_gradient=True)
        assert torch.equal(PackedSpikes(T, bits).read(0, T, torch.float32), spikes)
        given = to_spikes, x, scale, shift, kept, starts, neuron, False, path
        outcomes.append((spikes, fused.gradient_through_time(*given)))
    assert torch.equal(outcomes[0][0], outcomes[1][0])
    torch.testing.assert_close(outcomes[1][1], outcomes[0][1], rtol=1e-5, atol=1e-6)


@needs_compiler
@pytest.mark.filterwarnings("ignore")
def test_chunks_are_compiled_once_and_not_for_each_of_them(monkeypatch):
    """The derivative of a membrane whose reset is detached is a number that grows with the timesteps."""
    torch.manual_seed(0)
    current, options = torch.randn(6, 3, 4), {"detach_reset": True, "decay": 0.9}
    whole = lif_response(current, (6,), Neuron(**options))
    monkeypatch.setattr(paths, "MIN_ELEMENTS", 0)
    before = graphs_compiled()
    in_chunks = lif_response_in_chunks(lambda start, stop: current[start:stop], (6,), 1, Neuron(**options))
    assert graphs_compiled() - before <= 2  # the first chunk and those after it
    assert torch.equal(in_chunks.spikes.read(0, 6, torch.float32), whole.spikes)
    torch.testing.assert_close(in_chunks.to_current, whole.to_current)


@needs_compiler
@pytest.mark.filterwarnings("ignore")
def test_the_response_of_mean_rates_is_equal(monkeypatch):
    torch.manual_seed(0)
    current = torch.randn(5, 3, 4)
    for lengths, options in (((5,), {}), ((2, 3), {"v_reset": 0.0, "decay": 0.7})):
        outcomes = []
        for smallest in (2**60, 0):
            monkeypatch.setattr(paths, "MIN_ELEMENTS", smallest)
            outcomes.append(lif_response(current, lengths, Neuron(**options)))
        assert torch.equal(outcomes[0].spikes, outcomes[1].spikes)
        assert torch.allclose(outcomes[0].to_current, outcomes[1].to_current, rtol=1e-5)


SCRIPT = """
import logging, torch; logging.basicConfig(level='WARNING')
from spikedistill import lif
for _ in range(2):
    x = torch.ones(2, 2**20, dtype=torch.float64, requires_grad=True)
    lif(x).sum().backward()
assert x.grad.abs().sum() > 0
"""


def log_of_script(**environment):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_without_a_compiler_it_says_so_once_and_goes_on(tmp_path):
    nowhere = str(tmp_path)
    log = log_of_script(CXX=f"{nowhere}/no-compiler", PATH=nowhere, TORCHINDUCTOR_CACHE_DIR=nowhere)
    assert log.count("torch.compile does not work here") == 1


def test_where_others_can_write_into_the_cache_of_torch_compile_it_is_not_used(tmp_path):
    """It holds pickles and libraries, which PyTorch would execute."""
    tmp_path.chmod(0o777)
    log = log_of_script(TORCHINDUCTOR_CACHE_DIR=str(tmp_path))
    assert log.count(f"other users can write in {tmp_path} (mode 0777); TORCHINDUCTOR_CACHE_DIR may name another") == 1
    assert not [*tmp_path.iterdir()]


@needs_compiler
@pytest.mark.filterwarnings("ignore")
def test_under_a_dispatch_mode_the_eager_path_is_taken(monkeypatch):
    """A counter of operations has to see them, and the compiler refuses to run below one."""
    monkeypatch.setattr(paths, "MIN_ELEMENTS", 1)
    current = torch.randn(3, 4, 5, requires_grad=True)
    with FlopCounterMode(display=False):
        counted = lif(current, decay=0.5)
        counted.sum().backward()
    assert torch.equal(counted, lif(current, decay=0.5))
