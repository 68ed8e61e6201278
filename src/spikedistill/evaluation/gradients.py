"""How far the gradient of each rule is from backpropagation through time, layer by layer, on one network.

A layer is a parameter of two or more dimensions: the weights of a convolution or of a linear layer.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Config
from ..data import Dataset, as_network_input, lengths_of, training_indices
from ..errors import UserError
from ..files import alone_in, write_rows
from ..models import TimestepBatchNorm
from ..neurons import LIF, SURROGATES, SpikingNeuron, uncompiled
from ..neurons.surrogate import resolve_surrogate
from ..objectives import sce
from ..renamed import say_renamed
from ..run_folder import RunFolder
from ..through_time import Gradient, Rate, Rule, Temporal, rule_of, temporal
from .runs import parts_of_run

ALL = "all parameters"
TIMESTEPS = (2, 4, 8)
SEGMENTS = (1, 2, 4, 8)

Gradients = dict[str, Tensor]


@dataclass(frozen=True)
class GradientRule:
    """A way to take gradients through time. Without arguments it is BPTT, with which the others are compared.

    Attributes:
        rule: a rule of `spikedistill.through_time`, such as `Rate(segments=2)`, or the name of one.
        surrogate: the name of the surrogate; default the network's own.
        segments: an old form of `Rate(segments=...)`.
    """

    rule: Rule | Gradient = "bptt"
    segments: InitVar[int | None] = None
    surrogate: str | None = None

    def __post_init__(self, segments: int | None) -> None:
        if segments is not None:
            say_renamed(f'GradientRule("{self.rule}", segments={segments})', f"GradientRule(Rate(segments={segments}))")
            object.__setattr__(self, "rule", rule_of(self.rule, segments=segments))

    @property
    def name(self) -> str:
        """The rule in words, such as "sltt", "rate m=2" or "bptt with arctan"."""
        return rule_of(self.rule).label + (f" with {self.surrogate}" if self.surrogate else "")


def gradient_rules(network: Temporal, timesteps: int, segments: Sequence[int] = SEGMENTS) -> list[GradientRule]:
    """The rules to compare with a network's BPTT over T timesteps.

    They are SLTT, rate with every number of segments that T timesteps can have, and BPTT with every surrogate that has a name,
    except the network's own. Layers of neurons with their own `step` cannot train by rate and choose their surrogates themselves.
    """
    neurons = _neurons(network)
    own = {resolve_surrogate(neuron.surrogate) for neuron in neurons if isinstance(neuron, LIF)}
    rates = () if any(neuron.runs_by_step for neuron in neurons) else segments
    return [
        GradientRule("sltt"),
        *(GradientRule(Rate(m)) for m in rates if m <= timesteps),
        *(
            GradientRule(surrogate=name)
            for name, derivative in SURROGATES.registered().items()
            if own and own != {derivative}
        ),
    ]


def compare_gradients(
    network: Temporal,
    inputs: Tensor,
    target: Tensor,
    *,
    timesteps: int | None = None,
    rules: Sequence[GradientRule] | None = None,
) -> list[dict[str, Any]]:
    """Compare gradients of one batch's loss with those of backpropagation through time and the network's own surrogate.

    With g the gradient of a rule and h that of BPTT, each the vector of all weights of a layer:

        cosine = <g, h> / (||g|| ||h||),    ratio = ||g|| / ||h||

    The loss is the cross-entropy of the mean logits. The network runs as in training: with batch statistics and, if it has
    dropout, with the same masks for all rules. A copy of it runs, so its parameters, gradients, running statistics and mode do
    not change.

    Args:
        network: a network with spiking neurons. Its own gradient rule is not used.
        inputs: a static batch `[B, ...]`, or a sequence `[T, B, ...]`.
        target: `[B]`, class indices.
        timesteps: T, for a static batch only.
        rules: default those of `gradient_rules`.

    Returns:
        For every rule a row `{rule, layer, cosine, ratio}` for each layer in the order of the network, and one for all parameters
        as one vector, including those that are no layer. Both numbers are nan if BPTT's gradient is zero; the cosine is also nan if
        the rule's is.

    Raises:
        UserError: for a network without spiking neurons, or inputs that do not fit it.
    """
    _neurons(network)
    if rules is None:
        rules = gradient_rules(network, len(inputs) if timesteps is None else timesteps)
    reference = _gradients(network, GradientRule(), inputs, target, timesteps)
    return [
        {"rule": rule.name, **row}
        for rule in rules
        for row in _against(reference, _gradients(network, rule, inputs, target, timesteps))
    ]


def gradient_microscope(
    run: Path | str,
    *,
    timesteps: Sequence[int] | None = None,
    segments: Sequence[int] = SEGMENTS,
    batches: int = 4,
    batch_size: int = 128,
    root: Path | None = None,
    data: Any = None,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    track: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> list[dict[str, Any]]:
    """Compare the gradient rules on a trained run, and write the result to gradients.csv in its folder.

    Args:
        run: the run folder.
        timesteps: numbers of timesteps to compare at. Default 2, 4 and 8, or those of them that the network can be trained with;
            event data have one number, that of their frames.
        segments: numbers of segments for "rate". At each T, larger ones are skipped.
        batches: how many batches to average over: the first ones of the run's training samples in a fixed, class-balanced order,
            without augmentation.
        batch_size: samples in a batch.
        root: folder of the data sets, if it is no longer the one that the run was trained with.
        data, model: for a run whose data set or network came from Python: the same again, as for `evaluate`.
        track: wraps the sequence of steps to show progress, such as `tqdm`.

    Returns:
        Rows `{timesteps, rule, layer, cosine, cosine_std, ratio, ratio_std, batches}`: those of `compare_gradients` as means and
        standard deviations over the batches (0 for a single one).

    Raises:
        FileNotFoundError: if the run or its data set is missing.
        UserError: for an ANN, or numbers that do not fit the network or the data of the run.
    """
    for name, numbers in (("timesteps", timesteps or ()), ("segments", segments), ("batches", [batches])):
        if any(number < 1 for number in numbers):
            raise UserError(f"{name} is {' '.join(map(str, numbers))}: expected 1 or more")
    if batch_size < 2:
        raise UserError(f"batch_size is {batch_size}: expected 2 or more, for batch-norm in training")
    folder = RunFolder.trained(run)
    config = folder.config()
    dataset, own = parts_of_run(config, data, model, root, "gradient_microscope(run")
    network = folder.load_network(folder.model, own)
    _neurons(network)
    if lengths_of(dataset.train) is not None:
        raise UserError(
            f"recordings of {dataset.name} differ in length, and gradients are compared on recordings of one length: take "
            "a run on such"
        )
    chosen = choose_timesteps(network, config, dataset, timesteps)
    samples = first_samples(config, dataset, batches * batch_size).split(batch_size)
    found: dict[tuple[int, str, str], list[tuple[float, float]]] = {}
    # T changes fastest, so that a progress bar can estimate the time left
    for indices, T in track([(indices, T) for indices in samples for T in chosen]):
        inputs = as_network_input(dataset.train.inputs(indices), dataset.kind)
        shown = T if dataset.kind == "image" else None
        rules = gradient_rules(network, T, sorted(set(segments)))
        for row in compare_gradients(network, inputs, dataset.train.targets[indices], timesteps=shown, rules=rules):
            found.setdefault((T, row["rule"], row["layer"]), []).append((row["cosine"], row["ratio"]))
    rows = [_over_batches(*key, np.array(values)) for key, values in found.items()]
    with alone_in(folder.path, wait=True), folder.rewriting(folder.gradients):
        write_rows(folder.gradients, rows)
    return rows


def furthest_layer(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The row of the layer with the least cosine; layers without one (nan) come last."""
    return min(rows, key=lambda row: np.nan_to_num(row["cosine"], nan=np.inf))


