"""`--protocol NAME`: a paper's settings on top of a recipe, and the settings in which a run departs from them."""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from ..config import Config
from ..data import DATASETS, list_datasets
from ..errors import UserError
from ..models import count_heads, has_stages, list_models
from ..through_time import RULES
from .papers import OF_DISTILLATION, Protocol
from .transformer_papers import TRANSFORMERS

PROTOCOLS: dict[str, dict[str, Protocol]] = OF_DISTILLATION | TRANSFORMERS
"""Settings of papers by name, and by data set."""

# Data sets of a paper's settings that have another name here. Settings for event data apply to all event data without its own.
_NAMES = {
    "image_folder": "imagenet",
    **dict.fromkeys(("nmnist", "event_frames", "event_folder", "ncaltech101", "dvs_gesture"), "cifar10-dvs"),
}

# Settings that define a method, so that no protocol changes them.
_OF_METHOD = {"tdbn": ("model.norm",), "dspike": ("model.lif.surrogate",)}


def with_protocol(config: Config, name: str) -> Config:
    """The configuration with a paper's settings; the objective and the gradient rule stay as they are.

    For an ANN, such as that of the recipe cifar100-ann, the settings are those of the paper's teacher; if the paper has
    none, those of its network, without the settings of neurons.

    Args:
        config: of a recipe.
        name: one of `PROTOCOLS`.

    Raises:
        UserError: if there is no such protocol, or the paper has no settings for the data set or the teacher.
    """
    return with_settings(config, _settings_for(config, find_protocol(config, name)) | {"protocol": name})


