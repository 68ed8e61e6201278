"""Batch-norm and neurons in one compiled loop against the eager path, on identical inputs."""

import pytest
import torch
import torch.nn.functional as F
from kept_memory import run_and_keep
from torch import nn

from spikedistill import LIF, UserError, temporal
from spikedistill.neurons import Neuron, NormalisedCurrent, lif, norm_lif
from spikedistill.neurons.loops import compiler, fused, fused_norm, paths
from spikedistill.through_time.batch_norm import BatchNormCall, batch_statistics, running_statistics

pytestmark = [
    pytest.mark.skipif(not compiler.compiler_works(), reason="torch.compile needs a C++ compiler"),
    pytest.mark.filterwarnings("ignore"),
]
T, f64 = 3, torch.float64


class Residual(nn.Module):
    """What waits with nothing, with spikes and with another batch-norm on top; what is read before any neuron; a linear layer."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, 4, 3, padding=1, bias=False) for c in (2, 4, 4, 4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(6))
        self.neurons = nn.ModuleList(LIF(threshold=0.5) for _ in range(4))
        self.shortcut = nn.Conv2d(4, 4, 1, bias=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.neurons[0](self.norms[0](self.convs[0](x)))
        y = self.neurons[1](self.norms[1](self.convs[1](x)))
        y = self.neurons[2](x + self.norms[2](self.convs[2](y)))
        y = self.neurons[3](self.norms[3](self.convs[3](y)) + self.norms[4](self.shortcut(x)))
        read = self.norms[5](self.shortcut(y)) * 0.5
        return self.head((read + y).mean((2, 3)))


def outcome(smallest, monkeypatch, gradient, segments=1, dtype=f64, memory_format=torch.contiguous_format, T=T):
    monkeypatch.setattr(paths, "MIN_ELEMENTS", smallest)
    torch.manual_seed(0)
    network = Residual().to(dtype=dtype, memory_format=memory_format)
    model = temporal(network, gradient=gradient, segments=segments)
    x = torch.randn(T, 2, 2, 6, 5, dtype=dtype, requires_grad=True)
    logits = model(x)
    logits.tanh().square().sum().backward()
    trained = [logits.detach(), x.grad, *(p.grad for p in network.parameters()), *network.buffers()]
    with torch.no_grad():
        evaluated = [model.train(mode)(x) for mode in (True, False)]
    evaluated.append(model.eval()(x).detach())
    return [value.clone() for value in trained + evaluated]


@pytest.mark.parametrize(("gradient", "segments"), [("bptt", 1), ("sltt", 1), ("rate", 1), ("rate", (1, 2))])
def test_a_network_computes_what_it_does_without(gradient, segments, monkeypatch):
    eager = outcome(2**60, monkeypatch, gradient, segments)
    fast = outcome(1, monkeypatch, gradient, segments)
    assert eager[1].norm() > 1e-3
    for ours, expected in zip(fast, eager, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("gradient", ["bptt", "rate"])
def test_with_the_channels_last_in_memory_too(gradient, monkeypatch):
    """In two blocks, of 8 timesteps and of one, each of which has a byte of the residual's spikes."""
    kept = []
    keep = fused.gradient_through_time
    monkeypatch.setattr(fused_norm, "gradient_through_time", lambda *a: kept.append(a[1].shape) or keep(*a))
    fast = outcome(1, monkeypatch, gradient, memory_format=torch.channels_last, T=9)
    assert set(kept) == ({(9, 60, 4)} if gradient == "bptt" else set()), "[T, B * positions, channels]"
    eager = outcome(2**60, monkeypatch, gradient, T=9)
    for ours, expected in zip(fast, eager, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-10)


def test_gradients_keep_the_order_of_channels_in_memory(monkeypatch):
    """In another order every layer behind would copy them."""
    seen = []
    keep = fused_norm.gradient_of_norm
    monkeypatch.setattr(
        fused_norm, "gradient_of_norm", lambda grad, *a: seen.append(grad.flatten(0, 1)) or keep(grad, *a)
    )
    model = temporal(Residual().to(memory_format=torch.channels_last), gradient="rate")
    model(torch.randn(2, 2, 6, 5).contiguous(memory_format=torch.channels_last), timesteps=T).sum().backward()
    assert [grad.is_contiguous(memory_format=torch.channels_last) for grad in seen[1:]] == [True] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"v_reset": 0.0, "decay": 0.8, "threshold": 0.7}])
