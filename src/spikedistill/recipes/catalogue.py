"""Named experiments, `<dataset>-<method>`: a data set's usual network and schedule, with the objective of the method."""

import difflib
import inspect
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, overload

from ..config import Config, ModelConfig, NeuronConfig, ObjectiveConfig
from ..data import DATASETS, dataset_options, usual_settings
from ..errors import UserError
from ..models import count_heads, has_stages, list_models, model_options, takes_neuron
from ..neurons import neuron_options
from ..objectives import OBJECTIVES, describe_objective, list_objectives, objective_options
from ..recipe_name import RecipeName
from ..registry import Registry
from ..through_time import RULES
from .protocols import with_protocol, with_settings

_Recipe = TypeVar("_Recipe", bound=Callable[..., Config])


def usual_config(dataset: str) -> Config:
    """A data set's usual network and schedule."""
    config = with_dataset(Config(recipe=RecipeName(dataset)), dataset)
    return with_settings(config, usual_settings(dataset) or {})


def with_dataset(config: Config, name: str) -> Config:
    """The configuration with another data set, at its own default options.

    Raises:
        UserError: for an unknown name.
    """
    data = config.data.model_copy(update={"name": name, "options": dataset_options(name)})
    return config.model_copy(update={"data": data})


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
    """The configuration with another network; if the factor of `esd` is the number of heads, it follows the new network."""
    objective, options = config.objective, config.objective.options
    before, now = (count_heads(each) if _has_stages(each) else None for each in (config.model.name, name))
    if objective.name == "esd" and options.get("reduction") == "mean" and options.get("factor") == before and now:
        objective = objective.model_copy(update={"options": {**options, "factor": float(now)}})
    changes: dict[str, Any] = {"name": name, "options": {}}
    if name in list_models() and not has_stages(name):
        changes |= {"options": model_options(name), **_without_usual(config, name)}
    model = config.model.model_copy(update=changes)
    return config.model_copy(update={"model": model, "objective": objective})


def _without_usual(config: Config, name: str) -> dict[str, Any]:
    """The defaults of settings that a registered network does not take, if they are those of the data set and not of the method."""
    usual = usual_config(config.data.name).model if config.data.name in DATASETS else ModelConfig()
    refused = ["width", "norm", *([] if takes_neuron(name) else ["lif"])]
    default = ModelConfig()
    same = [setting for setting in refused if getattr(config.model, setting) == getattr(usual, setting)]
    return {setting: getattr(default, setting) for setting in same}


def _has_stages(name: str) -> bool:
    return name in list_models() and has_stages(name)


def _ann(config: Config) -> Config:
    """The ReLU twin of the network: an ordinary ANN, which can be a teacher."""
    return with_objective(config, "sce").model_copy(update={"model": config.model.as_ann(), "timesteps": 1})


def _under(config: Config, gradient: str) -> Config:
    """SCE under a gradient rule."""
    return with_objective(config, "sce").model_copy(update={"gradient": gradient})


def _sltt_k(config: Config) -> Config:
    """Random timesteps are trained, on gradients without the membrane's path through time (SLTT-K)."""
    return with_objective(config, "sltt-k").model_copy(update={"gradient": "sltt"})


def _twsd(config: Config) -> Config:
    """Every timestep is trained on the labels and on the ensemble of all timesteps."""
    return with_objective(config, "twce-twsd")


def _twce_nir(config: Config) -> Config:
    """Every timestep is trained on the labels, with neurons that NIR can hold: a hard reset to zero."""
    taught = with_objective(config, "twce")
    lif = taught.model.lif.model_copy(update={"v_reset": 0.0})
    return taught.model_copy(update={"model": taught.model.model_copy(update={"lif": lif})})


def _esd(config: Config) -> Config:
    """Auxiliary heads teach each other on rate-based gradients (ESD), with the paper's weighting for this kind of data."""
    neuron = config.model.lif.model_copy(update={"decay": 0.2, "detach_reset": True})
    timesteps = {"cifar10": 6, "cifar100": 6}.get(config.data.name, config.timesteps)
    # the paper's loss is a sum over the heads, ours is a mean
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


def _mps(config: Config) -> Config:
    """Every timestep learns from the one before, with neurons whose membranes are smoothed over time (MPS)."""
    lif = config.model.lif
    smoothed = with_neuron(with_objective(config, "mps-guidance"), "smoothed-lif")
    options = smoothed.model.neuron_options | {
        "decay": lif.decay,
        "threshold": lif.threshold,
        "surrogate": lif.surrogate,
    }
    return smoothed.model_copy(update={"model": smoothed.model.model_copy(update={"neuron_options": options})})


def _mtt_global(config: Config) -> Config:
    """SCE on three numbers of timesteps for every batch, drawn from 1 to T (MTT, in its global form)."""
    return with_objective(config, "sce").model_copy(update={"timestep_draws": 3})


