"""What the pages say of the objectives, held against the catalogue."""

import csv
import inspect
import re

import pytest
from pages import DOCS, table_after

from spikedistill import LIF
from spikedistill.objectives import create_objective, list_objectives, objective_options
from spikedistill.recipes import list_methods, recipe

METHOD_PAGES = {page.name: page.read_text() for page in sorted((DOCS / "methods").glob("*.md"))}


@pytest.mark.parametrize("objective", list_objectives())
def test_the_options_of_an_objective_stand_on_one_page_with_their_defaults(objective):
    heading = f"### `{objective}`\n"
    (text,) = [text for text in METHOD_PAGES.values() if heading in text]
    described = {row[0]: row[1] for row in table_after(heading, text)}
    assert described == {name: str(default) for name, default in objective_options(objective).items()}


def test_the_overview_knows_every_objective_its_teacher_and_whether_one_rate_segment_is_enough():
    rows = {row[0]: row for row in table_after("# Methods\n", METHOD_PAGES["index.md"])}
    assert rows.keys() == set(list_objectives())
    for name, (_, _, _, teacher, segment, link) in rows.items():
        objective = create_objective(name)
        assert teacher == ("yes" if objective.needs_teacher else "no"), name
        assert (segment == "no") == objective.compares_submodels, name
        page = re.search(r"\((\w+\.md)\)", link)[1]
        assert f"### `{name}`\n" in METHOD_PAGES[page], name


def test_the_overview_says_what_a_step_costs_what_is_published_and_what_came_out():
    rows = {row[0]: row for row in table_after("## What a step costs", METHOD_PAGES["index.md"])}
    assert rows.keys() == set(list_objectives())
    published = list(csv.DictReader((DOCS / "studies" / "published.csv").read_text().splitlines()))
    study = DOCS / "studies" / "methods_fashion_mnist" / "leaderboard.csv"
    ours = {row["method"]: row for row in csv.DictReader(study.read_text().splitlines())}
    ours["fashion_mnist-twce-twsd"] = ours["fashion_mnist-twsd"]
    for name, (_, cost, accuracy, found_by_us) in rows.items():
        row = ours.get(f"fashion_mnist-{name}")
        assert found_by_us == (f"{float(row['accuracy_1']):.2f}, {float(row['accuracy_4']):.2f}" if row else "–"), name
        config, objective = recipe(f"cifar100-{name}"), create_objective(name)
        passes = ("T + 2" if config.gradient == "rate" else "3T") + (" + 1" if objective.needs_teacher else "")
        assert cost == passes + (", and branches" if config.model.branches else ""), name
        if accuracy != "–":
            value, network, *T = accuracy.split(", ")
            found = [
                r for r in published if (r["dataset"], r["accuracy"], r["network"]) == ("CIFAR-100", value, network)
            ]
            assert any(f"T={r['T']}" in T or not T for r in found), name


def test_the_overview_knows_every_method_that_is_no_objective():
    rows = [row[0] for row in table_after("Each objective is a method", METHOD_PAGES["index.md"])]
    assert sorted(rows) == sorted(set(list_methods()) - set(list_objectives()))
    assert f"there are {['four', 'five', 'six', 'seven'][len(rows) - 4]} more" in METHOD_PAGES["index.md"]


def test_the_page_on_gradients_names_the_objectives_that_one_segment_silences():
    section = METHOD_PAGES["gradients.md"].split("### Objectives that one segment silences")[1].split("\n#")[0]
    silenced, fine = re.split(r"are therefore\s+refused", section)
    named = [set(re.findall(r"`([\w-]+)`", part)) & set(list_objectives()) for part in (silenced, fine)]
    compares = {name for name in list_objectives() if create_objective(name).compares_submodels}
    assert named[0] == compares
    assert not named[1] & compares


def test_the_neurons_options_stand_on_the_page_about_networks_with_their_defaults():
    text = (DOCS / "tour" / "layers.md").read_text()
    described = {row[0]: row[1].strip('"') for row in table_after("## The neuron", text)}
    assert described == {name: str(p.default) for name, p in inspect.signature(LIF).parameters.items()}
