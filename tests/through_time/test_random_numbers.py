"""Random numbers in a network: one draw serves all timesteps, under every rule; what would draw at each is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spikedistill import LIF, Recurrent, temporal
from spikedistill.through_time import CompiledStep, UnsupportedOperationError

T, B = 4, 3
GENERATOR = torch.Generator()
RULES = {
    "bptt": {},
    "sltt": {"gradient": "sltt"},
    "rate": {"gradient": "rate"},
    "rate in 2": {"gradient": "rate", "segments": 2},
    "chunk": {"gradient": "rate", "chunk": 1},
    "dsr": {"gradient": "dsr"},
}
# what is drawn for a signal, by its shape
DRAWN = {
    "rand": lambda x: x + torch.rand(x.shape),
    "randn of its size": lambda x: x + torch.randn(x.size()),
    "rand of its type": lambda x: x * torch.rand(*x.shape, dtype=x.dtype, device=x.device),
    "bernoulli of its shape": lambda x: x * torch.bernoulli(torch.full(x.shape, 0.5)),
    "empty, filled": lambda x: x + torch.empty(x.shape).normal_(),
    "uniform": lambda x: x - torch.empty(x.shape).uniform_(-1, 1),
    "randint": lambda x: x + torch.randint(0, 5, x.shape),
    "a permutation": lambda x: x[:, torch.randperm(x.shape[1])],
    "normal": lambda x: x + torch.normal(0.0, 1.0, tuple(x.shape)),
    "rand_like of a tensor": lambda x: x + torch.rand_like(torch.zeros(x.shape)),
    "one per sample": lambda x: x * torch.rand(len(torch.zeros(x.shape)), 1),
    "a mask over weights": lambda x: F.linear(x, F.dropout(torch.eye(8), 0.5)),
    "a generator of its own": lambda x: x + torch.rand(x.shape, generator=GENERATOR),
}
REFUSED = {
    "rand_like": torch.rand_like,
    "randn_like": torch.randn_like,
    "randint_like": lambda x: torch.randint_like(x, 3),
    "bernoulli": torch.bernoulli,
    "a method": lambda x: x.bernoulli(),
    "poisson": torch.poisson,
    "normal": lambda x: torch.normal(x, 1.0),
    "multinomial": lambda x: torch.multinomial(x, 2),
    "in place": lambda x: x.uniform_(),
    "normal_": lambda x: x.normal_(),
    "gumbel_softmax": F.gumbel_softmax,
    "rrelu": lambda x: F.rrelu(x, training=True),
    "attention with dropout": lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
}


class Draws(nn.Module):
    """A network that draws behind its first neurons, where a signal varies in time."""

    def __init__(self, draw):
        super().__init__()
        self.fc, self.lif, self.draw, self.generator = nn.Linear(8, 8), LIF(threshold=0.1), draw, GENERATOR

    def forward(self, x):
        return self.draw(self.lif(self.fc(x)))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", DRAWN)
def test_one_draw_serves_all_timesteps(name, rule):
    network = Draws(DRAWN[name])
    model, x = temporal(network, **RULES[rule]), torch.rand(T, B, 8)

    def seeded():
        GENERATOR.manual_seed(1)
        torch.manual_seed(1)

    spikes = temporal(nn.Sequential(network.fc, network.lif))(x).detach()
    seeded()
    out = model(x)
    # the same draw again for each timestep of a plain loop
    for t in range(T):
        seeded()
        torch.testing.assert_close(out[t].detach(), DRAWN[name](spikes[t]))
    seeded()
    with torch.no_grad():
        torch.testing.assert_close(model(x), out.detach())


@pytest.mark.parametrize("name", DRAWN)
def test_a_step_that_draws_is_refused_because_it_would_draw_at_every_timestep(name):
    model, x = temporal(Draws(DRAWN[name]).eval()), torch.rand(B, 8)
    for step in (model.step, CompiledStep(model)):
        with pytest.raises(
            UnsupportedOperationError, match=r"draws random numbers in step\(\), anew at every timestep"
        ):
            step(x)
    recurrent = temporal(Recurrent(Draws(DRAWN[name]), nn.Linear(8, 8)))
    for call in (lambda: recurrent(x, T), lambda: recurrent.eval()(torch.rand(T, B, 8))):
        with pytest.raises(UnsupportedOperationError, match="draws random numbers inside a Recurrent"):
            call()


@pytest.mark.parametrize("rule", ["bptt", "rate", "chunk"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_would_draw_from_the_values_of_a_signal_is_refused_by_name(name, rule):
    model = temporal(Draws(REFUSED[name]), **RULES[rule])
    with pytest.raises(UnsupportedOperationError, match="has no rule across time"):
        model(torch.rand(T, B, 8))
    with pytest.raises(UnsupportedOperationError, match="has no rule across time under gradient='step'"):
        model.eval().step(torch.rand(B, 8))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "dropout", [lambda: nn.Dropout(0.5), lambda: nn.AlphaDropout(0.5), lambda: lambda x: F.dropout(x, 0.5, True)]
)
def test_dropout_draws_one_mask_and_a_step_in_training_is_refused(dropout, rule):
    network, x = Draws(dropout()), torch.rand(T, B, 8)
    with torch.no_grad():  # so that all neurons fire always
        network.fc.weight.abs_()
        network.fc.bias.fill_(1.0)
    out = temporal(network, **RULES[rule])(x)
    assert (out == out[0]).all()
    assert len(out[0].unique()) == 2
    if not isinstance(network.draw, nn.Module):
        with pytest.raises(UnsupportedOperationError, match=r"'dropout' .*its mask belongs to all timesteps"):
            temporal(network.eval()).step(x[0])


def test_draws_of_another_thread_are_no_draws_of_the_network():
    class WhileOthersDraw(nn.Module):
        def forward(self, x):
            torch.default_generator.manual_seed(int(torch.default_generator.initial_seed()) + 1)  # as a thread may
            return x * 2

    x = torch.rand(B, 8)
    out, _ = temporal(WhileOthersDraw().eval()).step(x)
    assert torch.equal(out, 2 * x)
