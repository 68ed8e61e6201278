"""Settings that do not fit each other, or have no effect together: each is refused by its name, before any work.

A setting at its default cannot be distinguished from one that was not given. A comparison first removes the settings that a
method does not use (`without_foreign_settings`).
"""

from dataclasses import replace

from ..config import Config, NeuronConfig, OptimizerConfig
from ..data import Dataset, lengths_of
from ..errors import UserError
from ..objectives import Objective, Term, create_objective, firing
from ..through_time import OPTIONS, Bptt, Rule, rule_of


def check_together(config: Config, objective: Objective) -> None:
    """Refuse settings that do not fit each other or the objective.

    Raises:
        UserError: saying what to leave out or to use instead.
    """
    check_timesteps(config, objective)
    check_gradient(config, objective)
    check_heads(config, objective)
    check_neurons(config)
    check_optimizer(config)
    check_teacher_model(config)
    check_class_weights(config, objective)


def objective_of(config: Config) -> Objective:
    """The objective of a run, with its penalty on spikes.

    Raises:
        UserError: for an unknown objective or option, or one that does not fit a penalty on spikes.
    """
    options = config.objective
    objective = create_objective(options.name, **options.options)
    if not options.firing_weight:
        if options.firing_target:
            raise UserError(
                f"--objective.firing-target {options.firing_target:g} has no penalty that it is the target of: add "
                "--objective.firing-weight, such as 1"
            )
        return objective
    if config.model.neuron == "relu":
        raise UserError(
            f"--objective.firing-weight {options.firing_weight:g} is a penalty on spikes, and --model.neuron relu has none: leave "
            "it out"
        )
    term = Term("firing", options.firing_weight, firing, {"target_rate": options.firing_target})
    return replace(objective, terms=(*objective.terms, term))


def check_class_weights(config: Config, objective: Objective) -> None:
    """Refuse class weights that no term of the objective takes.

    Raises:
        UserError: naming the objective.
    """
    if config.objective.class_weights is not None and "class_weights" not in objective.inputs:
        raise UserError(
            f"objective {objective.name!r} has no loss that takes class weights: omit --objective.class-weights, or name "
            "class_weights in the signature of its loss"
        )


def check_timesteps(config: Config, objective: Objective) -> None:
    """Refuse an objective whose timesteps teach each other if there is only one.

    Raises:
        UserError: saying what to use instead.
    """
    if objective.compares_submodels and config.timesteps == 1:
        raise UserError(
            f"objective {objective.name!r} lets timesteps teach each other, and --timesteps 1 has only one, from which nothing "
            "would be learned: use 2 or more, or another objective"
        )


def check_mixing(config: Config) -> None:
    """Refuse a parameter of mixing where nothing is mixed.

    Raises:
        UserError: saying what to add.
    """
    data = config.data
    if data.mix == "none" and data.mix_alpha != type(data)().mix_alpha and config.protocol is None:
        raise UserError(
            f"--data.mix-alpha {data.mix_alpha:g} has no effect without mixing: add --data.mix mixup or cutmix, or leave it out"
        )


def check_mixed_timesteps(config: Config, objective: Objective, dataset: Dataset) -> None:
    """Refuse to draw numbers of timesteps where each batch has to run for all of them.

    Raises:
        UserError: naming the setting.
    """
    if config.timestep_draws is None:
        if config.timestep_draws_of != "network":
            raise UserError(
                f"--timestep-draws-of {config.timestep_draws_of} has no effect without draws: add --timestep-draws, such as 3, or "
                "leave it out"
            )
        return
    given, model, trainer = f"--timestep-draws {config.timestep_draws}", config.model, config.trainer
    if model.neuron == "relu":
        raise UserError(
            f"{given} is for spiking networks, and with --model.neuron relu all timesteps are alike: leave it out"
        )
    if config.timesteps == 1:
        raise UserError(f"{given} draws numbers of timesteps, and --timesteps 1 has only one: leave it out")
    if dataset.kind == "events":
        raise UserError(
            f"{given} is for images, and {dataset.name} holds event frames, each of its own timestep: leave it out"
        )
    if objective.submodels != "timesteps":
        raise UserError(
            f"{given} is for objectives over timesteps, and {objective.name!r} is over {objective.submodels}: leave it out"
        )
    if config.segments != 1:
        raise UserError(f"{given} may draw fewer timesteps than --segments {config.segments}: leave one of them out")
    if config.timestep_draws_of == "stages" and not isinstance(rule := gradient_rule(config), Bptt):
        raise UserError(
            f"--timestep-draws-of stages changes the timesteps inside the network, and gradients under --gradient {rule.name} are "
            "of means over all timesteps: use bptt or sltt, or --timestep-draws-of network"
        )
    if model.norm == "timestep_batch":
        raise UserError(
            f"{given} is for statistics that timesteps share, and --model.norm timestep_batch has others: leave one out"
        )
    if trainer.sync_batch_norm or trainer.ema is not None:
        raise UserError(
            f"{given} recalibrates batch-norm itself: leave --trainer.sync-batch-norm and --trainer.ema out"
        )


