"""The tables of the page on attacks, computed from the committed studies."""

import pytest
from benchmarks.robust import METHODS, TRAINING, read, to_markdown
from pages import DOCS

PAGE = (DOCS / "tour" / "robustness.md").read_text()
STUDIES = {"fashion_mnist": 5, "cifar10": 1}  # seeds


@pytest.mark.parametrize("dataset", STUDIES)
def test_the_tables_of_objectives_under_attack(dataset):
    found = read(DOCS / "studies" / f"robust_{dataset}.jsonl")
    seeds = range(STUDIES[dataset])
    wanted = {(training, method, seed) for training in TRAINING for method in METHODS[dataset] for seed in seeds}
    assert {(run["training"], run["method"], run["seed"]) for run in found["runs"]} == wanted
    for table in to_markdown(found).split("\n\n"):
        assert table in PAGE
    hours = sum(run["seconds"] for run in found["runs"]) / 3600
    assert hours < 12
    assert f"{hours:.1f} CPU hours" in PAGE
    assert {session["commit"][:7] for session in found["sessions"]} <= set(PAGE.replace("`", " ").split())