def test_spikes_differ_only_where_rounding_decides(options, dtype, monkeypatch):
    """On identical inputs, where the membrane in float64 is further from the threshold than 4 units in the last place."""
    torch.manual_seed(0)
    x, residual = torch.randn(T, 4, 8, 9, 9).to(dtype), (torch.rand(T, 4, 8, 9, 9) < 0.3).to(dtype)
    call = BatchNormCall(None, None, torch.rand(8) + 0.5, torch.randn(8), True, 0.1, 1e-5)
    mean, inv_std = batch_statistics(x, call)
    current = NormalisedCurrent(x, call.weight, call.bias, mean, inv_std, 1e-5, batch=True)
    spikes, packed = norm_lif(current.plus(residual, None), Neuron(**options))
    assert torch.equal(packed.read(0, T, dtype), spikes)
    exact = F.batch_norm(
        x.double().flatten(0, 1), None, None, call.weight.double(), call.bias.double(), True, 0.1, 1e-5
    )
    exact = exact.unflatten(0, x.shape[:2]) + residual.double()
    expected = lif(exact, **options)
    differing = spikes.double() != expected
    decay, threshold, v_reset = options.get("decay", 0.5), options.get("threshold", 1.0), options.get("v_reset")
    membrane, close = torch.zeros_like(exact[0]), torch.zeros_like(exact[0], dtype=torch.bool)
    for t in range(T):
        u = decay * membrane + exact[t]
        # once rounding has decided, all later timesteps of that neuron may differ
        close |= (u - threshold).abs() < 4 * 2.0**-23 * max(1.0, threshold) * (1 + exact[t].abs())
        assert not (differing[t] & ~close).any()
        fired = (u >= threshold).double()
        membrane = u - threshold * fired if v_reset is None else (1 - fired) * u + v_reset * fired
    assert 0.05 < expected.mean() < 0.95


def test_what_is_kept_for_the_gradient_is_the_convolutions_output_and_its_spikes_in_bits(monkeypatch):
    """Beside each convolution's own output in float32, four bytes, its input takes a third of one: three spikes in a byte."""
    monkeypatch.setattr(paths, "MIN_ELEMENTS", 1)
    torch.manual_seed(0)
    layers = [m for _ in range(3) for m in (nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), LIF())]
    model = temporal(nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 64, 2)))
    x = torch.randn(T, 4, 8, 8, 8)
    logits, kept = run_and_keep(model, x)
    neurons = x.numel()
    weights = sum(4 * p.numel() for p in model.parameters())
    # the input and three outputs of convolutions; spikes of three layers, the last also as the head sees them
    assert sum(kept.values()) <= 4 * neurons * 4 + 3 * neurons / T + 4 * neurons + weights + 2**14
    logits.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, f64, torch.bfloat16])
@pytest.mark.parametrize("mean", [0.0, 3.0, 3000.0])
def test_statistics_are_exact_also_far_from_zero(mean, dtype):
    torch.manual_seed(0)
    value = (torch.randn(T, 5, 6, 7, 8, dtype=f64) * torch.linspace(0.1, 2, 6).view(-1, 1, 1) + mean).to(dtype)
    precision = torch.promote_types(dtype, torch.float32)
    running = torch.zeros(6, dtype=precision), torch.ones(6, dtype=precision)
    found, inv_std = batch_statistics(value, BatchNormCall(*running, None, None, True, 0.25, 1e-5))
    var, expected = torch.var_mean(value.double(), (0, 1, 3, 4), correction=0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(inv_std.double(), (var + 1e-5).rsqrt(), rtol=1e-3 if mean > 10 else 2e-5, atol=0)
    count = T * 5 * 7 * 8
    torch.testing.assert_close(running[0].double(), 0.25 * expected, rtol=1e-5, atol=1e-6)
    unbiased = 0.75 + 0.25 * var * count / (count - 1)
    torch.testing.assert_close(running[1].double(), unbiased, rtol=1e-3 if mean > 10 else 2e-5, atol=0)


@pytest.mark.parametrize("gradient", ["bptt", "rate"])
def test_networks_in_half_precision_train(gradient, monkeypatch):
    monkeypatch.setattr(paths, "MIN_ELEMENTS", 1)
    torch.manual_seed(0)
    network = Residual().bfloat16()
    out = temporal(network, gradient=gradient)(torch.randn(T, 2, 2, 6, 5).bfloat16())
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.bfloat16 for p in network.parameters())
    assert network.convs[0].weight.grad.norm() > 0


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("tracked", [True, False])
def test_statistics_of_half_precision_are_float32(memory_format, tracked):
    torch.manual_seed(0)
    value = (torch.randn(T * 5, 4, 6, 6) + 0.5).to(torch.bfloat16, memory_format=memory_format)
    running = [torch.zeros(4).bfloat16(), torch.ones(4).bfloat16()] if tracked else [None, None]
    call = BatchNormCall(*running, weight=None, bias=None, training=True, momentum=0.25, eps=1e-5)
    var, mean = torch.var_mean(value.double(), (0, 2, 3), correction=0)
    found = batch_statistics(value.unflatten(0, (T, 5)), call)
    assert [part.dtype for part in found] == [torch.float32, torch.float32]
    torch.testing.assert_close(found[0].double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[1].double(), (var + 1e-5).rsqrt(), rtol=1e-5, atol=0)
    if tracked:
        torch.testing.assert_close(running[0], (0.25 * mean).bfloat16(), rtol=1e-2, atol=0)
        after = running_statistics(value.unflatten(0, (T, 5)), call)
        assert [part.dtype for part in after] == [torch.float32, torch.float32]
        torch.testing.assert_close(after[1], (running[1].float() + 1e-5).rsqrt())