def gradient_rule(config: Config) -> Rule:
    """The gradient rule of a run.

    Raises:
        UserError: for an option that the rule does not have, or one that is out of its range.
    """
    return rule_of(config.gradient, **{option: getattr(config, option) for option in OPTIONS})


def check_gradient(config: Config, objective: Objective) -> None:
    """Refuse settings of neurons that the rule does not use, and objectives that have no gradient under it.

    Raises:
        UserError: saying what to use instead.
    """
    rule = gradient_rule(config)
    given = _changed(config.model.lif, NeuronConfig())
    if unused := [f"--model.lif.{_flag(name)}" for name in rule.unused if name in given]:
        them = "it" if len(unused) == 1 else "them"
        raise UserError(f"--gradient {rule.name} does not use {' and '.join(unused)}: leave {them} out")
    paths = rule.paths(config.timesteps)
    if objective.compares_submodels and paths == 1 and config.timesteps > 1:
        raise UserError(
            f"objective {objective.name!r} lets timesteps teach each other, but under {rule.label} all timesteps share one "
            "gradient path and nothing would be learned from it: use --gradient rate with --segments 2 or more, or --gradient bptt"
        )


def check_lengths(config: Config, dataset: Dataset) -> None:
    """Refuse settings under which recordings of different length would not be trained as they are.

    Raises:
        UserError: naming the setting.
    """
    if lengths_of(dataset.train) is None:
        return
    found = f"recordings of {dataset.name} differ in length"
    rule, model, trainer = gradient_rule(config), config.model, config.trainer
    if not isinstance(rule, Bptt):
        raise UserError(f"{found}, and --gradient {rule.name} takes a mean over all timesteps: use bptt or sltt")
    if model.branches or model.joint:
        raise UserError(f"{found}, and auxiliary heads take a mean over all timesteps: use an objective over timesteps")
    if model.norm == "timestep_batch" or trainer.sync_batch_norm or trainer.devices * trainer.nodes > 1:
        raise UserError(
            f"{found}: use one device, and --model.norm other than timestep_batch, so that statistics leave padding out"
        )
    if config.data.mix != "none":
        raise UserError(f"{found}, and --data.mix {config.data.mix} would mix a recording with padding: leave it out")


def check_heads(config: Config, objective: Objective) -> None:
    """Refuse an objective over heads without auxiliary heads, and auxiliary heads that no objective trains.

    Raises:
        UserError: saying what to add or leave out.
    """
    if config.model.branch_count is not None and not config.model.branches:
        raise UserError("--model.branch-count is the number of auxiliary heads: add --model.branches, or leave it out")
    if objective.submodels == "heads" and not config.model.branches:
        raise UserError(f"objective {objective.name!r} needs auxiliary heads: add --model.branches")
    if objective.submodels == "pair" and not config.model.joint:
        raise UserError(f"objective {objective.name!r} needs an ANN alongside the network: add --model.joint")
    if objective.submodels != "pair" and config.model.joint:
        raise UserError(
            f"objective {objective.name!r} uses no ANN alongside the network: omit --model.joint, or use --objective.name "
            "joint-asnn-unofficial"
        )
    if objective.submodels != "heads" and config.model.branches:
        raise UserError(
            f"objective {objective.name!r} does not train auxiliary heads, so they would learn nothing: leave "
            "--model.branches out, or use --objective.name esd"
        )


