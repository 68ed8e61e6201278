"""Batch-norm over processes: two real ones learn what one does on their joined batch; and alone it is torch's batch-norm."""

import copy
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.autograd import gradcheck
from torch.nn.parallel import DistributedDataParallel

from spikedistill import LIF, create_model, mean_rate, temporal
from spikedistill.through_time import SyncBatchNorm, synchronise_batch_norm
from spikedistill.through_time.batch_norm import Normalise

f64, f32 = torch.float64, torch.float32
T = 4
RULES = [("bptt", 1), ("sltt", 1), ("rate", 1), ("rate", 2), ("rate", (1, 3)), ("dsr", 1)]
KINDS = ["static", "events"]
SIZES = [(3, 1), (2, 2)]  # samples of each process
OPTIONS = [{"momentum": None}, {"momentum": 0.7}, {"affine": False}, {"track_running_stats": False}]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=f64)


class Branched(nn.Module):
    """Batch-norm of a constant and of a varying value, of `[B, C]`, and of an ordinary tensor in a branch."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), LIF(threshold=0.5))
        self.body = nn.Sequential(nn.Conv2d(4, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), LIF(threshold=0.5))
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(80, 6, bias=False), nn.BatchNorm1d(6), LIF(threshold=0.5), nn.Linear(6, 3)
        )
        self.branch = nn.Sequential(
            nn.Conv2d(4, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)
        )

    def forward(self, x):
        spikes = self.stem(x)
        return self.head(self.body(spikes)), self.branch(mean_rate(spikes))


class OneLayer(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), LIF(threshold=0.5))

    def forward(self, x):
        spikes = super().forward(x)
        return spikes, mean_rate(spikes)


def build(layout, dtype):
    torch.manual_seed(0)
    network = layout()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    return network.to(dtype)


def run(network, rule, kind, dtype, samples, processes=1):
    """Outputs, gradients and buffers of one training step on some samples of the batch of four."""
    gradient, segments = rule
    model = temporal(network, gradient=gradient, segments=segments)
    if processes > 1:
        model = DistributedDataParallel(model)
    x = (1.5 * (draw(4, 2, 4, 4) if kind == "static" else draw(T, 4, 2, 4, 4))).to(dtype)
    x = (x[samples] if kind == "static" else x[:, samples]).requires_grad_()
    logits, branch = model(x, timesteps=T if kind == "static" else None)
    # a probe of each sample's own; not linear, so that the gradient depends on each timestep's value
    loss = (logits.tanh() * draw(T, 4, *logits.shape[2:], seed=1).to(dtype)[:, samples]).sum()
    loss = loss + (branch.tanh() * draw(4, *branch.shape[1:], seed=2).to(dtype)[samples]).sum()
    (processes * loss).backward()  # of which data parallel training takes the mean
    return {
        "logits": logits.detach(),
        "branch": branch.detach(),
        "input": x.grad / processes,
        "gradients": {name: p.grad for name, p in network.named_parameters()},
        "buffers": dict(network.named_buffers()),
    }


def samples_of(rank, sizes):
    return slice(0, sizes[0]) if rank == 0 else slice(sizes[0], None)


CASES = [
    *((Branched, rule, kind, f64, sizes) for rule in RULES for kind in KINDS for sizes in SIZES),
    *((OneLayer, rule, kind, f32, (3, 1)) for rule in RULES for kind in KINDS),
]


def plain_steps(options, samples):
    """Two calls on an ordinary tensor: outputs, gradients, and what the layer keeps."""
    norm = synchronise_batch_norm(nn.BatchNorm2d(3, **options).to(f64))
    results = []
    for seed in (3, 4):
        x = (draw(4, 3, 2, 2, seed=seed) * seed + seed)[samples].requires_grad_()
        out = norm(x)
        (out.tanh() * draw(4, 3, 2, 2, seed=5)[samples]).sum().backward()
        results += [out.detach(), x.grad]
    return results, [p.grad for p in norm.parameters()], dict(norm.named_buffers())


def by_hand(rank):
    """Running statistics of one channel with momentum 1/2, from mean 0 and variance 1."""
    norm = [SyncBatchNorm(1, momentum=0.5).to(f64) for _ in range(2)]
    out = norm[0](torch.tensor([[[0.0]], [[2.0], [4.0]]][rank], dtype=f64))
    # one process shows 0 at three timesteps, the other 4 at one
    temporal(norm[1])(torch.tensor([[[0.0], [4.0]][rank]], dtype=f64), timesteps=[3, 1][rank])
    return out.detach(), *((n.running_mean.item(), n.running_var.item()) for n in norm)


def far_from_zero(rank):
    norm = SyncBatchNorm(2, momentum=1.0)
    norm((draw(512, 2) + 1000).float()[rank::2])
    return norm.running_mean, norm.running_var


def evaluation():
    """Of the first process alone: where anything was exchanged, it would wait for the other."""
    network = synchronise_batch_norm(build(Branched, f64)).eval()
    model, x = temporal(network), draw(4, 2, 4, 4)
    state, steps = None, []
    with torch.no_grad():
        for _ in range(T):
            (logits, _), state = model.step(x, state)
            steps.append(logits)
        return model(x, timesteps=T)[0], torch.stack(steps), network.branch(draw(4, 4, 4, 4))


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    try:
        results = {}
        for case, (layout, rule, kind, dtype, sizes) in enumerate(CASES):
            network = synchronise_batch_norm(build(layout, dtype))
            results[case] = run(network, rule, kind, dtype, samples_of(rank, sizes), processes=2)
        results["own statistics"] = run(build(Branched, f64), ("bptt", 1), "static", f64, samples_of(rank, (2, 2)), 2)
        results["plain"] = [plain_steps(options, samples_of(rank, (3, 1))) for options in OPTIONS]
        results["by hand"] = by_hand(rank)
        results["far from zero"] = far_from_zero(rank)
        results["evaluation"] = evaluation() if rank == 0 else None
        dist.barrier()
        torch.save(results, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("processes"))
    mp.spawn(work, args=(folder,), nprocs=2)
    return [torch.load(f"{folder}/{rank}.pt") for rank in (0, 1)]


def assert_close(ours, expected, tolerance):
    assert ours.dtype == expected.dtype
    ours, expected = ours.double(), expected.double()
    assert (ours - expected).norm() <= tolerance * expected.norm()


def described(case):
    layout, (gradient, segments), kind, dtype, sizes = CASES[case]
    return f"{layout.__name__}-{gradient}-{segments}-{kind}-{dtype}-{sizes}"


@pytest.mark.parametrize("case", range(len(CASES)), ids=described)
def test_two_processes_learn_as_one_does_on_the_joined_batch(processes, case):
    layout, rule, kind, dtype, sizes = CASES[case]
    network = build(layout, dtype)
    joined = run(network, rule, kind, dtype, slice(None))
    assert all(gradient.norm() > 1e-3 for gradient in joined["gradients"].values())
    tolerance = 1e-10 if dtype == f64 else 1e-6
    for rank, results in enumerate(processes):
        own, samples = results[case], samples_of(rank, sizes)
        assert_close(own["logits"], joined["logits"][:, samples], tolerance)
        assert_close(own["branch"], joined["branch"][samples], tolerance)
        # also what this process's samples do to the other's losses
        assert_close(own["input"], joined["input"][samples if kind == "static" else (slice(None), samples)], tolerance)
        for part in ("gradients", "buffers"):
            assert own[part].keys() == joined[part].keys()
            for name, expected in joined[part].items():
                assert_close(own[part][name], expected, tolerance)
    for name in joined["buffers"]:
        assert torch.equal(processes[0][case]["buffers"][name], processes[1][case]["buffers"][name])


def test_unsynchronised_processes_do_not(processes):
    """What the tolerances above tell apart."""
    joined = run(build(Branched, f64), ("bptt", 1), "static", f64, slice(None))
    own = processes[0]["own statistics"]
    assert (own["branch"] - joined["branch"][:2]).norm() > 0.01
    assert (own["buffers"]["stem.1.running_var"] - joined["buffers"]["stem.1.running_var"]).norm() > 0.01
    assert (own["gradients"]["stem.0.weight"] - joined["gradients"]["stem.0.weight"]).norm() > 0.01


@pytest.mark.parametrize("which", range(len(OPTIONS)), ids=lambda which: str(OPTIONS[which]))
def test_an_ordinary_tensor_is_normalised_over_processes_under_every_option_of_the_layer(processes, which):
    results, gradients, buffers = plain_steps(OPTIONS[which], slice(None))
    own = [ranked["plain"][which] for ranked in processes]
    for expected, *parts in zip(results, *(part for part, _, _ in own), strict=True):
        torch.testing.assert_close(torch.cat(parts), expected, rtol=0, atol=1e-10)
    # each process keeps the gradients of its own samples
    for expected, *parts in zip(gradients, *(part for _, part, _ in own), strict=True):
        torch.testing.assert_close(sum(parts), expected, rtol=0, atol=1e-10)
    for _, _, kept in own:
        torch.testing.assert_close(kept, buffers, rtol=0, atol=1e-10)


def test_statistics_over_processes_by_hand(processes):
    for rank, values in enumerate(([0.0], [2.0, 4.0])):
        out, plain, shown = processes[rank]["by hand"]
        # 0 | 2, 4: mean 2, biased variance 8/3, unbiased 4
        assert out.flatten().tolist() == pytest.approx([(v - 2) / (8 / 3 + 1e-5) ** 0.5 for v in values])
        assert plain == pytest.approx((0.5 * 2, 0.5 * 1 + 0.5 * 4))
        # 0, 0, 0 | 4: mean 1, biased variance 3, unbiased 4
        assert shown == pytest.approx((0.5 * 1, 0.5 * 1 + 0.5 * 4))


def test_values_far_from_zero_lose_nothing_by_cancellation(processes):
    # squares are near 1e6, where float32 resolves 0.06
    exact = (draw(512, 2) + 1000).float().double()
    for rank in (0, 1):
        mean, var = processes[rank]["far from zero"]
        torch.testing.assert_close(mean.double(), exact.mean(0), rtol=1e-7, atol=0)
        torch.testing.assert_close(var.double(), exact.var(0), rtol=1e-5, atol=0)


def test_evaluation_exchanges_nothing_and_streams(processes):
    whole, steps, branch = processes[0]["evaluation"]
    network = build(Branched, f64).eval()
    torch.testing.assert_close(whole, temporal(network)(draw(4, 2, 4, 4), timesteps=T)[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(steps, whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(branch, network.branch(draw(4, 4, 4, 4)), rtol=0, atol=1e-12)


class Sends(nn.Module):
    """Sends a signal through the layer's own arithmetic, which a single process leaves to torch's layer."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return x.normalise(self.norm)


