"""The tables of the page on performance, computed from the committed measurements, and what is promised of them."""

import json
from csv import DictReader

import pytest
from benchmarks.over_density import rows_of as rows_of_layers
from benchmarks.results import Results
from benchmarks.sparsity import table_of
from benchmarks.table import rows_of
from pages import DOCS

PAGE = (DOCS / "performance.md").read_text()


def measured(name):
    results = Results(DOCS / "studies" / f"{name}.jsonl")
    timed = {name for rounds in results.rounds.values() for seconds in rounds for name in seconds}
    tables = {to: rows_of(results, to) for to in timed & {"ann", "convolutions", "spikingjelly"}}
    return {(to, row["contender"], row["timesteps"]): row for to, rows in tables.items() for row in rows}


STEP, STEP_10, STEP_25 = (measured(f"step_on_spikes{density}") for density in ("", "_10", "_25"))
USE, USE_10, USE_25, USE_ONE = (measured(f"inference_on_spikes{which}") for which in ("", "_10", "_25", "_batch1"))


def ratio(found, name, T, to):
    row = found[to, name, T]
    median, low, high = (row[f"per_{to}{key}"] for key in ("", "_q1", "_q3"))
    return "1" if name == to else f"{median:.2f} [{low:.2f}, {high:.2f}]"


def contenders(found):
    return sorted({name for to, name, T in found if (to, T) == ("ann", 4)})


def milliseconds(found, name, digits):
    return f"{found['ann', name, 4]['ms']:.{digits}f}"


@pytest.mark.parametrize("name", [name for name in contenders(STEP) if name != "sltt"])
def test_a_training_step(name):
    peaks = [STEP["ann", name, T]["peak_mib"] for T in (4, 8)]
    at4, at8 = ("" if peak is None else f"{peak:.0f}" for peak in peaks)
    of4 = " | ".join(ratio(STEP, name, 4, to) for to in ("ann", "convolutions", "spikingjelly"))
    # the ANN has one timestep: at T=8 it is timed again
    of8 = " | ".join(ratio(STEP, name, 8, to) for to in ("ann", "convolutions"))
    cells = [f"`{name}`", milliseconds(STEP, name, 0), of4, at4, of8, at8]
    assert f"| {' | '.join(cells)} |".replace("|  |", "| |") in PAGE


@pytest.mark.parametrize("name", ["bptt", "bptt-dense", "rate-m1"])
def test_a_step_at_other_densities(name):
    cells = [ratio(found, name, 4, to) for found in (STEP_10, STEP_25) for to in ("convolutions", "spikingjelly")]
    assert f"| `{name}` | {' | '.join(cells)} |" in PAGE


@pytest.mark.parametrize("name", contenders(USE))
def test_use(name):
    cells = [
        cell
        for found in (USE, USE_ONE)
        for cell in (milliseconds(found, name, 1), ratio(found, name, 4, "ann"), ratio(found, name, 1, "ann"))
    ]
    assert f"| `{name}` | {' | '.join(cells)} |" in PAGE


@pytest.mark.parametrize(
    ("found", "of"),
    [(USE, "profile of the trained network, 0.26"), (USE_25, "0.25 in every layer"), (USE_10, "0.10 in every layer")],
)
def test_use_at_other_densities(found, of):
    assert f"| {of} | {ratio(found, 'ours', 1, 'ann')} | {ratio(found, 'ours', 4, 'ann')} | " in PAGE


@pytest.mark.parametrize(
    ("found", "name", "T", "to", "most"),
    [
        (STEP, "bptt", 4, "convolutions", 0.70),
        (STEP_10, "bptt", 4, "convolutions", 0.60),
        (STEP, "bptt", 4, "spikingjelly", 0.65),
        (STEP, "rate-m1", 4, "ann", 1.4),
        (STEP, "rate-m1", 8, "ann", 1.8),
        (USE, "ours", 4, "ann", 1.5),
        (USE_10, "ours", 4, "ann", 0.9),
        (USE_ONE, "ours", 4, "ann", 1.2),
    ],
)
def test_what_is_aimed_at_is_reached(found, name, T, to, most):
    row = found[to, name, T]
    assert row["rounds"] >= 15
    assert row[f"per_{to}"] <= most + 0.005, "to the digits of the page"


def test_one_image_at_a_time():
    found = json.loads((DOCS / "studies" / "end_to_end_cifar10.json").read_text())
    (mine,) = (row for row in found["exits"] if row["policy"] == "confidence")
    cells = [f"{mine['accuracy']:.1f}", f"{mine['accuracy_of_all']:.1f}", f"{mine['mean_exit']:.2f}"]
    cells += [f"{ann['accuracy']:.1f}" for ann in found["anns"]]
    section = PAGE.split("### One image at a time")[1].split("\n## ")[0]
    assert [cell for cell in cells if cell not in section] == []


def test_the_choice_of_a_path():
    ends = sorted(row["auto_to_dense"][2] for row in rows_of_layers(DOCS / "studies" / "densities.jsonl"))
    below = sum(end < 1.05 for end in ends)
    assert f"below 1.05 in {below} of {len(ends)} cases, and below {ends[-1] + 0.005:.2f} in the others" in PAGE


@pytest.mark.parametrize(
    ("name", "row"),
    [
        (name, row)
        for name in ("fashion_mnist", "cifar10")
        for row in table_of(DOCS / "studies" / f"sparsity_{name}.jsonl")
    ],
)
def test_a_penalty_on_spikes(name, row):
    accuracies = [f"{row[key]:.2f} ± {row[f'{key}_std']:.2f}" for key in ("accuracy_1", "accuracy_T")]
    cells = [f"{row['firing_weight']:g}", f"{row['density']:.3f}", *accuracies]
    assert row["seeds"] == 3
    assert f"| {' | '.join(cells)} | {row['ms']:.2f} | {row['dense_ms']:.2f} |" in PAGE


def test_five_epochs_on_both_paths():
    """Equivalent: the whole interval of the difference is within half a point."""
    rows = [*DictReader((DOCS / "studies" / "sparse_equivalence" / "leaderboard.csv").read_text().splitlines())]
    (never,) = (row for row in rows if row["area_difference"])
    difference, low, high = (float(never[f"area_{key}"]) for key in ("difference", "low", "high"))
    assert -0.5 < low < high < 0.5
    shown = {
        f"{value:.2f} points [{a:.2f}, {b:.2f}]"
        for value, a, b in ((difference, low, high), (-difference, -high, -low))
    }
    assert any(text in PAGE for text in shown), shown
