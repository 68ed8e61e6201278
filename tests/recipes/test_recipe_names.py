"""The name of a run: a text for people and folders, whose parts are fields and not looked for in it."""

import copy
import pickle

import pytest

from spikedistill.config import Config, DataConfig
from spikedistill.data import DATASETS, Entry
from spikedistill.recipe_name import RecipeName
from spikedistill.recipes import list_recipes, recipe
from spikedistill.recipes.catalogue import METHODS, find_name
from spikedistill.recipes.settings import variant


def parts(name):
    return name.dataset, name.method, name.changes


def test_a_name_reads_as_text_and_has_its_parts():
    name = RecipeName("my-data", "s2w", ["segments=2", "trainer.no-progress"])
    assert name == "my-data-s2w,segments=2,trainer.no-progress"
    assert parts(name) == ("my-data", "s2w", ("segments=2", "trainer.no-progress"))
    assert (name.base, name.variant) == ("my-data-s2w", "s2w,segments=2,trainer.no-progress")
    assert name.settings == {"segments": "2", "trainer.no-progress": ""}
    assert parts(name.without("segments").with_change("a=b=c")) == ("my-data", "s2w", ("trainer.no-progress", "a=b=c"))
    assert RecipeName("demo").variant == RecipeName("demo").base == "demo"
    for same in (copy.deepcopy(name), pickle.loads(pickle.dumps(name))):  # as a configuration goes to another process
        assert parts(same) == parts(name)


@pytest.mark.parametrize(
    ("text", "dataset", "expected"),
    [
        ("digits-sltt-k,timesteps=1", "digits", ("digits", "sltt-k", ("timesteps=1",))),
        ("my-data-sce", "my-data", ("my-data", "sce", ())),
        ("a,b-c-sce,x=1-2", "a,b-c", ("a,b-c", "sce", ("x=1-2",))),
        ("nmnist-sce", "event_frames", ("nmnist", "sce", ())),  # other data under the recipe's settings
        ("demo", "digits", ("demo", "", ())),
        ("digits", "digits", ("digits", "", ())),
        ("digits-", "digits", ("digits-", "", ())),
        ("digits-,x=1", "digits", ("digits-", "", ("x=1",))),
        ("-sce", "", ("", "sce", ())),
        (",", "digits", ("", "", ("",))),
    ],
)
def test_the_text_of_an_earlier_record_has_the_parts_that_its_data_set_shows(text, dataset, expected):
    name = RecipeName.parse(text, dataset)
    assert (name, parts(name)) == (text, expected)


@pytest.fixture
def more_recipes(fresh_names):
    """Data sets and methods whose names hold the signs that a name is put together with."""
    for dataset in ("my-data", "my-data-2,small", "my"):
        DATASETS.register(dataset, Entry(name=dataset, load=list, usual={}))
    for method in ("a-b", "a-b,c"):
        METHODS.register(method, lambda config: config)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("my-data-twsd", ("my-data", "twsd", ())),
        ("my-sltt-k", ("my", "sltt-k", ())),
        ("my-data-2,small-a-b,c,timesteps=2,model.lif.no-detach-reset", None),
        ("digits-sce,timesteps=1", ("digits", "sce", ("timesteps=1",))),
        ("digits-sce,", ("digits", "sce", ("",))),
        ("nothing-known,x=1", ("nothing", "known", ("x=1",))),
    ],
)
def test_the_command_line_names_recipes_that_are_known(more_recipes, text, expected):
    expected = expected or ("my-data-2,small", "a-b,c", ("timesteps=2", "model.lif.no-detach-reset"))
    name = find_name(text)
    assert (name, parts(name)) == (text, expected)


def test_every_recipe_has_the_parts_that_made_it(more_recipes):
    for text in list_recipes():
        config = recipe(text)
        assert parts(config.recipe) == parts(find_name(text))
        assert (config.recipe, config.recipe.dataset, config.recipe.changes) == (text, config.data.name, ())


@pytest.mark.parametrize(
    "name",
    [
        RecipeName("my-data", "sce", ["timesteps=2"]),
        RecipeName("digits", "a,b"),
        RecipeName("other-data", "sce", ["x=1"]),
        RecipeName("demo"),
    ],
)
@pytest.mark.parametrize("dataset", ["my-data", "digits"])
def test_a_file_gives_the_parts_back(name, dataset):
    config = Config(recipe=name, data=DataConfig(name=dataset))
    assert parts(config.model_copy(update={"epochs": 3}).recipe) == parts(name)
    assert parts(Config.from_yaml(config.to_yaml()).recipe) == parts(name)
    assert parts(Config.from_written(config.written()).recipe) == parts(name)
    assert Config.from_yaml(config.to_yaml()) == config


def test_a_file_holds_a_name_as_text_where_that_says_all():
    assert "recipe: digits-sce,timesteps=1\n" in Config(recipe="digits-sce,timesteps=1").to_yaml()
    assert (
        Config(recipe=RecipeName("my-data", "sce"), data=DataConfig(name="my-data")).written()["recipe"]
        == "my-data-sce"
    )


@pytest.mark.parametrize("wrong", [3, ["a"], {"dataset": "a"}, {"dataset": "a", "method": "b", "changes": "c"}])
def test_a_name_that_is_no_text_is_refused(wrong):
    with pytest.raises(ValueError, match=r"^recipe: got .*, expected a text$"):
        Config(recipe=wrong)


def test_a_comma_within_a_value_is_escaped():
    text = r"fashion_mnist-kdsnn,objective.options.layers=stages.1\,stages.2,timesteps=2"
    name = find_name(text)
    assert name.changes == ("objective.options.layers=stages.1,stages.2", "timesteps=2")
    config = variant(text, [])
    assert (config.objective.options["layers"], config.timesteps) == ("stages.1,stages.2", 2)
    again = Config.from_yaml(config.to_yaml())
    assert again.recipe.changes == name.changes
