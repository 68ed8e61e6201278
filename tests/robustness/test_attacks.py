"""Attacks by hand on a linear network, what all of them promise, and surrogates against loops in float64."""

import math

import pytest
import torch
from torch import Tensor, nn

from spikedistill import LIF, UserError, temporal
from spikedistill.robustness import (
    ATTACKS,
    Apgd,
    Attack,
    Bim,
    CarliniWagner,
    Fgsm,
    GaussianNoise,
    Pgd,
    RandomCorner,
    SaPgd,
    SparseEvents,
    Square,
    View,
)
from spikedistill.robustness.attacks import Checkpoints
from spikedistill.robustness.losses import LOSSES, dlr, latency, margin, prefix_ce
from spikedistill.robustness.surrogates import AdaptiveSharpness, MembraneWide

WEIGHT = torch.tensor([[1.0, -2.0, 0.5, 0.0], [-1.0, 1.0, 0.5, 3.0], [0.0, 0.5, -4.0, 1.0]])


def linear(x: Tensor) -> Tensor:
    """Logits `[1, B, 3]` of samples `[B, 1, 2, 2]`."""
    return (x.flatten(1) @ WEIGHT.to(x).T)[None]


X = torch.tensor([[0.5, 0.5, 0.5, 0.1], [0.9, 0.1, 0.0, 0.2]]).view(2, 1, 2, 2)
LABELS = linear(X)[0].argmax(1)  # 1 (by 0.05 over 2 in the first), and 0
KINDS: dict[str, Attack] = {
    **{name: kind(eps=0.1) for name, kind in ATTACKS.items()},
    "noise": GaussianNoise(eps=0.1),
    "random": RandomCorner(eps=0.1),
}


def test_a_step_along_the_sign_by_hand():
    p = linear(X)[0].softmax(1)
    gradient = (p - torch.nn.functional.one_hot(LABELS, 3)) @ WEIGHT
    expected = (X + 0.1 * gradient.sign().view_as(X)).clamp(0, 1)
    torch.testing.assert_close(Fgsm(0.1)(linear, X, LABELS), expected)
    # to reach class 2 the loss of class 2 falls
    wanted = torch.tensor([2, 2])
    gradient = (p - torch.nn.functional.one_hot(wanted, 3)) @ WEIGHT
    expected = (X - 0.1 * gradient.sign().view_as(X)).clamp(0, 1)
    torch.testing.assert_close(Fgsm(0.1, targeted=True)(linear, X, wanted), expected)


@pytest.mark.parametrize("name", [*KINDS])
def test_every_attack_stays_within_its_bounds_and_changes_nothing_at_size_zero(name):
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))

    def look(x: Tensor) -> Tensor:
        return net(x)[None]

    target = look(images)[0].argmax(1)
    changed = KINDS[name](look, images, target)
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert not torch.equal(changed, images)
    if name != "noise":
        assert (changed - images).abs().max() <= 0.1 + 1e-6
    still = type(KINDS[name])(eps=0.0)(look, images, target)
    assert torch.equal(look(still)[0].argmax(1), target)
    torch.testing.assert_close(still, images)


@pytest.mark.parametrize("attack", [Pgd(0.2, steps=30), Bim(0.2, steps=30), Apgd(0.2, steps=30)])
def test_attacks_with_gradients_find_the_best_corner_of_a_linear_network(attack):
    # of two classes the loss is monotone in x @ (w1 - w0), so the corner against the label is the worst of the ball
    weight = torch.tensor([[0.7, -1.0, 0.3, 0.2], [-0.2, 0.5, -0.6, 0.9]])

    def look(x: Tensor) -> Tensor:
        return (x.flatten(1) @ weight.T)[None]

    x = torch.full((1, 1, 2, 2), 0.5)
    target = look(x)[0].argmax(1)
    away = (weight[1 - target] - weight[target]).sign().view_as(x)
    start = torch.tensor([0.3, -0.2, 0.9, -1.0]).view_as(x)
    found = attack(look, x, target, start)
    torch.testing.assert_close(found, x + 0.2 * away)


def test_the_first_step_of_stable_adaptive_pgd_is_along_the_sign_and_is_taken_where_it_fools():
    """|m| / sqrt(v) is the root mean square of g over its mean, which is 1 or more, so that every pixel moves by the whole step."""
    for eps, fools in ((0.1, True), (0.05, False)):
        step = Fgsm(eps)(linear, X, LABELS)
        assert (linear(step)[0].argmax(1) != LABELS).tolist() == [fools, fools]
        found = SaPgd(eps, steps=1)(linear, X, LABELS, torch.zeros_like(X))
        torch.testing.assert_close(found, step if fools else X)


