"""A configuration made concrete: its data, network and objective, with everything checked that needs more than one of them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import Config, ModelConfig
from ..data import (
    RESIZED_CROP,
    Dataset,
    Samples,
    as_network_input,
    draws_at_random,
    training_indices,
    try_augmentations,
    with_wrong_labels,
)
from ..errors import UserError
from ..from_python import check_given
from ..models import Start, create_model, save_model
from ..neurons import neuron_options
from ..objectives import Objective
from ..run_folder import dataset_of
from ..seeds import derive_seed
from ..through_time import Temporal, mean_rate, synchronise_batch_norm
from ..through_time.features import outputs_of
from .class_weights import class_weights
from .combinations import (
    check_accumulation,
    check_adversarial,
    check_lengths,
    check_mixed_timesteps,
    check_mixing,
    check_together,
    gradient_rule,
    objective_of,
)
from .features import layer_names
from .given import Given, GivenNetwork, ModelLike, TeacherLike, check_frames, try_network, with_given
from .initial import initial_weights, with_membranes
from .inputs import AtHand, inputs_of
from .origins import origins_of_network
from .student import StudentPass
from .teacher import Teacher, load_teacher


@dataclass(frozen=True)
class Plan:
    """What a run trains.

    Attributes:
        config: the configuration.
        dataset: the data set.
        train: the training samples of the run.
        holdout: training samples kept aside; None if there are none.
        augmentations: names for `spikedistill.data.augment`.
        spec: the arguments of `create_model` for the network that is left after training; for a network from Python, its import
            path.
        objective: what is learned.
        teacher: the trained network that teaches; None if the objective needs none.
        layers: channels of the features that are compared with the teacher's, by the name of their layer within the plain module
            of the network.
        class_weights: how much a sample of each class counts in the loss, `[C]`; None if all count the same.
        initial: the weights that training starts from; None if they are drawn.
        given: the network that came from Python; None if `create_model` makes it.
        stages: names of the layers that end the stages, if each has its own number of timesteps.
    """

    config: Config
    dataset: Dataset
    train: Samples
    holdout: Samples | None
    augmentations: tuple[str, ...]
    spec: dict[str, Any]
    objective: Objective
    teacher: Teacher | None
    layers: dict[str, int]
    class_weights: Tensor | None = None
    initial: Start | None = None
    given: GivenNetwork | None = None
    stages: tuple[str, ...] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Plan":
        """The plan itself: it never changes, and averaging weights copies the module that holds it."""
        return self

    def build_network(self) -> Temporal:
        """The untrained network, the same for the same seed; with its auxiliary heads, which `spec` leaves out."""
        torch.manual_seed(derive_seed(self.config.seed))
        network = _made(self.config, self.spec, self.dataset, self.given)
        if self.initial is not None:
            network.module.load_state_dict(self.initial.tensors, strict=False)
        if self.config.trainer.channels_last:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return synchronise_batch_norm(network) if self.config.trainer.sync_batch_norm else network

    def save(self, network: Temporal, path: Path) -> None:
        """Write a model file of the trained network, with what it was trained on."""
        data = self.dataset
        taken, T = data.preprocess.written(), self.config.timesteps
        imports = origins_of_network(self.config.model)
        save_model(network, self.spec, path, classes=data.classes, input=taken, timesteps=T, imports=imports)


def make_plan(
    config: Config, teacher: TeacherLike | None = None, *, model: ModelLike | None = None, data: Any = None
) -> Plan:
    """Load and check what a configuration names, and what came from Python.

    Raises:
        UserError: for parts that do not fit each other or are unknown.
        FileNotFoundError: if the data set is missing.
    """
    return plan_of(*with_given(config, model, data, teacher))


def plan_of(config: Config, given: Given) -> Plan:
    """The plan of what `with_given` returned; see `make_plan`."""
    plan = plan_without_teacher(config, given)
    taught_by = load_teacher(config, plan.objective, plan.dataset, given.teacher)
    layers = {}
    if taught_by is not None and plan.objective.needs_features:
        network = _made(config, plan.spec, plan.dataset, plan.given)
        layers = feature_channels(config, plan.objective, plan.dataset, network, taught_by)
    return replace(plan, teacher=taught_by, layers=layers)


def plan_without_teacher(config: Config, given: Given | None = None) -> Plan:
    """All of a plan except its teacher, checked.

    Raises:
        UserError: for parts that do not fit each other or are unknown.
        FileNotFoundError: if the data set is missing.
    """
    given = given or Given()
    check_given(config.from_python, given.paths, "train(config")
    objective = objective_of(config)
    check_together(config, objective)
    dataset = dataset_of(config) if given.data is None else given.data
    if len(dataset.classes) < 2:
        raise UserError(f"{dataset.name} has one class, expected 2 or more to tell apart")
    if given.data is not None:
        check_frames(dataset, config.timesteps)
    check_lengths(config, dataset)
    check_adversarial(config, dataset)
    check_mixed_timesteps(config, objective, dataset)
    check_mixing(config)
    spec = model_spec(config, dataset) if given.model is None else {"python": given.model.path}
    network = _made(config, spec, dataset, given.model)  # raises an error if settings do not fit
    if given.model is not None:
        try_network(network, given.model.path, dataset, config.timesteps)
    stages = layer_names(network, what="numbers of timesteps change") if config.timestep_draws_of == "stages" else ()
    if stages:
        check_stages(network, stages, dataset)
    train, holdout = training_samples(config, dataset)
    initial = with_membranes(config, network, initial_weights(config, network, spec, dataset), train, dataset)
    check_accumulation(config, len(train))
    augmentations = check_augmentations(config, dataset)
    check_teacher_logits(config, objective, augmentations, train)
    weights = class_weights(config.objective.class_weights, dataset.classes, train.targets)
    return Plan(
        config, dataset, train, holdout, augmentations, spec, objective, None, {}, weights, initial, given.model, stages
    )


def _made(config: Config, spec: dict[str, Any], dataset: Dataset, given: GivenNetwork | None) -> Temporal:
    """The network of a run as it is made: from Python, or by name."""
    if given is not None:
        return given.build(gradient_rule(config), dataset)
    model = config.model
    return create_model(
        **spec,
        branches=model.branches,
        branch_count=model.branch_count,
        joint=model.joint,
        drop_path=model.drop_path,
    )


@torch.no_grad()
def feature_channels(
    config: Config, objective: Objective, dataset: Dataset, network: Temporal, teacher: Teacher
) -> dict[str, int]:
    """Channels of the features that the objective compares, by layer; found on one sample, and compared with the teacher's.

    Raises:
        UserError: for unknown layers, or features of other shapes than the teacher's.
    """
    layers = layer_names(network, objective.layers)
    first = torch.zeros(1, dtype=torch.int64)
    inputs = as_network_input(dataset.train.inputs(first), dataset.kind)
    with outputs_of(network.module, layers) as outputs:
        logits = network.eval()(inputs, timesteps=None if dataset.kind == "events" else config.timesteps)
    features = [mean_rate(outputs[layer]) for layer in layers]
    at = AtHand(
        objective=objective,
        teacher=teacher,
        kind=dataset.kind,
        inputs=inputs,
        target=first,
        submodels=logits,
        features=features,
        transforms=[torch.nn.Identity() for _ in features],
        network=network,
    )
    with torch.random.fork_rng(devices=[]):  # draws must not move the caller's generator
        objective(logits, first, **inputs_of(at))
    return {layer: feature.shape[1] for layer, feature in zip(layers, features, strict=True)}


@torch.no_grad()
def check_stages(network: Temporal, stages: tuple[str, ...], dataset: Dataset) -> None:
    """Refuse stages whose numbers of timesteps cannot differ, by one sample that takes two and three in turn.

    Raises:
        UserError: for unknown layers, stages that are not in the order in which they run, or a layer behind the end of a stage that
            takes something from before it.
    """
    counts = tuple(2 + place % 2 for place in range(len(stages)))  # of one timestep a sum would be broadcast
    inputs = as_network_input(dataset.train.inputs(torch.zeros(1, dtype=torch.int64)), dataset.kind)
    advice = "correct stage_channels, or use --timestep-draws-of network"
    try:
        with outputs_of(network.module, stages) as outputs:
            StudentPass(network.eval(), None, (), stages=stages)(inputs, timesteps=counts)
    except UserError:
        raise
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--timestep-draws-of stages: behind the end of a stage, something from before it is used "
            f"({str(error).splitlines()[0]}): {advice}"
        ) from error
    if [*outputs] != [*stages]:
        raise UserError(
            f"the stages run in the order {', '.join(outputs)}, and are named as {', '.join(stages)}: {advice}"
        )


def check_teacher_logits(config: Config, objective: Objective, augmentations: tuple[str, ...], train: Samples) -> None:
    """Refuse cached logits if there is no teacher, or if they would be of other images than the student's.

    Raises:
        UserError: saying what to leave out.
    """
    if config.teacher_logits == "computed":
        return
    if not objective.needs_teacher:
        raise UserError(f"objective {objective.name!r} learns from no teacher: leave --teacher-logits cached out")
    if objective.needs_features:
        raise UserError(
            f"objective {objective.name!r} learns from features, which come with the logits of every batch: leave "
            "--teacher-logits cached out"
        )
    if draws_at_random(train):
        raise UserError(
            "a transform of the training samples draws at random, and the teacher gets what the student gets: leave "
            "--teacher-logits cached out, or take the transform away"
        )
    if config.objective.adversarial == "pgd":
        raise UserError(
            "an attack changes the images (--objective.adversarial pgd), and the teacher gets the changed ones: leave "
            "--teacher-logits cached out"
        )
    if config.data.mix != "none":
        raise UserError(
            f"images are mixed (--data.mix {config.data.mix}), and the teacher gets the mixed ones: leave --teacher-logits cached "
            "out"
        )
    if augmentations:
        raise UserError(
            f"the training images are augmented at random ({', '.join(augmentations)}), and the teacher gets the same images as "
            "the student: leave --teacher-logits cached out, or --data.augment without names"
        )


def model_spec(config: Config, dataset: Dataset) -> dict[str, Any]:
    """The arguments of `create_model` for this run."""
    model: ModelConfig = config.model
    height, width = dataset.size
    spec: dict[str, Any] = {
        "name": model.name,
        "num_classes": len(dataset.classes),
        "in_channels": dataset.channels,
        "image_size": height if height == width else [height, width],
        **gradient_rule(config).written(),
        "neuron": model.neuron,
        "norm": model.norm,
        "width": model.width,
    }
    if model.norm == "timestep_batch":
        spec["norm_timesteps"] = config.timesteps
    if dataset.kind == "image":
        spec |= {"mean": dataset.mean, "std": dataset.std}
    spec |= model.options
    if model.neuron == "lif":
        spec |= model.lif.model_dump()
    else:
        known = {"timesteps": config.timesteps} if "timesteps" in neuron_options(model.neuron) else {}
        if options := known | model.neuron_options:
            spec["neuron_options"] = options
    return spec


def training_samples(config: Config, dataset: Dataset) -> tuple[Samples, Samples | None]:
    """The samples to train on, and those held out.

    The hold-out is split off first and is the same for every seed and every size of training set.

    Raises:
        UserError: if there are fewer samples than asked for, or the hold-out leaves too few.
    """
    count = config.data.train_samples
    kept, aside = training_indices(dataset.train.targets, config.data.holdout, count)
    if count is not None and len(kept) < count:
        raise UserError(f"data.train_samples is {count}, but {dataset.name} has {len(kept)} training samples")
    holdout = dataset.train.subset(aside) if config.data.holdout else None
    whole = count is None and holdout is None
    train = dataset.train if whole else dataset.train.subset(kept)
    noise = config.data.label_noise
    return (with_wrong_labels(train, noise, len(dataset.classes)) if noise else train), holdout


def check_augmentations(config: Config, dataset: Dataset) -> tuple[str, ...]:
    """The augmentations of the training batches, tried on a few samples.

    Raises:
        UserError: for an unknown augmentation, or one that does not fit the data.
    """
    names = dataset.augmentations if config.data.augment is None else config.data.augment
    if RESIZED_CROP in names and getattr(dataset.train, "draw", None) is None:
        raise UserError(
            f"{RESIZED_CROP!r} is drawn while image files are read, and {dataset.name} has none: leave it out of --data.augment"
        )
    if names:
        first = torch.arange(min(8, len(dataset.train)))
        try_augmentations(names, as_network_input(dataset.train.inputs(first), dataset.kind))
    return names