def one_step(norm, rule, kind, after_neurons):
    with torch.no_grad():
        if norm.weight is not None:
            norm.weight.copy_(torch.linspace(0.5, 1.5, 3))
    gradient, segments = rule
    stages = [LIF(threshold=0.5)] if after_neurons else []
    inner = Sends(norm) if isinstance(norm, SyncBatchNorm) else norm
    model = temporal(nn.Sequential(*stages, inner), gradient=gradient, segments=segments)
    x = (draw(2, 3, 2, 2) if kind == "static" else draw(T, 2, 3, 2, 2)).requires_grad_()
    out = model(x, timesteps=T if kind == "static" else None)
    (out.tanh() * draw(T, 2, 3, 2, 2, seed=1)).sum().backward()
    return [out.detach(), x.grad, *(p.grad for p in norm.parameters()), *norm.buffers()]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("after_neurons", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RULES)
def test_its_arithmetic_over_one_process_is_batch_norm(rule, kind, after_neurons, momentum, affine):
    ours = one_step(SyncBatchNorm(3, momentum=momentum, affine=affine).to(f64), rule, kind, after_neurons)
    torchs = one_step(nn.BatchNorm2d(3, momentum=momentum, affine=affine).to(f64), rule, kind, after_neurons)
    assert torchs[1].norm() > 1e-3
    for a, b in zip(ours, torchs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_running_statistics_that_are_not_tracked_any_more_stay():
    norm = SyncBatchNorm(3).to(f64)
    norm.track_running_stats = False
    before = copy.deepcopy(norm.state_dict())
    temporal(Sends(norm))(draw(T, 2, 3, 2, 2))
    assert all(torch.equal(norm.state_dict()[key], before[key]) for key in before)


@pytest.mark.parametrize("rule", RULES)
def test_one_process_alone_runs_torchs_own_layer(rule):
    x = draw(T, 2, 3, 2, 2).requires_grad_()
    results = []
    for norm in (nn.BatchNorm2d(3).to(f64), SyncBatchNorm(3).to(f64)):
        out = temporal(nn.Sequential(LIF(), norm), gradient=rule[0], segments=rule[1])(x)
        results.append([out, *torch.autograd.grad(out.tanh().sum(), x), *norm.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        SyncBatchNorm(3)(torch.randn(1, 3))


@pytest.mark.parametrize("rule", RULES)
def test_half_precision_keeps_its_dtype_and_takes_statistics_in_float32(rule):
    norm, exact = SyncBatchNorm(3, momentum=1.0), nn.BatchNorm2d(3, momentum=1.0).to(f64)
    x = (draw(T, 8, 3, 6, 6) + 5).bfloat16().requires_grad_()
    out = temporal(Sends(norm), gradient=rule[0], segments=rule[1])(x)
    expected = exact(x.double().flatten(0, 1)).unflatten(0, (T, 8))
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=2e-2)
    torch.testing.assert_close(norm.running_mean.double(), exact.running_mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(norm.running_var.double(), exact.running_var, rtol=1e-5, atol=0)
    out.float().square().sum().backward()
    assert x.grad.dtype == torch.bfloat16
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("lengths", [(1,), (3,), (1, 2)])
@pytest.mark.parametrize(("with_weight", "with_bias"), [(True, True), (True, False), (False, False)])
def test_the_gradient_is_the_derivative_of_normalising_by_the_statistics_of_all(
    processes, lengths, with_weight, with_bias
):
    """Several processes with the same samples: all move when x does, and together they answer as each is told it does."""
    x = draw(len(lengths), 2, 3, 2).requires_grad_()
    weight = draw(3, seed=1).requires_grad_() if with_weight else None
    bias = draw(3, seed=2).requires_grad_() if with_bias else None
    # 2 samples of 2 places
    share = torch.tensor(lengths, dtype=f64) / (4 * sum(lengths))

    def normalise(x, weight, bias):
        by_share = share.view(-1, 1, 1, 1)
        mean = (x * by_share).sum((0, 1, 3)).detach()
        var = ((x - mean.view(3, 1)).square() * by_share).sum((0, 1, 3)).detach()
        inv_std = (var + 1e-5).rsqrt()
        return Normalise.apply(x, weight, bias, mean, inv_std, share / processes, lambda sums: processes * sums)

    assert gradcheck(normalise, (x, weight, bias))


def test_a_network_is_synchronised_in_place_and_its_state_fits_both_ways():
    network, twin = build(Branched, f32), build(Branched, f32)
    parameters, keys = list(network.parameters()), list(network.state_dict())
    calls = []
    network.stem[1].register_forward_hook(lambda *_: calls.append("stem"))
    network.eval()
    model = temporal(network)
    assert synchronise_batch_norm(model) is model
    assert synchronise_batch_norm(network) is network
    norms = [module for module in network.modules() if isinstance(module, SyncBatchNorm)]
    assert len(norms) == 4
    assert not any(norm.training for norm in norms)
    assert not any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in network.modules())
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))
    assert list(network.state_dict()) == keys
    temporal(twin)(torch.randn(4, 2, 4, 4), timesteps=2)
    network.load_state_dict(twin.state_dict())
    x = torch.randn(4, 2, 4, 4)
    assert torch.equal(model(x, timesteps=2)[0], temporal(twin.eval())(x, timesteps=2)[0])
    assert calls == ["stem"]
    twin.load_state_dict(network.state_dict())
    assert copy.deepcopy(network).state_dict().keys() == twin.state_dict().keys()