def _mtt(config: Config) -> Config:
    """SCE three times for every batch, each time with numbers of timesteps for every stage that are drawn from 1 to T (MTT)."""
    return _mtt_global(config).model_copy(update={"timestep_draws_of": "stages"})


def _trt(config: Config) -> Config:
    """Every timestep is trained on the labels, with weight decay that fades over the timesteps (TRT); event data have weights of
    their own."""
    options = objective_options("trt") | (_TRT_WEIGHTS_OF_EVENTS if config.data.name in _EVENTS else {})
    return config.model_copy(update={"objective": ObjectiveConfig(name="trt", options=options)})


def _sm(config: Config) -> Config:
    """The auxiliary heads and the network's main head teach each other (SM, on the branches of ESD)."""
    model = config.model.model_copy(update={"branches": True})
    return with_objective(config, "sm-unofficial").model_copy(update={"model": model})


def _joint(config: Config) -> Config:
    """An ANN is trained alongside the network and teaches it (Joint A-SNN)."""
    model = config.model.model_copy(update={"joint": True})
    return with_objective(config, "joint-asnn-unofficial").model_copy(update={"model": model})


def _tdbn(config: Config) -> Config:
    """SCE on a network whose batch-norm weights are initialised to the firing threshold (tdBN)."""
    return with_objective(config, "sce").model_copy(update={"model": config.model.model_copy(update={"norm": "tdbn"})})


def _dspike(config: Config) -> Config:
    """SCE with the surrogate of Dspike, at one temperature."""
    lif = config.model.lif.model_copy(update={"surrogate": "dspike"})
    return with_objective(config, "sce").model_copy(update={"model": config.model.model_copy(update={"lif": lif})})


def _s2w_rat(config: Config) -> Config:
    """S2W on images that an attack has changed, with weights kept near orthogonality (RAT); on CIFAR as in the paper's section on
    robustness."""
    taught = with_objective(config, "s2w")
    attack = {"adversarial": "pgd", "adversarial_eps": 2.0, "adversarial_step": 1.0, "adversarial_steps": 2}
    lif = config.model.lif.model_copy(update={"decay": 1.0, "v_reset": 0.0, "surrogate": "triangular"})
    changes: dict[str, Any] = {
        "objective": taught.objective.model_copy(update=attack),
        "optimizer": config.optimizer.model_copy(update={"orthogonal": 1e-3}),
        "model": config.model.model_copy(update={"lif": lif}),
    }
    if config.data.name in ("cifar10", "cifar100"):
        changes["model"] = changes["model"].model_copy(update={"name": "vgg11_fc"})
        changes["optimizer"] = changes["optimizer"].model_copy(update={"decayed": "all"})
        changes["data"] = config.data.model_copy(update={"batch_size": 256, "augment": ("crop", "flip")})
        changes |= {"timesteps": 8, "epochs": 300}
    return taught.model_copy(update=changes)


_EVENTS = ("nmnist", "cifar10_dvs", "dvs_gesture", "ncaltech101", "event_folder", "event_frames")
_TRT_WEIGHTS_OF_EVENTS = {"eta": 0.001, "lam": 5e-5, "delta": 0.5}
_ESD_WEIGHTS: dict[str, dict[str, float | str | bool]] = {
    **{name: {"beta": 0.1} for name in _EVENTS},
    "image_folder": {"alpha": 0.7},
    "imagenet": {"alpha": 0.7},
}

# Methods that are more than an objective; every objective is a method too, under its own name.
METHODS: Registry[Callable[[Config], Config]] = Registry("method", "spikedistill.methods")
# Recipes that are not a data set with a method.
RECIPES: Registry[Callable[[], Config]] = Registry("recipe", "spikedistill.recipes")

_OURS: dict[str, Callable[[Config], Config]] = {
    "ann": _ann,
    "dspike": _dspike,
    "esd": _esd,
    "joint-asnn-unofficial": _joint,
    "mps-unofficial": _mps,
    "mtt": _mtt,
    "mtt-global": _mtt_global,
    "s2w-rat": _s2w_rat,
    "sltt-k": _sltt_k,
    "sm-unofficial": _sm,
    "tdbn": _tdbn,
    "trt": _trt,
    "twce-nir": _twce_nir,
    "twsd": _twsd,
    **{name: partial(_under, gradient=name) for name in RULES if name != Config.model_fields["gradient"].default},
}
for _name, _method in _OURS.items():
    METHODS.register(_name, _method)


@overload
def register_recipe(function: _Recipe) -> _Recipe: ...


@overload
def register_recipe(function: str) -> Callable[[_Recipe], _Recipe]: ...


