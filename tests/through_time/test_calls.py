"""A signal belongs to one call of a network, or one step: kept, left behind or mixed with another call's, it is refused."""

import copy
import gc
import weakref
from collections import deque
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from spikedistill import LIF, Recurrent, mean_rate, temporal
from spikedistill.through_time import CompiledStep, UnsupportedOperationError
from spikedistill.through_time.features import outputs_of

T, B = 3, 2
RULES = {
    "bptt": {},
    "sltt": {"gradient": "sltt"},
    "rate": {"gradient": "rate"},
    "chunk": {"gradient": "rate", "chunk": 2},
}
OUTSIDE = []


class Keeps(nn.Module):
    """A network that keeps a signal of its first layer somewhere, and uses in its next call what is there."""

    def __init__(self, keep, read, use):
        super().__init__()
        self.fc, self.lif, self.part = nn.Linear(3, 3), LIF(threshold=0.2), nn.Sequential(nn.Identity())
        self.keep, self.read, self.use = keep, read, use

    def forward(self, x):
        s = self.fc(x)
        kept = self.read(self)
        out = self.lif(s) if kept is None else self.use(self, s, kept)
        self.keep(self, s)
        return out


def in_a_closure():
    held = []
    return (lambda net, s: held.append(s)), (lambda net: held[-1] if held else None)


def outside(net, s):
    OUTSIDE.append(s)


# where no attribute of a module shows it, so that its use is what is refused
HIDDEN = {
    "a closure": in_a_closure(),
    "a global": (outside, lambda net: OUTSIDE[-1] if OUTSIDE else None),
    "an object": (
        lambda net, s: setattr(net.fc.weight, "s", s),
        lambda net: getattr(net.fc.weight, "s", None),
    ),
}
# what is done in a later call with a kept signal
USES = {
    "added": lambda net, s, kept: s + kept,
    "added in place": lambda net, s, kept: s.__iadd__(kept),
    "by itself": lambda net, s, kept: kept * 2,
    "in a layer": lambda net, s, kept: net.fc(kept),
    "fired": lambda net, s, kept: net.lif(kept),
    "concatenated": lambda net, s, kept: torch.cat([s, kept], 1),
    "its rate": lambda net, s, kept: s + mean_rate(kept),
    "detached": lambda net, s, kept: s + kept.detach(),
    "returned": lambda net, s, kept: kept,
    "returned in a dict": lambda net, s, kept: {"a": s, "b": [kept]},
    "a matrix product": lambda net, s, kept: s @ kept.transpose(0, 1),
}


@pytest.fixture(autouse=True)
def nothing_kept():
    yield
    OUTSIDE.clear()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("place", HIDDEN)
@pytest.mark.parametrize("use", USES)
def test_a_signal_of_an_earlier_call_is_refused_in_a_later_one(place, use, rule):
    network = Keeps(*(in_a_closure() if place == "a closure" else HIDDEN[place]), USES[use])
    model, x = temporal(network, **RULES[rule]), torch.rand(B, 3)
    model(x, T)
    for call in (lambda: model(x, T), lambda: model(torch.rand(T, B, 3))):
        with pytest.raises(
            UnsupportedOperationError, match=r"got (a signal|signals) of .*Recurrent\(layer, feedback\) or Delay"
        ):
            call()


@pytest.mark.parametrize("use", USES)
def test_a_signal_of_an_earlier_step_is_refused_in_a_later_one(use):
    model, x = temporal(Keeps(*in_a_closure(), USES[use]).eval()), torch.rand(B, 3)
    _, state = model.step(x)
    for later in (state, None):
        with pytest.raises(
            UnsupportedOperationError, match=r"got (a signal|signals) of .*Recurrent\(layer, feedback\) or Delay"
        ):
            model.step(x, later)


@pytest.mark.parametrize("kind", ["call", "without gradients", "step", "compiled step"])
@pytest.mark.parametrize(
    ("keep", "where"),
    [
        (lambda net, s: setattr(net, "s", s), "on itself, as 's'"),
        (lambda net, s: setattr(net.part, "s", s), "on module 'part', as 's'"),
        (lambda net, s: setattr(net.part[0], "past", [s]), r"on module 'part\.0', as 'past'"),
        (lambda net, s: setattr(net, "cache", {"a": (1, s)}), "on itself, as 'cache'"),
        (lambda net, s: setattr(net.lif, "out", net.lif(s)), "on module 'lif', as 'out'"),
        (lambda net, s: setattr(net, "past", deque([s], maxlen=2)), "on itself, as 'past'"),
        (lambda net, s: setattr(net, "past", SimpleNamespace(s=s)), "on itself, as 'past'"),
        (lambda net, s: net._buffers.__setitem__("s", s), "on itself, as '_buffers'"),
    ],
)
def test_a_signal_left_on_a_module_is_refused_at_once(keep, where, kind):
    model = temporal(Keeps(keep, lambda net: None, None).eval())
    calls = {"call": lambda x: model(x, T), "step": model.step, "compiled step": CompiledStep(model)}
    gradients = torch.no_grad() if kind == "without gradients" else nullcontext()
    with gradients, pytest.raises(ValueError, match=f"the network left a signal {where}, after its call: .*Recurrent"):
        calls.get(kind, calls["call"])(torch.rand(B, 3))