def test_a_network_in_half_precision_steps_on_membranes_in_float32(monkeypatch):
    monkeypatch.setattr(paths, "MIN_ELEMENTS", 1)
    model = temporal(Residual().bfloat16()).eval()
    with torch.no_grad():
        _, state = model.step(torch.randn(3, 2, 6, 5).bfloat16())
    assert {membrane.dtype for membrane in state.values()} == {torch.float32}


def test_a_residual_waits_on_either_side_and_in_place(monkeypatch):
    class InPlace(nn.Module):
        def __init__(self, order):
            super().__init__()
            self.conv, self.norm, self.order = nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3), order
            self.first, self.second, self.head = LIF(threshold=0.4), LIF(threshold=0.4), nn.Flatten()

        def forward(self, x):
            x = self.first(x)
            y = self.norm(self.conv(x))
            if self.order == "in place":
                y += x
            else:
                y = x + y if self.order == "left" else y + x
            return self.head(self.second(y))

    outcomes = []
    for smallest, order in ((2**60, "left"), (1, "left"), (1, "right"), (1, "in place")):
        monkeypatch.setattr(paths, "MIN_ELEMENTS", smallest)
        torch.manual_seed(0)
        network = InPlace(order).to(f64)
        x = torch.rand(T, 2, 3, 4, 4, dtype=f64, requires_grad=True)
        temporal(network)(x).sum().backward()
        outcomes.append([x.grad, *(p.grad for p in network.parameters())])
    for other in outcomes[1:]:
        for ours, expected in zip(other, outcomes[0], strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_one_timestep_at_a_time_is_the_whole_sequence(memory_format, monkeypatch):
    """Also where samples leave."""
    torch.manual_seed(0)
    network = Residual().to(dtype=f64, memory_format=memory_format)
    model, x = temporal(network), torch.randn(T, 4, 2, 6, 5, dtype=f64)
    with torch.no_grad():
        model(x)
        model.eval()
        monkeypatch.setattr(paths, "MIN_ELEMENTS", 2**60)
        whole = model(x)
        monkeypatch.setattr(paths, "MIN_ELEMENTS", 1)
        state, samples = None, torch.arange(4)
        for t in range(T):
            logits, state = model.step(x[t, samples], state)
            torch.testing.assert_close(logits, whole[t, samples], rtol=1e-9, atol=1e-11)
            state, samples = (
                {key: value[[2, 0]] for key, value in state.items()} if t == 0 else state,
                samples[[2, 0]] if t == 0 else samples,
            )
        assert len(state) == 4
        with pytest.raises(ValueError, match=r"the state is \[2, 4, 6, 5\], the current \[1, 4, 6, 5\]"):
            model.step(x[0, :1], state)
    assert whole.std() > 1e-3


def test_a_second_derivative_through_spikes_in_bits_is_refused_rather_than_lost(monkeypatch):
    """Without a batch-norm too: the spikes of plain neurons are kept in bits as well."""
    monkeypatch.setattr(paths, "MIN_ELEMENTS", 1)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), LIF(threshold=0.1), nn.Conv2d(2, 2, 1))
    logits = temporal(network)(torch.randn(2, 2, 1, 6, 6))
    with pytest.raises(RuntimeError, match=r"create_graph=True needs second-order gradients of a layer that keeps"):
        torch.autograd.grad(logits.square().sum(), network[2].weight, create_graph=True)