def test_the_result_of_a_sample_does_not_depend_on_its_batch():
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 4)).double()

    def look(x: Tensor) -> Tensor:
        return net(x)[None]

    images = torch.rand(5, 3, 4, 4, generator=generator, dtype=torch.float64)
    start = 2 * torch.rand(images.shape, generator=generator, dtype=torch.float64) - 1
    target = look(images)[0].argmax(1)
    drawn = ("square",)  # whose draws belong to the batch
    kinds = (kind(eps=0.05) for name, kind in ATTACKS.items() if name not in drawn)
    for attack in (*kinds, CarliniWagner(steps=20, alone=True)):
        together = attack(look, images, target, start)
        alone = torch.cat([attack(look, images[k : k + 1], target[k : k + 1], start[k : k + 1]) for k in range(5)])
        torch.testing.assert_close(together, alone, msg=attack.name)


@pytest.mark.parametrize("through", ["trained", "assg"])
@pytest.mark.parametrize("attack", [Pgd(0.15, steps=8, stop=True), SaPgd(0.15, steps=8)])
def test_samples_that_are_fooled_leave_and_the_others_go_on_as_alone(attack, through):
    torch.manual_seed(0)
    net = temporal(nn.Sequential(nn.Flatten(), nn.Linear(16, 12), LIF(), nn.Linear(12, 3))).double().eval()
    net.module[1].weight.data.mul_(4)  # so that it fires
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(9, 1, 4, 4, generator=generator, dtype=torch.float64)
    start = 2 * torch.rand(x.shape, generator=generator, dtype=torch.float64) - 1
    view = View(net, 3, through)
    target = view(x).mean(0).argmax(1)
    view.begin()
    sizes = []

    def look(samples: Tensor) -> Tensor:
        sizes.append(len(samples))
        return view(samples)

    class Counted:
        keep = view.keep

        def __call__(self, samples: Tensor) -> Tensor:
            return look(samples)

    together = attack(Counted(), x, target, start)
    for n in range(9):
        view.begin()
        alone = attack(view, x[n : n + 1], target[n : n + 1], start[n : n + 1])
        torch.testing.assert_close(together[n : n + 1], alone)
    fooled = view(together).mean(0).argmax(1) != target
    assert 0 < fooled.sum() < 9, "some leave and some stay"
    assert sizes[0] == 9
    assert sizes[-1] < 9


def test_square_fools_where_the_margin_is_small_and_never_makes_a_sample_better():
    before = margin(linear(X), LABELS)
    found = Square(0.3, steps=60)(linear, X, LABELS)
    after = margin(linear(found), LABELS)
    assert (after <= before).all()
    assert after[0] < 0
    assert Square(0.3, steps=60)(linear, X, LABELS).equal(found), "the same draws every time"


def test_carlini_and_wagner_come_near_the_nearest_mistake():
    # the boundary between the two classes lies |margin| / |w0 - w1| away
    weight = torch.tensor([[1.0, -1.0, 0.5, 0.2], [-0.5, 0.5, -0.5, 0.4]])

    def look(x: Tensor) -> Tensor:
        return (x.flatten(1) @ weight.T)[None]

    x = torch.full((1, 1, 2, 2), 0.5)
    target = look(x)[0].argmax(1)
    nearest = float(margin(look(x), target) / (weight[0] - weight[1]).norm())
    found = CarliniWagner(c=1, steps=400, lr=0.01)(look, x, target)
    assert look(found)[0].argmax(1) != target
    assert nearest <= float((found - x).norm()) < 1.3 * nearest


def test_checkpoints_are_those_of_the_paper():
    # of 100 steps: 22, then 19, 16, 13, 10, 7, 6, 6, ... apart (Croce and Hein, 2020)
    checkpoints = Checkpoints(100)
    reached = [step for step in range(1, 101) if checkpoints.reached()]
    assert reached == [22, 41, 57, 70, 80, 87, 93, 99]


