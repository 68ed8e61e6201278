"""Batch-norm with statistics of each timestep: by hand, against plain autograd, under every rule, and inside every network."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spikedistill import LIF, create_model, lif, list_models, temporal
from spikedistill.errors import UserError
from spikedistill.models import TimestepBatchNorm, load_model, save_model

f64 = torch.float64
T, B = 4, 3
RULES = [("bptt", 1), ("sltt", 1), ("rate", 1), ("rate", (1, 3)), ("rate", T), ("dsr", 1)]


def make_norm(channels=2, timesteps=T, **options):
    norm = TimestepBatchNorm(channels, timesteps, **options).to(f64)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 1.5, channels))
        norm.bias.copy_(torch.linspace(-0.5, 1.0, channels))
    return norm


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=f64)


def drifting(timesteps=T):
    """Values [T, B, 2, 3, 3] whose mean and deviation differ between timesteps."""
    t = torch.arange(timesteps, dtype=f64).view(-1, 1, 1, 1, 1)
    return normal(timesteps, B, 2, 3, 3) * (1 + t) + 3 * t


def make_network(timesteps=T):
    """A network whose second batch-norm is fed by neurons, which vary in time even on a static image."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        TimestepBatchNorm(4, timesteps),
        LIF(threshold=0.5),
        nn.Conv2d(4, 5, 3, padding=1),
        TimestepBatchNorm(5, timesteps),
        LIF(threshold=0.5),
        nn.Flatten(),
        nn.Linear(45, 3),
    ).to(f64)


def run(network, x, timesteps=None, gradient="bptt", segments=1):
    """Logits and the gradients of all parameters and the input."""
    network.zero_grad()
    x = x.clone().requires_grad_()
    logits = temporal(network, gradient=gradient, segments=segments)(x, timesteps=timesteps)
    logits.tanh().mul(torch.linspace(-1, 2, logits.numel(), dtype=f64).view(logits.shape)).sum().backward()
    return logits.detach(), [x.grad] + [p.grad.clone() for p in network.parameters()]


def assert_close(ours, expected, tolerance=1e-8):
    # a gradient that cancels exactly (a bias before batch-norm) is compared on the scale of the others
    scale = max(e.norm() for e in expected)
    for a, b in zip(ours, expected, strict=True):
        assert (a - b).norm() <= tolerance * max(b.norm(), 1e-3 * scale)


def test_worked_by_hand():
    norm = TimestepBatchNorm(1, 2, momentum=0.5, eps=1e-30).to(f64)
    # two timesteps of two samples: means 2 and 10, variances 1 and 4, unbiased 2 and 8
    x = torch.tensor([[[1.0], [3.0]], [[8.0], [12.0]]], dtype=f64)
    assert norm(x).tolist() == [[[-1.0], [1.0]], [[-1.0], [1.0]]]
    # halfway from 0 to the means and from 1 to the unbiased variances
    assert norm.running_mean.tolist() == [[1.0], [5.0]]
    assert norm.running_var.tolist() == [[1.5], [4.5]]
    norm.eval()
    norm.running_var.copy_(torch.tensor([[4.0], [16.0]]))
    # (1 - 1) / 2, (3 - 1) / 2; (8 - 5) / 4, (12 - 5) / 4; and a third timestep by the second's statistics
    longer = torch.cat([x, x[1:]])
    assert norm(longer).tolist() == [[[0.0], [1.0]], [[0.75], [1.75]], [[0.75], [1.75]]]


