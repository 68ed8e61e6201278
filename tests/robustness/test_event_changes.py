"""Attacks on event frames by hand on a linear network, what all of them promise, and a run on event frames under attack."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from quick_runs import quick, quick_on_events
from torch import Tensor, nn

from spikedistill import LIF, UserError, evaluate, temporal, train
from spikedistill.cli import main
from spikedistill.config import DataConfig
from spikedistill.data import Entry, from_torch, register_dataset
from spikedistill.report import write_report
from spikedistill.robustness import (
    EVENT_ATTACKS,
    Choices,
    EventSearch,
    Pgd,
    RandomEvents,
    Row,
    SparseEvents,
    Subject,
    View,
    attack_exits,
    measure,
    measure_run,
)
from spikedistill.robustness.event_changes import changes_of, largest
from spikedistill.robustness.measure import TWIN

# two classes, and frames of 2 timesteps with 3 entries: the margin of class 0 is FRAMES @ (2 WEIGHT)
WEIGHT = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0, 0.25])


def look(frames: Tensor) -> Tensor:
    half = frames.flatten(1) @ WEIGHT.to(frames)
    return torch.stack([half, -half], 1)[None]


FRAMES = torch.tensor([[[2.0, 0.0, 1.0], [1.0, 0.0, 0.0]]])  # margin 2 * 5.5
ZERO = torch.tensor([0])


def test_changes_are_a_share_of_the_events():
    counts = torch.zeros(3, 2, 50)
    counts[0, 0, :7], counts[1, :, :] = 1, 1  # 7 and 100 events; the last has none
    assert changes_of(counts, 0.05).tolist() == [1, 5, 0]
    assert changes_of(counts, 0.07).tolist() == [1, 7, 0]
    assert changes_of(counts, 1.0).tolist() == [7, 100, 0]


def test_the_entries_of_largest_gain():
    gain = torch.tensor([[0.1, 0.5, -1.0, 0.2], [0.0, 0.3, 0.0, -0.1]])
    assert largest(gain, torch.tensor([2, 3])).tolist() == [[False, True, False, True], [False, True, False, False]]
    assert not largest(gain, torch.tensor([0, 0])).any()


def test_events_that_matter_most_change_first():
    # against class 0: gains of adding are -WEIGHT, of removing WEIGHT where there is an event: 3 (remove), 2 (add), 1, 1, 0.5
    one = SparseEvents(0.25, steps=1)(look, FRAMES, ZERO)  # of 4 events
    assert one.tolist() == [[[2, 0, 1], [0, 0, 0]]]
    two = SparseEvents(0.5, steps=2)(look, FRAMES, ZERO)
    assert two.tolist() == [[[2, 1, 1], [0, 0, 0]]]
    four = SparseEvents(1.0, steps=4)(look, FRAMES, ZERO)
    assert (four - FRAMES).abs().max() == 1, "an entry changes once"
    assert float(look(four)[0, 0, 0]) == 5.5 - 3 - 2 - 1, (
        "the third change, of gain 1, fools it, and the fourth is not made"
    )
    weak = torch.tensor([[[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]])  # 1 - 2 + 3 - 1 = 1
    assert SparseEvents(1.0, steps=4)(look, weak, ZERO).tolist() == [[[1, 1, 0], [0, 1, 0]]]


def test_a_binary_frame_keeps_one_event_at_most():
    frames = torch.tensor([[[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]])  # 2.5; two changes of 4 events
    assert SparseEvents(0.5, steps=1)(look, frames, ZERO).tolist() == [[[1, 2, 1], [0, 0, 0]]]
    binary = SparseEvents(0.5, steps=1, binary=True)(look, frames, ZERO)
    assert binary[0, 1, 0] == 0
    assert binary.max() == 1
    assert float(look(binary)[0, 0, 0]) == 2.5 - 3 - 1


@pytest.mark.parametrize("name", [*EVENT_ATTACKS])
def test_binary_frames_stay_binary(name: str):
    frames = (torch.rand(4, 3, 2, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    weight = torch.randn(150, 2, generator=torch.Generator().manual_seed(1))
    target = (frames.flatten(1) @ weight).argmax(1)
    changed = EVENT_ATTACKS[name](0.3, binary=True)(lambda x: (x.flatten(1) @ weight)[None], frames, target)
    assert set(changed.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(changed, frames)


def test_all_changes_are_made_if_an_attack_does_not_stop():
    four = SparseEvents(1.0, steps=4, stop=False)(look, FRAMES, ZERO)
    assert float(look(four)[0, 0, 0]) == 5.5 - 3 - 2 - 1 - 1, "two gains of 1"
    still = SparseEvents(1.0, steps=4, loss="latency")(look, FRAMES, 1 - ZERO)
    assert not torch.equal(still, FRAMES), "a wrong answer ends no attack on time"


@pytest.mark.parametrize("name", [*EVENT_ATTACKS])
def test_counts_stay_whole_and_few_entries_change(name: str):
    dice = torch.Generator().manual_seed(0)
    frames = torch.poisson(torch.full((6, 3, 2, 5, 5), 0.3), generator=dice)
    weight = torch.randn(150, 4, generator=dice)

    def network(x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ weight / 4)[None]

    target = network(frames)[0].argmax(1)
    changed = EVENT_ATTACKS[name](0.1)(network, frames, target)
    assert torch.equal(changed, changed.round())
    assert changed.min() >= 0
    moved = (changed != frames).flatten(1).sum(1)
    assert (moved <= changes_of(frames, 0.1)).all()
    assert moved.sum() > 0
    assert (changed - frames).abs().max() == 1
    assert torch.equal(EVENT_ATTACKS[name](0.0)(network, frames, target), frames)
    assert torch.equal(EVENT_ATTACKS[name](0.1)(network, frames, target), changed), "the same draws every time"


def test_random_changes_remove_and_add_alike_and_a_search_never_makes_a_sample_better():
    frames = torch.zeros(2, 2, 40)
    frames[:, 0] = 1
    changed = RandomEvents(0.5)(look, frames, torch.zeros(2).long()) - frames
    assert (changed < 0).flatten(1).sum(1).tolist() == [10, 10]
    assert (changed > 0).flatten(1).sum(1).tolist() == [10, 10]
    dice = torch.Generator().manual_seed(1)
    weight = torch.randn(80, generator=dice)

    def line(x: Tensor) -> Tensor:
        half = x.flatten(1) @ weight
        return torch.stack([half, -half], 1)[None]

    target = line(frames)[0].argmax(1)
    few, many = (EventSearch(0.2, steps=steps)(line, frames, target) for steps in (1, 300))
    sign = 1 - 2 * target

    def margin(x: Tensor) -> Tensor:
        return sign * line(x)[0, :, 0]

    assert (margin(many) <= margin(few)).all()
    best = SparseEvents(0.2, steps=1)(line, frames, target)
    assert (margin(best) <= margin(many)).all(), "on a linear network the gradient is right"
    assert (margin(many) < margin(frames)).all()


@pytest.fixture
def run(tmp_path: Path, fresh_names: None) -> Path:
    return Path(train(quick_on_events(out=tmp_path / "run", epochs=6)))


FEW = Choices(eps=(2.0, 20.0), steps=3, samples=40, batch_size=25)


def events_at(T: int) -> Subject:
    """Recordings of T frames, and a network that only asks whether the first frame has more events on the left."""
    frames = torch.poisson(torch.full((30, T, 1, 4, 8), 0.6), generator=torch.Generator().manual_seed(3))
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 8), LIF(), nn.Linear(8, 2))
    torch.manual_seed(0)
    for layer in (net[1], net[3]):
        nn.init.normal_(layer.weight, std=0.6)
    network = temporal(net).eval()
    return Subject(network, frames, View(network, 1, events=True)(frames).mean(0).argmax(1), events=True, batch_size=20)


@pytest.mark.parametrize("attack", [SparseEvents(0.1, steps=5), EventSearch(0.1, steps=60), RandomEvents(0.1)])
def test_changes_are_made_where_the_network_looks(attack):
    """At k = 1 a recording of eight frames is one of one frame: the others are neither counted nor changed."""
    long, row = events_at(8), Row(attack, 1)
    short = replace(long, samples=long.samples[:, :1])
    (of_long,), (of_short,) = measure(long, [row]), measure(short, [row])
    assert of_long.right.tolist() == of_short.right.tolist()
    assert of_long.accuracy < 100


def test_a_twin_without_time_sees_the_events_of_all_frames_together():
    given = events_at(3)
    torch.manual_seed(1)
    twin = temporal(nn.Sequential(nn.Flatten(), nn.Linear(32, 2))).eval()
    row = Row(SparseEvents(0.2, steps=4, stop=False), 3, (TWIN,), source="twin")
    (found,) = measure(replace(given, twin=twin), [row])

    def ann(frames: Tensor) -> Tensor:
        return twin(frames.sum(1), 1)

    alive = View(given.network, 3, events=True)(given.samples).mean(0).argmax(1) == given.targets
    x, target = given.samples[alive], given.targets[alive]
    changed = SparseEvents(0.2, steps=4, stop=False)(ann, x, target)
    left = View(given.network, 3, events=True)(changed).mean(0).argmax(1) == target
    assert found.right[alive].tolist() == left.tolist()
    assert not torch.equal(changed, x)


def test_samples_of_the_other_kind_are_refused():
    given = events_at(2)
    with pytest.raises(UserError, match=r"the attack pgd moves pixels of \[0, 1\], and got event frames"):
        measure(given, [Row(Pgd(0.1), 2)])
    with pytest.raises(UserError, match="the attack pgd moves pixels"):
        attack_exits(given, 2, Pgd(0.1), 0.9)
    images = replace(given, samples=torch.rand(30, 1, 4, 8), events=False)
    with pytest.raises(UserError, match="the attack sparse adds and removes events, and got images"):
        measure(images, [Row(SparseEvents(0.1), 2)])
    frames = [(given.samples.transpose(0, 1), given.targets)]
    with pytest.raises(UserError, match=r"the attack pgd moves pixels of \[0, 1\], and got samples from 0 to"):
        evaluate(given.network, frames, attack=Pgd(0.0))


def test_a_run_on_event_frames_is_attacked_by_events(run: Path, capsys: pytest.CaptureFixture[str]):
    measured = measure_run(run, FEW)
    names = {each.row.attack.name for each in measured.found}
    assert names == {"clean", "sparse", "random-events", "event-search"}
    with pytest.raises(UserError, match=r"the attack pgd moves pixels of \[0, 1\], and got event frames"):
        evaluate(run, attack=Pgd(0.0))
    clean = [each.accuracy for each in measured.found if each.row.remark == "clean"]
    whole = measure_run(run, FEW._replace(samples=120, checks=False, eps=(0.0,)))
    accuracy = [100 * score["accuracy"] for score in evaluate(run)["last"]["ensemble"]]
    assert [each.accuracy for each in whole.found[:2]] == pytest.approx([accuracy[0], accuracy[2]])
    assert clean[1] > 80
    found = {
        (each.row.attack.name, each.row.eps): each.accuracy
        for each in measured.found
        if each.row.timesteps == 3 and not each.row.remark
    }
    assert found["sparse", 0.2] < found["sparse", 0.02] <= clean[1]
    assert found["sparse", 0.2] < found["random-events", 0.2]
    command = "--eps 2 20 --steps 3 --samples 40 --batch-size 25 --exits 0.9"
    assert main(["robustness", str(run), *command.split()]) == 0
    said = capsys.readouterr().out
    assert "random-events" in said
    assert "Early exit at a confidence of 0.9, eps 20" in said
    assert json.loads((run / "robustness.json").read_text())["unit"] == 100
    page = write_report(run).read_text()
    assert "eps percent of their events" in page
    for words, what in (
        (["--attacks", "pgd"], "no attack is called 'pgd': choose some of sparse, event-search, random-events"),
        (["--eps", "101"], "eps is 101, expected percent of a recording's events"),
        (["--timesteps", "4"], "the recordings of the run have 3 frames"),
        (["--corruptions"], "corruptions are of images"),
    ):
        assert main(["robustness", str(run), "--samples", "10", *words]) == 2
        assert what in capsys.readouterr().err


@pytest.mark.usefixtures("fresh_names")
def test_recordings_of_different_length_are_refused(tmp_path: Path):
    lengths = ([3] * 20 + [2] * 20,) * 2
    data = [(torch.poisson(torch.full((T, 2, 8, 8), 0.3)), number % 2) for number, T in enumerate(lengths[0])]

    def load():
        return from_torch(data, data, name="unequal", lengths=lengths)

    register_dataset(Entry(name="unequal", about="Unequal.", load=load))
    folder = train(quick("digits-sce", out=tmp_path / "run", data=DataConfig(name="unequal", batch_size=20)))
    with pytest.raises(UserError, match="recordings of different length, which attacks do not take"):
        measure_run(folder, Choices(samples=10))
