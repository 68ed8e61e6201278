"""What `train` was given from Python: a network, a data set, a teacher; what the configuration records of them."""

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..config import Config, DataConfig, ModelConfig
from ..data import Dataset, as_dataset, as_network_input, data_path
from ..errors import UserError
from ..from_python import check_given, import_path, short_name
from ..models import Branched, Joint, normalised, plain_module
from ..neurons import SpikingNeuron
from ..objectives import create_objective
from ..recipe_name import RecipeName
from ..seeds import derive_seed
from ..through_time import Rule, Temporal, rule_of
from .combinations import gradient_rule

ModelLike: TypeAlias = nn.Module | Callable[[], nn.Module]
TeacherLike: TypeAlias = nn.Module | Callable[[Tensor], Tensor] | Path | str

# Settings of `config.model` that are derived from a network from Python. A recipe may set other values; it sets `branches` for
# its objective.
_REPLACED = ("name", "neuron", "branches")
# Settings of `config.data` that shape the samples of a data set that is loaded by name.
_OF_LOADING = ("root", "size", "resize", "channels", "test_share", "slicing", "options")


@dataclass(frozen=True)
class Given:
    """What came from Python, checked; None for parts that the configuration names.

    Attributes:
        model: the network.
        data: the data set.
        teacher: a module or a function from images in [0, 1] to logits.
    """

    model: "GivenNetwork | None" = None
    data: Dataset | None = None
    teacher: nn.Module | Callable[[Tensor], Tensor] | None = None

    @property
    def paths(self) -> dict[str, str | None]:
        """What is recorded for each argument of `train`; None for those that were not given."""
        teacher = plain_module(self.teacher) if isinstance(self.teacher, nn.Module) else self.teacher
        return {
            "model": None if self.model is None else self.model.path,
            "data": None if self.data is None else data_path(self.data),
            "teacher": None if teacher is None else import_path(teacher),
        }


class GivenNetwork:
    """A network from Python. Every call of `build` makes an untrained one that shares nothing with the others.

    Args:
        given: a module, of which copies are trained, or a class or function that makes one without arguments.
        seed: the seed of the run: it is set before a class or function is called.

    Attributes:
        path: the import path of the plain module's class.
        spikes: whether there are spiking neurons in it.
        heads: the layers with auxiliary heads of a `Branched` network; None of another.
        rule: the gradient rule of a network over time; None of a plain module.

    Raises:
        UserError: if it is no network, or cannot be trained.
    """

    def __init__(self, given: ModelLike, seed: int) -> None:
        self._given = given
        self._seed = seed
        network = self._make()
        plain = plain_module(network)
        self.path = import_path(plain)
        self.spikes = any(isinstance(module, SpikingNeuron) for module in plain.modules())
        self.heads = network.layers if isinstance(network, Branched) else None
        self.rule = network.rule if isinstance(network, Temporal) else None
        self._check(network)

    def _make(self) -> nn.Module:
        if isinstance(self._given, nn.Module):
            try:
                return copy.deepcopy(self._given)
            except RuntimeError as error:
                raise UserError(
                    f"the model {import_path(self._given)} cannot be copied ({error}): give a function that makes it"
                ) from error
        if not callable(self._given):
            raise UserError(
                f"model is a {type(self._given).__name__}, expected a torch.nn.Module, or a class or function that makes one"
            )
        try:
            inspect.signature(self._given).bind()
        except (TypeError, ValueError) as error:
            raise UserError(
                f"the model {import_path(self._given)} cannot be made without arguments ({error}): give an instance, or "
                "functools.partial(...) with them"
            ) from None
        torch.manual_seed(derive_seed(self._seed))
        made = self._given()
        if not isinstance(made, nn.Module):
            raise UserError(f"{import_path(self._given)} returned a {type(made).__name__}, expected a torch.nn.Module")
        return made

    def _check(self, network: nn.Module) -> None:
        if isinstance(network, Joint):
            raise UserError("a joint network is made by --model.joint: leave model out, or give a plain one")
        parameters = list(network.parameters())
        if not any(parameter.requires_grad for parameter in parameters):
            said = "has no parameters" if not parameters else "has only frozen parameters (requires_grad is False)"
            raise UserError(f"the model {self.path} {said}, expected some to train")
        modes = {module.training for module in network.modules()}
        if len(modes) > 1:
            resting = next(name for name, module in network.named_modules() if not module.training)
            raise UserError(
                f"layer {resting!r} of the model {self.path} is in eval mode and others are not: call model.train(), or freeze the "
                "weights of that layer instead"
            )

    def build(self, rule: Rule, dataset: Dataset) -> Temporal:
        """The network over time with that gradient rule, behind the normalisation of the images, if it has none of its own."""
        network = self._make()
        over_time = network if isinstance(network, Temporal) else None
        bare = network if over_time is None else over_time.module
        module = normalised(bare, dataset.mean, dataset.std) if dataset.kind == "image" else bare
        prefix = "" if module is bare else "network."
        axes = ", ".join(map(str, (dataset.channels, *dataset.size)))
        made = Temporal(module, rule, axes).cpu().train()
        if not isinstance(over_time, Branched):
            return made
        heads = {prefix + layer: head for layer, head in zip(over_time.layers, over_time.branches, strict=True)}
        return Branched(made, heads).cpu().train()

    def bare(self) -> nn.Module:
        """A network to fill with trained weights."""
        network = self._make()
        return network.module if isinstance(network, Temporal) else network


