"""Rate-based gradients computed a few timesteps at a time: the same numbers, and memory that hardly grows with T."""

import copy

import pytest
import torch
from temporal_runs import RULES, Convolutions, T, assert_same_gradients, build, cases, f64, make_input, run
from torch import nn

from spikedistill import LIF, UserError, create_model, mean_rate, temporal

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
FORMS = [(1, True), (3, True), (2, False), (T, False)]


@pytest.mark.parametrize(("name", "rule", "kind"), cases(rules=("rate", "rate in 1 and 3", "rate in 4")))
def test_every_pattern_is_computed_as_at_once(name, rule, kind):
    segments = RULES[rule][1]
    network = build(name)
    x, timesteps = make_input(name, kind, T), T if kind == "static" else None
    expected = run(temporal(network, gradient="rate", segments=segments), network, x, timesteps)
    for chunk, recompute in FORMS:
        network = build(name)
        model = temporal(network, gradient="rate", segments=segments, chunk=chunk, recompute=recompute)
        logits, gradients, buffers = run(model, network, x, timesteps)
        torch.testing.assert_close(logits, expected[0], rtol=0, atol=1e-10)
        assert_same_gradients(gradients, expected[1], 1e-9)
        for key, value in expected[2].items():
            torch.testing.assert_close(buffers[key], value, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("options", "passes"), [({}, 1), ({"chunk": 2, "recompute": False}, 1), ({"chunk": 2}, 2)])
def test_convolutions_run_once_or_twice_as_promised(options, passes):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.BatchNorm2d(3),
        LIF(),
        nn.Conv2d(3, 3, 3),
        nn.BatchNorm2d(3),
        LIF(),
        nn.Flatten(),
        nn.Linear(48, 3),
    )
    model = temporal(network, gradient="rate", **options)
    with Convolutions() as counted:
        model(torch.rand(5, 2, 8, 8), timesteps=6).sum().backward()
    # the stem's input is constant in time: B images; the second convolution sees T * B forward, and backward B
    assert sum(counted.forward) == 5 + passes * 6 * 5
    assert sum(counted.backward) == 5 + 5


def peak_bytes(model, x, timesteps):
    """The most that the allocator held beyond what it held before, over a training step."""
    with torch.profiler.profile(profile_memory=True) as profiler:
        model(x, timesteps=timesteps).mean().backward()
    held = most = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def test_memory_hardly_grows_with_time():
    """At eight times the timesteps: a bit a spike, where the whole form holds several floats for the layers at hand."""

    def peak(timesteps, **options):
        torch.manual_seed(0)
        model = create_model("resnet18", num_classes=10, width=0.1, gradient="rate", **options)
        return peak_bytes(model, torch.rand(2, 3, 32, 32), timesteps)

    flat = peak(16, chunk=1) / peak(2, chunk=1)
    whole = peak(16) / peak(2)
    assert flat < 1.25
    assert whole > 1.5, "else this test shows nothing"


def test_a_branch_learns_from_the_mean_rate_in_chunks_too():
    class Branched(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), LIF(threshold=0.3))
            self.head, self.branch = nn.Linear(108, 3), nn.Linear(108, 3)

        def forward(self, x):
            spikes = self.body(x).flatten(1)
            return self.head(spikes), self.branch(mean_rate(spikes))

    outcomes = []
    for chunk in (None, 1):
        torch.manual_seed(0)
        network = Branched().to(f64)
        logits, branch = temporal(network, gradient="rate", chunk=chunk)(torch.rand(2, 2, 8, 8, dtype=f64), timesteps=T)
        (logits.square().sum() + branch.tanh().sum()).backward()
        outcomes.append([logits, branch, *(p.grad for p in network.parameters())])
    for ours, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