def register_recipe(function: _Recipe | str) -> _Recipe | Callable[[_Recipe], _Recipe]:
    """Register a recipe or a method.

    Use it as a decorator, `@register_recipe("garden-quick")`, or `@register_recipe` for the name of the function with hyphens for
    underscores.

    A function with one parameter is a method for every data set: it gets the data set's usual `Config` and returns another, as in
    `return with_objective(config, "twce")`. A function without parameters is one recipe, and returns its `Config`.

    Raises:
        UserError: if the name is that of another recipe, method or objective, or the function has more parameters.
    """
    if isinstance(function, str):
        return partial(_enter, function)
    return _enter(function.__name__.replace("_", "-"), function)


def _enter(name: str, function: _Recipe) -> _Recipe:
    parameters = len(inspect.signature(function).parameters)
    if parameters > 1:
        raise UserError(
            f"the recipe {name!r} has {parameters} parameters, expected none, or a Config for a method of every data set"
        )
    if taken := [kind for kind, names in _TAKEN[bool(parameters)].items() if name in names()]:
        raise UserError(f"{name!r} is the name of a {taken[0]} already: choose another name")
    if parameters:
        METHODS.register(name, function)
    else:
        RECIPES.register(name, function)
    return function


def list_methods() -> list[str]:
    """Methods that any data set can be combined with."""
    return sorted({*METHODS, *list_objectives()})


# Names that recipes and methods must not have.
_TAKEN: dict[bool, dict[str, Callable[[], Sequence[str]]]] = {
    False: {"recipe": lambda: _names()},
    True: {"method": list_methods},
}


def describe_method(name: str) -> str:
    """What a method trains, in a sentence, then the rest of its docstring.

    Raises:
        UserError: if no method has this name.
    """
    if name in RULES:
        return f"The usual loss, `sce`, with the gradient rule `{name}`.\n\n{inspect.getdoc(RULES[name]) or ''}"
    return inspect.getdoc(METHODS[name]) or "" if name in METHODS else describe_objective(name)


def _names() -> list[RecipeName]:
    """The names of all recipes. Packages are not imported for that, so all data sets that they declare count as having recipes."""
    without = {name for name, entry in DATASETS.registered().items() if entry.usual is None}
    methods = list_methods()
    combined = [RecipeName(dataset, method) for dataset in DATASETS if dataset not in without for method in methods]
    return [*combined, *(RecipeName.parse(name) for name in RECIPES)]


def list_recipes() -> list[str]:
    """Names that `recipe` takes."""
    return [*_names()]


def find_name(text: str) -> RecipeName:
    """The name of a recipe, or of a variant of one, `RECIPE,key=value,flag,...`, with its parts. `\\,` is a comma within a value.

    The names of known recipes may hold any character. A text that does not begin with a recipe is split by
    `RecipeName.parse`.
    """
    begins = [known for known in _names() if f"{text},".startswith(f"{known},")]
    if not begins:
        return RecipeName.parse(text)
    longest = max(begins, key=len)
    if text == longest:
        return longest
    changes = re.split(r"(?<!\\),", text.removeprefix(longest)[1:])
    return RecipeName(longest.dataset, longest.method, [change.replace("\\,", ",") for change in changes])


def recipe(name: str, protocol: str | None = None) -> Config:
    """The configuration of a named experiment.

    Args:
        name: `<dataset>-<method>`, such as "digits-twsd"; see `list_recipes()`.
        protocol: one of `PROTOCOLS`, such as "twkd": the paper whose settings replace those of the data set.

    Raises:
        UserError: if there is no such recipe or protocol, or the protocol does not fit the recipe.
    """
    known = [each for each in _names() if each == name]
    if len(known) > 1:
        pairs = " and ".join(f"{each.dataset!r} with the method {each.method!r}" for each in known)
        raise UserError(
            f"{name!r} is the name of several recipes, of the data sets {pairs}: rename your data set or method"
        )
    named = known[0] if known else None
    if named is None:
        close = difflib.get_close_matches(name, list_recipes(), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "spikedistill list recipes names them all"
        raise UserError(f"no recipe is called {name!r}: {hint}")
    if name in RECIPES:
        config = _config_of(name, RECIPES[name]())
    else:
        config, method = usual_config(named.dataset), named.method
        if method in METHODS and (origin := OBJECTIVES.origin(method)):
            raise UserError(f"the objective {method!r} of {origin} has the name of a method: give it another name")
        made = METHODS[method](config) if method in METHODS else with_objective(config, method)
        config = _config_of(method, made)
    config = config.model_copy(update={"recipe": named})
    return config if protocol is None else with_protocol(config, protocol)


def _config_of(name: str, made: Any) -> Config:
    """The configuration that a user's recipe or method returned.

    Raises:
        UserError: if it returned anything else.
    """
    if not isinstance(made, Config):
        raise UserError(f"{name!r} returned a {type(made).__name__}, expected a spikedistill.Config")
    return made
