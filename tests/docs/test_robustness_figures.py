"""The tables of the page on attacks, computed from the committed studies; one that is not at its end yet has none."""

import pytest
from benchmarks.robust import METHODS, TRAINING, read, to_markdown
from pages import DOCS

PAGE = (DOCS / "tour" / "robustness.md").read_text()
SEEDS = {"fashion_mnist": 5, "cifar10": 1}


def study(dataset):
    file = DOCS / "studies" / f"robust_{dataset}.jsonl"
    return read(file) if file.is_file() else {"runs": []}


def has_ended(dataset):
    seeds = range(SEEDS[dataset])
    wanted = {(training, method, seed) for training in TRAINING for method in METHODS[dataset] for seed in seeds}
    return {(run["training"], run["method"], run["seed"]) for run in study(dataset)["runs"]} >= wanted


@pytest.mark.parametrize("dataset", [name for name in SEEDS if has_ended(name)])
def test_the_tables_of_objectives_under_attack(dataset):
    found = study(dataset)
    for table in to_markdown(found).split("\n\n"):
        assert table in PAGE
    hours = sum(run["seconds"] for run in found["runs"]) / 3600
    assert hours < 12
    assert f"{hours:.1f} CPU hours" in PAGE
    assert {session["commit"][:7] for session in found["sessions"]} <= set(PAGE.replace("`", " ").split())