def test_training_is_ordinary_batch_norm_of_every_timestep_alone():
    norm, x = make_norm(), drifting().requires_grad_()
    twins = [nn.BatchNorm2d(2).to(f64) for _ in range(T)]
    expected = []
    for t, twin in enumerate(twins):
        twin.weight, twin.bias = norm.weight, norm.bias  # one set for all timesteps
        expected.append(twin(x[t]))
    expected, out, probe = torch.stack(expected), norm(x), normal(T, B, 2, 3, 3, seed=5)
    torch.testing.assert_close(out, expected)
    wanted = torch.autograd.grad((expected * probe).sum(), (x, norm.weight, norm.bias))
    for a, b in zip(torch.autograd.grad((out * probe).sum(), (x, norm.weight, norm.bias)), wanted, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(norm.running_mean, torch.stack([twin.running_mean for twin in twins]))
    torch.testing.assert_close(norm.running_var, torch.stack([twin.running_var for twin in twins]))
    norm.eval()
    for t, twin in enumerate(twins):
        torch.testing.assert_close(norm(x)[t], twin.eval()(x[t]))


def test_evaluation_normalises_what_training_did():
    norm, x = make_norm(momentum=1.0), drifting()
    trained = norm(x)
    # only the variance differs, unbiased (n - 1 = 26) in the running statistics
    scale = (26 / 27) ** 0.5
    shift = norm.bias.view(-1, 1, 1)
    torch.testing.assert_close(norm.eval()(x) - shift, (trained - shift) * scale, rtol=1e-4, atol=1e-4)


def test_a_static_value_is_normalised_once_and_counted_for_every_timestep():
    x = normal(B, 2, 3, 3)
    norm, twin = make_norm(), make_norm()
    signal_shapes = []

    class Spy(nn.Module):
        def forward(self, signal):
            signal_shapes.append(signal._values.shape[0])
            return signal

    logits = temporal(nn.Sequential(norm, Spy()))(x, timesteps=3)
    assert signal_shapes == [1]
    torch.testing.assert_close(logits, twin(x.expand(3, *x.shape)))
    torch.testing.assert_close(norm.running_mean, twin.running_mean)
    torch.testing.assert_close(norm.running_var, twin.running_var)
    # the fourth row has seen nothing
    assert norm.running_mean[3].tolist() == [0, 0]
    # in evaluation its timesteps differ
    evaluated = temporal(norm.eval())(x, timesteps=4)
    torch.testing.assert_close(evaluated, twin.eval()(x.expand(4, *x.shape)))
    assert not torch.allclose(evaluated[2], evaluated[3])


@pytest.mark.parametrize("kind", ["static", "events"])
def test_every_rule_computes_the_same_values_and_statistics(kind):
    x, timesteps = (normal(B, 2, 3, 3), T) if kind == "static" else (drifting(), None)
    results = []
    for gradient, segments in RULES:
        network = make_network()
        logits, _ = run(network, x, timesteps, gradient, segments)
        results.append([logits, *network.buffers()])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["static", "events"])
def test_rate_in_segments_of_one_is_sltt(kind, training):
    x, timesteps = (normal(B, 2, 3, 3), T) if kind == "static" else (drifting(), None)
    network = make_network()
    run(network, x, timesteps)  # moves the running statistics
    network.train(training)
    sltt, wanted = run(network, x, timesteps, "sltt")
    rate, gradients = run(network, x, timesteps, "rate", T)
    torch.testing.assert_close(rate, sltt, rtol=1e-10, atol=1e-10)
    assert_close(gradients, wanted)


@pytest.mark.parametrize("gradient", ["sltt", "rate"])
def test_at_one_timestep_every_rule_is_bptt(gradient):
    network, x = make_network(), drifting(1)
    assert_close(run(network, x, None, gradient)[1], run(network, x)[1])


def test_bptt_is_the_gradient_of_a_plain_loop():
    network, x = make_network(), drifting()
    _, gradients = run(network, x)
    first, second, head = network[0:3], network[3:6], network[6:]

    def layer(conv, norm, neurons, values):
        normalised = [F.batch_norm(conv(v), None, None, norm.weight, norm.bias, True, 0.1, norm.eps) for v in values]
        return lif(torch.stack(normalised), neurons.dynamics(4))

    network.zero_grad()
    x = x.clone().requires_grad_()
    logits = torch.stack([head(s) for s in layer(*second, layer(*first, x))])
    logits.tanh().mul(torch.linspace(-1, 2, logits.numel(), dtype=f64).view(logits.shape)).sum().backward()
    assert_close(gradients, [x.grad] + [p.grad for p in network.parameters()])