def test_losses_by_hand():
    logits = torch.tensor([[[2.0, 0.0, 1.0]], [[0.0, 4.0, 1.0]]])  # means [1, 2, 1]
    target = torch.tensor([0])
    assert float(margin(logits, target)) == -1
    assert float(dlr(logits, target)) == pytest.approx(-(1 - 2) / (2 - 1))
    first, both = -math.log(math.exp(2) / (math.exp(2) + 1 + math.e)), -math.log(1 / (2 + math.e))
    assert float(prefix_ce(logits, target)) == pytest.approx((first + both) / 2)
    even = torch.zeros(3, 1, 4)
    assert float(latency(even, target)) == pytest.approx(math.log(4))
    with pytest.raises(UserError, match="three largest"):
        dlr(torch.zeros(1, 1, 2), target)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Pgd(eps=8), "eps is 8"),
        (lambda: Pgd(loss="mse"), "loss is 'mse', expected one of ce, dlr"),
        (lambda: Pgd(steps=0), "steps is 0"),
        (lambda: Square(loss="latency"), "loss is 'latency', but the attack square raises no loss: leave it out"),
        (lambda: SparseEvents(eps=-1), "eps is -1, expected a share of the events, such as 0.05"),
        (lambda: Pgd(step=8), "step is 8, expected how far a step moves a pixel"),
        (lambda: Pgd(step=math.nan), "step is nan"),
        (lambda: Pgd(step=-0.1), "step is -0.1"),
        (lambda: CarliniWagner(steps=0), "steps is 0"),
        (lambda: CarliniWagner(c=-1), "c is -1, expected a number above 0"),
        (lambda: CarliniWagner(kappa=math.inf), "kappa is inf, expected a number 0 or more"),
        (lambda: View(network(), 0), "timesteps is 0"),
        (lambda: View(network(), 2, "relu"), "no surrogate is called 'relu'"),
    ],
)
def test_wrong_settings_are_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_the_loss_towards_a_class_rises_also_if_it_ranks_third():
    """With z = 4, 3, 1, 0 and the third to reach: (1 - 4) / (4 - (1 + 0) / 2); of the label's form it would be -1 everywhere."""
    z = torch.tensor([[[4.0, 3.0, 1.0, 0.0]]], requires_grad=True)
    attack = Pgd(0.1, loss="dlr", targeted=True)
    value = attack.climbed(z, torch.tensor([2]))
    assert value.item() == pytest.approx(-3 / 3.5)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    assert float(gradient[0, 0, 2]) > 0
    with pytest.raises(UserError, match="four largest of all logits, and there are 3"):
        attack.climbed(torch.zeros(1, 1, 3), torch.tensor([0]))


def test_what_fools_depends_on_when_the_network_may_stop():
    """Two timesteps, two classes; the first sample is right after one and wrong after two, the second wrong after both."""
    logits = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 3.0], [0.0, 1.0]]])
    labels = torch.tensor([0, 0])
    assert Pgd(0.1).fools(logits, labels).tolist() == [True, True]
    assert Pgd(0.1, loss="prefix_ce").fools(logits, labels).tolist() == [False, True]
    assert Pgd(0.1, loss="latency").fools(logits, labels).tolist() == [False, False], "time has no end to reach"
    assert Pgd(0.1, loss="prefix_ce", targeted=True).fools(logits, 1 - labels).tolist() == [False, True]


@pytest.mark.parametrize("attack", [Apgd(0.3, steps=12, loss="latency"), SaPgd(0.3, steps=12, loss="latency")])
def test_an_attack_on_time_returns_its_point_of_largest_loss_whatever_the_network_answers(attack):
    torch.manual_seed(0)
    net = temporal(nn.Sequential(nn.Flatten(), nn.Linear(16, 12), LIF(), nn.Linear(12, 3))).eval()
    for layer in (net.module[1], net.module[3]):
        layer.weight.data.mul_(4)  # so that it fires and is sure
    view, x = View(net, 3), torch.rand(12, 1, 4, 4)
    target = view(x).mean(0).argmax(1)
    target[::2] = (target[::2] + 1) % 3  # already mistaken, or answered as before: both are attacked
    changed = attack(view, x, target)
    assert ((changed != x).flatten(1).any(1)).all()
    assert (latency(view(changed), target) > latency(view(x), target)).double().mean() > 0.8