def find_protocol(config: Config, name: str) -> Protocol:
    """The paper's settings on the configuration's data set.

    Raises:
        UserError: if there is no such protocol, or the paper has no settings for the data set.
    """
    if name not in PROTOCOLS:
        close = difflib.get_close_matches(name, PROTOCOLS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(f"no protocol is called {name!r}: {hint}choose one of {', '.join(PROTOCOLS)}")
    dataset = config.data.name
    found = _of(PROTOCOLS[name], dataset)
    if found is None:
        known = [each for each in list_datasets() if _of(PROTOCOLS[name], each) is not None]
        raise UserError(f"--protocol {name} has no settings for {dataset}, only for {', '.join(known)}: leave it out")
    if found.teacher is None and config.model.neuron == "relu":
        raise UserError(
            f"--protocol {name} trains no ANN on {found.dataset}, because its authors took a trained one: leave it out, or pass "
            "such weights to the student, --teacher FILE.safetensors --teacher-model NAME"
        )
    return found


def _of(paper: Mapping[str, Protocol], dataset: str) -> Protocol | None:
    return paper.get(dataset) or paper.get(_NAMES.get(dataset, ""))


def _settings_for(config: Config, protocol: Protocol) -> dict[str, Any]:
    """The protocol's values for the configuration's method, by the full names of settings."""
    kept = {*_OF_METHOD.get(config.recipe.method, ()), *(f"model.lif.{name}" for name in RULES[config.gradient].unused)}
    settings = {key: value for key, value in protocol.settings.items() if key not in kept}
    if config.gradient != "rate":
        settings["gradient_scale"] = "1"  # ESD and RateBP scale rate-based gradients only
    if "slicing" not in DATASETS[config.data.name].options:
        settings.pop("data.slicing", None)  # its events come as frames
    of_neurons = {key: settings.pop(key) for key in [*settings] if key.startswith(_NEURONS)}
    if config.model.neuron == "lif":
        settings |= of_neurons
    elif config.model.neuron == "relu":
        settings |= {"timesteps": 1, **(protocol.teacher or {})}
    else:
        named = {key.removeprefix(_NEURONS): value for key, value in of_neurons.items()}
        taken = {name: value for name, value in named.items() if name in config.model.neuron_options}
        settings |= {f"model.neuron_options.{name}": value for name, value in taken.items()}
    options = _factor_of_heads(config, settings) | protocol.options.get(config.objective.name, {})
    return settings | {f"objective.options.{key}": value for key, value in options.items()}


_NEURONS = "model.lif."


def _factor_of_heads(config: Config, settings: Mapping[str, Any]) -> dict[str, float]:
    """The factor of `esd`, if it is the number of heads, for the network of the settings."""
    options, name = config.objective.options, settings.get("model.name", config.model.name)
    if config.objective.name != "esd" or options.get("reduction") != "mean" or config.model.branch_count is not None:
        return {}
    known = [each for each in (config.model.name, name) if each in list_models() and has_stages(each)]
    if len(known) < 2 or options.get("factor") not in {float(count_heads(each)) for each in known}:
        return {}
    return {"factor": float(count_heads(name))}


def _not_taken(config: Config, protocol: Protocol) -> list[str]:
    """What the protocol says of neurons that the run's registered neurons have no option for, in a sentence."""
    neuron = config.model.neuron
    if neuron in ("lif", "relu"):
        return []
    names = [key.removeprefix(_NEURONS) for key in protocol.settings if key.startswith(_NEURONS)]
    missing = [name for name in names if name not in config.model.neuron_options]
    return [f"the neurons {neuron} have no {', '.join(missing)}"] if missing else []


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """The configuration with some values changed, by the full names of settings.

    Raises:
        UserError: for a value that is refused.
    """
    changed = _with(config, settings)
    assert isinstance(changed, Config)
    return changed


def _with(section: BaseModel, settings: Mapping[str, Any]) -> BaseModel:
    """A section of the configuration with some values changed, those of inner sections by dotted names."""
    changes: dict[str, Any] = {key: value for key, value in settings.items() if "." not in key}
    for name in dict.fromkeys(key.partition(".")[0] for key in settings if "." in key):
        inner = {key.partition(".")[2]: value for key, value in settings.items() if key.partition(".")[0] == name}
        before = getattr(section, name)
        changes[name] = {**before, **inner} if isinstance(before, dict) else _with(before, inner)
    return section.model_copy(update=changes)


def departures(config: Config) -> list[str]:
    """Flags of the settings in which a run departs from the protocol it names, each with the protocol's value behind it.

    Raises:
        UserError: if the protocol does not fit.
    """
    if config.protocol is None:
        return []
    protocol, found = find_protocol(config, config.protocol), []
    for key, expected in _settings_for(config, protocol).items():
        value: Any = config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else getattr(value, name)
        if value != expected and value not in protocol.also.get(key, ()):
            found.append(f"{_flag(key, value)} (protocol: {_text(expected)})")
    return found


def protocol_line(config: Config) -> str:
    """One line on how a run and this library depart from the run's protocol, and on what is unknown of the protocol.

    Raises:
        UserError: if the run names no protocol, or one that does not fit.
    """
    if config.protocol is None:
        raise UserError(f"{config.recipe} follows no protocol: expected one of {', '.join(PROTOCOLS)}")
    protocol, deviations = find_protocol(config, config.protocol), departures(config)
    said = [f"deviations: {', '.join(deviations)}" if deviations else "no deviations"]
    differs = (*protocol.differs, *_not_taken(config, protocol))
    for title, sentences in (("different here", differs), ("unknown", protocol.unknown)):
        numbered = [f"({k}) {sentence}" for k, sentence in enumerate(sentences, 1)]
        said += [f"{title}: {' '.join(numbered)}"] if sentences else []
    return f"protocol {config.protocol}, settings of {protocol.dataset}; {'; '.join(said)}"


def _flag(key: str, value: Any) -> str:
    """A setting as a flag of the command line."""
    *sections, name = key.replace("_", "-").split(".") if not key.startswith("objective.options") else key.split(".")
    if isinstance(value, bool):
        return "--" + ".".join([*sections, name if value else f"no-{name}"])
    return f"--{'.'.join([*sections, name])} {_text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
