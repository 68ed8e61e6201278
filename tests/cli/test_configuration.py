"""What is said of a configuration that cannot be meant."""

import math
import pickle
from typing import get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from spikedistill.cli import main
from spikedistill.config import Config
from spikedistill.recipes import list_recipes, recipe
from spikedistill.recipes.settings import parse_config


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


# Numbers


def settings_of(section=Config, place=()):
    """Every setting as the names on the way to it, and the kinds of value that it takes."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from settings_of(kind, (*place, name))
        else:
            yield (*place, name), set(kinds(kind))


def kinds(annotation):
    return [each for part in get_args(annotation) for each in kinds(part)] or [annotation]


SETTINGS = dict(settings_of())
# Sections of options are no numbers; their values are checked by what takes them.
FLOATS = [path for path, taken in SETTINGS.items() if float in taken and "options" not in path[-1]]
INTEGERS = [path for path, taken in SETTINGS.items() if int in taken and "options" not in path[-1]]
NO_NUMBERS = [math.nan, math.inf, -math.inf]


def nested(path, value):
    """A configuration as YAML has it, with one value put in."""
    values = recipe("digits-skd").model_dump(mode="json")
    section = values
    for name in path[:-1]:
        section = section[name]
    section[path[-1]] = value
    return values


def flag(path):
    return "--" + ".".join(path).replace("_", "-")


def test_there_are_as_many_numbers_as_one_thinks():
    assert len(FLOATS) >= 15
    assert {"threshold", "v_init", "v_reset", "lr", "width", "holdout", "clip", "ema"} <= {path[-1] for path in FLOATS}
    assert {"seed", "epochs", "timesteps", "chunk", "segments", "devices", "nodes", "size"} <= {
        path[-1] for path in INTEGERS
    }


def called(path, value):
    return Config(**nested(path, value))


def read(path, value):
    return Config.from_yaml(yaml.safe_dump(nested(path, value)), origin="x.yaml")


def copied(path, value):
    """A configuration with one value changed, section by section."""
    sections, config = [recipe("digits-skd")], {path[-1]: value}
    for name in path[:-1]:
        sections.append(getattr(sections[-1], name))
    for name, section in zip(path[-2::-1], sections[:0:-1], strict=True):
        config = {name: section.model_copy(update=config)}
    return sections[0].model_copy(update=config)


@settings(max_examples=150, deadline=None)
@given(
    path=st.sampled_from(FLOATS + INTEGERS),
    value=st.sampled_from(NO_NUMBERS),
    make=st.sampled_from([called, read, copied]),
)
def test_no_setting_may_be_nan_or_infinite_by_any_way(path, value, make):
    name = r"\.".join(path)
    with pytest.raises(ValueError, match=rf"{name}: got {value}, expected a finite number") as refused:
        make(path, value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("path", FLOATS, ids=flag)
def test_the_command_line_refuses_nan_and_infinity_in_one_line_that_names_the_setting(path, capsys):
    for value in ("nan", "inf", "-inf"):
        assert main(["train", "digits-sce", f"{flag(path)}={value}"]) == 2
        assert (
            capsys.readouterr().err == f"spikedistill train: {'.'.join(path)}: got {value}, expected a finite number\n"
        )


@pytest.mark.parametrize("path", INTEGERS, ids=flag)
@settings(max_examples=10, deadline=None)
@given(value=st.integers(2**32, 10**40))
def test_every_whole_number_has_bounds(path, value):
    name = r"\.".join(path)
    with pytest.raises(ValueError, match=rf"^{name}: got {value}, expected (at most|less than) \d+"):
        called(path, value)
    if path != ("segments",):  # which are held against the timesteps
        with pytest.raises(ValueError, match=rf"^{name}: got {-value}, expected at least [01]"):
            called(path, -value)


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_nor_may_an_option_of_an_objective(value, capsys):
    with pytest.raises(ValueError, match=rf"^objective\.options\.temperature: got {value}, expected a finite number$"):
        Config(**nested(("objective", "options"), {"alpha": 0.2, "temperature": value}))
    assert main(["train", "digits-skd", f"--objective.options.alpha={value}"]) == 2
    assert (
        capsys.readouterr().err
        == f"spikedistill train: objective.options.alpha: got {value}, expected a finite number\n"
    )


# What comes, by its flag, and what is said of it: exit code 2 and one line.
WRONG = {
    "--model.width 1e9": "model.width: got 1000000000.0, expected at most 64",
    "--model.width 0": "model.width: got 0.0, expected more than 0",
    "--model.width -inf": "model.width: got -inf, expected a finite number",
    "--timesteps 1000000000": "timesteps: got 1000000000, expected at most 10000",
    "--timesteps -1": "timesteps: got -1, expected at least 1",
    "--segments 1000000000": "segments: got 1000000000, expected at most 10000 or several",
    "--chunk 100000": "chunk: got 100000, expected at most 10000",
    "--chunk 0": "chunk: got 0, expected at least 1",
    "--epochs 10000000": "epochs: got 10000000, expected at most 1000000",
    "--seed 4294967296": "seed: got 4294967296, expected less than 4294967296",
    "--seed -1": "seed: got -1, expected at least 0",
    f"--seed {10**100}": f"seed: got 1{'0' * 76}..., expected less than 4294967296",
    "--trainer.devices 100000": "trainer.devices: got 100000, expected at most 1024",
    "--trainer.nodes 1025": "trainer.nodes: got 1025, expected at most 1024",
    "--trainer.devices 0": "trainer.devices: got 0, expected at least 1",
    "--data.size 1000000000": "data.size: got 1000000000, expected at most 4096",
    "--data.batch-size 1000000000000": "data.batch_size: got 1000000000000, expected at most 1000000000 or 'auto' or 'auto:512'",
    "--data.train-samples 0": "data.train_samples: got 0, expected at least 1",
    "--data.holdout 1": "data.holdout: got 1.0, expected less than 1",
    "--data.holdout -0.1": "data.holdout: got -0.1, expected at least 0",
    "--optimizer.lr 0": "optimizer.lr: got 0.0, expected more than 0",
    "--optimizer.lr 1e300": f"optimizer.lr: got 1e+300, expected at most 1{'0' * 30}",
    "--optimizer.momentum 1": "optimizer.momentum: got 1.0, expected less than 1",
    "--optimizer.weight-decay 1e300": "optimizer.weight_decay: got 1e+300, expected at most 1000000000",
    "--optimizer.step-factor 1": "optimizer.step_factor: got 1.0, expected less than 1",
    "--trainer.clip 0": "trainer.clip: got 0.0, expected more than 0",
    "--trainer.ema 1": "trainer.ema: got 1.0, expected less than 1",
    "--trainer.accumulate -3": "trainer.accumulate: got -3, expected at least 1",
    "--model.lif.decay 1.5": "model.lif.decay: got 1.5, expected at most 1 or 'learned' or 'learned:0.8'",
    "--model.lif.threshold -1": "model.lif.threshold: got -1.0, expected more than 0 or 'learned' or 'learned:0.8'",
    "--model.lif.threshold 1e-300": "threshold is 1e-300, expected a positive number, finite in float32",
    "--model.lif.v-reset 1e300": "v_reset is 1e+300, expected a number that is finite in float32",
    "--trainer.checkpoint-seconds -1": "trainer.checkpoint_seconds: got -1.0, expected at least 0",
    "--model.lif.decay lerned": "model.lif.decay: got 'lerned', expected a number or 'learned' or 'learned:0.8'",
    "--model.lif.threshold learned:0": "threshold is 0.0, expected a positive number, finite in float32",
    # one section after another
    "--model.width 1e9 --model.lif.v-init third": "model.lif.v_init: got 'third', expected a number or 'half' or 'learned' or "
    "'learned:0.8'",
    "--data.holdout 2 --data.size 0": "data.size: got 0, expected at least 1; data.holdout: got 2.0, expected less than 1",
    "--epoch 3": "Unrecognized options: --epoch, 3; perhaps you meant --epochs or --optimizer.step-epochs or "
    "--optimizer.warmup-epochs",
    "--epochs many": "Error parsing --epochs: invalid literal for int() with base 10: 'many'",
    "--epochs": "Missing value for argument '--epochs'. Expected 1 values.",
    "--optimizer.name adam": "invalid choice 'adam' for argument '--optimizer.name'. Expected one of ('sgd', 'adamw').",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_value_is_said_in_one_line(line, capsys):
    assert main(["train", "digits-sce", *line.split()]) == 2
    assert capsys.readouterr().err == f"spikedistill train: {WRONG[line]}\n"


@pytest.mark.parametrize(
    ("seeds", "said"),
    [(["4294967296"], "below 4294967296; got"), (["0", str(10**30)], "below 4294967296; got"), (["-1"], "from 0 on")],
)
def test_seeds_of_a_comparison_have_the_same_bounds(seeds, said, tmp_path, capsys):
    recipes = ["--recipes", "digits-sce", "digits-twce", "--out", str(tmp_path / "out")]
    assert main(["compare", *recipes, "--seeds", *seeds]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()


def test_a_value_of_the_wrong_kind_is_cut_short_where_it_is_long():
    with pytest.raises(ValueError, match=r"^data: got \[7, 7, .{50,80}\.\.\., expected a valid dictionary"):
        Config(recipe="x", data=[7] * 1000)
    with pytest.raises(ValueError, match=r"^recipe is missing$"):
        Config(seed=1)


@pytest.mark.parametrize("lr", ["1e12", "1e-12", "3"])
def test_a_number_that_may_be_meant_is_taken(lr):
    assert parse_config(recipe("digits-sce"), ["--optimizer.lr", lr]).optimizer.lr == float(lr)