class ChangesInPlace(nn.Module):
    """Changes a parameter that a batch-norm on currents has used, before the neurons fire or the currents are read."""

    def __init__(self, what, then):
        super().__init__()
        self.norm, self.lif, self.what, self.then = nn.BatchNorm2d(2), LIF(threshold=0.5), what, then

    def forward(self, x):
        fired = self.lif(x)
        y = self.norm(fired)
        if self.then == "a residual, neurons":
            y = y + fired
        with torch.no_grad():
            getattr(self.norm, self.what).add_(1)
        if self.then == "a late residual, neurons":
            y = y + fired
        return y * 2 if self.then == "a product" else self.lif(y)


# how the network runs -> the gradient rule, its options
RUNS = {
    "bptt": ("bptt", {}),
    "sltt": ("sltt", {}),
    "checkpoint": ("bptt", {"checkpoint": True}),
    "rate": ("rate", {}),
    "dsr": ("dsr", {}),
    "no gradients": ("bptt", {}),
    "inference": ("rate", {}),
    "step": ("bptt", {}),
}


@pytest.mark.parametrize("how", RUNS)
@pytest.mark.parametrize("then", ["neurons", "a residual, neurons", "a late residual, neurons", "a product"])
@pytest.mark.parametrize("what", ["weight", "bias", "running_mean"])
def test_what_a_batch_norm_has_used_and_changed_in_place_is_refused_or_read_in_time(what, then, how, monkeypatch):
    """Refused where it waits for the neurons; elsewhere it is computed where it stands."""
    gradient, options = RUNS[how]
    evaluated = how in ("no gradients", "inference", "step")

    def run(smallest, *, change=True):
        monkeypatch.setattr(paths, "MIN_ELEMENTS", smallest)
        torch.manual_seed(0)
        network = ChangesInPlace(what, then)
        if not change:
            network.what = "unused"
            network.norm.register_buffer("unused", torch.zeros(2))
        model, x = temporal(network, gradient=gradient, **options), torch.randn(T, 2, 2, 4, 4)
        if not evaluated:
            return model(x).detach()
        with torch.inference_mode(how == "inference"), torch.no_grad():
            return model.eval().step(x[0])[0] if how == "step" else model.eval()(x)

    expected = run(2**60, change=False)
    if how != "checkpoint":
        assert torch.equal(run(2**60), expected)
    if what == "running_mean" and not evaluated:  # in training the statistics are the batch's own
        torch.testing.assert_close(run(1), expected, rtol=1e-5, atol=1e-6)
        return
    with pytest.raises(UserError, match=r"changed a tensor \[2\] in place after using it"):
        run(1)


def test_a_bias_that_changes_before_a_checkpoint_reads_it_once_more_is_refused(monkeypatch):
    """A convolution saves no bias for its gradient, but its outputs, which the batch-norm's gradient needs, have it in them."""
    monkeypatch.setattr(paths, "MIN_ELEMENTS", 1)
    network = nn.Sequential(LIF(), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), LIF())
    out = temporal(network, checkpoint=True)(torch.randn(T, 2, 2, 4, 4))
    with torch.no_grad():
        network[1].bias.add_(1)
    with pytest.raises(UserError, match=r"changed a tensor \[2\] in place after using it"):
        out.sum().backward()


@pytest.mark.parametrize("which", ["the residual", "the batch-norm's input"])
def test_what_waits_with_a_batch_norm_may_not_be_written_to_through_its_exact_values(which, monkeypatch):
    """The tensor of all timesteps shares memory with the signal."""

    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.lif = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), LIF()

        def forward(self, x):
            spikes, currents = self.lif(x), self.conv(x)
            y = self.norm(currents) + spikes
            (spikes if which == "the residual" else currents).over_time().zero_()
            return self.lif(y)

    monkeypatch.setattr(paths, "MIN_ELEMENTS", 1)
    with torch.no_grad(), pytest.raises(UserError, match=r"changed a tensor \[3, 2, 2, 4, 4\] in place after using it"):
        temporal(Writes()).eval()(torch.randn(T, 2, 2, 4, 4))
