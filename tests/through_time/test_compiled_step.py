"""The compiled step against the step that it compiles, sample by sample."""

import copy
import logging

import pytest
import torch
from torch import nn

from spikedistill import LIF, create_model, temporal
from spikedistill.models.timestep_batch_norm import TimestepBatchNorm
from spikedistill.neurons import compiler_works
from spikedistill.neurons.loops import compiler
from spikedistill.through_time import CompiledStep, compiled_step

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch's compiler
    pytest.mark.skipif(not compiler_works(), reason="needs a C++ compiler"),
]
T = 3


class Residual(nn.Module):
    """A stem, a residual sum of currents and spikes, and a head."""

    def __init__(self):
        super().__init__()
        self.stem, self.body = self.layer(3, 8), self.layer(8, 8)
        self.stem_neuron, self.neuron = LIF(), LIF()
        self.head = nn.Linear(8 * 64, 3)

    @staticmethod
    def layer(before, after):
        return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after))

    def forward(self, x):
        spikes = self.stem_neuron(self.stem(x))
        return self.head(self.neuron(self.body(spikes) + spikes).flatten(1))


def in_use(model):
    """The model in eval mode, with running statistics under which every layer fires."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, TimestepBatchNorm)):
            nn.init.constant_(module.weight, 2.0)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 8, 8), timesteps=T)
    return model.eval()


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    model = in_use(temporal(Residual()))
    return model, CompiledStep(model)


def test_a_stream_of_batches_of_every_size_is_that_of_the_plain_step(case):
    model, step = case
    for B in (6, 2, 9):
        state = expected_state = None
        for x in torch.randn(T, B, 3, 8, 8):
            logits, state = step(x, state)
            with torch.no_grad():
                expected, expected_state = model.step(x, expected_state)
            torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
            assert state.keys() == expected_state.keys()
            for key, membrane in expected_state.items():
                torch.testing.assert_close(state[key], membrane, rtol=1e-4, atol=1e-4)
            assert not logits.requires_grad
            assert not torch.equal(logits[0], logits[1])


def test_a_still_input_is_the_whole_sequence(case):
    model, step = case
    x, state, outs = torch.randn(3, 3, 8, 8), None, []
    for t in range(T):
        logits, state = step(x if t == 0 else torch.full_like(x, torch.nan), state, still=True)
        outs.append(logits)
    with torch.no_grad():
        torch.testing.assert_close(torch.stack(outs), model(x, timesteps=T), rtol=1e-4, atol=1e-4)


def test_samples_leave_until_one_is_left_and_nothing_is_compiled_again(case):
    model, step = case
    x = torch.randn(5, 3, 8, 8)
    _, state = step(x)
    _, state = step(x, state)
    with torch.no_grad():
        whole = model(x, timesteps=4)
    with torch._dynamo.config.patch(error_on_recompile=True):
        logits, state = step(x[[1, 3]], {key: rows[[1, 3]] for key, rows in state.items()})
        torch.testing.assert_close(logits, whole[2, [1, 3]], rtol=1e-4, atol=1e-4)
        logits, state = step(x[[3]], {key: rows[[1]] for key, rows in state.items()})
        torch.testing.assert_close(logits, whole[3, [3]], rtol=1e-4, atol=1e-4)
        assert all(len(rows) == 1 for rows in state.values())
        assert step(x[[0]])[0].shape == (1, 3)


def test_the_state_lies_as_convolutions_want_it_and_may_come_in_any_order(case):
    model, step = case
    x = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        _, plain = model.step(x)
        expected, _ = model.step(x, plain)
    _, state = step(x)
    assert all(rows.is_contiguous(memory_format=torch.channels_last) for rows in state.values() if rows.ndim == 4)
    step(x, state)
    with torch._dynamo.config.patch(error_on_recompile=True):
        logits, _ = step(x, {key: rows.contiguous() for key, rows in plain.items()})
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


class Small(nn.Module):
    """For images of every size."""

    def __init__(self):
        super().__init__()
        self.conv, self.neuron, self.head = nn.Conv2d(1, 2, 3), LIF(threshold=0.1), nn.Linear(2, 3)

    def forward(self, x):
        return self.head(self.neuron(self.conv(x)).mean((2, 3)))


def test_the_weights_are_those_of_the_first_call_and_a_copy_has_its_own():
    torch.manual_seed(0)
    model, other = temporal(Small()).eval(), temporal(Small()).eval()
    step, x = CompiledStep(model), torch.rand(2, 1, 6, 6)
    with torch.no_grad():
        whole, of_other = model(x, timesteps=2), other(x, timesteps=1)
    first, state = step(x)
    copied = copy.deepcopy(step)
    copied.model.load_state_dict(other.state_dict())
    model.load_state_dict(other.state_dict())
    second, _ = step(x, state)
    torch.testing.assert_close(torch.stack([first, second]), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(copied(x)[0], of_other[0], rtol=1e-4, atol=1e-5)
    assert (whole[0] - of_other[0]).abs().max() > 0.01


def test_images_of_more_sizes_than_pytorch_expects_of_one_function():
    torch.manual_seed(0)
    model = temporal(Small()).eval()
    step = CompiledStep(model)
    with torch._dynamo.config.patch(recompile_limit=1):
        for side in (6, 7, 6):
            x = torch.rand(2, 1, side, side)
            with torch.no_grad():
                expected, _ = model.step(x)
            torch.testing.assert_close(step(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_an_input_at_fault_says_so_itself(case):
    model, step = case
    x = torch.randn(4, 3, 8, 8)
    _, state = step(x)
    with pytest.raises(ValueError, match="the state is not one of this network: strange fit no layer"):
        step(x, {**state, "strange": torch.zeros(4)})
    model.train()
    try:
        with pytest.raises(RuntimeError, match=r"call model.eval\(\) first"):
            step(x)
    finally:
        model.eval()


def test_single_samples_alone_are_compiled_for_and_counted_timesteps_are_state():
    model = in_use(
        create_model("convnet", num_classes=3, image_size=8, width=0.1, norm="timestep_batch", norm_timesteps=T)
    )
    step = CompiledStep(model)
    x = torch.randn(1, 3, 8, 8)
    state, outs = None, []
    for _ in range(T):
        logits, state = step(x, state)
        outs.append(logits)
    with torch.no_grad():
        torch.testing.assert_close(torch.stack(outs), model(x, timesteps=T), rtol=1e-4, atol=1e-4)


class Asking(nn.Module):
    """A network that decides by a value, which no compiler can do ahead of time."""

    def __init__(self):
        super().__init__()
        self.fc, self.neuron = nn.Linear(4, 2), LIF()
        self.asked = torch.ones(1)

    def forward(self, x):
        return self.neuron(self.fc(x)) if self.asked.sum().item() > 0.5 else self.fc(x)


def test_a_network_that_cannot_be_compiled_is_refused_with_a_way_out():
    step = CompiledStep(temporal(Asking()).eval())
    with pytest.raises(ValueError, match=r"cannot take this network as a whole .*: use its step\(\) as it is") as error:
        step(torch.randn(2, 4))
    assert "\n" not in str(error.value)


def test_without_a_compiler_the_plain_step_runs(monkeypatch, caplog):
    model = in_use(temporal(Residual()))
    monkeypatch.setattr(compiled_step, "compiler_works", compiler.compiler_works.__wrapped__)
    monkeypatch.setattr(torch, "compile", lambda *_, **__: lambda *_: (_ for _ in ()).throw(OSError("no c++")))
    x = torch.randn(2, 3, 8, 8)
    with caplog.at_level(logging.WARNING, "spikedistill"):
        logits, state = CompiledStep(model)(x)
    assert "torch.compile does not work here" in caplog.text
    with torch.no_grad():
        expected, expected_state = model.step(x)
    assert torch.equal(logits, expected)
    assert state.keys() == expected_state.keys()