@pytest.mark.parametrize("lengths", [(4,), (1, 3), (2, 2)])
def test_the_rate_rule_differentiates_the_variance_of_the_rates(lengths):
    norm, x, probe = make_norm(), drifting().requires_grad_(), normal(T, B, 2, 3, 3, seed=3)
    out = temporal(norm, gradient="rate", segments=lengths)(x)
    torch.testing.assert_close(out, make_norm()(x))
    ours = torch.autograd.grad((out * probe).sum(), (x, norm.weight, norm.bias))

    # Segment by segment: the variance of each timestep moves as that of the segment's rates does.
    over_batch = {"dim": (0, 2, 3), "keepdim": True}
    loss = 0.0
    for part, probes in zip(x.split(lengths), probe.split(lengths), strict=True):
        rates = part.mean(0)
        centred = rates - rates.mean(**over_batch)
        spread = (centred**2).mean(**over_batch)
        normalised = 0.0
        for s in part.detach():
            deviation = (s.var(correction=0, **over_batch) + spread - spread.detach() + norm.eps).sqrt()
            answer = centred / deviation
            normalised += (s - s.mean(**over_batch)) / deviation.detach() + answer - answer.detach()
        mean = normalised / len(part) * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
        loss = loss + (mean * probes.sum(0)).sum()
    for a, b in zip(ours, torch.autograd.grad(loss, (x, norm.weight, norm.bias)), strict=True):
        torch.testing.assert_close(a, b)


def test_the_rate_rule_keeps_nothing_that_grows_with_time():
    def kept(timesteps):
        sizes = []

        def pack(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            temporal(make_norm(timesteps=8), gradient="rate")(drifting(timesteps).requires_grad_())
        return sum(sizes)

    assert kept(8) == kept(2) > 0


def test_rate_gradients_in_evaluation_are_those_of_a_change_that_lasts():
    # y_t is linear in x_t with a slope of each timestep's own; a lasting change of x moves the mean of y by the mean slope
    norm = make_norm()
    norm(drifting())
    x = drifting().requires_grad_()
    temporal(norm.eval(), gradient="rate")(x).sum().backward()
    slope = (norm.weight / (norm.running_var + norm.eps).sqrt()).mean(0)
    torch.testing.assert_close(x.grad, slope.view(-1, 1, 1).expand_as(x))


@pytest.mark.parametrize("kind", ["static", "events"])
def test_streaming_is_the_whole_sequence_beyond_the_trained_timesteps_too(kind):
    network = make_network(timesteps=3)
    run(network, drifting(3))
    network.eval()
    model, x = temporal(network), normal(B, 2, 3, 3) if kind == "static" else drifting(5)
    with torch.no_grad():
        whole = model(x, timesteps=5) if kind == "static" else model(x)
        state, steps = None, []
        for t in range(5):
            logits, state = model.step(x if kind == "static" else x[t], state)
            steps.append(logits)
    torch.testing.assert_close(torch.stack(steps), whole, rtol=1e-10, atol=1e-10)
    assert state["1"].tolist() == state["4"].tolist() == [5] * B


def test_samples_leave_and_join_a_stream_at_timesteps_of_their_own():
    network, x = make_network(), drifting()
    run(network, x)
    model = temporal(network.eval())
    with torch.no_grad():
        whole = model(x)
        _, old = model.step(x[0])
        _, old = model.step(x[1], old)
        _, new = model.step(x[0])
        # sample 2 at its third timestep beside sample 0 at its second
        mixed = {key: torch.cat([old[key][2:], new[key][:1]]) for key in old}
        logits, mixed = model.step(torch.stack([x[2, 2], x[1, 0]]), mixed)
    torch.testing.assert_close(logits, torch.stack([whole[2, 2], whole[1, 0]]), rtol=1e-10, atol=1e-10)
    assert mixed["1"].tolist() == [3, 2]


def test_steps_are_refused_while_it_trains():
    model = temporal(make_network())
    model.eval()
    model.module[1].train()
    with pytest.raises(TypeError, match="'TimestepBatchNorm' has no rule across time under gradient='step'"):
        model.step(normal(B, 2, 3, 3))


def test_training_on_more_timesteps_than_it_keeps_is_refused():
    with pytest.raises(ValueError, match="training on 4 timesteps, but this batch-norm has statistics for 3"):
        make_norm(timesteps=3)(drifting())
    assert make_norm(timesteps=3).eval()(drifting()).shape == drifting().shape


@pytest.mark.parametrize(("channels", "timesteps"), [(0, 4), (2, 0), (2, 2.0), (2, True)])
def test_sizes_that_are_no_whole_numbers_of_1_or_more_are_refused(channels, timesteps):
    with pytest.raises(UserError, match=r"(channels|timesteps) is .*, expected a whole number of 1 or more"):
        TimestepBatchNorm(channels, timesteps)


@pytest.mark.parametrize("training", [True, False])
def test_samples_of_other_channels_are_refused(training):
    norm = make_norm(channels=2).train(training)
    for shape in ((T, B, 3, 4, 4), (T, B)):
        with pytest.raises(UserError, match=r"a batch-norm of 2 channels got samples .*, expected \[B, C, ...\]"):
            norm(torch.zeros(shape, dtype=f64))
    with pytest.raises(UserError, match=r"got samples \[3, 3, 4, 4\]"):
        temporal(nn.Sequential(norm, LIF()))(torch.zeros(B, 3, 4, 4, dtype=f64), timesteps=T)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("gradient", "segments"), RULES)
