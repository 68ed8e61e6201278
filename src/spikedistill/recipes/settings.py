"""Configurations from words of the command line: `RECIPE --key value`, `RECIPE,key=value`, and the file of an earlier run."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..arguments import parse
from ..config import Config
from ..errors import UserError
from ..renamed import in_new_words
from ..run_folder import RunFolder
from ..setting_types import AUTO
from .catalogue import find_name, recipe, with_dataset, with_network, with_neuron, with_objective
from .protocols import with_protocol
from .small_data import sized_to_data


def from_words(named: str, settings: Sequence[str]) -> Config:
    """The configuration of a recipe, or of the file of an earlier run, with `--key value` overrides applied.

    Raises:
        FileNotFoundError: if there is no such file.
        UserError: if there is no such recipe, or a value is refused.
    """
    if names_file(named):
        return parse_config(from_file(Path(named)), settings)
    return _of_recipe(recipe(named), settings)


def names_file(named: str) -> bool:
    """Whether a text names the file of an earlier run rather than a recipe."""
    return Path(named).suffix in (".yaml", ".yml")


def _of_recipe(default: Config, settings: Sequence[str]) -> Config:
    """A recipe's configuration with the settings for the size of its data, and the overrides applied on top of them."""
    config = parse_config(default, settings)
    sized = sized_to_data(default, config)
    return config if sized == default else parse_config(sized, settings)


def from_file(path: Path) -> Config:
    """The configuration of an earlier run, to be repeated in another folder.

    Raises:
        FileNotFoundError: if there is no such file.
        UserError: if it is no configuration.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: expected the config.yaml of a run, or a recipe")
    folder = RunFolder(path.parent)
    of_run = path.name == folder.config_file.name and folder.manifest() is not None
    config = folder.config() if of_run else Config.from_yaml(path.read_bytes(), origin=str(path))
    return config.model_copy(update={"out": None, "resume": "never", "overwrite": False})


def parse_config(default: Config, arguments: Sequence[str]) -> Config:
    """The configuration with `--key value` overrides applied.

    Some overrides change other settings too, which can be set in the same call: `--objective.name` sets the default
    options of that objective, `--model.name` the number of heads that `esd` sums over, `--model.neuron` the default
    options of those neurons and of `lif`, and `--protocol` a paper's settings. All other overrides take precedence over
    these. `--data.batch-size auto` is limited by the batch size that it replaces.

    Raises:
        UserError: for a value that is refused.
    """
    arguments = in_new_words(arguments)
    chosen = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    chosen.add_argument("--objective.name", dest="name")
    chosen.add_argument("--model.name", dest="network")
    chosen.add_argument("--model.neuron", dest="neuron")
    chosen.add_argument("--data.name", dest="dataset")
    chosen.add_argument("--gradient")
    chosen.add_argument("--protocol")
    try:
        options = chosen.parse_known_args(arguments)[0]
    except argparse.ArgumentError as error:
        raise UserError(f"{error.argument_name}: {error.message}") from None
    if options.dataset is not None:
        default = with_dataset(default, options.dataset)
    if options.network is not None:
        default = with_network(default, options.network)
    if options.name is not None:
        default = with_objective(default, options.name)
    if options.neuron is not None:
        default = with_neuron(default, options.neuron)
    if options.protocol not in (None, "None"):
        # settings that a protocol's values depend on
        data = default.data.model_copy(update={"name": options.dataset or default.data.name})
        update = {"data": data, "gradient": options.gradient or default.gradient}
        default = with_protocol(default.model_copy(update=update), options.protocol)
    prog = f"spikedistill train {default.recipe}"
    description = f"Train the recipe {default.recipe}. --import FILE_OR_MODULE imports names of your own first."
    config = parse(Config, arguments, prog=prog, description=description, default=default)
    if str(config.data.batch_size) != AUTO or default.data.most_batch_size is not None:
        return config
    limited = config.data.model_copy(update={"batch_size": f"{AUTO}:{default.data.batch_size}"})
    return config.model_copy(update={"data": limited})


def variant(text: str, settings: Sequence[str]) -> Config:
    """The configuration of `RECIPE,key=value,flag,...`, with that text as its name.

    Args:
        text: the recipe, and its settings.
        settings: `--key value` overrides of all recipes of a comparison.

    Raises:
        UserError: if there is no such recipe, or a value is refused.
    """
    name, own = find_name(text), []
    for change in name.changes:
        if not change:
            raise UserError(f"{text!r} has an empty setting: expected RECIPE,key=value,... without a comma too many")
        key, given, value = change.partition("=")
        own += [f"--{key}", value] if given else [f"--{key}"]
    default = recipe(name.base)
    config = _of_recipe(default, [*settings, *own])
    for key in ("seed", "out", "resume", "overwrite"):
        if getattr(config, key) != getattr(default, key):
            raise UserError(f"{key} is not for one run of a comparison, which has --seeds and --out and always goes on")
    return config.model_copy(update={"recipe": name})