def test_a_layer_used_twice_stays_one_layer():
    shared = nn.BatchNorm2d(4)
    network = synchronise_batch_norm(nn.Sequential(shared, nn.Sequential(shared)))
    assert isinstance(network[0], SyncBatchNorm)
    assert network[0] is network[1][0]


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(3), nn.BatchNorm2d(3), nn.BatchNorm3d(3)])
def test_every_plain_batch_norm_can_be_the_whole_network(layer):
    weight = layer.weight
    norm = synchronise_batch_norm(layer)
    assert isinstance(norm, SyncBatchNorm)
    assert norm.weight is weight


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (create_model("convnet", num_classes=3, norm="timestep_batch", norm_timesteps=T), "TimestepBatchNorm"),
        (nn.SyncBatchNorm(3), "SyncBatchNorm"),
        (nn.LazyBatchNorm2d(), "LazyBatchNorm2d"),
    ],
)
def test_batch_norm_of_another_kind_is_refused_and_the_network_left_alone(layer, name):
    plain = nn.BatchNorm2d(3)
    network = nn.Sequential(plain, layer)
    message = rf"^1.* is a {name}, whose statistics cannot be taken over processes; expected torch.nn.BatchNorm1d"
    with pytest.raises(ValueError, match=message):
        synchronise_batch_norm(network)
    assert type(plain) is nn.BatchNorm2d


def test_a_tensor_without_channels_is_refused():
    with pytest.raises(ValueError, match=r"got an input \[3\], expected samples \[B, C, ...\]"):
        SyncBatchNorm(3)(torch.randn(3))


def test_one_timestep_at_a_time_is_refused_while_it_trains():
    model = temporal(Sends(SyncBatchNorm(3)))
    model.eval()
    model.module.norm.train()
    with pytest.raises(TypeError, match="'SyncBatchNorm' has no rule across time under gradient='step'"):
        model.step(torch.randn(2, 3, 2, 2))