@pytest.mark.parametrize("rule", RULES)
def test_a_signal_is_of_no_use_after_its_call(rule):
    OUTSIDE.clear()
    model = temporal(Keeps(outside, lambda net: None, None), **RULES[rule])
    model(torch.rand(B, 3), T)
    for use in (lambda s: s + 1, lambda s: s.over_time(), mean_rate, LIF(), lambda s: s.detach(), lambda s: s[0]):
        with pytest.raises(UnsupportedOperationError, match="a signal of a call that has ended"):
            use(OUTSIDE[-1])


def test_a_call_that_failed_has_ended_too():
    def fail(net, s):
        OUTSIDE.append(s)
        raise KeyError("a failure of the network's own")

    model = temporal(Keeps(fail, lambda net: OUTSIDE[-1] if OUTSIDE else None, USES["its rate"]))
    with pytest.raises(KeyError):
        model(torch.rand(B, 3), T)
    with pytest.raises(UnsupportedOperationError, match="a signal of a call that has ended"):
        model(torch.rand(B, 3), T)


def test_signals_of_two_calls_that_both_run_are_not_mixed():
    class Captures(nn.Module):
        def forward(self, x):
            return x + OUTSIDE[-1]

    class Returns(nn.Module):
        def forward(self, x):
            return OUTSIDE[-1]

    class Inside(nn.Module):
        """A network that another one, which runs, gives a signal behind its back: a `Recurrent`, or one with a time of its own."""

        def __init__(self, inner):
            super().__init__()
            self.inner = [inner]

        def forward(self, x):
            OUTSIDE.append(x)
            return self.inner[0](x)

    for part, name in ((Captures(), "__add__"), (Returns(), "return")):
        own = temporal(part)
        for inner in (Recurrent(part, nn.Identity()), lambda x, own=own: own(torch.rand(B, 3), T)):
            with pytest.raises(UnsupportedOperationError, match=f"'{name}' got signals of two calls"):
                temporal(Inside(inner))(torch.rand(B, 3), T)


def test_signals_of_one_call_may_be_kept_while_it_runs():
    class Within(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(3, 3), LIF(threshold=0.2)

        def forward(self, x):
            self.skip = self.fc(x)
            out = self.lif(self.skip) + self.skip
            del self.skip
            return out

    model = temporal(Within())
    assert torch.equal(model(x := torch.rand(B, 3), T), copy.deepcopy(model)(x, T))


def test_features_may_be_read_after_the_call_but_only_in_their_own():
    network = nn.Sequential(nn.Linear(3, 3), LIF(threshold=0.2), nn.Linear(3, 3))
    model = temporal(network)
    with outputs_of(network, ["1"]) as outputs:
        out = model(torch.rand(B, 3), T)
        assert torch.equal(network[2](outputs["1"]).over_time(), out)
    assert mean_rate(outputs["1"]).shape == (B, 3)
    assert outputs["1"].over_time().shape == (T, B, 3)
    with pytest.raises(UnsupportedOperationError, match="a signal of a call that has ended"):
        outputs["1"] * 2


def test_a_call_keeps_nothing_alive():
    """No cycle holds activations: they are freed with their last name, without the garbage collector."""
    kept = []
    network = nn.Sequential(nn.Linear(3, 3), LIF(threshold=0.2), nn.Linear(3, 3))
    network[1].register_forward_hook(lambda layer, inputs, out: kept.append(weakref.ref(out.over_time())))
    network[1].register_forward_hook(lambda layer, inputs, out: kept.extend(map(weakref.ref, (out, out.call))))
    gc.disable()
    try:
        out = temporal(network)(torch.rand(B, 3), T)
        assert [ref() for ref in kept] == [None] * 3
        del out
        temporal(network.eval()).step(torch.rand(B, 3))
        assert [ref() for ref in kept] == [None] * 6
    finally:
        gc.enable()
