"""Spikes and membranes of a recording as plots and as a page."""

import json
import re
from itertools import pairwise

import pytest
import torch
from torch import nn

from spikedistill import LIF, SpikingNeuron, UserError, spike, temporal
from spikedistill.evaluation import Recording, record
from spikedistill.report import membranes, raster, write_recording


def recorded(x, *layers, timesteps=None):
    """What a network does with frames `[T, B, ...]`, or with images `[B, ...]` at each of the timesteps."""
    with record(model := temporal(nn.Sequential(*layers))) as recording:
        model(x, timesteps=timesteps)
    return recording


@pytest.fixture
def three_neurons():
    """Two samples of three neurons over three timesteps, decay 0.5, threshold 1, soft reset.

    Sample 0 is silent. Sample 1:
        neuron 0: u = 0.8; 0.4 + 0.8 = 1.2 fires, keeps 0.2; 0.1 + 0.2 = 0.3
        neuron 1: u = 1.0 fires, keeps 0; 0 + 0.5 = 0.5; 0.25 + 1 = 1.25 fires
        neuron 2: u = -1; -0.5; -0.25
    """
    currents = torch.zeros(3, 2, 3)
    currents[:, 1] = torch.tensor([[0.8, 1.0, -1.0], [0.8, 0.5, 0.0], [0.2, 1.0, 0.0]])
    return recorded(currents, LIF())


@pytest.fixture
def two_layers():
    """Images `[5, 2, 4, 4]` over 6 timesteps: 2 x 4 x 4 neurons, and 12 after them, of threshold 0.3."""
    torch.manual_seed(0)
    layers = LIF(), nn.Flatten(), nn.Linear(32, 12), LIF(threshold=0.3)
    return recorded(2 * torch.rand(5, 2, 4, 4), *layers, timesteps=6)


class Signed(SpikingNeuron):
    """Spikes of either sign."""

    def step(self, current, state):
        return spike(current - 1) - spike(-1 - current), current


def points(figure):
    (trace,) = figure.data
    return set(zip(trace.x, trace.y, strict=True))


def test_a_raster_has_a_dot_for_every_spike_and_a_row_for_every_neuron(three_neurons):
    figure = raster(three_neurons, "0", sample=1)
    assert points(figure) == {(2, "0"), (1, "1"), (3, "1")}
    assert figure.data[0].mode == "markers"
    assert figure.layout.yaxis.type == "category"
    assert figure.layout.yaxis.categoryarray == ("0", "1", "2"), "the silent one too"
    assert figure.layout.yaxis.range == (-0.5, 2.5)
    assert figure.layout.xaxis.range == (0.5, 3.5)
    assert figure.layout.title.text == "Spikes of 0, sample 1: all 3 neurons"
    assert points(raster(three_neurons, "0")) == set(), "sample 0 is silent"


def test_a_membrane_is_drawn_before_its_reset_with_filled_marks_where_it_fires(three_neurons):
    level, *traces = membranes(three_neurons, "0", sample=1).data
    assert (level.name, level.x, level.y, level.mode) == ("threshold", (0.5, 3.5), (1.0, 1.0), "lines")
    assert [trace.name for trace in traces] == ["neuron 0", "neuron 1", "neuron 2"]
    assert all(trace.x == (1, 2, 3) for trace in traces)
    assert traces[0].y == pytest.approx([0.8, 1.2, 0.3])
    assert traces[1].y == pytest.approx([1.0, 0.5, 1.25])
    assert traces[2].y == pytest.approx([-1.0, -0.5, -0.25])
    filled = [[not symbol.endswith("-open") for symbol in trace.marker.symbol] for trace in traces]
    assert filled == [[False, True, False], [True, False, True], [False, False, False]]
    assert len({trace.marker.symbol[0].removesuffix("-open") for trace in traces}) == 3, "told apart without colour"


def test_the_threshold_drawn_is_that_of_the_layer(two_layers):
    assert membranes(two_layers, "0").data[0].y == (1.0, 1.0)
    assert membranes(two_layers, "3").data[0].y == (0.3, 0.3)


def test_learned_thresholds_of_the_neurons_drawn_are_each_drawn_once(tmp_path):
    neuron = LIF(threshold="learned:0.5", channels=2)
    with torch.no_grad():
        neuron.log_threshold[1] = 0.0
    with record(model := temporal(nn.Sequential(neuron))) as recording:
        model(torch.rand(3, 1, 2, 2))
    levels = [trace.y[0] for trace in membranes(recording, "0").data if trace.name == "threshold"]
    assert levels == pytest.approx([0.5, 1.0])
    assert [t.y[0] for t in membranes(recording, "0", neurons=[3]).data if t.name == "threshold"] == [1.0]
    page = write_recording(recording, tmp_path / "page.html").read_text()
    assert "2 x 2 neurons of thresholds 0.5 to 1: " in page


