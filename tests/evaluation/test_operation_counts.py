"""Operations counted from spikes: against loops over every connection, PyTorch's own counter, and figures worked by hand."""

import json
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spikedistill import LIF, Recurrent, create_model, mean_rate, temporal
from spikedistill.evaluation import EnergyCosts, count_operations, energy
from spikedistill.evaluation.synapses import fan_out

T, B = 3, 2


def lively(model):
    """The network in eval mode with currents strong enough for spikes in every layer."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 2.0)
    return model.eval()


def odd_network():
    """Strides, paddings, dilations and groups of every kind."""
    return temporal(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
            nn.BatchNorm2d(4),
            LIF(threshold=0.3),
            nn.Conv2d(4, 6, (3, 2), dilation=(1, 2), padding=(0, 1), bias=False),
            LIF(threshold=0.1),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 4, 1, stride=2),
            LIF(threshold=0.1),
            nn.Flatten(),
            nn.Linear(16, 3),
        )
    )


def build(name):
    torch.manual_seed(1)
    if name == "odd":
        return lively(odd_network())
    return lively(create_model(name, num_classes=3, in_channels=2, image_size=16, width=1 / 16))


def inputs_of_layers(model, steps):
    """What every convolution and linear layer takes at each timestep, `[T, B, ...]`, as the network in single steps shows it."""
    seen = {}

    def keep(path):
        return lambda layer, inputs, output: seen.setdefault(path, []).append(inputs[0].sample)

    layers = {path: m for path, m in model.module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    handles = [layer.register_forward_hook(keep(path)) for path, layer in layers.items()]
    state = None
    with torch.no_grad():
        for x in steps:
            _, state = model.step(x, state)
    for handle in handles:
        handle.remove()
    return {path: (layers[path], torch.stack(values)) for path, values in seen.items()}


def count_connections(layer, values):
    """Non-zero inputs times the weights they meet, summed over samples `[B, ...]`: a loop over every place of the kernel."""
    if isinstance(layer, nn.Linear):
        return int((values != 0).sum()) * layer.out_features
    spiking = (values != 0).sum((0, 1)).tolist()
    H, W = len(spiking), len(spiking[0])
    out = layer(values).shape[2:]
    total = 0
    for oy, ox, ky, kx in product(range(out[0]), range(out[1]), *map(range, layer.kernel_size)):
        y = oy * layer.stride[0] - layer.padding[0] + ky * layer.dilation[0]
        x = ox * layer.stride[1] - layer.padding[1] + kx * layer.dilation[1]
        if 0 <= y < H and 0 <= x < W:
            total += spiking[y][x]
    return total * layer.out_channels // layer.groups


@pytest.mark.parametrize("kind", ["static", "events"])
@pytest.mark.parametrize("name", ["odd", "convnet", "ms_resnet18", "vgg9"])
def test_effective_counts_are_those_of_a_loop_over_all_connections_on_the_recorded_spikes(name, kind):
    model = build(name)
    x = torch.rand(B, 2, 16, 16) if kind == "static" else torch.rand(T, B, 2, 16, 16).mul(2).floor()
    counts = count_operations(model, [x], T if kind == "static" else None)
    seen = inputs_of_layers(model, [x] * T if kind == "static" else x)
    assert {row.layer for row in counts.layers} == set(seen)
    kinds = set()
    for row in counts.layers:
        layer, values = seen[row.layer]
        with torch.no_grad():
            expected = [count_connections(layer, step) / B for step in values]
        two_valued = len(values[values != 0].unique()) <= 1
        stem = kind == "static" and torch.equal(values[0], x)
        assert row.two_valued == two_valued, row.layer
        assert row.constant == stem, row.layer
        performed = [expected[0], 0.0, 0.0] if stem else expected
        assert row.effective_acs == (performed if two_valued else [0.0] * T)
        assert row.effective_macs == ([0.0] * T if two_valued else performed)
        zeros = [(step == 0).double().mean().item() for step in values]
        assert row.activation_sparsity == pytest.approx(zeros, abs=1e-12)
        kinds.add((two_valued, sum(performed) > 0))
    assert (True, True) in kinds, "spikes reached a layer"
    assert kind == "events" or (False, True) in kinds, "and pixels one"


@pytest.mark.parametrize("kind", ["static", "events"])
@pytest.mark.parametrize("name", ["odd", "convnet", "resnet18", "vgg9"])
def test_dense_counts_are_half_of_pytorchs_flops(name, kind):
    model = build(name)
    x, timesteps = (torch.rand(B, 2, 16, 16), T) if kind == "static" else (torch.rand(T, B, 2, 16, 16), None)
    counts = count_operations(model, [x], timesteps)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x, timesteps)
    assert 2 * B * counts.dense_macs == counter.get_total_flops() > 0
    assert counts.uncounted_macs == 0
    twin = FlopCounterMode(display=False)
    with twin, torch.no_grad():
        model(x[:1] if kind == "static" else x[:1, :1], 1 if kind == "static" else None)
    assert 2 * counts.ann_macs == twin.get_total_flops(), "as an ANN every layer is computed once"


def test_the_ann_of_the_comparison_is_the_relu_twin():
    options = {"num_classes": 3, "in_channels": 2, "image_size": 16, "width": 1 / 16}
    x = torch.rand(B, 2, 16, 16)
    twin = count_operations(create_model("resnet18", neuron="relu", **options), [x], 4)
    assert count_operations(create_model("resnet18", **options), [x], 4).ann_macs == twin.dense_macs == twin.ann_macs
    assert all(row.constant for row in twin.layers)
    assert twin.activation_sparsity is None


LAYERS = [
    (nn.Conv1d, (9,), {"kernel_size": 4, "stride": 3, "padding": 2}),
    (nn.Conv2d, (5, 6), {"kernel_size": 3, "padding": "same", "dilation": 2}),
    (nn.Conv2d, (5, 6), {"kernel_size": (2, 3), "padding": 1, "padding_mode": "circular", "stride": (1, 2)}),
    (nn.Conv2d, (5, 6), {"kernel_size": 3, "padding": 2, "padding_mode": "reflect", "groups": 2}),
    (nn.Conv3d, (4, 3, 5), {"kernel_size": 2, "stride": 2, "padding": 1}),
    (nn.ConvTranspose1d, (7,), {"kernel_size": 3, "stride": 2, "padding": 1}),
    (nn.ConvTranspose2d, (4, 3), {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
]


@pytest.mark.parametrize(("kind", "space", "options"), LAYERS, ids=lambda value: getattr(value, "__name__", None))
def test_the_fan_out_of_an_input_is_what_ones_for_weights_make_of_a_one(kind, space, options):
    layer = kind(4, 6, bias=False, **options)
    nn.init.ones_(layer.weight)
    touched = fan_out(layer, torch.Size(space)).expand(4, *space)
    for place in product(range(4), *map(range, space)):
        x = torch.zeros(1, 4, *space)
        x[(0, *place)] = 1.0
        assert touched[place] == layer(x).sum()


@pytest.mark.parametrize(("kind", "space", "options"), LAYERS, ids=lambda value: getattr(value, "__name__", None))
def test_every_kind_of_convolution_is_counted(kind, space, options):
    model = temporal(nn.Sequential(kind(4, 6, **options), nn.Flatten(2), nn.Linear(kind(4, 6, **options)(
        torch.zeros(1, 4, *space)).flatten(2).shape[2], 2)))  # fmt: skip
    x = torch.rand(B, 4, *space)
    counts = count_operations(model, [x], 1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x, 1)
    assert 2 * B * counts.dense_macs == counter.get_total_flops()
    assert counts.layers[0].effective_macs == [fan_out(model.module[0], torch.Size(space)).expand(4, *space).sum()]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 100))
def test_counts_are_means_over_samples_however_they_are_batched(sizes, seed):
    torch.manual_seed(seed)
    model = odd_network().double()  # no spike hangs on the rounding of a batch size
    x = torch.rand(sum(sizes), 2, 16, 16, dtype=torch.float64)
    whole = count_operations(model, [x], T)
    parts = count_operations(model, [(part, None) for part in x.split(sizes)], T)
    assert parts == whole
    assert parts.samples == sum(sizes)


class Parts(nn.Module):
    """What a layer can be given: spikes, spikes of another height, maxima, means and sums of spikes."""

    def __init__(self):
        super().__init__()
        self.neuron = LIF()
        self.spikes, self.halves, self.maxima, self.means, self.sums = (nn.Conv1d(1, 1, 1) for _ in range(5))

    def forward(self, x):
        s = self.neuron(x)
        parts = [self.spikes(s), self.halves(0.5 * s), self.sums(s + s.flip(2))]
        pooled = [self.maxima(nn.functional.max_pool1d(s, 2)), self.means(nn.functional.avg_pool1d(s, 2))]
        return torch.cat(parts + pooled, 2)


def test_a_layer_accumulates_only_where_its_inputs_take_two_values():
    x = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]).view(1, 1, 6)
    counts = count_operations(temporal(Parts()), [x], 1)
    assert {row.layer: row.two_valued for row in counts.layers} == {
        "spikes": True, "halves": True, "maxima": True, "means": False, "sums": True,
    }  # fmt: skip
    x[0, 0, 5] = 1.0  # now the flipped spikes meet others: 2, 1, 1, 1, 1, 2
    counts = count_operations(temporal(Parts()), [x], 1)
    rows = {row.layer: row for row in counts.layers}
    assert not rows["sums"].two_valued
    assert (rows["sums"].effective_acs, rows["sums"].effective_macs) == ([0.0], [6.0])
    assert (rows["spikes"].effective_acs, rows["spikes"].effective_macs) == ([4.0], [0.0])


def test_two_values_are_two_over_all_batches():
    layer = temporal(nn.Sequential(nn.Linear(2, 3)))
    ones, twos = torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 0.0]])
    assert count_operations(layer, [ones, ones], 1).layers[0].two_valued
    assert count_operations(layer, [ones, torch.zeros(1, 2)], 1).layers[0].two_valued
    assert not count_operations(layer, [ones, twos], 1).layers[0].two_valued
    assert not count_operations(layer, [ones, -ones], 1).layers[0].two_valued


def test_a_layer_that_is_called_twice_has_two_rows():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.neuron = nn.Linear(4, 4), LIF()

        def forward(self, x):
            return self.neuron(self.layer(self.neuron(self.layer(x))))

    counts = count_operations(temporal(Twice()), [torch.rand(2, 4)] * 2, 3)
    assert [row.layer for row in counts.layers] == ["layer", "layer#1"]
    assert [row.layer for row in counts.neurons] == ["neuron", "neuron#1"]
    assert [row.dense_macs for row in counts.layers] == [[16, 0, 0], [16, 16, 16]]


def test_a_layer_behind_the_mean_rate_is_computed_once():
    class OnRates(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron, self.head = LIF(), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(mean_rate(self.neuron(x)))

    counts = count_operations(temporal(OnRates()), [torch.rand(3, 4)], 5)
    assert counts.layers[0].constant
    assert counts.layers[0].dense_macs == [8, 0, 0, 0, 0]
    assert len(energy(counts).total_pj) == 5


class Products(nn.Module):
    """A matrix product of spikes, one of its result, a mask with its sum, and a product of numbers."""

    def forward(self, x):
        a, b = x[:, 0], x[:, 1]
        scores = a @ b.transpose(1, 2)
        mixed = torch.einsum("bij,bjd->bid", scores, b)
        gate = (a * b).sum(1, keepdim=True)
        return (mixed + gate) * (scores @ b)


def test_products_and_sums_of_signals_by_hand():
    a = torch.tensor([[1.0, 1, 0], [0, 1, 0]])
    b = torch.tensor([[1.0, 0, 0], [1, 1, 1]])
    x = torch.stack([a, b]).expand(2, 1, 2, 2, 3).clone()
    x[1] *= 0  # nothing fires at the second timestep
    counts = count_operations(temporal(Products()), [x])
    found = {row.product: row for row in counts.products}
    assert [*found] == ["@", "einsum", "sum", "@#1", "*#1"]
    # terms a_ik b_jk that are not zero: rows (110, 010) with (100, 111) have 1 + 2 + 0 + 1
    assert found["@"].effective_acs == [4, 0]
    assert found["@"].dense_macs == [2 * 2 * 3] * 2
    # scores (1, 2; 0, 1) select rows of b with 1 and 3 spikes: 1 + 3, and 3
    assert found["einsum"].effective_acs == [7, 0]
    assert found["einsum"].two_valued == [False, True]
    assert found["sum"].effective_acs == [2, 0], "a and b are both 1 in two places"
    assert found["sum"].dense_macs == [0, 0]
    assert found["@#1"].effective_acs == [7, 0]
    # mixed + gate and scores @ b are both numbers: (3, 2, 2; 1, 1, 1) + (1, 1, 0) and (3, 2, 2; 1, 1, 1)
    assert found["*#1"].effective_macs == [6, 0]
    assert counts.effective_acs == 4 + 7 + 2 + 7
    assert counts.uncounted_macs == 0
    estimate = energy(counts)
    assert estimate.synaptic_pj == pytest.approx([0.9 * 20 + 4.6 * 6, 0.0])
    # the first product reads two signals of 6 bits, the two others one of 4 numbers and one of 6 bits, the last ones nothing
    read = 12 / 8 + 2 * (16 + 6 / 8)
    assert estimate.total_pj == pytest.approx([0.9 * 20 + 4.6 * 6 + 12.5 * read, 12.5 * read])


class InHeads(nn.Module):
    """Two heads in the axis of the batch, and products that are no contraction or of more than two signals."""

    def forward(self, x):
        q = x.reshape(-1, 2, 4, 3).flatten(0, 1)
        mixed = torch.bmm(q, q.transpose(1, 2))
        mask = torch.einsum("bi,bi->bi", x, x)
        three = torch.einsum("bnd,bmd,bme->bne", q, q, q)
        return x.sum(1) + mixed.sum() + mask.sum() + three.sum()


def test_a_batch_may_share_its_axis_with_heads_and_what_is_not_known_is_uncounted():
    x = torch.ones(2, 3, 24)
    counts = count_operations(temporal(InHeads()), [x, torch.zeros(2, 1, 24)])
    found = {row.product: row for row in counts.products}
    assert [*found] == ["@", "sum", "sum#1", "sum#2", "sum#3"], "a mask takes no arithmetic"
    assert found["@"].dense_macs == [2 * 4 * 4 * 3] * 2
    assert found["@"].effective_acs == [0.75 * 2 * 4 * 4 * 3] * 2, "of three samples of four"
    assert found["@"].inputs == [24, 24]
    assert counts.uncounted_macs > 0, "three signals"
    assert len(energy(counts).total_pj) == 2


def test_products_inside_a_recurrent_layer_are_uncounted():
    class Gate(nn.Module):
        def forward(self, x):
            return x * x.sum(1, keepdim=True) + (x.unsqueeze(1) @ x.unsqueeze(2)).squeeze(2)

    counts = count_operations(temporal(nn.Sequential(LIF(), Recurrent(Gate(), nn.Linear(8, 8)))), [torch.rand(3, 8)], 4)
    assert counts.products == []
    assert counts.uncounted_macs == 4 * 8
    assert len(energy(counts).total_pj) == 4


def test_products_of_a_layer_are_named_after_it_and_what_does_not_change_is_computed_once():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.neuron = nn.Linear(4, 4), LIF()

        def forward(self, x):
            q = self.neuron(self.query(x))
            return q @ (q.transpose(1, 2) @ (x @ x.transpose(1, 2)))

    # tokens [B, 5, 4]: 5 * 4 * 4 by the layer and 5 * 4 * 5 by the product of the input, once; the others at each of 3 timesteps
    counts = count_operations(temporal(nn.Sequential(Attention())), [torch.rand(2, 5, 4)] * 2, 3)
    still, once, twice = counts.products
    assert (still.product, once.product, twice.product) == ("0 @", "0 @#1", "0 @#2")
    assert still.effective_macs == [100, 0, 0]
    assert once.dense_macs == twice.dense_macs == [100, 100, 100]
    assert (counts.dense_macs, counts.uncounted_macs) == (80 + 100 + 600, 0)
    assert counts.ann_macs == 80 + 300


def _that_fires(name, x, options):
    """A network with statistics of its inputs, without which hardly a neuron fires."""
    model = create_model(name, **options).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        for _ in range(2):
            model(x, T)
    return model


def test_the_products_and_sums_of_a_transformer_are_counted():
    """k^T v and its product with q: N d² each for every head, at each timestep. All else are 1x1 and 3x3 convolutions."""
    x = torch.rand(B, 3, 16, 16)
    options = {"num_classes": 3, "width": 1 / 16, "threshold": 0.5}
    counts = count_operations(_that_fires("spikformer", x, options), [x], T)
    tokens, heads, channels, blocks = 16, 12, 2, 4
    assert sum(sum(row.dense_macs) for row in counts.products) == T * blocks * 2 * heads * tokens * channels**2
    assert counts.uncounted_macs == 0
    assert all(any(row.two_valued) and sum(row.effective_macs) == 0 for row in counts.products)
    assert sum(sum(row.effective_acs) for row in counts.products) > 0
    assert {row.layer.rpartition(".")[2] for row in counts.layers} == {"0", "head"}
    # spike-driven attention has no product of matrices, and all its convolutions but the first take spikes
    counts = count_operations(_that_fires("sdt", x, options), [x], T)
    assert counts.uncounted_macs == 0
    assert [row.product.split()[-1] for row in counts.products] == ["sum"] * 2, "one for each block"
    assert [row.two_valued for row in counts.layers] == [False] + [True] * (len(counts.layers) - 1)


def test_counting_leaves_the_network_as_it_was():
    model, x = build("convnet"), torch.rand(B, 2, 16, 16)
    with torch.no_grad():
        before = model(x, T)
        count_operations(model, [x], T)
        assert torch.equal(model(x, T), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def worked_by_hand():
    """Two inputs, three neurons, two timesteps."""
    model = temporal(nn.Sequential(nn.Linear(2, 3, bias=False), LIF(decay=0.5)))
    with torch.no_grad():
        model.module[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
    return model, torch.tensor([[1.0, 0.0], [1.0, 1.0]]).view(2, 1, 2)


def test_counts_and_energy_of_one_layer_worked_by_hand():
    model, x = worked_by_hand()
    counts = count_operations(model, [x])
    # one spike meets 3 weights, two meet 6; currents (1, 0, .5) and (1, 1, 1): neuron 1 fires, then all, the last at .25 + 1
    (layer,), (neurons,) = counts.layers, counts.neurons
    assert (layer.effective_acs, layer.effective_macs, layer.dense_macs) == ([3.0, 6.0], [0.0, 0.0], [6, 6])
    assert (layer.activation_sparsity, layer.weights, layer.inputs) == ([0.5, 0.0], 6, 2)
    assert (neurons.neurons, neurons.spikes) == (3, [1.0, 3.0])
    assert (counts.effective_acs, counts.effective_macs, counts.dense_macs, counts.ann_macs) == (9.0, 0.0, 12, 6)
    assert counts.activation_sparsity == pytest.approx(2 / 6)
    estimate = energy(counts, costs="45nm")
    # synapses .9 * 3 and .9 * 6; neurons 4.6 * 3 + .9 * 1 and 4.6 * 3 + .9 * 3; memory at 12.5 pJ per byte: 6 weights of 4 bytes
    # and 2 bits, 24.25 bytes; 3 neurons of 8 bytes and 1 bit, 24.375 bytes: 607.8125 in all
    assert estimate.synaptic_pj == pytest.approx([2.7, 5.4])
    assert estimate.neurons[0].operations_pj == pytest.approx([14.7, 16.5])
    assert estimate.layers[0].memory_pj == pytest.approx([303.125] * 2)
    assert estimate.neurons[0].memory_pj == pytest.approx([304.6875] * 2)
    assert estimate.total_pj == pytest.approx([2.7 + 14.7 + 607.8125, 5.4 + 16.5 + 607.8125])
    # as an ANN 6 multiply-accumulates, and 6 weights, 2 inputs, 3 activations of 4 bytes
    assert estimate.ann_synaptic_pj == pytest.approx(27.6)
    assert estimate.ann_total_pj == pytest.approx(27.6 + 12.5 * 44)


def test_real_inputs_cost_multiplications_and_words():
    model, x = worked_by_hand()
    counts = count_operations(model, [x * torch.tensor([0.5, 0.7])])
    assert (counts.effective_acs, counts.effective_macs) == (0.0, 9.0)
    costs = EnergyCosts("unit", mac_pj=10.0, ac_pj=1.0, byte_pj=0.5, source="made up")
    estimate = energy(counts, costs)
    assert estimate.synaptic_pj == [30.0, 60.0]
    assert estimate.layers[0].memory_pj == [0.5 * (24 + 8)] * 2
    assert estimate.costs.source == "made up"


def test_the_stem_of_a_static_image_costs_once():
    counts = count_operations(build("convnet"), [torch.rand(B, 2, 16, 16)], T)
    stem = energy(counts).layers[0]
    assert stem.operations_pj[0] > 0
    assert stem.memory_pj[0] > 0
    assert stem.operations_pj[1:] == stem.memory_pj[1:] == [0.0, 0.0]


def test_counts_and_estimates_are_json():
    model, x = worked_by_hand()
    counts = count_operations(model, [x])
    assert json.loads(json.dumps(counts.as_dict())) == counts.as_dict()
    assert counts.as_dict()["effective_acs"] == 9.0
    assert counts.as_dict()["layers"][0]["two_valued"] is True
    estimate = json.loads(json.dumps(energy(counts).as_dict()))
    assert estimate == energy(counts).as_dict()
    assert estimate["estimate"] is True
    assert "ISSCC 2014" in estimate["costs"]["source"]


def test_wrong_inputs_are_refused_in_one_line():
    model, x = build("convnet"), torch.rand(B, 2, 16, 16)
    for batches, timesteps, message in [
        (x, T, r"batches is one tensor \[2, 2, 16, 16\], expected several of them: put it in a list"),
        ([], T, "there was nothing to count, expected at least one batch"),
        ([x[:0]], T, r"a batch is empty: \[0, 2, 16, 16\]"),
        ([x], None, r"got an input \[2, 2, 16, 16\] with timesteps=None"),
        ([torch.rand(2, B, 2, 16, 16), torch.rand(3, B, 2, 16, 16)], None, r"samples \[2, 2, 16, 16\] and \[3, 2, 16, 16\]"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message) as error:
            count_operations(model, batches, timesteps)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="costs is '7nm', expected one of 45nm, or an EnergyCosts"):
        energy(count_operations(model, [x], T), "7nm")
