"""Figures of the results page that are in no table, computed from the committed studies."""

import csv

import pytest
from pages import DOCS

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
    assert "costs TWSD 0.57, W2S 0.49, TWKD 0.40 and S2W 0.32 points" in PAGE
