"""One timestep at a time with an explicit state, against the whole sequence."""

import pytest
import torch
from naive import Naive
from temporal_runs import B, T, build, f64, make_input, naive_network
from torch import nn
from zoo import PATTERNS, block, head

from spikedistill import LIF, temporal

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
STREAMING = [name for name, pattern in PATTERNS.items() if pattern.stream]


def trained(name):
    """The network in eval mode, with running statistics from one pass."""
    network = build(name)
    with torch.no_grad():
        temporal(network)(make_input(name, "static"), timesteps=T)
    return network.eval()


def stream(model, inputs, **options):
    """Logits of all timesteps from calls of step, and the last state."""
    state, outs = None, []
    for x in inputs:
        logits, state = model.step(x, state, **options)
        outs.append(logits)
    return torch.stack(outs), state


@pytest.mark.parametrize("kind", ["static", "events"])
@pytest.mark.parametrize("name", STREAMING)
def test_streaming_is_the_whole_sequence(name, kind):
    network = trained(name)
    model = temporal(network)
    x = make_input(name, kind, seed=3)
    timesteps = T if kind == "static" else None
    with torch.no_grad():
        streamed, _ = stream(model, x if kind == "events" else [x] * T)
        torch.testing.assert_close(streamed, model(x, timesteps=timesteps), rtol=0, atol=1e-10)
        reference = Naive(naive_network(name, network).eval())
        torch.testing.assert_close(streamed, reference(x, timesteps=timesteps), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", STREAMING)
def test_a_still_input_is_the_whole_sequence_too(name):
    model = temporal(trained(name))
    x = make_input(name, "static", seed=3)
    with torch.no_grad():
        streamed, state = stream(model, [x] * T, still=True)
        torch.testing.assert_close(streamed, model(x, timesteps=T), rtol=0, atol=1e-10)
    assert all(value.device.type == "cpu" for value in state.values())


def test_of_a_still_input_what_comes_before_the_first_neurons_is_computed_once():
    model = temporal(trained("sequential"))
    x = make_input("sequential", "static")
    with torch.no_grad():
        expected, _ = stream(model, [x] * T)
        # an input that changes all the same shows that it is not looked at again
        streamed, state = stream(model, [x, *[torch.full_like(x, torch.nan)] * (T - 1)], still=True)
    torch.testing.assert_close(streamed, expected, rtol=0, atol=1e-12)
    assert [key for key in state if key.endswith(" current")] == ["0.2 current"]


@pytest.mark.parametrize("name", ["residual_sum", "one_neuron_layer_used_twice", "learned_initial_membrane", "tokens"])
def test_samples_that_are_done_can_leave(name):
    model = temporal(trained(name))
    x = torch.cat([make_input(name, "static", seed=seed) for seed in (3, 4)])
    with torch.no_grad():
        whole = model(x, timesteps=T)
        _, state = model.step(x)
        keep = torch.tensor([3, 0])
        for t in range(1, T):
            logits, state = model.step(x[keep], {k: v[keep] for k, v in state.items()} if t == 1 else state)
            torch.testing.assert_close(logits, whole[t, keep], rtol=0, atol=1e-10)


def test_the_state_is_a_dict_of_membranes_by_module_path():
    model = temporal(trained("sequential"))
    x = make_input("sequential", "static")
    _, state = model.step(x)
    assert {path: list(v.shape) for path, v in state.items()} == {"0.2": [B, 3, 6, 6], "1.2": [B, 4, 3, 3]}
    before = {path: v.clone() for path, v in state.items()}
    model.step(x, state)
    assert all(torch.equal(state[path], before[path]) for path in before), (
        "a step changes no state but the one it returns"
    )


def test_a_neuron_layer_used_twice_has_a_membrane_for_each_use():
    model = temporal(trained("one_neuron_layer_used_twice"))
    _, state = model.step(make_input("one_neuron_layer_used_twice", "static"))
    assert list(state) == ["lif", "lif#1"]


def test_steps_carry_gradients_through_time():
    network = trained("sequential")
    model = temporal(network)
    x = make_input("sequential", "static")

    def gradients(logits):
        return torch.autograd.grad(logits.square().sum(), list(network.parameters()))

    streamed, whole = gradients(stream(model, [x] * T)[0]), gradients(model(x, timesteps=T))
    for ours, expected in zip(streamed, whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gradient", ["bptt", "sltt", "rate"])
def test_every_rule_streams_alike(gradient):
    model = temporal(trained("sequential"), gradient=gradient)
    x = make_input("sequential", "events")
    with torch.no_grad():
        torch.testing.assert_close(stream(model, x)[0], model(x), rtol=0, atol=1e-10)


def test_a_network_that_folds_into_the_batch_streams():
    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = block(2, 3), nn.Linear(54, 3)

        def forward(self, x):
            halves = torch.cat(x.chunk(2, dim=3), 0)
            left, right = self.body(halves).flatten(1).chunk(2, dim=0)
            return self.fc(left + right)

    torch.manual_seed(0)
    model = temporal(Patches().to(f64).eval())
    x = make_input("sequential", "static")
    with torch.no_grad():
        streamed, state = stream(model, [x] * T)
        torch.testing.assert_close(streamed, model(x, timesteps=T), rtol=0, atol=1e-10)
    assert state["body.2"].shape[0] == 2 * B


def test_several_outputs_stream():
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.a, self.b = block(2, 3), head(108), head(108)

        def forward(self, x):
            s = self.body(x)
            return {"a": self.a(s), "pair": (self.b(s), 7)}

    out, state = temporal(TwoHeads().to(f64).eval()).step(make_input("sequential", "static"))
    assert out["a"].shape == (B, 3)
    assert out["pair"][0].shape == (B, 3)
    assert out["pair"][1] == 7
    assert list(state) == ["body.2"]


def test_training_mode_is_that_of_the_network_and_is_refused():
    assert not temporal(build("sequential").eval()).training
    model = temporal(build("sequential"))
    with pytest.raises(RuntimeError, match=r"batch-norm in training needs them all: call model.eval\(\) first"):
        model.step(make_input("sequential", "static"))


def test_batch_norm_without_running_statistics_is_refused():
    name = "batch_norm_without_running_statistics"
    with pytest.raises(TypeError, match=r"'batch_norm' .* without running statistics it needs all timesteps at once"):
        temporal(trained(name)).step(make_input(name, "static"))


def test_dropout_left_on_is_refused():
    model = temporal(trained("dropout_of_elements"))
    model.eval().module[2].train()
    with pytest.raises(TypeError, match=r"'dropout' .* its mask belongs to all timesteps"):
        model.step(make_input("dropout_of_elements", "static"))


def test_the_state_of_other_samples_or_another_network_is_refused():
    model = temporal(trained("sequential"))
    x = make_input("sequential", "static")
    _, state = model.step(x)
    with pytest.raises(ValueError, match=r"the state is \[2, 3, 6, 6\], the current \[1, 3, 6, 6\]"):
        model.step(x[:1], state)
    with pytest.raises(
        ValueError, match=r"the state is not one of this network: 0\.2, other fit no layer with state in it"
    ):
        model.step(x, {"other": state["0.2"], "1.2": state["1.2"]})


def test_a_neuron_that_is_no_submodule_is_refused():
    class Hidden(nn.Module):
        def forward(self, x):
            return LIF()(x)

    with pytest.raises(ValueError, match="a LIF layer is no submodule of the network"):
        temporal(Hidden().eval()).step(torch.zeros(2, 3))