def test_a_start_that_fools_is_a_success_and_a_sample_that_is_mistaken_stays():
    def look(x: Tensor) -> Tensor:  # wrong only at the corner where the attack begins
        corner = (x.flatten(1) > 0.69).all(1)
        return torch.stack([1 - 2.0 * corner + 0 * x.flatten(1).sum(1), torch.zeros(len(x))], 1)[None]

    x, label = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    for attack in (Apgd(0.2, steps=5), SaPgd(0.2, steps=5), Pgd(0.2, steps=5, stop=True)):
        found = attack(look, x, label, torch.ones_like(x))
        torch.testing.assert_close(found, x + 0.2, msg=attack.name)
    wrong = LABELS.clone()
    wrong[0] = 0
    changed = Apgd(0.1, steps=5)(linear, X, wrong, torch.ones_like(X))
    assert torch.equal(changed[0], X[0])


@pytest.mark.parametrize("attack", [Apgd(0.1, steps=6), SaPgd(0.1, steps=6), Pgd(0.1, steps=6)])
def test_a_start_of_zeros_is_the_sample_itself(attack):
    seen = []

    def look(samples: Tensor) -> Tensor:
        seen.append(samples.detach())
        return linear(samples)

    found = attack(look, X, LABELS, torch.zeros_like(X))
    assert all(bool(samples.isfinite().all()) for samples in (*seen, found))
    assert any(torch.equal(samples, X) for samples in seen)


@pytest.mark.parametrize("attack", [Apgd, SaPgd, Pgd])
def test_a_network_that_may_stop_early_is_attacked_also_where_not_every_prefix_can_be_mistaken(attack):
    """The first timestep is wrong where the first pixel is above 0.55; the second one stays right whatever comes."""

    def look(samples: Tensor) -> Tensor:
        pixel = samples.flatten(1)[:, 0]
        first = torch.stack([torch.zeros_like(pixel), 20 * (pixel - 0.55)], 1)
        return torch.stack([first, torch.stack([torch.full_like(pixel, 90.0), 0 * pixel], 1)])

    x, label = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    start = torch.tensor([-1.0, 0.2, 0.3, 0.4]).view_as(x)
    found = attack(0.2, steps=20, loss="prefix_ce")(look, x, label, start)
    assert look(found)[0].argmax(1) == 1, "the first answer is wrong"
    assert look(found).mean(0).argmax(1) == 0


def test_carlini_and_wagner_leave_no_gradient_on_the_network():
    net = network()
    x = torch.rand(4, 1, 4, 4)
    CarliniWagner(steps=3)(lambda samples: net(samples, 3), x, torch.tensor([0, 1, 2, 0]))
    assert all(parameter.grad is None for parameter in net.parameters())


def test_draws_differ_from_batch_to_batch_and_from_sample_to_sample():
    x = torch.full((2, 1, 6, 6), 0.5)
    first, second = (2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) - 1 for seed in (0, 1))

    def look(samples: Tensor) -> Tensor:  # never mistaken, and each change is kept
        return torch.stack([9 - samples.flatten(1).var(1), torch.zeros(len(samples))], 1)[None]

    label = torch.zeros(2).long()
    for attack in (GaussianNoise(0.1), RandomCorner(0.1), Square(0.1, steps=3)):
        one, same, other = (attack(look, x, label, start) for start in (first, first, second))
        assert torch.equal(one, same)
        assert not torch.equal(one, other), attack.name
        assert not torch.equal(one[0], one[1]), attack.name


# Surrogates


def network(**options):
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        LIF(**options),
        nn.Flatten(),
        nn.Linear(64, 8),
        LIF(**options),
    )
    net = temporal(nn.Sequential(*layers, nn.Linear(8, 3)))
    for _ in range(3):
        net.train()(torch.rand(8, 1, 4, 4), 3)
    return net.eval()


@pytest.mark.parametrize("through", ["trained", "arctan", "triangular", "pdsg", "assg", "rate"])
def test_an_attack_through_any_surrogate_leaves_the_network_and_its_answers_as_they_are(through):
    net = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    surrogates = [layer.surrogate for layer in net.modules() if isinstance(layer, LIF)]
    x = torch.rand(5, 1, 4, 4)
    view = View(net, 3, through)
    torch.testing.assert_close(view(x), net(x, 3))
    target = net(x, 3).mean(0).argmax(1)
    slope = Pgd().slope(view, x, target)
    assert slope.gradient.shape == x.shape
    assert slope.gradient.abs().sum() > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert [layer.surrogate for layer in net.modules() if isinstance(layer, LIF)] == surrogates
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())


