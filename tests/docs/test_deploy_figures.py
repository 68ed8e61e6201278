"""The tables of the page on deployment, computed from the committed studies."""

import json

from benchmarks import exports, runtimes
from pages import DOCS

from spikedistill import list_models

PAGE = (DOCS / "deploy" / "index.md").read_text()


def study(name: str) -> dict:
    return json.loads((DOCS / "studies" / name).read_text())


def test_the_table_of_networks_and_formats():
    found = study("exports.json")
    assert exports.to_markdown(found["rows"]) in PAGE
    assert found["commit"][:7] in PAGE
    assert [row["network"] for row in found["rows"]] == [case.name for case in exports.cases()], "none is left out"
    assert set(list_models()) <= {row["network"] for row in found["rows"]}
    assert all(row["fires"] for row in found["rows"])


def test_the_table_of_milliseconds():
    found = study("runtimes_fashion_mnist.json")
    assert runtimes.to_markdown(found) in PAGE
    assert f"{found['images']} test images, in seven rounds" in PAGE
    assert found["rounds"] == 7
