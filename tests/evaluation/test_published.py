"""Published numbers beside those of a comparison."""

import numpy as np

from spikedistill.evaluation import published_numbers
from spikedistill.evaluation.comparison.published import beside_published
from spikedistill.evaluation.comparison.records import RunRecord
from spikedistill.evaluation.results import Scores
from spikedistill.objectives import list_objectives
from spikedistill.recipes import recipe
from spikedistill.recipes.catalogue import find_name


def test_numbers_are_found_by_data_set_and_objective():
    everything = published_numbers()
    found = published_numbers("cifar100", "s2w")
    assert {row["dataset"] for row in found} == {"CIFAR-100"}
    assert {row["method"] for row in found} == {"S2W"}
    (ours,) = [row for row in found if row["network"] == "MS-ResNet-18"]
    assert (ours["accuracy"], ours["T"], ours["k"]) == ("78.25", "4", "4")
    assert published_numbers("CIFAR-100", "s2w") == found
    assert {row["method"] for row in published_numbers(None, "s2w", "w2s")} == {"S2W", "W2S"}
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
        assert row["network"] != "not stated", row


def test_tables_2_and_3_of_the_poster_of_twkd_are_as_printed():
    def rows(dataset, table):
        of_table = f"Yu et al. (TWKD), ICML 2025, poster, Tab. {table}"
        found = published_numbers(dataset)
        return [(r["network"], r["T"], r["k"], r["accuracy"]) for r in found if r["source"] == of_table]

    assert rows("ImageNet", 2) == [("PreAct-ResNet-34", "4", "4", "71.04")]
    assert rows("CIFAR10-DVS", 3) == [("ResNet-18", "4", "4", "83.50"), ("ResNet-18", "10", "10", "86.40")]
    quoted = [r for r in published_numbers() if "(TWKD)" in r["source"] and "as summarised by others" in r["source"]]
    assert [(r["dataset"], r["method"], r["accuracy"]) for r in quoted if r["doubt"].count("quoted by Yu et al.")] == [
        ("ImageNet", "SAKD", "70.04"),
        ("CIFAR10-DVS", "SAKD", "81.50"),
        ("CIFAR10-DVS", "SM", "83.19"),
    ]


def test_published_exits_say_that_their_confidence_may_be_of_the_mean_or_of_the_sum():
    exits = [row for row in published_numbers() if "early exit" in row["protocol"]]
    assert len(exits) == 16
    assert all("of the mean or of the sum of the logits is not stated" in row["doubt"] for row in exits)


def beside(*names, T=4, protocol=None):
    settings = {"timesteps": T, "protocol": protocol}
    config = {name: recipe(name.base).model_copy(update=settings) for name in map(find_name, names)}
    records = {
        name: [RunRecord(config[name], Scores(ensemble=[], single=[]), {}, [], np.zeros((T, 2), bool))]
        for name in config
    }
    return beside_published(
        records, [{"method": name, **{f"accuracy_{k}": 10.0 * k for k in range(1, T + 1)}} for name in config]
    )


def test_published_numbers_stand_beside_the_method_itself():
    others = ["ann", "sltt", "rate", "tdbn", "dspike", "sce,timesteps=1", "prefix"]
    found = beside(*(f"cifar100-{name}" for name in [*others, "sce", "s2w"]))
    assert {row["ours"] for row in found} == {"cifar100-sce", "cifar100-s2w"}, "the others only share their objective"
    assert [row["accuracy"] for row in found if row["ours"] == "cifar100-s2w"] == [
        row["accuracy"] for row in published_numbers("cifar100", "s2w")
    ]
    assert {row["method"] for row in beside("cifar100-twsd")} == {"TWCE + TWSD"}
    assert beside("digits-sce") == []


def test_runs_under_an_unofficial_protocol_do_not_stand_beside_published_numbers():
    assert beside("cifar100-tser-unofficial", protocol="tser-unofficial") == []
    assert beside("cifar100-twkd", protocol="twkd") == beside("cifar100-twkd")


def test_ours_is_run_for_as_many_timesteps_as_the_published_network_where_it_was():
    found = {(row["network"], row["T"]): (row["ours_k"], row["ours_accuracy"]) for row in beside("cifar100-twkd")}
    assert found["ResNet-18", "2"] == (2, 20.0)
    assert found["ResNet-18", "4"] == (4, 40.0)
    assert found["ResNet-18", "6"] == (4, 40.0), "it was not scored at six"
    assert {row["ours_k"] for row in beside("cifar100-tser-unofficial")} == {4}, "nobody says at how many"