def test_the_gradient_through_the_trained_surrogate_is_that_of_bptt():
    net = network().double()
    x = torch.rand(4, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 2, 0])
    loss = nn.functional.cross_entropy(net(x, 3).mean(0), target, reduction="sum")
    (expected,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(Pgd().slope(View(net, 3), x.detach(), target).gradient, expected)


def test_a_gaussian_as_wide_as_the_membranes_spread():
    """It is highest half a width above the threshold; every sample, and every channel of an image, has a width of its own."""
    x = torch.tensor([[-1.0, 0.0, 1.0, 2.0], [0.1, 0.1, 0.3, 0.3]], dtype=torch.float64)
    expected = []
    for row in x.tolist():
        mean = sum(row) / 4
        s = math.sqrt(sum((value - mean) ** 2 for value in row) / 4)
        expected.append(
            [math.exp(-((value - s / 2) ** 2) / (2 * s * s)) / (s * math.sqrt(2 * math.pi)) for value in row]
        )
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(MembraneWide()(x), expected)
    channels, of_channels = x.view(1, 2, 2, 2), expected.view(1, 2, 2, 2)
    torch.testing.assert_close(MembraneWide()(channels), of_channels)


def test_sharpness_follows_every_membrane_over_the_steps_of_an_attack():
    T = 3
    surrogate = AdaptiveSharpness()
    weight = 2 * math.tan(0.425 * math.pi) / math.pi
    M, D = [1.0] * T, [0.0] * T
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):  # steps of the attack
        surrogate.again()
        for t in reversed(range(T)):
            x = float(torch.randn((), generator=generator, dtype=torch.float64))
            M[t] = 0.9 * M[t] + 0.1 * abs(x)
            D[t] = 0.9 * D[t] + 0.1 * abs(abs(x) - M[t])
            a = weight / (M[t] + 1.5 * D[t] + 1e-4)
            found = surrogate(torch.tensor([[x]], dtype=torch.float64))
            assert float(found) == pytest.approx(a / 2 / (1 + (math.pi * a * x / 2) ** 2))
    surrogate.begin()
    a = weight / (0.9 + 0.1 * 2 + 1.5 * 0.1 * (2 - 1.1) + 1e-4)
    assert float(surrogate(torch.full((1, 1), 2.0))) == pytest.approx(a / 2 / (1 + (math.pi * a) ** 2), rel=1e-5)


def test_adaptive_surrogates_are_asked_once_for_each_timestep_the_last_first():
    net = network()
    view = View(net, 3, "assg")
    layers = [layer for layer in view.network.modules() if isinstance(layer, LIF)]
    seen: list[list[Tensor]] = [[] for _ in layers]
    for layer, distances in zip(layers, seen, strict=True):
        own = layer.surrogate

        def noted(x, own=own, distances=distances):
            distances.append(x.detach().clone())
            return own(x)

        layer.surrogate = noted
    x = torch.rand(2, 1, 4, 4)
    Pgd().slope(view, x, torch.tensor([0, 1]))
    membranes = []
    with torch.no_grad():
        current = view.network.module[1](view.network.module[0](x))
        u = torch.zeros_like(current)
        for _ in range(3):
            u = 0.5 * u + current
            membranes.append(u - 1)
            u = torch.where(u >= 1, u - 1, u)
    assert [len(distances) for distances in seen] == [3, 3]
    for found, expected in zip(seen[0], reversed(membranes), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_all_losses_have_a_gradient_for_every_sample():
    view, x = View(network(), 3), torch.rand(4, 1, 4, 4)
    for loss in LOSSES:
        gradient = Pgd(loss=loss).slope(view, x, view(x).mean(0).argmax(1)).gradient
        assert (gradient.flatten(1).abs().sum(1) > 0).all(), loss


def test_a_layer_of_one_neuron_and_a_layer_in_two_places_have_finite_gradients():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second, self.last, self.fire = nn.Linear(8, 6), nn.Linear(6, 1), nn.Linear(1, 3), LIF()

        def forward(self, x):
            return self.last(self.fire(self.second(self.fire(self.first(x)))))

    x, target = torch.rand(4, 8) * 3, torch.tensor([0, 1, 2, 0])
    for through in ("pdsg", "assg"):
        view = View(temporal(Twice()).eval(), 3, through)
        for _ in range(3):
            gradient = Pgd().slope(view, x, target).gradient
            assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0, "of one neuron the membranes spread by nothing, and pdsg is as good as a step"
