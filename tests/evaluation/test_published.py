"""Published numbers beside those of a comparison."""

import numpy as np

from spikedistill.evaluation import published_numbers
from spikedistill.evaluation.published import beside_published
from spikedistill.evaluation.records import RunRecord
from spikedistill.objectives import list_objectives
from spikedistill.recipes import recipe


def test_numbers_are_found_by_data_set_and_objective():
    everything = published_numbers()
    found = published_numbers("cifar100", ["s2w"])
    assert {row["dataset"] for row in found} == {"CIFAR-100"}
    assert {row["method"] for row in found} == {"S2W"}
    (ours,) = [row for row in found if row["network"] == "MS-ResNet-18"]
    assert (ours["accuracy"], ours["T"], ours["k"]) == ("78.25", "4", "4")
    assert published_numbers("fashion_mnist") == []
    assert len(published_numbers("cifar10")) + len(published_numbers("cifar100")) < len(everything)


def test_rows_of_an_objective_are_of_it_as_published_and_nothing_more():
    named = [row for row in published_numbers() if row["objective"]]
    assert {row["objective"] for row in named} <= set(list_objectives())
    for row in named:
        assert row["T"] == row["k"], row
        assert "," not in row["method"], "an ablation"
        assert "exit" not in row["protocol"], row
        assert "8/255" not in row["protocol"], "perturbed"


def record(name):
    return RunRecord(recipe(name), {}, {}, [], np.zeros((4, 2), bool))


def test_a_comparison_has_what_is_published_of_its_methods_once():
    names = ["cifar100-sce", "cifar100-sltt", "cifar100-s2w", "cifar100-prefix"]
    rows = [{"method": name, **{f"accuracy_{k}": 10.0 * k for k in range(1, 7)}} for name in names]
    found = beside_published({name: [record(name)] for name in names}, rows)
    assert {row["ours"] for row in found} == {"cifar100-sce", "cifar100-s2w"}, "nothing is published of prefix"
    assert [row["accuracy"] for row in found if row["ours"] == "cifar100-sce"] == [
        row["accuracy"] for row in published_numbers("cifar100", ["sce"])
    ]
    T = recipe("cifar100-sce").timesteps
    assert {row["ours_accuracy"] for row in found} == {10.0 * T}