def with_given(
    config: Config, model: ModelLike | None = None, data: Any = None, teacher: TeacherLike | None = None
) -> tuple[Config, Given]:
    """The configuration with what came from Python in it, and what came, checked.

    Raises:
        UserError: for an argument of the wrong type, one that does not fit the configuration, or one that differs from what the
            configuration recorded.
    """
    if isinstance(teacher, Path | str):
        if config.teacher is not None and Path(config.teacher) != Path(teacher):
            raise UserError(f"teacher is {teacher}, and config.teacher is {config.teacher}: give one of them")
        config, teacher = config.model_copy(update={"teacher": Path(teacher)}), None
    if teacher is not None and config.teacher is not None:
        raise UserError(f"teacher came from Python, and config.teacher is {config.teacher}: give one of them")
    if teacher is not None and not callable(teacher):
        raise UserError(
            f"teacher is a {type(teacher).__name__}, expected a torch.nn.Module, a function from images to logits, a run or a file"
        )
    given = Given(
        None if model is None else GivenNetwork(model, config.seed), None if data is None else as_dataset(data), teacher
    )
    if given.model is not None:
        config = config.model_copy(update={"model": _model_settings(config, given.model)})
    if given.data is not None:
        config = _with_data(config, given.data)
    paths = {role: path for role, path in given.paths.items() if path is not None}
    check_given(config.from_python, paths, "train(config")
    recorded = paths | config.from_python  # for a resumed run this is the same record
    return config.model_copy(update={"from_python": recorded}), given