def test_neurons_of_a_convolution_are_named_by_channel_row_and_column(two_layers):
    # 0.618 * 32 = 19.8; 20 and 32 share a divisor, 19 and 32 none: 0, 19, 38 - 32 = 6, 25, in order 0, 6, 19, 25
    figure = raster(two_layers, "0", sample=4, neurons=4)
    assert figure.layout.title.text == "Spikes of 0, sample 4: 4 of 32 neurons, spread evenly"
    assert figure.layout.yaxis.categoryarray == ("0, 0, 0", "0, 1, 2", "1, 0, 3", "1, 2, 1")
    spikes = two_layers.spikes["0"][:, 4]
    assert points(figure) == {
        (t + 1, f"{c}, {i}, {j}")
        for c, i, j in [(0, 0, 0), (0, 1, 2), (1, 0, 3), (1, 2, 1)]
        for t in range(6)
        if spikes[t, c, i, j]
    }
    assert 0 < len(points(figure)) < 24


def test_neurons_can_be_chosen(two_layers):
    figure = membranes(two_layers, "3", sample=2, neurons=[7, 1])
    assert figure.layout.title.text == "Membranes of 3, sample 2: 2 of 12 neurons"
    assert [trace.name for trace in figure.data[1:]] == ["neuron 7", "neuron 1"]
    for trace, neuron in zip(figure.data[1:], (7, 1), strict=True):
        assert trace.y == pytest.approx(two_layers.membranes("3")[:, 2, neuron].tolist())


@pytest.mark.parametrize("count", [1, 2, 3, 100, 64 * 32 * 32])
def test_as_many_neurons_are_shown_as_there_are_up_to_the_number_asked_for(count):
    figure = raster(recorded(torch.zeros(1, 1, count), LIF()), "0")
    rows = [int(name) for name in figure.layout.yaxis.categoryarray]
    assert len(rows) == min(count, 64)
    assert rows == sorted(set(rows))
    largest = max(after - before for before, after in pairwise([*rows, count]))
    assert largest <= 3 * count / len(rows), "no large part of the layer is left out"


def test_a_layer_of_one_neuron_per_sample_can_be_drawn():
    assert points(raster(recorded(torch.ones(2, 3), LIF()), "0", sample=2)) == {(1, "0"), (2, "0")}


def test_the_figure_has_the_colours_of_the_page_and_no_variables(three_neurons):
    for figure in (raster(three_neurons, "0"), membranes(three_neurons, "0")):
        assert "var(" not in figure.to_json()
        assert figure.data[-1].marker.color == "#2f54b5", "--accent of the light scheme"


def test_markup_in_the_name_of_a_layer_is_text():
    network = nn.ModuleDict({"<b>x</b>": LIF()})
    network.forward = lambda x: network["<b>x</b>"](x)
    with record(model := temporal(network)) as recording:
        model(torch.ones(1, 1, 1))
    assert raster(recording, "<b>x</b>").layout.title.text.startswith("Spikes of &lt;b&gt;x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "1"}, "the recording has no layer '1': it has 0, 3"),
        ({"sample": 5}, "sample is 5, but the samples of the recording are 0 to 4"),
        ({"sample": -1}, "sample is -1, but"),
        ({"neurons": 0}, "neurons is 0, expected 1 or more of the 32 of '0'"),
        ({"neurons": []}, "neurons is [], expected indices from 0 to 31"),
        ({"neurons": [3, 32]}, "neurons is [3, 32], expected indices from 0 to 31, as '0' has them"),
    ],
)
@pytest.mark.parametrize("draw", [raster, membranes])
def test_what_the_recording_does_not_have_is_named_in_one_line(draw, arguments, message, two_layers):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as raised:
        draw(two_layers, **{"layer": "0"} | arguments)
    assert str(raised.value).startswith(message)


def test_an_empty_recording_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="the recording is empty: call the network inside"):
        raster(Recording(), "0")
    with pytest.raises(ValueError, match="the recording is empty: call the network inside"):
        write_recording(Recording(), tmp_path / "recording.html")
    assert not any(tmp_path.iterdir())


def plotted(figure):
    """The data of a figure without its colours."""
    return [{name: trace[name] for name in ("x", "y", "name", "mode")} for trace in figure["data"]]


