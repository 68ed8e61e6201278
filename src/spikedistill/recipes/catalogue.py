"""Named experiments, `<dataset>-<method>`: a data set's usual network and schedule, with the method's objective put in."""

import difflib
from collections.abc import Callable
from functools import partial

from ..config import Config, DataConfig, NeuronConfig, ObjectiveConfig
from ..data import usual_settings
from ..errors import UserError
from ..models import count_heads, list_models
from ..neurons import neuron_options
from ..objectives import list_objectives, objective_options
from ..recipe_name import RecipeName
from ..through_time import RULES
from .protocols import with_protocol, with_settings


def _usual(dataset: str) -> Config:
    """A data set's usual network and schedule."""
    config = Config(recipe=RecipeName(dataset), data=DataConfig(name=dataset))
    return with_settings(config, usual_settings()[dataset])


def with_objective(config: Config, name: str) -> Config:
    """The configuration with that objective, at its own default options."""
    objective = config.objective.model_copy(update={"name": name, "options": objective_options(name)})
    return config.model_copy(update={"objective": objective})


def with_neuron(config: Config, name: str) -> Config:
    """The configuration with other neurons, at their own default options.

    Raises:
        UserError: for an unknown name.
    """
    if name == config.model.neuron:
        return config
    lif = config.model.lif if name == "lif" else NeuronConfig()
    update = {"neuron": name, "neuron_options": neuron_options(name), "lif": lif}
    return config.model_copy(update={"model": config.model.model_copy(update=update)})


def with_network(config: Config, name: str) -> Config:
    """The configuration with another network, and, where the factor of `esd` is the number of heads, with that of its own."""
    objective, options = config.objective, config.objective.options
    is_mean = objective.name == "esd" and options.get("reduction") == "mean"
    are_known = {config.model.name, name} <= {*list_models()}
    if is_mean and are_known and options.get("factor") == count_heads(config.model.name):
        objective = objective.model_copy(update={"options": {**options, "factor": float(count_heads(name))}})
    model = config.model.model_copy(update={"name": name})
    return config.model_copy(update={"model": model, "objective": objective})


def _ann(config: Config) -> Config:
    """The ReLU twin of the network: an ordinary ANN, to teach from."""
    return with_objective(config, "sce").model_copy(update={"model": config.model.as_ann(), "timesteps": 1})


def _under(config: Config, gradient: str) -> Config:
    """SCE under a gradient rule."""
    return with_objective(config, "sce").model_copy(update={"gradient": gradient})


def _sltt_k(config: Config) -> Config:
    """Some timesteps at random, on gradients without the membrane's path (SLTT-K)."""
    return with_objective(config, "sltt-k").model_copy(update={"gradient": "sltt"})


def _twsd(config: Config) -> Config:
    """Every timestep learns the labels, and from the ensemble of all."""
    return with_objective(config, "twce-twsd")


def _esd(config: Config) -> Config:
    """Auxiliary heads teach each other on rate-based gradients (ESD), with the paper's weighting for this kind of data."""
    neuron = config.model.lif.model_copy(update={"decay": 0.2, "detach_reset": True})
    timesteps = {"cifar10": 6, "cifar100": 6}.get(config.data.name, config.timesteps)
    # the paper's loss is a sum over the heads where ours is a mean
    options = (
        objective_options("esd")
        | {"factor": float(count_heads(config.model.name))}
        | _ESD_WEIGHTS.get(config.data.name, {})
    )
    return config.model_copy(
        update={
            "gradient": "rate",
            "timesteps": timesteps,
            "model": config.model.model_copy(update={"lif": neuron, "branches": True}),
            "objective": ObjectiveConfig(name="esd", options=options),
        }
    )


def _sm(config: Config) -> Config:
    """Auxiliary heads and the network's own learn from each other (SM, on the branches of ESD)."""
    model = config.model.model_copy(update={"branches": True})
    return with_objective(config, "sm-unofficial").model_copy(update={"model": model})


def _joint(config: Config) -> Config:
    """An ANN is trained beside the network and teaches it (Joint A-SNN)."""
    model = config.model.model_copy(update={"joint": True})
    return with_objective(config, "joint-asnn-unofficial").model_copy(update={"model": model})


def _tdbn(config: Config) -> Config:
    """SCE on a network whose batch-norms start at the threshold of its neurons (tdBN)."""
    return with_objective(config, "sce").model_copy(update={"model": config.model.model_copy(update={"norm": "tdbn"})})


def _dspike(config: Config) -> Config:
    """SCE with the surrogate of Dspike, at one temperature."""
    lif = config.model.lif.model_copy(update={"surrogate": "dspike"})
    return with_objective(config, "sce").model_copy(update={"model": config.model.model_copy(update={"lif": lif})})


_ESD_WEIGHTS: dict[str, dict[str, float | str | bool]] = {"nmnist": {"beta": 0.1}, "image_folder": {"alpha": 0.7}}

# What is more than an objective; every objective is a method too, under its own name.
_OTHER_METHODS: dict[str, Callable[[Config], Config]] = {
    "ann": _ann,
    "dspike": _dspike,
    "esd": _esd,
    "joint-asnn-unofficial": _joint,
    "sltt-k": _sltt_k,
    "sm-unofficial": _sm,
    "tdbn": _tdbn,
    "twsd": _twsd,
    **{name: partial(_under, gradient=name) for name in RULES if name != Config.model_fields["gradient"].default},
}


def list_methods() -> list[str]:
    """Methods that any data set can be combined with."""
    return sorted({*_OTHER_METHODS, *list_objectives()})


def _names() -> list[RecipeName]:
    return [RecipeName(dataset, method) for dataset in usual_settings() for method in list_methods()]


def list_recipes() -> list[str]:
    """Names that `recipe` takes."""
    return [*_names()]


def find_name(text: str) -> RecipeName:
    """The name of a recipe, or of a variant of one, `RECIPE,key=value,flag,...`, with its parts.

    Recipes are known, so their names may hold any sign. A text that begins with no recipe has the parts that
    `RecipeName.parse` finds.
    """
    begins = [known for known in _names() if f"{text},".startswith(f"{known},")]
    if not begins:
        return RecipeName.parse(text)
    longest = max(begins, key=len)
    changes = text.removeprefix(longest)[1:]
    return RecipeName(longest.dataset, longest.method, changes.split(",") if text != longest else ())


def recipe(name: str, protocol: str | None = None) -> Config:
    """The configuration of a named experiment.

    Args:
        name: `<dataset>-<method>`, such as "digits-twsd"; see `list_recipes()`.
        protocol: "esd", "s2w", "tser-unofficial" or "twkd": the paper whose settings replace those of the data set.

    Raises:
        UserError: where there is no such recipe or protocol, or the protocol does not fit the recipe.
    """
    named = next((known for known in _names() if known == name), None)
    if named is None:
        close = difflib.get_close_matches(name, list_recipes(), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "spikedistill list recipes names them all"
        raise UserError(f"no recipe is called {name!r}: {hint}")
    config, method = _usual(named.dataset), named.method
    config = _OTHER_METHODS[method](config) if method in _OTHER_METHODS else with_objective(config, method)
    config = config.model_copy(update={"recipe": named})
    return config if protocol is None else with_protocol(config, protocol)