def choose_timesteps(
    network: Temporal, config: Config, dataset: Dataset, asked: Sequence[int] | None
) -> tuple[int, ...]:
    """The numbers of timesteps to compare at, in ascending order.

    Raises:
        UserError: for one that does not fit the data or the network's batch-norm.
    """
    if dataset.kind == "events":
        if asked and set(asked) != {config.timesteps}:
            raise UserError(
                f"timesteps is {' '.join(map(str, asked))}, but the recordings of {dataset.name} have {config.timesteps} frames in "
                "this run: leave it out"
            )
        return (config.timesteps,)
    rows = [len(module.running_mean) for module in network.modules() if isinstance(module, TimestepBatchNorm)]
    most = min(rows, default=max(asked or TIMESTEPS))
    if not asked:
        return tuple(T for T in TIMESTEPS if most >= T) or (most,)
    if max(asked) > most:
        raise UserError(
            f"timesteps is {max(asked)}, but this network's batch-norm has statistics for {most} timesteps and cannot be trained "
            f"on more: expected {most} or fewer"
        )
    return tuple(sorted(set(asked)))


def first_samples(config: Config, dataset: Dataset, count: int) -> Tensor:
    """Indices of the first `count` training samples of the run, in the fixed, class-balanced order.

    Raises:
        UserError: if it was trained on fewer.
    """
    most = config.data.train_samples or len(dataset.train)
    order, _ = training_indices(dataset.train.targets, config.data.holdout, most)
    if len(order) < count:
        raise UserError(
            f"batches and batch_size ask for {count} samples, but this run was trained on {len(order)}: expected fewer or smaller "
            "batches"
        )
    return order[:count]


