"""The table of a network under attack: rows, restarts on survivors, checks, and measurements that are stopped."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from quick_runs import quick
from torch import nn

from spikedistill import LIF, UserError, evaluate, load, temporal, train
from spikedistill.cli import main
from spikedistill.config import DataConfig
from spikedistill.data import Entry, balanced_order, from_torch, load_dataset, register_dataset
from spikedistill.evaluation import exit_times
from spikedistill.evaluation.attacked import class_to_reach, noise_of
from spikedistill.report import write_report
from spikedistill.robustness import (
    VIEWS,
    CarliniWagner,
    Choices,
    Fgsm,
    GaussianNoise,
    Pgd,
    Row,
    SparseEvents,
    Square,
    Subject,
    View,
    Withstood,
    attack_exits,
    measure,
    measure_run,
)
from spikedistill.robustness.checks import (
    BLACK_BOX,
    LESS,
    MORE_STEPS,
    RANDOM,
    TRANSFER,
    UNBOUNDED,
    ZERO,
    checks_of,
    rows_of_checks,
    worst_case,
)
from spikedistill.robustness.runs import rows_of
from spikedistill.run_folder import RunFolder
from spikedistill.seeds import derive_seed


def subject(N: int = 30) -> Subject:
    torch.manual_seed(0)
    net = temporal(nn.Sequential(nn.Flatten(), nn.Linear(16, 12), LIF(), nn.Linear(12, 3))).eval()
    net.module[1].weight.data.mul_(4)  # so that it fires
    x = torch.rand(N, 1, 4, 4)
    target = net(x, 3).mean(0).argmax(1)
    target[::5] = (target[::5] + 1) % 3  # a fifth is wrong from the start
    return Subject(net, x, target, batch_size=8)


ROWS = [
    Row(GaussianNoise(eps=0.0), 3, remark="clean"),
    Row(Pgd(0.15, steps=5), 3, ("trained", "arctan"), restarts=2),
    Row(Pgd(0.3, steps=5), 3, ("trained", "arctan"), restarts=2),
    Row(Fgsm(0.1), 1),
]


def test_a_row_is_what_its_attacks_leave_in_turn():
    given = subject()
    clean, small, large, first = measure(given, ROWS)
    view = View(given.network, 3)
    right = view(given.samples).mean(0).argmax(1) == given.targets
    assert clean.right.tolist() == right.tolist()
    assert clean.accuracy == pytest.approx(80)
    assert large.accuracy < small.accuracy < 80
    assert not (large.right & ~right).any(), "what is wrong withstands nothing"
    assert sum(small.fooled_through) == int(right.sum() - small.right.sum())
    once, = measure(given, [Row(Pgd(0.15, steps=5), 3)])  # fmt: skip
    assert not (small.right & ~once.right).any(), "further starts and surrogates only take away"
    assert 0 <= small.no_gradient < 1
    assert clean.no_gradient is None
    # one step at k = 1, by hand
    one = View(given.network, 1)
    x = given.samples.clone().requires_grad_()
    loss = nn.functional.cross_entropy(one(x).mean(0), given.targets, reduction="sum")
    changed = (x + 0.1 * torch.autograd.grad(loss, x)[0].sign()).clamp(0, 1)
    before = one(given.samples).mean(0).argmax(1) == given.targets
    expected = before & (one(changed).mean(0).argmax(1) == given.targets)
    assert first.right.tolist() == expected.tolist()


def test_a_measurement_that_is_stopped_goes_on_to_the_same_results(tmp_path: Path):
    file = tmp_path / "kept.jsonl"
    expected = measure(subject(), ROWS)

    def stop_after(count: int):
        def track(left, total):
            for number, entry in enumerate(left):
                if number == count:
                    raise KeyboardInterrupt
                yield entry

        return track

    done = []
    for count in (3, 5):
        with pytest.raises(KeyboardInterrupt):
            measure(subject(), ROWS, file, stop_after(count))
        done.append(len(file.read_text().splitlines()))
    assert done == [3, 8]
    left = []
    found = measure(subject(), ROWS, file, lambda entries, total: left.append(total) or entries)
    assert left == [4 * 4 - 8]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours.right, theirs.right)
        assert ours.fooled_through == theirs.fooled_through
    other = Subject(subject().network, subject().samples + 0.001, subject().targets, batch_size=8)
    measure(other, ROWS, file, lambda entries, total: left.append(total) or entries)
    assert left[-1] == 16, "results of other samples are not taken for these"


def withstood(row: Row, right: list[int]) -> Withstood:
    return Withstood(row, torch.tensor(right).bool(), (), None)


def test_checks_by_hand():
    rows = [Row(Pgd(eps / 10, steps=4), 2) for eps in (1, 2)]
    further = rows_of_checks(rows)
    assert [(row.remark, row.attack.name, row.attack.eps) for row in further] == [
        (MORE_STEPS, "pgd", 0.1), (MORE_STEPS, "pgd", 0.2), (UNBOUNDED, "pgd", 1.0),
        (BLACK_BOX, "square", 0.1), (RANDOM, "random", 0.1), (BLACK_BOX, "square", 0.2), (RANDOM, "random", 0.2),
    ]  # fmt: skip
    assert [row.attack.steps for row in further if row.remark == MORE_STEPS] == [8, 8]
    assert further[3].attack.steps == 80
    assert further[3].after == (rows[0].key, further[0].key), (
        "random squares try what withstands gradients of this size"
    )
    assert further[5].after == (rows[1].key, further[1].key)
    alone = rows_of_checks(rows[1:])
    assert [(row.attack.name, row.attack.eps) for row in alone if row.remark == LESS] == [("pgd", 0.1)]

    def found(first, second, twice_first, twice_second, unbounded, *others):
        return [
            Withstood(row, torch.tensor(right).bool(), (), share)
            for row, right, share in zip(
                [*rows, *further],
                [first, second, twice_first, twice_second, unbounded, *others],
                [0.1, 0.6, *[None] * 7],
                strict=True,
            )
        ]

    all_right, none = [1, 1, 1, 1], [0, 0, 0, 0]
    good = found([1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0], none, *[all_right] * 4)
    assert [check.about for check in checks_of(good, good[0])] == [
        MORE_STEPS, UNBOUNDED, BLACK_BOX, RANDOM, "falls with eps", ZERO,
    ]  # fmt: skip
    assert all(check.passed for check in checks_of(good, good[0]))
    assert worst_case(good, 2, 0.2).tolist() == [True, False, False, False]
    bad = found(
        [1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0],
        all_right, all_right, [0, 1, 1, 1], [0, 1, 1, 1],
    )  # fmt: skip
    said = {check.about: check.said for check in checks_of(bad, bad[1]) if not check.passed}
    assert said == {
        "unbounded": "an attack without a bound leaves 25.0 %",
        "twice the steps": "twice the steps take 50.0 points more",
        "without gradients": "an attack without gradients fools 25.0 % that withstand all with gradients",
        "random direction": "a random direction fools 25.0 % that withstand all with gradients",
        "falls with eps": "accuracy rises by 50.0 points with eps",
        "zero gradients": "60 % of the gradient of the samples is zero",
    }
    (more,) = [check for check in checks_of(bad, bad[0]) if check.about == MORE_STEPS]
    assert not more.passed, "with twice the steps more are right: the gradients mislead"
    assert more.said == "twice the steps leave 25.0 points more"
    # squares that were asked for are a check as well
    asked = Withstood(Row(Square(0.2), 2), torch.tensor([0, 1, 1, 1]).bool(), (), None)
    (by_squares,) = [check for check in checks_of([*good, asked], good[1]) if check.about == BLACK_BOX]
    assert not by_squares.passed


def test_the_nearest_mistake_has_checks_of_its_own():
    row = Row(CarliniWagner(steps=5), 2)
    (twice,) = rows_of_checks([row])
    assert (twice.remark, twice.attack.steps) == (MORE_STEPS, 10)
    found = [withstood(row, [1, 1, 0, 0]), withstood(twice, [1, 0, 0, 0])]
    assert [check.said for check in checks_of(found, found[0])] == [
        "it has no bound, and leaves 50.0 %", "twice the steps take 25.0 points more",
    ]  # fmt: skip


def test_a_targeted_attack_is_to_reach_the_next_class_and_makes_mistakes():
    given = subject(60)
    goals = [class_to_reach(torch.tensor([0, 1, 2]), 3, turn).tolist() for turn in range(3)]
    assert goals == [[1, 2, 0], [2, 0, 1], [1, 2, 0]], "never a label's own"
    clean, plain, one, both = measure(
        given,
        [
            ROWS[0],
            Row(Pgd(0.3, steps=8), 3),
            Row(Pgd(0.3, steps=8, targeted=True), 3),
            Row(Pgd(0.3, steps=8, targeted=True), 3, restarts=2),
        ],
    )
    assert plain.accuracy < clean.accuracy - 20
    assert both.accuracy <= one.accuracy < clean.accuracy - 5
    data = [(given.samples, given.targets)]
    last = [
        evaluate(given.network, data, timesteps=3, attack=attack)["last"]["ensemble"][-1]["accuracy"]
        for attack in (lambda look, x, target: x, Pgd(0.3, steps=8, targeted=True))
    ]
    assert last[1] < last[0] - 0.05


def test_all_surrogates_aim_at_the_same_class_and_further_starts_at_the_next():
    goals = []

    class Noted(Fgsm):
        def __call__(self, look, x, target, start=None):
            goals.append((target[0] - labels[0]) % 3)
            return x

    given = subject()  # whose second sample is answered right
    given = replace(given, samples=given.samples[1:2], targets=given.targets[1:2])
    labels = given.targets
    measure(given, [Row(Noted(0.1, targeted=True), 3, ("trained", "arctan"), restarts=2)])
    assert [int(goal) for goal in goals] == [1, 2, 1, 2]


def test_what_comes_out_the_same_is_done_once():
    calls = []

    class Counted(Fgsm):
        def __call__(self, look, x, target, start=None):
            calls.append(len(x))
            return x

    measure(subject(8), [Row(Counted(0.1), 3, restarts=5)])
    assert len(calls) == 1


def test_results_of_other_neurons_with_the_same_weights_are_not_taken(tmp_path: Path):
    def accuracy(file, **neurons):
        torch.manual_seed(0)
        net = temporal(nn.Sequential(nn.Flatten(), nn.Linear(16, 12), LIF(**neurons), nn.Linear(12, 3))).eval()
        net.module[1].weight.data.mul_(4)
        given = subject(200)
        (found,) = measure(replace(given, network=net), [Row(Fgsm(0.05), 3)], file)
        return found.accuracy

    file = tmp_path / "kept.jsonl"
    other = {"threshold": 3.0, "decay": 0.1}
    assert accuracy(file) != accuracy(None, **other), "they are told apart by their answers"
    assert accuracy(file, **other) == accuracy(None, **other)


def test_scores_under_attack_are_the_same_in_every_call_and_draws_differ_between_batches():
    given, seen = subject(16), []

    class Noted(GaussianNoise):
        def __call__(self, look, x, target, start=None):
            changed = super().__call__(look, x, target, start)
            seen.append(changed - x)
            return changed

    batches = [(given.samples[:8] / 2 + 0.25, given.targets[:8]), (given.samples[8:] / 2 + 0.25, given.targets[8:])]
    before = torch.get_rng_state()
    for attack in (Pgd(0.1, steps=3), Noted(0.01)):
        first, second = (evaluate(given.network, batches, timesteps=3, attack=attack) for _ in range(2))
        assert first["last"] == second["last"]
    assert torch.equal(torch.get_rng_state(), before), "the caller's dice are left alone"
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_what_does_not_fit_is_refused():
    given = subject(8)
    images = [(given.samples, given.targets)]
    with pytest.raises(UserError, match="the attack sparse adds and removes events, and got images"):
        evaluate(given.network, images, timesteps=3, attack=SparseEvents(0.3, steps=2))
    one = temporal(nn.Sequential(nn.Flatten(), nn.Linear(16, 1))).eval()
    with pytest.raises(UserError, match="tells 1 class apart, and a targeted attack needs another one"):
        evaluate(one, [(given.samples, 0 * given.targets)], timesteps=3, attack=Pgd(targeted=True))
    for attack, name in ((Square(0.1), "square"), (CarliniWagner(), "cw"), (Pgd(targeted=True), "pgd towards a class")):
        with pytest.raises(UserError, match=f"by raising a loss, which {name} does not: take pgd or sparse"):
            attack_exits(given, 3, attack, 0.7)


def test_noise_counts_every_sample_by_the_answer_on_it():
    given = replace(subject(60), targets=torch.randint(3, (60,), generator=torch.Generator().manual_seed(0)))
    row = Row(GaussianNoise(eps=0.6), 3)
    (noise,) = measure(given, [row])
    right = []
    for number in range(given.batches):
        x, target = given.batch(number)
        start = noise_of(x.shape, derive_seed(0, number, 0, 0))
        changed = row.attack(None, x, target, start)
        right += (View(given.network, 3)(changed).mean(0).argmax(1) == target).tolist()
    assert noise.right.tolist() == right
    before = View(given.network, 3)(given.samples).mean(0).argmax(1) == given.targets
    assert (noise.right & ~before).any(), "noise mends some mistakes"
    (as_papers,) = measure(given, [Row(Fgsm(0.1), 3, of_all=True)])
    (as_here,) = measure(given, [Row(Fgsm(0.1), 3)])
    assert as_here.right.tolist() == (as_papers.right & before).tolist()


@pytest.mark.parametrize("line", ['{"a": 1}', "[]", "{", '{"of": "x", "row": "y", "batch": "0", "found": []}', "\xff"])
def test_a_damaged_file_of_results_is_named(line: str, tmp_path: Path):
    file = tmp_path / "kept.jsonl"
    measure(subject(), ROWS[:1], file)
    file.write_bytes(file.read_bytes() + line.encode("latin-1") + b"\n")
    with pytest.raises(UserError, match=r"kept\.jsonl is damaged"):
        measure(subject(), ROWS[:1], file)


def test_a_batch_of_another_size_is_not_believed(tmp_path: Path):
    file = tmp_path / "kept.jsonl"
    measure(subject(), ROWS[:1], file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[1]["found"][0] = lines[1]["found"][0][:2]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match=r"kept\.jsonl is damaged: batch 1 of row \w+ is none of 8 samples; delete it"):
        measure(subject(), ROWS[:1], file)


def test_rows_of_a_run():
    rows = rows_of(
        Choices(attacks=("noise", "sa-pgd", "square"), eps=(4, 8), steps=10, restarts=3, through=VIEWS), (1, 5)
    )
    assert len(rows) == 2 + 3 * 2 * 2
    by_name = {row.attack.name: row for row in rows[2:]}
    assert by_name["sa-pgd"].attack.steps == 10
    assert by_name["sa-pgd"].restarts == 3
    assert len(by_name["sa-pgd"].through) == 5
    assert by_name["square"].attack == Square(8 / 255, steps=200)
    assert by_name["noise"].restarts == 1
    with pytest.raises(UserError, match="no attack is called 'deepfool': choose some of fgsm, bim, pgd"):
        rows_of(Choices(attacks=("deepfool",)), (1,))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = quick("digits-sce", out=tmp_path_factory.mktemp("runs") / "run", epochs=12)
    folder = Path(train(config))
    assert evaluate(folder)["last"]["ensemble"][-1]["accuracy"] > 0.6, "a silent network withstands everything"
    return folder


FEW = Choices(attacks=("noise", "pgd"), eps=(16.0,), steps=3, samples=40, batch_size=25)


def test_a_run_is_attacked_and_its_clean_accuracy_is_that_of_the_samples(run: Path, monkeypatch: pytest.MonkeyPatch):
    measured = measure_run(run, FEW)
    results = json.loads((run / "robustness.json").read_text())
    assert results["samples"] == 40
    clean = [row for row in results["rows"] if row["remark"] == "clean"]
    assert [row["timesteps"] for row in clean] == [1, 3]
    whole = measure_run(run, FEW._replace(samples=None, checks=False, attacks=("noise",), eps=(0.0,)))
    of_all = json.loads((run / "robustness.json").read_text())["samples"]
    assert of_all == len(evaluate_targets(run)) < 500, "by default all, where there are fewer than 500"
    monkeypatch.setattr("spikedistill.robustness.runs._SAMPLES", 50)
    measure_run(run, FEW._replace(samples=None, checks=False, attacks=("noise",), eps=(0.0,)))
    assert json.loads((run / "robustness.json").read_text())["samples"] == 50, (
        "and no more than that where there are more"
    )
    ensemble = evaluate(run)["last"]["ensemble"]
    assert [each.accuracy for each in whole.found[:2]] == pytest.approx(
        [100 * ensemble[k - 1]["accuracy"] for k in (1, 3)]
    )
    assert len(measured.found) == len(measured.checks)
    assert {check.about for checks in measured.checks for check in checks} == {
        UNBOUNDED, MORE_STEPS, BLACK_BOX, RANDOM, "falls with eps", ZERO,
    }  # fmt: skip
    assert RunFolder(run).is_complete


def test_rows_that_were_asked_for_stay_beside_those_of_checks(run: Path):
    choices = Choices(
        attacks=("pgd", "square", "noise"),
        eps=(0.0, 8.0, 255.0),
        timesteps=(3,),
        steps=2,
        samples=20,
        through=("trained", "trained"),
    )
    measured = measure_run(run, choices)
    asked = [(each.row.attack.name, round(255 * each.row.attack.eps)) for each in measured.found if not each.row.remark]
    assert asked == [(name, eps) for name in ("pgd", "square", "noise") for eps in (0, 8, 255)]
    remarks = {each.row.remark for each in measured.found}
    assert remarks == {"", "clean", UNBOUNDED, MORE_STEPS, BLACK_BOX, RANDOM}
    assert all(each.row.through == ("trained",) for each in measured.found)


@pytest.mark.usefixtures("fresh_names")
def test_images_that_are_numbers_already_stay_as_they_are(tmp_path: Path):
    images = torch.rand(60, 1, 8, 8)
    labels = (images.mean((1, 2, 3)) > 0.5).long()
    data = torch.utils.data.TensorDataset(images, labels)
    register_dataset(Entry(name="numbers", about="Numbers.", load=lambda: from_torch(data, data, name="numbers")))
    config = quick("digits-sce", out=tmp_path / "run", data=DataConfig(name="numbers", batch_size=20))
    folder = train(config)
    found = measure_run(
        folder, Choices(attacks=("noise",), eps=(0.0,), timesteps=(3,), samples=60, checks=False)
    ).found[0]
    assert found.accuracy == pytest.approx(100 * evaluate(folder)["last"]["ensemble"][-1]["accuracy"])


def test_an_ordinary_network_has_one_timestep(tmp_path: Path):
    folder = train(quick("digits-ann", out=tmp_path / "run", timesteps=1))
    few = FEW._replace(attacks=("fgsm",), checks=False)
    found = measure_run(folder, few).found
    assert [each.row.through for each in found[1:]] == [("trained",)], "there is no surrogate to swap"
    with pytest.raises(UserError, match="the network has no spiking neurons, so there is no surrogate to swap"):
        measure_run(folder, few._replace(through=("arctan",)))
    with pytest.raises(UserError, match="an ordinary one, which has a single timestep"):
        measure_run(folder, few._replace(timesteps=(1, 4)))


def test_the_nearest_mistake_is_a_row_without_a_size(run: Path, capsys: pytest.CaptureFixture[str]):
    measured = measure_run(run, FEW._replace(attacks=("cw", "pgd"), timesteps=(3,)))
    rows = [each for each in measured.found if each.row.attack.name == "cw" and not each.row.remark]
    assert [each.row.eps for each in rows] == [None]
    assert len(rows[0].fooled_through) == 5
    assert [row["eps"] for row in measured.results["worst_case"]] == [16 / 255], "it counts for no size"
    assert rows[0].accuracy < measured.found[0].accuracy
    assert "cw" in write_report(run).read_text()
    words = "--attacks cw pgd --eps 16 --timesteps 3 --steps 3 --samples 40 --batch-size 25"
    assert main(["robustness", str(run), *words.split()]) == 0
    assert "cw" in capsys.readouterr().out


@pytest.mark.usefixtures("fresh_names")
def test_attacked_images_of_a_twin_are_a_check(run: Path, tmp_path: Path):
    twin = train(quick("digits-ann", out=tmp_path / "twin", timesteps=1))
    choices = FEW._replace(attacks=("fgsm",), twin=twin)
    measured = measure_run(run, choices)
    rows = [each for each in measured.found if each.row.remark == TRANSFER]
    assert [(each.row.attack.name, each.row.timesteps, each.row.through) for each in rows] == [
        ("pgd", 1, ("twin",)), ("pgd", 3, ("twin",)),
    ]  # fmt: skip
    assert {check.about for checks in measured.checks for check in checks} >= {TRANSFER, BLACK_BOX}
    # by hand: images made for the ANN, batch by batch from the same starts, that withstand FGSM and fall to them
    subject = Subject(load(run), *images_of_digits(40), batch_size=25)
    ann = View(load(twin), 1)
    right = rows[1].right
    before_it = [each for each in measured.found if each.row.key in rows[1].row.after]
    assert [each.row.attack.name for each in before_it] == ["fgsm"]
    for number in range(2):
        x, target = subject.batch(number)
        before = before_it[0].right[25 * number :][: len(x)]
        noise = noise_of(x.shape, derive_seed(0, number, 0, 0))
        changed = Pgd(16 / 255, steps=3)(ann, x[before], target[before], noise[before])
        left = View(subject.network, 3)(changed).mean(0).argmax(1) == target[before]
        assert right[25 * number :][: len(x)][before].tolist() == left.tolist()
    with pytest.raises(UserError, match="twin is for a check, and checks are off"):
        measure_run(run, choices._replace(checks=False))
    few = torch.utils.data.TensorDataset(torch.rand(60, 1, 8, 8), torch.arange(60) % 3)
    register_dataset(Entry(name="three", about="Three.", load=lambda: from_torch(few, few, name="three")))
    other = train(quick("digits-sce", out=tmp_path / "other", data=DataConfig(name="three", batch_size=20)))
    with pytest.raises(UserError, match="has 3 classes and the run 10: take one of the same data set"):
        measure_run(run, choices._replace(twin=other))


def test_the_scores_of_attacked_images(run: Path):
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    attack = Pgd(16 / 255, steps=3, random_start=False)
    scores = evaluate(run, attack=attack)["last"]["ensemble"]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files, "nothing is written"
    images, labels = images_of_digits(len(evaluate_targets(run)))
    model = load(run)
    changed = attack(View(model, 3), images, labels)
    expected = [(model(changed, k).mean(0).argmax(1) == labels).double().mean() for k in (1, 2, 3)]
    assert [score["accuracy"] for score in scores] == pytest.approx([float(value) for value in expected], abs=0.006)
    assert scores[2]["accuracy"] < evaluate(run)["last"]["ensemble"][2]["accuracy"]
    by_model = evaluate(model, [(images, labels)], timesteps=3, attack=attack)["last"]["ensemble"]
    assert [score["accuracy"] for score in by_model] == pytest.approx([float(value) for value in expected])
    with pytest.raises(UserError, match=r"the attack returned \[40\], expected the changed samples"):
        evaluate(model, [(images[:40], labels[:40])], timesteps=3, attack=lambda look, x, target: target)
    with pytest.raises(UserError, match="attack came for logits"):
        evaluate(torch.zeros(2, 3, 4), torch.zeros(3).long(), attack=attack)


def test_neurons_with_leaks_of_their_own_are_attacked_through_all_but_mean_rates(tmp_path: Path):
    config = quick("digits-sce", out=tmp_path / "run")
    model = config.model.model_copy(update={"neuron": "timestep-leak", "neuron_options": {}})
    folder = train(config.model_copy(update={"model": model}))
    measured = measure_run(folder, FEW._replace(checks=False))
    assert measured.found[-1].row.through == ("trained", "arctan", "pdsg", "assg")
    with pytest.raises(UserError, match="with its own step"):
        measure_run(folder, FEW._replace(through=("rate",), checks=False))


def images_of_digits(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The test images that a run on digits is attacked on."""
    test = load_dataset("digits").test
    order = balanced_order(test.targets)[:count].sort().values
    return test.inputs(order) / 255, test.targets[order]


