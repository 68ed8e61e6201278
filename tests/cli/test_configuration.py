"""What is said of a configuration that cannot be meant."""

import pickle

import pytest

from spikedistill.config import Config
from spikedistill.recipes import list_recipes, recipe


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_survives_being_written_and_read(name):
    config = recipe(name)
    assert Config.from_yaml(config.to_yaml()) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_changed_copy_is_checked_like_the_first():
    config = recipe("digits-twsd")
    assert config.model_copy(update={"epochs": 2}).epochs == 2
    assert config.epochs == 30, "the first is as it was"
    for wrong in ({"epoch": 2}, {"timesteps": -3}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            config.model_copy(update=wrong)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "timesteps: 4",
            "timesteps: 0",
            r"^x\.yaml is no configuration of a run: timesteps: got 0, expected at least 1$",
        ),
        (
            "width: 1.0",
            "width: -1",
            r"^x\.yaml is no configuration of a run: model\.width: got -1, expected more than 0$",
        ),
        ("epochs: 30", "epoch: 30", r"epoch: got 30, there is no such setting$"),
        ("recipe: digits-twsd", "recipe: [", r"^x\.yaml is not valid YAML \(while parsing"),
    ],
)
def test_a_damaged_configuration_is_named_in_one_line(before, after, said):
    text = recipe("digits-twsd").to_yaml()
    assert before in text
    with pytest.raises(ValueError, match=said):
        Config.from_yaml(text.replace(before, after), origin="x.yaml")