def _model_settings(config: Config, network: GivenNetwork) -> ModelConfig:
    """The settings of the model that are recorded for a network from Python.

    Raises:
        UserError: for settings that such a network does not take, or a network that does not fit the other settings.
    """
    default = ModelConfig()
    over_heads = create_objective(config.objective.name, **config.objective.options).submodels == "heads"
    replaced = _REPLACED if over_heads or network.heads is not None else _REPLACED[:-1]
    ignored = [name for name, value in config.model if value != getattr(default, name) and name not in replaced]
    if ignored:
        raise UserError(
            f"{' and '.join(f'model.{name}' for name in ignored)} would have no effect on the model {network.path}, which came "
            "from Python: leave them at their defaults"
        )
    if network.rule not in (None, rule_of("bptt"), gradient_rule(config)):
        raise UserError(
            f"the model already runs over time with {network.rule}, and the configuration has gradient {config.gradient!r}: give "
            "the plain module"
        )
    if not network.spikes and config.timesteps > 1:
        raise UserError(
            f"the model {network.path} has no spiking neurons, so all of {config.timesteps} timesteps would be the same: put LIF "
            "between its layers, or set timesteps=1 to train it as an ANN"
        )
    if network.spikes and config.model.neuron == "relu":
        raise UserError(
            f"the model {network.path} has spiking neurons, and {config.recipe} trains an ANN (model.neuron is 'relu'): use "
            "another recipe"
        )
    if over_heads and network.heads is None:
        raise UserError(
            f"objective {config.objective.name!r} needs auxiliary heads, and the model {network.path} has none: give "
            "spikedistill.models.Branched(temporal(net), {layer: head})"
        )
    if network.heads is not None and not over_heads:
        raise UserError(
            f"objective {config.objective.name!r} does not train auxiliary heads, so they would learn nothing: give "
            "the network without Branched, or use objective 'esd'"
        )
    return default.model_copy(
        update={
            "name": short_name(network.path),
            "neuron": "lif" if network.spikes else "relu",
            "branches": network.heads is not None,
        }
    )


def _with_data(config: Config, dataset: Dataset) -> Config:
    """The configuration with the name of a data set from Python, also in the name of its recipe.

    Raises:
        UserError: for settings that such a data set does not take.
    """
    default = DataConfig()
    ignored = [name for name, value in config.data if name in _OF_LOADING and value != getattr(default, name)]
    if ignored:
        raise UserError(
            f"{' and '.join(f'data.{name}' for name in ignored)} would have no effect on data from Python: leave them at their "
            "defaults"
        )
    recipe = config.recipe
    if recipe.method and recipe.dataset == config.data.name:
        recipe = RecipeName(dataset.name, recipe.method, recipe.changes)
    data = config.data.model_copy(update={"name": dataset.name})
    return config.model_copy(update={"data": data, "recipe": recipe})


def check_frames(dataset: Dataset, timesteps: int) -> None:
    """Refuse event frames of another number than the timesteps of the run.

    Raises:
        UserError: naming both.
    """
    if dataset.kind != "events":
        return
    frames = dataset.train.inputs(torch.zeros(1, dtype=torch.int64)).shape[1]
    if frames != timesteps:
        raise UserError(
            f"the recordings of {dataset.name} have {frames} frames, and the run has {timesteps} timesteps: set timesteps={frames}"
        )


@torch.no_grad()
def try_network(network: Temporal, path: str, dataset: Dataset, timesteps: int) -> None:
    """Run a network from Python on one sample.

    Raises:
        UserError: if the network does not accept the sample, or returns anything but logits of the classes.
    """
    first = dataset.train.inputs(torch.zeros(1, dtype=torch.int64))
    x, T = as_network_input(first, dataset.kind), None if dataset.kind == "events" else timesteps
    with torch.random.fork_rng(devices=[]):
        try:
            logits = network.eval()(x, T)
        except UserError:
            raise
        except (RuntimeError, ValueError) as error:
            shape = ", ".join(map(str, (1, dataset.channels, *dataset.size)))
            said = " ".join(str(error).split())[:200]
            raise UserError(
                f"the model {path} fails on a sample [{shape}] of {dataset.name} ({said}): expected a network for such inputs"
            ) from error
    expected = [timesteps, 1, len(dataset.classes)]
    shape_of: Sequence[int] | None = list(logits.shape) if isinstance(logits, Tensor) else None
    if shape_of != expected:
        got = f"a {type(logits).__name__}" if shape_of is None else f"outputs {shape_of[1:]}"
        raise UserError(
            f"the model {path} returns {got} for one sample, expected logits [1, {len(dataset.classes)}], one for each class of "
            f"{dataset.name}"
        )