def test_in_evaluation_nothing_changes():
    torch.manual_seed(0)
    model = create_model("convnet", num_classes=3, in_channels=2, image_size=8, width=0.3, gradient="rate", chunk=1)
    plain = temporal(model.module, gradient="bptt")
    x = torch.rand(4, 2, 8, 8)
    assert torch.equal(model.eval()(x, timesteps=5).detach(), plain.eval()(x, timesteps=5).detach())
    with torch.no_grad():
        assert torch.equal(model(x, timesteps=5), plain(x, timesteps=5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient": "bptt", "chunk": 2}, "chunk=2 only means something under gradient='rate'"),
        ({"gradient": "rate", "chunk": 0}, "expected the timesteps to compute at a time, 1 or more"),
        ({"gradient": "rate", "recompute": False}, "give chunk, the timesteps to compute"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        temporal(nn.Linear(2, 2), **options)


class ChangesInPlace(nn.Module):
    """Uses a tensor of its own on currents, and changes it before the neurons fire."""

    def __init__(self, code):
        super().__init__()
        self.first, self.lif, self.out = nn.Linear(4, 4), LIF(threshold=0.2), nn.Linear(4, 4)
        self.norm, self.code = nn.BatchNorm1d(4), code
        self.register_buffer("k", torch.rand(4))
        self.index = torch.tensor([0, 1, 2, 3])

    def forward(self, x):
        y = self.lif(self.first(x))
        names = {"self": self, "x": x, "y": y, "torch": torch, "mean_rate": mean_rate, **vars(self)}
        exec(self.code.format(k="self.k"), names)
        return self.lif(names["z"])


WRITTEN_LATE = {
    "added": "z = y + {k}; {k} += 5",
    "subtracted": "z = y - {k}; {k}.lerp_(mean_rate(y).detach().mean(0), 0.5)",
    "multiplied": "z = y * {k}; {k}.zero_()",
    "a matrix product": "w = torch.eye(4); z = y @ w; w.mul_(-1)",
    "in a list": "z = torch.cat([y, {k}.expand(3, 4)], 1); {k} += 5",
    "a view of it": "z = y + {k}[None]; {k}.mul_(-9)",
    "an index": "z = y[:, self.index]; self.index.zero_()",
    "two operations before": "z = (y + {k}) * 2 - 1; {k} += 5",
    "a layer's weight": "z = self.out(y)\nwith torch.no_grad(): self.out.weight.mul_(-1)",
    "a layer's bias": "z = self.out(y)\nwith torch.no_grad(): self.out.bias.add_(9)",
    "behind a batch-norm": "z = self.norm(self.out(y))\nwith torch.no_grad(): self.out.weight.mul_(-1)",
    "a batch-norm's bias": "z = self.norm(self.out(y))\nwith torch.no_grad(): self.norm.bias.add_(9)",
}


@pytest.mark.parametrize("what", WRITTEN_LATE)
def test_a_tensor_that_was_used_and_then_changed_in_place_is_refused_or_read_in_time(what):
    """In chunks its use is put off until the neurons fire; at once, and without gradients, it is read where it stands."""
    x, outcomes = torch.randn(T, 3, 4), []
    for options in ({"gradient": "bptt"}, {"gradient": "rate"}, {"gradient": "rate", "chunk": 2}):
        torch.manual_seed(0)
        model = temporal(ChangesInPlace(WRITTEN_LATE[what]), **options)
        if "chunk" not in options:
            outcomes.append(model(x).detach())
            continue
        with torch.no_grad():
            outcomes.append(copy.deepcopy(model)(x))
        with pytest.raises(UserError, match=r"changed a tensor .* in place after using it") as refused:
            model(x)
        assert "\n" not in str(refused.value)
    assert all(torch.equal(outcomes[0], other) for other in outcomes[1:])


def test_a_tensor_may_change_before_its_use_and_after_the_neurons_fire():
    """And one that was made in inference mode, which counts no changes, is read as it is."""
    with torch.inference_mode():
        constant = torch.full((4,), 0.5)
    code = "{k} += 1; z = self.lif(y + {k} + self.constant); {k}.zero_(); z = z * 2; self.index.zero_()"
    outcomes = []
    for chunk in (None, 1):
        torch.manual_seed(0)
        network = ChangesInPlace(code)
        network.constant = constant
        outcomes.append(temporal(network, gradient="rate", chunk=chunk)(torch.ones(3, 4), timesteps=T).detach())
    assert torch.equal(*outcomes)
