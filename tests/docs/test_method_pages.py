"""What the pages say of the objectives, held against the catalogue."""

import csv
import inspect
import re

import pytest
from pages import DOCS, table_after

from spikedistill import LIF
from spikedistill.evaluation import published_numbers
from spikedistill.objectives import create_objective, list_objectives, objective_options
from spikedistill.objectives.inputs import INPUTS
from spikedistill.recipes import list_methods, recipe

METHOD_PAGES = {page.name: page.read_text() for page in sorted((DOCS / "methods").glob("*.md"))}


@pytest.mark.parametrize("objective", list_objectives())
def test_the_options_of_an_objective_stand_on_one_page_with_their_defaults(objective):
    heading = f"### `{objective}`\n"
    (text,) = [text for text in METHOD_PAGES.values() if heading in text]
    described = {row[0]: row[1] for row in table_after(heading, text)}
    assert described == {name: str(default) for name, default in objective_options(objective).items()}


def leaderboard(study):
    """Accuracies at k=1 and k=4 in a study on Fashion-MNIST, by method."""
    rows = csv.DictReader((DOCS / "studies" / study / "leaderboard.csv").read_text().splitlines())
    return {
        row["method"].removeprefix("fashion_mnist-"): f"{float(row['accuracy_1']):.2f}, {float(row['accuracy_4']):.2f}"
        for row in rows
    }


OVERVIEW = {row[0]: row[1:] for row in table_after("## All methods\n", METHOD_PAGES["index.md"])}
UNTUNED = leaderboard("papers_decoupling") | leaderboard("methods_untuned_fashion_mnist")
OURS = {name: f"({figures})" for name, figures in UNTUNED.items()} | leaderboard("methods_fashion_mnist")
OURS["twce-twsd"] = OURS["twsd"]


def test_the_overview_knows_every_method():
    assert OVERVIEW.keys() == {*list_methods(), *list_objectives()}


@pytest.mark.parametrize("name", OVERVIEW)
def test_the_overview_says_what_a_method_needs_and_costs_what_is_published_and_what_came_out(name):
    config = recipe(f"cifar100-{name}")
    objective = create_objective(config.objective.name)
    _, _, teacher, segment, cost, published, ours, link = OVERVIEW[name]
    assert teacher == ("yes" if objective.needs_teacher else "no")
    assert (segment == "no") == (objective.compares_submodels or config.timestep_draws_of == "stages")
    passes = ("T + 2" if config.gradient in ("rate", "dsr") else "3T") if config.timesteps > 1 else "3, at T=1"
    if config.timestep_draws is not None:
        passes = f"{1.5 * config.timestep_draws:g}(T + 1)"
    assert (
        cost
        == passes
        + " + 1" * objective.needs_teacher
        + ", and branches" * config.model.branches
        + " + 3, and exits" * config.model.joint
        + ", and 6T for the attack" * (config.objective.adversarial == "pgd")
    )
    own = name in list_objectives() or name == "twsd"  # the others are trained with another's objective
    numbers = {
        ", ".join([r["accuracy"], r["dataset"], r["network"], *([f"T={r['T']}"] if r["T"] else [])])
        + " †" * bool(r["doubt"])
        for r in (published_numbers(None, objective.name) if own else [])
    }
    on_cifar100 = {number for number in numbers if "CIFAR-100" in number}
    assert published in (on_cifar100 or numbers or {"–"})
    assert ours == OURS.get(name, "–")
    page = METHOD_PAGES[re.search(r"\((\w+\.md)\)", link)[1]]
    named = {
        "rate": "`rate`",
        "sltt": "The recipe `sltt`",
        "dsr": "## DSR\n",
        "tdbn": "`--model.norm tdbn`",
        "ann": "ReLU twin",
    }
    named |= {"dspike": "`--model.lif.surrogate dspike`", "twsd": "### `twce-twsd`\n"}
    assert named.get(name, f"### `{name}`\n") in page


def test_the_overview_knows_every_method_that_is_no_objective():
    rows = [row[0] for row in table_after("Each objective is a method", METHOD_PAGES["index.md"])]
    assert sorted(rows) == sorted(set(list_methods()) - set(list_objectives()))
    assert (
        f"there are {['five', 'six', 'seven', 'eight', 'nine', 'ten', 'eleven', 'twelve'][len(rows) - 5]} more"
        in METHOD_PAGES["index.md"]
    )


def test_the_inputs_of_objectives_stand_on_the_page_that_says_how_to_write_one():
    named = [row[0] for row in table_after("## A method of your own", METHOD_PAGES["index.md"])]
    assert named == ["target", *INPUTS]


def test_the_page_on_gradients_names_the_objectives_that_need_two_segments():
    section = METHOD_PAGES["gradients.md"].split("### Objectives that need two segments")[1].split("\n#")[0]
    silenced, fine = re.split(r"are therefore\s+refused", section)
    named = [set(re.findall(r"`([\w-]+)`", part)) & set(list_objectives()) for part in (silenced, fine)]
    compares = {name for name in list_objectives() if create_objective(name).compares_submodels}
    assert named[0] == compares
    features = {name for name in list_objectives() if create_objective(name).needs_features}
    assert named[1] | features == set(list_objectives()) - compares


def test_the_neurons_options_stand_on_the_page_about_networks_with_their_defaults():
    text = (DOCS / "tour" / "layers.md").read_text()
    described = {row[0]: row[1].strip('"') for row in table_after("## The neuron", text)}
    assert described == {name: str(p.default) for name, p in inspect.signature(LIF).parameters.items()}
