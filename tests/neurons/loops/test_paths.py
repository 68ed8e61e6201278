"""What `path_of` says is what runs: on both sides of every size, dtype, device, option and machine."""

import functools
import importlib.util
import re
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import spikedistill
from spikedistill.errors import UserError
from spikedistill.neurons import (
    Neuron,
    NormalisedCurrent,
    lif,
    lif_in_bits,
    lif_response,
    lif_response_in_chunks,
    norm_lif,
    norm_lif_step,
    path_of,
    uncompiled,
)
from spikedistill.neurons.loops import compiler, paths
from spikedistill.robustness.surrogates import MembraneWide

SMALLEST = 2**15
FEW, ENOUGH = (1, 2, SMALLEST // 2 - 1), (1, 2, SMALLEST // 2)
# for torch.compile
FEWER, MORE = (1, 2, 8 * SMALLEST - 1), (1, 2, 8 * SMALLEST)
KERNELS = "fire", "gradient", "gradient_through_norm", "respond"


def linear(distance):
    return 1 - distance.abs()


def looks(distance):
    """Decides by a value, which no compiler can do ahead of time."""
    return 1 - distance.abs() if distance.max() > 0 else torch.ones_like(distance)


@dataclass
class Steep:
    """A surrogate without a hash."""

    slope: float

    def __call__(self, distance):
        return self.slope * torch.ones_like(distance)


@pytest.fixture
def ran(monkeypatch):
    """The names of the paths of the loops that ran; none of them where the eager path did. Nothing is compiled by PyTorch."""
    names = set()

    def recorded(name, function):
        def call(*args, **kwargs):
            names.add(name)
            return function(*args, **kwargs)

        return call

    from spikedistill.neurons.loops import on_cpu

    modules = [(on_cpu, "C++")]
    if importlib.util.find_spec("triton"):
        with monkeypatch.context() as patch:  # kernels are interpreted or not from their import on
            on_gpu(patch)
            modules.append((paths._gpu_kernels(), "Triton"))
    for module, name in modules:
        for kernel in KERNELS:
            monkeypatch.setattr(module, kernel, recorded(name, getattr(module, kernel)))
    plain = recorded("torch.compile", lambda loop, *arguments: loop.function(*arguments))
    monkeypatch.setattr(compiler.CompiledLoop, "__call__", plain)
    return names


def without_cpp(monkeypatch):
    monkeypatch.setattr(paths, "_cpu_kernels", lambda: None)
    return "cpu"


def without_any_compiler(monkeypatch):
    monkeypatch.setattr(paths, "compiler_works", lambda: False)
    return without_cpp(monkeypatch)


def on_gpu(monkeypatch):
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        return "cuda"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    return "cpu"


def without_triton(monkeypatch):
    monkeypatch.setattr(paths, "_gpu_kernels", lambda: None)
    return on_gpu(monkeypatch)


def here(monkeypatch):
    return "cpu"


# where, shape, dtype, options, timesteps; name and reason
CASES = {
    "too few": (here, FEW, torch.float32, {}, None, "eager", "fewer than 32768 currents"),
    "enough": (here, ENOUGH, torch.float32, {}, None, "C++", "32768 currents or more on a CPU"),
    "too few in three timesteps": (here, (1, 2, SMALLEST // 8), torch.float32, {}, 3, "eager", "fewer than"),
    "enough in four": (here, (1, 2, SMALLEST // 8), torch.float32, {}, 4, "C++", "or more"),
    "more timesteps than a block": (here, (1, 2, SMALLEST // 16), torch.float32, {}, 9, "C++", "or more"),
    "bfloat16": (here, ENOUGH, torch.bfloat16, {}, None, "C++", "or more"),
    "few in float64": (here, FEWER, torch.float64, {}, None, "eager", "fewer than"),
    "float64": (here, MORE, torch.float64, {}, None, "torch.compile", "C++ does not know torch.float64"),
    "float16": (here, MORE, torch.float16, {}, None, "torch.compile", "C++ does not know torch.float16"),
    "every surrogate of the library": (here, ENOUGH, torch.float32, {"surrogate": "dspike"}, None, "C++", "or more"),
    "a surrogate of one's own": (here, MORE, torch.float32, {"surrogate": linear}, None, "torch.compile", "surrogate"),
    "without a hash": (here, MORE, torch.float32, {"surrogate": Steep(2.0)}, None, "torch.compile", "surrogate"),
    "few with one's own": (here, FEWER, torch.float32, {"surrogate": linear}, None, "eager", "fewer than"),
    "that cannot be compiled": (here, MORE, torch.float32, {"surrogate": looks}, None, "eager", "cannot take"),
    "that follows the membranes": (here, MORE, torch.float32, {"surrogate": MembraneWide()}, None, "eager", "follows"),
    "a threshold": (here, ENOUGH, torch.float32, {"threshold": torch.ones(1)}, None, "eager", "a tensor as threshold,"),
    "a decay": (here, ENOUGH, torch.float32, {"decay": torch.tensor(0.5)}, None, "eager", "a tensor as decay,"),
    "initial membranes": (here, ENOUGH, torch.float32, {"v_init": torch.zeros(1)}, None, "eager", "a tensor as v_init,"),
    "no C++": (without_cpp, MORE, torch.float32, {}, None, "torch.compile", "C++ does not work here"),
    "few without C++": (without_cpp, FEWER, torch.float32, {}, None, "eager", "fewer than"),
    "no compiler": (without_any_compiler, MORE, torch.float32, {}, None, "eager", "torch.compile does not work"),
    "on a GPU": (on_gpu, (2, 3), torch.float32, {}, None, "Triton", "on a GPU"),
    "float16 on a GPU": (on_gpu, (2, 3), torch.float16, {}, None, "Triton", "on a GPU"),
    "few in float64 on a GPU": (on_gpu, (2, 3), torch.float64, {}, None, "eager", "fewer than"),
    "float64 on a GPU": (on_gpu, MORE, torch.float64, {}, None, "torch.compile", "Triton does not know torch.float64"),
    "one's own on a GPU": (on_gpu, MORE, torch.float32, {"surrogate": linear}, None, "torch.compile", "surrogate"),
    "a threshold on a GPU": (on_gpu, (2, 3), torch.float32, {"threshold": torch.ones(1)}, None, "eager", "a tensor as"),
    "still on a GPU": (on_gpu, (1, 3), torch.float32, {}, 9, "Triton", "on a GPU"),
    "no Triton": (without_triton, MORE, torch.float32, {}, None, "eager", "Triton does not work here"),
}  # fmt: skip


def skip_without(name):
    if name == "C++" and paths._cpu_kernels() is None:
        pytest.skip("needs a C++ compiler")
    if name == "torch.compile" and not compiler.compiler_works():
        pytest.skip("torch.compile needs a C++ compiler")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_spikes_and_their_gradients(case, ran, monkeypatch):
    where, shape, dtype, options, timesteps, name, reason = case
    skip_without(name)
    device = where(monkeypatch)
    torch.manual_seed(0)
    on_device = {
        name: option.to(device) if isinstance(option, torch.Tensor) else option for name, option in options.items()
    }
    neuron, current = Neuron(**on_device), torch.randn(shape).to(device, dtype).requires_grad_()
    path = path_of(current, neuron, timesteps)
    assert path.name == name
    assert reason in str(path)
    expected = set() if path.is_eager else {name}
    spikes, _ = lif_in_bits(current, neuron, timesteps=timesteps)
    assert ran == expected
    ran.clear()
    (ours,) = torch.autograd.grad(spikes.sum(), current)
    assert ran == expected
    with uncompiled():
        same, _ = lif_in_bits(current, neuron, timesteps=timesteps)
        (exact,) = torch.autograd.grad(same.sum(), current)
    assert torch.equal(spikes, same)
    assert (ours.double() - exact.double()).norm() <= (1e-5 if dtype.itemsize > 2 else 1e-2) * exact.double().norm()


RATES = {
    "segments of one length": (here, (4, 2**17), (2, 2), (), "C++"),
    "of different lengths": (here, (4, 2**17), (1, 3), (), "torch.compile"),
    "few of different lengths": (here, (4, 2**17 - 1), (1, 3), (), "eager"),
    "other responses": (here, (4, 2**17), (4,), ("decay",), "torch.compile"),
    "still": (here, (1, 2**17), (4,), (), "C++"),
    "on a GPU": (on_gpu, (4, 3), (2, 2), (), "Triton"),
    "of different lengths on a GPU": (on_gpu, (4, 3), (1, 3), (), "eager"),
    "64 timesteps on a GPU": (on_gpu, (1, 3), (32, 32), (), "Triton"),
    "65 timesteps on a GPU": (on_gpu, (1, 3), (65,), (), "eager"),
}


@pytest.mark.parametrize("case", RATES.values(), ids=RATES)
def test_rates(case, ran, monkeypatch):
    where, shape, lengths, learned, name = case
    skip_without(name)
    current = torch.randn(shape, device=where(monkeypatch))
    path = path_of(current, Neuron(), sum(lengths), lengths=lengths, learned=learned)
    assert path.name == name
    lif_response(current, lengths, Neuron(), learned)
    assert ran == (set() if path.is_eager else {name})


@pytest.mark.parametrize(("few", "name"), [(1, "eager"), (0, "torch.compile")])
def test_sequences_in_chunks(few, name, ran):
    skip_without(name)
    current = torch.zeros(4, 8 * SMALLEST - few)
    path = path_of(current[:2], in_chunks=True)
    assert path.name == name
    lif_response_in_chunks(lambda start, stop: current[start:stop], (4,), 2, Neuron())
    assert ran == (set() if path.is_eager else {name})


def normalised(x, **options):
    channels = torch.ones(x.shape[2], dtype=x.dtype)
    return NormalisedCurrent(x, channels, channels, channels, channels, 1e-5, batch=True, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("few", [0, 1])
def test_behind_a_batch_norm(few, dtype, ran):
    """In a sequence, and one timestep at a time, where the batch-norm has decided that there is enough."""
    name = "eager" if few else "C++" if dtype == torch.float32 else "torch.compile"
    skip_without(name)
    enough = SMALLEST // 2 if dtype == torch.float32 else 8 * SMALLEST
    x = torch.randn(1, 1, 2, enough - few, dtype=dtype, requires_grad=True)
    path, expected = path_of(x), set() if few else {name}
    assert path.name == name
    spikes, _ = norm_lif(normalised(x), Neuron())
    assert ran == expected
    ran.clear()
    spikes.sum().backward()
    assert ran == expected
    if not few:
        ran.clear()
        with torch.no_grad():
            norm_lif_step(normalised(x.detach()), None, Neuron())
        assert ran == expected


@pytest.mark.parametrize("inside", [uncompiled, lambda: FlopCounterMode(display=False), nullcontext])
def test_where_nothing_but_the_eager_path_may_run(inside, ran):
    skip_without("C++")
    current = torch.zeros(ENOUGH)
    with inside():
        path = path_of(current)
        lif(current)
    assert path.is_eager == (inside is not nullcontext)
    assert ran == (set() if path.is_eager else {"C++"})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler
def test_inside_a_network_that_is_compiled_as_a_whole(ran):
    def count(current):
        return lif(current).sum() + (0 if path_of(current).is_eager else 1)

    whole = torch.compile(count, backend="eager", fullgraph=True)
    assert whole(torch.ones(ENOUGH)) == SMALLEST
    assert ran == set()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_surrogate_that_changes_is_compiled_again(monkeypatch):
    """It has no hash. What it is now is what counts, whatever was compiled before."""
    skip_without("torch.compile")
    trace = functools.partial(torch.compile, backend="eager", dynamic=True, fullgraph=True)
    monkeypatch.setattr(torch, "compile", lambda function, **_: trace(function))
    monkeypatch.setattr(paths, "MIN_ELEMENTS", 0)
    surrogate, current = Steep(2.0), torch.zeros(1, 3, requires_grad=True)
    assert path_of(current, Neuron(surrogate=surrogate)).name == "torch.compile"
    for slope in (2.0, 3.0):
        surrogate.slope = slope
        (grad,) = torch.autograd.grad(lif(current, surrogate=surrogate).sum(), current)
        assert torch.equal(grad, torch.full((1, 3), slope))


@pytest.mark.parametrize("current", [torch.zeros(2, 3, dtype=torch.int64), torch.tensor(1.0), torch.zeros(0, 3)])
def test_what_is_no_sequence_of_currents_is_refused(current):
    with pytest.raises(UserError, match=r"lif takes floating-point currents \[T, B, ...\] with T >= 1; got"):
        path_of(current)


def test_currents_of_other_timesteps_are_refused():
    with pytest.raises(UserError, match="currents of 3 timesteps, expected 4, or one that is the same at all"):
        lif_in_bits(torch.zeros(3, 2), Neuron(), timesteps=4)
    with pytest.raises(UserError, match="currents of 3 timesteps, expected 1"):
        path_of(torch.zeros(3, 2), timesteps=1)
    with pytest.raises(UserError, match="currents of 3 timesteps, expected 4"):
        lif_response(torch.zeros(3, 2), (2, 2), Neuron())


def test_currents_without_values_have_the_eager_path(ran):
    current = torch.empty(ENOUGH, device="meta")
    assert path_of(current).is_eager
    assert lif(current).shape == ENOUGH
    assert ran == set()


def test_the_loops_are_a_private_room():
    """Modules of `neurons` import from its `__init__`; nobody else imports from it."""
    package = Path(spikedistill.__file__).parent
    for file in package.rglob("*.py"):
        if file.parent.name == "loops":
            continue
        found = set(
            re.findall(r"^\s*from (\S*loops\S*) import|^\s*import (\S*loops\S*)", file.read_text(), re.MULTILINE)
        )
        assert found <= ({(".loops", "")} if file.parent.name == "neurons" else set()), file
