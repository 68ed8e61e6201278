"""The output of `spikedistill list`: names by kind on one screen, and an explanation of each."""

import inspect
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

import torch

from ..data import DATASETS
from ..models import MODELS, create_model
from ..neurons.registry import NEURONS
from ..neurons.surrogate import SURROGATES
from ..objectives import describe_objective
from ..objectives.registry import OBJECTIVES
from ..recipes import describe_method, list_methods
from ..recipes.catalogue import METHODS, RECIPES
from ..registry import Registry

WIDTH = 80


def overview() -> list[str]:
    """Every kind with its names, on one screen."""
    methods = list_methods()
    lines = [
        *_wrapped(f"A recipe is <data set>-<method>, such as digits-twsd: any of {len(DATASETS)} x {len(methods)}."),
        "",
        *_names("data sets", list(DATASETS), DATASETS),
        *_names("methods", methods, METHODS, OBJECTIVES),
        *_names("models", list(MODELS), MODELS),
        *_names("neurons", list(NEURONS), NEURONS),
        *_names("surrogates", list(SURROGATES), SURROGATES),
    ]
    if any(line.endswith("*") or "*," in line for line in lines):
        lines.append("*: registered by you, or by an installed package")
    return [*lines, "", *_wrapped("Explained: spikedistill list recipes, methods, models, objectives or data.")]


def recipes() -> list[str]:
    """The form of a recipe's name, and its parts."""
    lines = [
        *_wrapped(
            "A recipe is <data set>-<method>. The data set brings its usual network and schedule. The method says how the network "
            "is trained. Every data set goes with every method, and every setting can be changed:"
        ),
        "",
        "  spikedistill train digits-twsd",
        "  spikedistill train digits-twsd --epochs 5 --model.width 0.5",
        "  spikedistill compare --recipes digits-sce digits-twsd --out runs/first",
        "",
        *_names("data sets", list(DATASETS), DATASETS),
        *(_names("recipes of their own", list(RECIPES), RECIPES) if RECIPES else []),
        f"methods ({len(list_methods())})",
    ]
    return [*lines, *(f"  {line}" for line in methods(WIDTH - 2))]


def methods(width: int = WIDTH) -> list[str]:
    """Every method with a sentence."""

    def explain(name: str) -> str:
        return _explain(name, METHODS if name in METHODS else OBJECTIVES, lambda name: _first(describe_method(name)))

    return _explained([(name, explain(name)) for name in list_methods()], width)


def objectives() -> list[str]:
    """Every objective with a sentence."""
    known = [(name, _explain(name, OBJECTIVES, lambda name: _first(describe_objective(name)))) for name in OBJECTIVES]
    return [*_explained(known), "", "Equations and papers are in the documentation, on the page of methods."]


def models() -> list[str]:
    """Every network with its number of parameters and its use."""
    known = [(name, _explain(name, MODELS, _network)) for name in MODELS]
    return [*_explained(known), "", "M: million parameters, for 10 classes and colour images of 32 x 32."]


def data() -> list[str]:
    """Every data set with a description of its content."""
    known = [(name, _explain(name, DATASETS, _samples)) for name in DATASETS]
    return [*_explained(known), "", "Where files belong: spikedistill data. To check them: spikedistill data NAME."]


LISTS: dict[str, Callable[[], list[str]]] = {
    "all": overview,
    "recipes": recipes,
    "methods": methods,
    "models": models,
    "objectives": objectives,
    "data": data,
}


def _network(model: str) -> str:
    known = MODELS[model]
    words = _first(inspect.getdoc(known.build) or "", equation=False)
    try:
        with torch.device("meta"):  # takes no memory
            network = create_model(model, num_classes=10, in_channels=3, image_size=32)
    except Exception:  # a user's network may refuse images of this size
        return words
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.2f} M. {words}"


def _samples(name: str) -> str:
    entry = DATASETS[name]
    return entry.about or _first(inspect.getdoc(entry.load) or "", equation=False)


def _explain(name: str, registry: Registry[Any], explain: Callable[[str], str]) -> str:
    """The description of a name and its origin; a package is not imported for that."""
    if package := registry.package(name):
        return f"Of the package {package}."
    origin = registry.origin(name)
    return explain(name) + (f" (From {origin}.)" if origin else "")


def _first(text: str, *, equation: bool = True) -> str:
    """The first sentence; the equation behind its colon is left out."""
    sentence = text.partition("\n\n")[0].replace("\n", " ")
    if equation:
        sentence = sentence.partition(": ")[0]
    return f"{sentence.rstrip('.')}." if sentence else ""


def _names(kind: str, names: Iterable[str], *registries: Registry[Any]) -> list[str]:
    """A kind and its names, on one line if they fit; names that are not from this library are marked."""

    def marked(name: str) -> str:
        others = any(registry.package(name) or registry.origin(name) for registry in registries)
        return f"{name}*" if others else name

    shown = [marked(name) for name in names]
    heading, listed = f"{kind} ({len(shown)})", ", ".join(shown)
    if len(heading) + 2 + len(listed) <= WIDTH:
        return [f"{heading}  {listed}"]
    return [heading, *(f"  {line}" for line in _wrapped(listed, WIDTH - 2))]


def _explained(pairs: Iterable[tuple[str, str]], width: int = WIDTH) -> list[str]:
    """Names on the left, their descriptions on the right."""
    pairs = list(pairs)
    indent = min(24, max(len(name) for name, _ in pairs)) + 2
    lines = []
    for name, text in pairs:
        first, *rest = _wrapped(text, width - max(indent, len(name) + 2)) or [""]
        lines += [f"{name:{indent - 2}}  {first}", *(" " * indent + line for line in rest)]
    return [line.rstrip() for line in lines]


def _wrapped(text: str, width: int = WIDTH) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)
