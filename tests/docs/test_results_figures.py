"""Figures of the results page that are in no table, computed from the committed studies."""

import csv
import json

import pytest
from pages import DOCS

from spikedistill.evaluation import POLICIES

PAGE = " ".join((DOCS / "results.md").read_text().split())


def rows(name):
    return list(csv.DictReader((DOCS / "studies" / name).read_text().splitlines()))


@pytest.mark.parametrize(
    ("method", "mean", "last"),
    [
        ("sce", "0.251 for SCE and TWCE", "0.169 for SCE"),
        ("twce", "0.251 for SCE and TWCE", "0.170 for TWCE"),
        ("twkd", "0.248 for TWKD", "0.181 for TWKD"),
        ("s2w", "0.262 for TWSD and S2W", "0.176 for S2W"),
        ("twsd", "0.262 for TWSD and S2W", "0.186 for TWSD"),
        ("w2s", "0.272 for W2S", "0.191 for W2S"),
    ],
)
def test_the_training_losses_of_five_epochs(method, mean, last):
    """The recorded column is a mean over the epochs so far: the fifth alone is 5 times the fifth less 4 times the fourth."""
    runs = [r for r in rows("fashion_mnist_5_epochs_epochs.csv") if r["method"] == f"fashion_mnist-{method}"]
    at = {k: [float(r["ce_prefix_4"]) for r in runs if r["epoch"] == str(k)] for k in (4, 5)}
    assert len(at[4]) == len(at[5]) == 3
    alone = [5 * fifth - 4 * fourth for fourth, fifth in zip(at[4], at[5], strict=True)]
    assert f"{sum(at[5]) / 3:.3f}" == mean[:5]
    assert f"{sum(alone) / 3:.3f}" == last[:5]
    assert mean in PAGE
    assert last in PAGE


def test_what_the_temporal_objectives_cost_in_seed_1():
    found = {r["method"]: float(r["accuracy_4"]) for r in rows("fashion_mnist_5_epochs_runs.csv") if r["seed"] == "1"}
    lost = {
        name: f"{found['fashion_mnist-sce'] - found[f'fashion_mnist-{name}']:.2f}"
        for name in ("twsd", "w2s", "twkd", "s2w")
    }
    assert lost == {"twsd": "0.57", "w2s": "0.49", "twkd": "0.40", "s2w": "0.32"}
    assert "the losses against SCE are TWSD 0.57, W2S 0.49, TWKD 0.40 and S2W 0.32 points" in PAGE


def of_other_epochs(study, epochs):
    """What equal time trains longer or shorter; the rest is in the table at equal epochs."""
    return [row for row in rows(study) if row["epochs"] != str(epochs)]


RULES = [
    *rows("rules_fashion_mnist.csv"),
    *of_other_epochs("rules_fashion_mnist_equal_time.csv", 3),
    *rows("rules_cifar10/leaderboard.csv"),
    *of_other_epochs("rules_cifar10_equal_time/leaderboard.csv", 3),
]
METHODS = [
    *rows("methods_fashion_mnist/leaderboard.csv"),
    *of_other_epochs("methods_fashion_mnist_equal_time/leaderboard.csv", 10),
    *rows("methods_untuned_fashion_mnist/leaderboard.csv"),
]


@pytest.mark.parametrize("row", [*RULES, *METHODS], ids=lambda row: row["method"])
def test_the_accuracies_of_methods_and_gradient_rules(row):
    columns = [*(f"accuracy_{k}" for k in (1, 2, 3, 4)), "area"]
    cells = [f"{float(row[name]):.2f} ± {float(row[f'{name}_std']):.2f}" for name in columns]
    if row["area_difference"]:
        for name in ("area", "accuracy_4"):
            difference, low, high = (float(row[f"{name}_{key}"]) for key in ("difference", "low", "high"))
            cells.append(f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]")
    assert " | ".join(cells) in PAGE


def test_the_heads_of_esd_and_its_ablation():
    columns = [*(f"head_accuracy_{s}" for s in (1, 2, 3)), "no_head_right"]
    found = rows("rules_fashion_mnist_heads.csv")
    for method in {row["method"] for row in found}:
        for epoch in "123":
            seeds = [row for row in found if (row["method"], row["epoch"]) == (method, epoch)]
            assert len(seeds) == 3
            means = [f"{100 * sum(float(row[name]) for row in seeds) / 3:.2f}" for name in columns]
            assert f"| {epoch} | {' | '.join(means)} |" in PAGE


def test_the_heads_of_esd_and_its_ablation_on_cifar():
    found = [json.loads(line) for line in (DOCS / "studies/rules_cifar10/records.jsonl").read_text().splitlines()]
    columns = [*(f"head_accuracy_{s}" for s in (1, 2, 3, 4)), "no_head_right"]
    compared = {(row["method"], row["seed"]) for row in rows("rules_cifar10/runs.csv") if "esd" in row["method"]}
    assert len(compared) == 12
    for method in {method for method, _ in compared}:
        runs = [record["metrics"] for record in found if record["run"] in {f"{method}/seed{s}" for _, s in compared}]
        for epoch in range(3):
            means = [f"{100 * sum(float(run[epoch][name]) for run in runs) / 3:.2f}" for name in columns]
            assert f"| {epoch + 1} | {' | '.join(means)} |" in PAGE


@pytest.mark.parametrize("name", ["early_exit_fashion_mnist", "early_exit_fashion_mnist_compiled"])
def test_what_early_exit_gives_and_saves(name):
    found = json.loads((DOCS / "studies" / f"{name}.json").read_text())
    policies = ("confidence",) if name.endswith("compiled") else POLICIES
    for row in (row for row in found["exits"] if row["policy"] in policies):
        intervals = [
            f"{part['difference']:+.2f} [{part['low']:+.2f}, {part['high']:+.2f}]"
            for part in (row["drop"], row["gain_over_fixed"])
        ]
        cells = [row["policy"], *(f"{row[name]:.2f}" for name in ("mean_exit", "accuracy", "accuracy_of_all"))]
        assert f"| {' | '.join([*cells, *intervals])} |" in PAGE
    for row in found["seconds"]:
        ratios = [f"{r['median']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" for r in row["ratios"].values()]
        milliseconds = f"{1000 * row['seconds']['sequence']['median']:.1f}"
        assert f"| {' | '.join([str(row['batch_size']), milliseconds, *ratios])} |" in PAGE