def check_adversarial(config: Config, dataset: Dataset) -> None:
    """Refuse settings of adversarial training without it, and data that its attacks do not fit.

    Raises:
        UserError: saying what to leave out.
    """
    options, default = config.objective, type(config.objective)()
    names = ["adversarial_eps", "adversarial_steps", "adversarial_step", "adversarial_weight"]
    used = {"none": [], "pgd": names[:3], "trades": names}[options.adversarial]
    unused = [name for name in names if name not in used and getattr(options, name) != getattr(default, name)]
    if unused:
        need = "trades" if options.adversarial == "pgd" else "pgd"
        raise UserError(
            f"--objective.{_flag(unused[0])} has no effect under --objective.adversarial {options.adversarial}: leave it out, or "
            f"use --objective.adversarial {need}"
        )
    if options.adversarial == "none":
        return
    if dataset.kind == "events":
        raise UserError(
            f"--objective.adversarial {options.adversarial} moves pixels of [0, 1], and {dataset.name} holds event frames: leave "
            "it out"
        )
    if config.data.mix != "none":
        raise UserError(
            f"--objective.adversarial {options.adversarial} attacks images of one class, and --data.mix {config.data.mix} mixes "
            "two: leave one out"
        )


def check_neurons(config: Config) -> None:
    """Refuse settings of `lif` in a network of other neurons.

    Raises:
        UserError: naming them.
    """
    neuron, given = config.model.neuron, _changed(config.model.lif, NeuronConfig())
    if neuron != "lif" and given:
        names = ", ".join(f"--model.lif.{_flag(name)} {value}" for name, value in given.items())
        why = "has no spiking neurons to take" if neuron == "relu" else "has its own --model.neuron-options, and not"
        raise UserError(f"--model.neuron {neuron} {why} {names}: leave it out")


def check_optimizer(config: Config) -> None:
    """Refuse a schedule that is longer than the run, and settings of another optimiser or schedule.

    Raises:
        UserError: saying what to leave out, or which values are possible.
    """
    options, epochs = config.optimizer, config.epochs
    given = _changed(options, OptimizerConfig())
    if options.name != "sgd" and "momentum" in given:
        raise UserError(
            f"--optimizer.momentum {options.momentum} is only for sgd, and this run has --optimizer.name "
            f"{options.name}: leave it out"
        )
    if options.warmup_epochs > epochs:
        raise UserError(
            f"--optimizer.warmup-epochs {options.warmup_epochs:g} is more than --epochs {epochs}, so that the learning rate would "
            "never reach its highest value: expected fewer"
        )
    if options.schedule == "step" and options.step_epochs >= epochs:
        raise UserError(
            f"--optimizer.schedule step takes its first step after {options.step_epochs} epochs, and --epochs is {epochs}: set "
            "--optimizer.step-epochs to fewer"
        )
    if options.schedule != "cosine" and "schedule_per" in given:
        raise UserError(
            f"--optimizer.schedule-per {options.schedule_per} is only for the cosine, and this run has --optimizer.schedule "
            f"{options.schedule}, which changes between epochs or never: leave it out"
        )
    for name in ("step_epochs", "step_factor"):
        if options.schedule != "step" and name in given:
            raise UserError(
                f"--optimizer.{_flag(name)} {given[name]} is only for the step schedule, and this run has --optimizer.schedule "
                f"{options.schedule}: leave it out, or add --optimizer.schedule step"
            )


def check_teacher_model(config: Config) -> None:
    """Refuse the name of a teacher's network without a file of its weights.

    Raises:
        UserError: saying what to add or leave out.
    """
    if config.teacher_model is None:
        return
    if config.teacher is None:
        raise UserError(
            f"--teacher-model {config.teacher_model} names the network of a weights file: add that file, --teacher "
            "FILE.safetensors, or leave it out"
        )
    if config.teacher.suffix != ".safetensors":
        raise UserError(
            f"--teacher {config.teacher} is no safetensors file, and a run records which network it holds: leave "
            f"--teacher-model {config.teacher_model} out"
        )


def check_accumulation(config: Config, samples: int) -> None:
    """Refuse to accumulate the gradients of more batches than an epoch has.

    Args:
        config: the configuration of the run.
        samples: how many it trains on.

    Raises:
        UserError: saying how many there are.
    """
    if config.data.most_batch_size is not None:
        return  # checked again after the batch size has been chosen
    batches = -(-samples // config.data.batch_size)
    if config.trainer.accumulate > batches:
        raise UserError(
            f"--trainer.accumulate {config.trainer.accumulate} is more than the batches of an epoch: {samples} samples make "
            f"{batches} with --data.batch-size {config.data.batch_size}; expected {batches} or fewer"
        )


def _changed(section: NeuronConfig | OptimizerConfig, default: NeuronConfig | OptimizerConfig) -> dict[str, object]:
    """The settings that are not at their default."""
    return {name: value for name, value in section if value != getattr(default, name)}


def _flag(name: str) -> str:
    return name.replace("_", "-")
