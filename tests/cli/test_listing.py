"""`spikedistill list`: names on one screen, each explained in 80 columns."""

from importlib.metadata import EntryPoint

import pytest
import torch

from spikedistill import registry
from spikedistill.cli import main
from spikedistill.cli.listing import LISTS
from spikedistill.data import list_datasets
from spikedistill.models import create_model, list_models
from spikedistill.objectives import list_objectives
from spikedistill.objectives.registry import OBJECTIVES
from spikedistill.recipes import list_methods


def listed(capsys, *what):
    """The lines that the command prints."""
    assert main(["list", *what]) == 0
    return capsys.readouterr().out.splitlines()


def first_words(lines):
    return {line.split()[0] for line in lines if line.strip()}


def test_everything_fits_a_screen(capsys):
    lines = listed(capsys)
    assert len(lines) <= 24
    words = set(" ".join(lines).replace(",", " ").split())
    for names in (list_datasets(), list_methods(), list_models()):
        assert words >= set(names)
    assert f"methods ({len(list_methods())})" in lines


@pytest.mark.parametrize("what", LISTS)
def test_every_list_fits_80_columns(capsys, what):
    lines = listed(capsys, what)
    assert max(map(len, lines)) <= 80
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("methods", list_methods()),
        ("recipes", list_methods()),
        ("models", list_models()),
        ("objectives", list_objectives()),
        ("data", list_datasets()),
    ],
)
def test_every_name_is_explained(capsys, what, names):
    lines = [line.strip() for line in listed(capsys, what)]
    for name in names:
        (line,) = [line for line in lines if line.split("  ")[0] == name and line != name]
        assert len(line.removeprefix(name).split()) >= 2, "a sentence stands behind it"


def test_recipes_are_explained_and_not_multiplied(capsys):
    lines = listed(capsys, "recipes")
    assert lines[0].startswith("A recipe is <data set>-<method>.")
    assert "  spikedistill train digits-twsd" in lines
    assert len(lines) < len(list_datasets()) * len(list_methods()) / 4


def test_the_parameters_of_a_model_are_those_that_are_made(capsys):
    made = create_model("vgg11", num_classes=10, image_size=32)
    count = sum(parameter.numel() for parameter in made.parameters())
    (line,) = [line for line in listed(capsys, "models") if line.startswith("vgg11 ")]
    assert f" {count / 1e6:.2f} M. " in line
    assert torch.get_default_device().type == "cpu"


def test_names_of_users_and_of_packages_are_marked_and_packages_not_imported(capsys, monkeypatch):
    def mine():
        """My own loss: CE(z, y)."""

    monkeypatch.setitem(OBJECTIVES._known, "my-loss", OBJECTIVES["sce"]._replace(factory=mine))
    monkeypatch.setitem(OBJECTIVES._origins, "my-loss", "my_losses.py")
    declared = EntryPoint("their-loss", "no_such_package.losses", "spikedistill.objectives")
    real = registry._declared
    monkeypatch.setattr(
        registry, "_declared", lambda group: {"their-loss": declared} if group == declared.group else real(group)
    )
    lines = listed(capsys, "objectives")
    (line,) = [line for line in lines if line.startswith("my-loss ")]
    assert line.endswith("My own loss. (From my_losses.py.)")
    (line,) = [line for line in lines if line.startswith("their-loss ")]
    assert line.endswith("Of the package no_such_package.losses.")
    overview = listed(capsys)
    assert {"my-loss*", "their-loss*"} <= set(" ".join(overview).replace(",", "").split())
    assert "*: registered by you, or by an installed package" in overview