def test_half_precision_stays_half_precision(gradient, segments, training):
    model = temporal(make_norm().float().train(training), gradient=gradient, segments=segments)
    x = drifting().bfloat16().requires_grad_()
    out = model(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), make_norm().train(training)(drifting()), rtol=0.02, atol=0.02)
    out.square().sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("timesteps", [1, T])
@pytest.mark.parametrize(("gradient", "segments"), [("bptt", 1), ("sltt", 1), ("rate", 1), ("rate", "T")])
@pytest.mark.parametrize("name", list_models())
def test_every_network_trains_with_it(name, gradient, segments, timesteps):
    torch.manual_seed(0)
    segments = timesteps if segments == "T" else segments
    options = {"num_classes": 5, "width": 1 / 16, "threshold": 0.5, "gradient": gradient, "segments": segments}
    model = create_model(name, norm="timestep_batch", norm_timesteps=T, **options)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = model(x, timesteps=timesteps)
    assert logits.shape == (timesteps, 2, 5)
    logits.square().sum().backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
    moved = [
        module.running_mean.abs().sum(1) > 0 for module in model.modules() if isinstance(module, TimestepBatchNorm)
    ]
    assert all(rows.tolist() == [t < timesteps for t in range(T)] for rows in moved)


@pytest.mark.parametrize("name", list_models())
def test_it_adds_no_parameters_to_any_network(name):
    plain = create_model(name, num_classes=5, width=1 / 16)
    other = create_model(name, num_classes=5, width=1 / 16, norm="timestep_batch", norm_timesteps=T)
    assert {k: p.shape for k, p in plain.named_parameters()} == {k: p.shape for k, p in other.named_parameters()}


def test_a_saved_network_keeps_the_statistics_of_every_timestep(tmp_path):
    spec = {"name": "convnet", "num_classes": 3, "image_size": 8, "norm": "timestep_batch", "norm_timesteps": T}
    model = create_model(**spec)
    x = torch.rand(B, 3, 8, 8)
    model(x, timesteps=T)
    save_model(model, spec, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert torch.equal(loaded(x, timesteps=T), model.eval()(x, timesteps=T))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "layer"}, "norm is 'layer', expected 'batch', 'timestep_batch' or 'tdbn'"),
        ({"norm": "timestep_batch"}, "norm_timesteps is None, expected the number of timesteps to train with"),
        ({"norm": "timestep_batch", "norm_timesteps": 0}, "norm_timesteps is 0, expected the number of timesteps"),
        ({"norm_timesteps": 4}, "norm_timesteps=4 only means something under norm='timestep_batch'"),
        ({"norm": "tdbn", "norm_timesteps": 4}, "norm_timesteps=4 only means something under norm='timestep_batch'"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create_model("convnet", num_classes=10, **options)