def _neurons(network: Temporal) -> list[SpikingNeuron]:
    neurons = [module for module in network.modules() if isinstance(module, SpikingNeuron)]
    if not neurons:
        raise UserError(
            "this network has no spiking neurons, so all gradient rules are the same: expected a spiking network, not its ReLU twin"
        )
    return neurons


def _gradients(
    network: Temporal, rule: GradientRule, inputs: Tensor, target: Tensor, timesteps: int | None
) -> Gradients:
    """The gradient of every parameter by its name, taken on a copy in training mode."""
    module = copy.deepcopy(network.module).train().requires_grad_()
    if rule.surrogate is not None:
        for neuron in module.modules():
            if isinstance(neuron, LIF):
                neuron.surrogate = rule.surrogate
    over_time = temporal(module, gradient=rule.rule, sample_axes=network.sample_axes)
    names, parameters = zip(*module.named_parameters(), strict=True)
    devices = [inputs.device] if inputs.is_cuda else []
    with torch.random.fork_rng(devices), torch.enable_grad(), uncompiled():
        torch.manual_seed(0)  # the same dropout under every rule and in every call
        loss = sce(over_time(inputs, timesteps=timesteps), target)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return dict(zip(names, gradients, strict=True))


def _against(reference: Gradients, gradients: Gradients) -> list[dict[str, Any]]:
    """`{layer, cosine, ratio}` of each layer, and of all parameters joined."""
    products = {name: _products(gradient, reference[name]) for name, gradient in gradients.items()}
    layers = {
        name.removeprefix("network.").removesuffix(".weight"): products[name]
        for name, gradient in gradients.items()
        if gradient.ndim > 1
    }
    rows = []
    for layer, product in (layers | {ALL: torch.stack(list(products.values())).sum(0)}).items():
        both, ours, theirs = product
        cosine = (both / (ours * theirs).sqrt()).clamp(-1, 1)
        ratio = (ours / theirs).sqrt() if theirs > 0 else torch.tensor(torch.nan)
        rows.append({"layer": layer, "cosine": float(cosine), "ratio": float(ratio)})
    return rows


def _products(ours: Tensor, theirs: Tensor) -> Tensor:
    """`[3]` in float64: the inner product of two gradients, and of each with itself."""
    a, b = ours.double().flatten(), theirs.double().flatten()
    return torch.stack([a @ b, a @ a, b @ b])


def _over_batches(timesteps: int, rule: str, layer: str, values: np.ndarray) -> dict[str, Any]:
    """A row of gradients.csv from the cosines and ratios `[batches, 2]`."""
    cosine, ratio = values.mean(0)
    cosine_std, ratio_std = values.std(0, ddof=1) if len(values) > 1 else np.zeros(2)
    return {
        "timesteps": timesteps,
        "rule": rule,
        "layer": layer,
        "cosine": float(cosine),
        "cosine_std": float(cosine_std),
        "ratio": float(ratio),
        "ratio_std": float(ratio_std),
        "batches": len(values),
    }