def test_the_page_has_a_raster_and_membranes_of_every_layer(two_layers, tmp_path, read_page):
    path = write_recording(two_layers, tmp_path / "deep" / "recording.html", sample=3)
    assert path == tmp_path / "deep" / "recording.html"
    page = read_page(path)
    assert page.sections == ["layer-1", "layer-2"]
    assert list(page.figures) == ["raster_1", "membranes_1", "raster_2", "membranes_2"]
    for number, layer in ((1, "0"), (2, "3")):
        for name, draw in (("raster", raster), ("membranes", membranes)):
            alone = json.loads(draw(two_layers, layer, sample=3).to_json())
            for shown, drawn in zip(plotted(page.figures[f"{name}_{number}"]), plotted(alone), strict=True):
                values, exact = shown.pop("y"), drawn.pop("y")
                assert shown == drawn
                # a page has five digits of a membrane
                assert values == exact if name == "raster" else values == pytest.approx(exact, rel=1e-4)
    spikes = [two_layers.spikes[layer][:, 3] for layer in ("0", "3")]
    total = sum(int(fired.sum()) for fired in spikes)
    assert page.numbers == {"layers": 2, "neurons": 44, "spikes": total, "rate": total / 44 / 6}
    assert f"12 neurons of threshold 0.3: {spikes[1].mean():.3f} spikes per neuron and timestep" in page.text


def test_the_numbers_of_the_page_are_those_of_the_plots(three_neurons, tmp_path, read_page):
    page = read_page(write_recording(three_neurons, tmp_path / "recording.html", sample=1))
    assert page.tables["raster_1"] == {"0": {"timesteps": 2.0}, "1": {"timesteps": "1, 3"}, "2": {"timesteps": None}}
    table = page.tables["membranes_1"]
    assert list(table) == ["1", "2", "3"]
    assert [row["1"] for row in table.values()] == pytest.approx([1.0, 0.5, 1.25])


def test_the_page_of_a_deep_network_over_many_timesteps_stays_small(tmp_path, read_page):
    """40 layers, 100 timesteps, every neuron of which fires in half of them; a table says how often a neuron fires."""
    layers = [module for _ in range(40) for module in (nn.Linear(96, 96), LIF(decay=0.9, threshold=0.02))]
    with record(model := temporal(nn.Sequential(*layers))) as recording, torch.no_grad():
        model(10 * torch.rand(1, 96), timesteps=100)
    path = write_recording(recording, tmp_path / "recording.html")
    assert path.stat().st_size < 2_000_000
    page = read_page(path)
    assert len(page.tables["raster_1"]) == 768 // 40
    listed = [row["timesteps"] for row in page.tables["raster_1"].values()]
    assert any(re.search(r", … \d+ in all$", str(times)) for times in listed)
    assert len(page.tables["membranes_40"]) == 400 // 40


def test_the_page_of_a_recording_fetches_nothing(two_layers, tmp_path, read_page):
    page = read_page(write_recording(two_layers, tmp_path / "recording.html"))
    assert [target for _, target in page.references if not target.startswith(("#", "data:"))] == []
    policy = next(found["content"] for tag, found in page.tags if found.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_a_page_of_a_sample_that_there_is_not_is_not_written(two_layers, tmp_path):
    with pytest.raises(ValueError, match="sample is 5"):
        write_recording(two_layers, tmp_path / "recording.html", sample=5)
    assert not any(tmp_path.iterdir())


def test_membranes_that_are_not_finite_leave_a_gap(tmp_path, read_page):
    # the largest number of float32 after a half of itself is infinite
    recording = recorded(torch.tensor([0.5, 3e38, 3e38]).view(3, 1, 1), LIF(threshold=1e-30))
    assert membranes(recording, "0").data[1].y == (0.5, pytest.approx(3e38), None)
    page = read_page(write_recording(recording, tmp_path / "recording.html"))
    assert page.figures["membranes_1"]["data"][1]["y"] == [0.5, pytest.approx(3e38), None]


def test_of_neurons_with_their_own_step_the_spikes_are_shown_and_no_membranes(tmp_path):
    recording = recorded(torch.tensor([[[2.0, 0.0]], [[-2.0, 1.5]]]), Signed(), LIF())
    assert recording.rates["0"].tolist() == [0.5, 1.0]
    page = write_recording(recording, tmp_path / "page.html").read_text()
    assert "2 neurons: 0.750 spikes per neuron and timestep on this sample." in page
    assert "Membranes of neurons of 1" in page
    assert "Membranes of neurons of 0" not in page
    assert points(raster(recording, "0")) == {(1, "0"), (2, "0"), (2, "1")}
    with pytest.raises(UserError, match="layer '0' is no LIF layer"):
        membranes(recording, "0")
