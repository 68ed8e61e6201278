"""The page on spiking transformers: its tables are computed from the committed numbers."""

import csv
import json
import re

import pytest
import torch
from benchmarks.transformers import RELEASED, to_markdown
from pages import DOCS

from spikedistill import create_model

PAGE = (DOCS / "transformers.md").read_text()
FOUND = json.loads((DOCS / "studies" / "transformers.json").read_text())


def test_the_table_of_agreement():
    assert to_markdown(FOUND["rows"]) in PAGE
    assert [row["network"] for row in FOUND["rows"]] == [each.ours for each in RELEASED], "none is left out"
    assert (FOUND["timesteps"], FOUND["samples"]) == (4, 2)
    assert not FOUND["dirty"]


def test_every_spike_and_logit_agrees():
    for row in FOUND["rows"]:
        assert row["spikes_different"] == 0
        assert row["logits_difference"] < 1e-5 < row["logits_range"]
        assert row["constant_layers"] <= 1
        assert row["parameters"] + row["parameters_released_unused"] == row["parameters_released"]


@pytest.mark.parametrize("row", FOUND["rows"], ids=lambda row: row["network"])
def test_parameters_are_still_those_that_were_compared(row):
    with torch.device("meta"):
        network = create_model(row["network"], num_classes=row["classes"])
    assert sum(p.numel() for p in network.parameters()) == row["parameters"]
    (millions,) = re.findall(rf"^\| `{row['network']}` .*? \| ([\d.]+) M \|", PAGE, re.MULTILINE)
    assert float(millions) == pytest.approx(row["parameters"] / 1e6, abs=0.005)


def test_the_table_of_digits():
    with (DOCS / "studies" / "digits_sdt" / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        accuracies = [float(row[f"accuracy_{k}"]) for k in range(1, 5)]
        assert min(accuracies) > 90
        cells = " | ".join(f"{accuracy:.1f}" for accuracy in accuracies)
        assert f"| `{row['method'].removeprefix('digits-')}` | {cells} |" in PAGE
    assert len(rows) == 5


def test_what_the_page_says_of_the_folded_axes():
    for row in FOUND["rows"]:
        if "qkformer" in row["network"]:
            assert f"{row['spikes_different_as_released']:,} of `{row['network']}`" in PAGE
    assert FOUND["commit"][:7] in PAGE