def evaluate_targets(run: Path) -> torch.Tensor:
    return RunFolder(run).read_tensors(RunFolder(run).logits, "targets")["targets"]


def test_the_command_prints_the_table_and_goes_on(run: Path, capsys: pytest.CaptureFixture[str]):
    command = [
        "robustness",
        str(run),
        "--attacks",
        "pgd",
        "--eps",
        "16",
        "--steps",
        "3",
        "--samples",
        "40",
        "--batch-size",
        "25",
    ]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "Accuracy under attack" in first
    assert "clean" in first
    assert main(command) == 0
    assert capsys.readouterr().out == first
    for words, said in (
        (["--attacks", "worm"], "no attack is called 'worm'"),
        (["--timesteps", "0"], "timesteps 0 is out of range"),
        (["--samples", "100000"], "samples is 100000"),
        (["--samples", "0"], "samples is 0"),
        (["--through", "relu"], "no surrogate is called 'relu'"),
        (["--eps", "300"], "eps is 300, expected levels of 255"),
        (["--restarts", "0"], "restarts is 0, expected 1 or more"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--seed", "-1"], "seed is -1"),
        (["--exits", "1.5"], "threshold is 1.5"),
        (["--step", "0"], "step is 0, expected levels of 255, above 0"),
        (["--step", "2", "--attacks", "fgsm"], "step is of pgd and bim, and the attacks are fgsm"),
    ):
        assert main(["robustness", str(run), "--samples", "10", *words]) == 2
        assert said in capsys.readouterr().err


def test_an_attack_on_time_keeps_samples_longer_and_one_on_answers_makes_mistakes():
    given = subject(60)
    given.network.module[-1].weight.data.mul_(8)  # so that it is sure of some samples early
    given = Subject(given.network, given.samples, given.network(given.samples, 4).mean(0).argmax(1), batch_size=25)
    clean, answers, time = attack_exits(given, 4, Pgd(0.3, steps=10), 0.7)
    assert [row.goal for row in (clean, answers, time)] == ["clean", "answers", "time"]
    logits = View(given.network, 4)(given.samples)
    times = exit_times(logits, "confidence", 0.7)
    means = logits.double().cumsum(0)[times - 1, torch.arange(60)]
    assert clean.accuracy == pytest.approx(100 * float((means.argmax(1) == given.targets).double().mean()))
    assert clean.mean_exit == pytest.approx(float(times.double().mean()))
    assert clean.never == pytest.approx(100 * float((times == 4).double().mean()))
    assert answers.accuracy < clean.accuracy - 20
    assert time.mean_exit > clean.mean_exit + 0.3
    assert time.mean_exit > answers.mean_exit
    assert time.never > clean.never
    _, more_answers, more_time = attack_exits(
        given, 4, Pgd(0.3, steps=10), 0.7, through=("trained", "arctan"), restarts=2
    )
    assert more_answers.accuracy <= answers.accuracy, "of each sample the worst counts"
    assert more_time.mean_exit >= time.mean_exit


def test_an_attack_on_early_exit_goes_on_where_it_was_stopped(tmp_path: Path):
    given, file, left = subject(60), tmp_path / "kept.jsonl", []
    attack = Pgd(0.3, steps=3)
    expected = attack_exits(given, 4, attack, 0.7)

    def stopped(numbers, total):
        for number in numbers:
            if number == 3:
                raise KeyboardInterrupt
            yield number

    with pytest.raises(KeyboardInterrupt):
        attack_exits(given, 4, attack, 0.7, file=file, track=stopped)

    def counted(numbers, total):
        left.append(total)
        return numbers

    assert attack_exits(given, 4, attack, 0.7, file=file, track=counted) == expected
    assert left == [8 - 3]


def test_corruptions_and_early_exit_are_measured_if_asked(run: Path, capsys: pytest.CaptureFixture[str]):
    choices = Choices(
        attacks=("pgd",), eps=(16.0,), timesteps=(3,), steps=2, samples=30, checks=False, corruptions=True, exits=0.9
    )
    measured = measure_run(run, choices)
    corrupted = [each for each in measured.found if each.row.remark == "corruption"]
    assert len(corrupted) == 30
    error = sum(100 - each.accuracy for each in corrupted) / 30
    assert measured.results["mean_corruption_error"] == {"3": pytest.approx(error)}
    assert [row["goal"] for row in measured.results["exits"]["rows"]] == ["clean", "answers", "time"]
    command = "--attacks pgd --eps 16 --timesteps 3 --steps 2 --samples 30 --no-checks --corruptions --exits 0.9"
    assert main(["robustness", str(run), *command.split()]) == 0
    said = capsys.readouterr().out
    assert "Accuracy under corruptions at k=3" in said
    assert "Early exit at a confidence of 0.9, eps 16" in said


def test_the_report_has_the_curves_and_what_speaks_against_them(run: Path):
    measured = measure_run(run, FEW._replace(corruptions=True, exits=0.9))
    page = write_report(run).read_text()
    assert "Under attack" in page
    assert 'data-plot="under_attack"' in page or "under_attack" in page
    doubts = [check.said for checks in measured.checks for check in checks if not check.passed]
    assert doubts, "three steps are too few"
    for said in doubts:
        assert said in page
    for words in ("Right under common corruptions", "Early exit at a confidence of 0.9", "pixelate"):
        assert words in page
    (run / "robustness.json").write_text('{"schema_version": 1, "samples": "many"}')
    with pytest.raises(UserError, match=r"robustness.json is (broken|damaged)"):
        write_report(run)
    measure_run(run, FEW)
    assert write_report(run).is_file()
