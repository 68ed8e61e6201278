"""Why a step is not finite: computes its batches once more and checks the output of every layer."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..data import RESIZED_CROP
from ..data.ahead import Ahead
from ..run_folder import RunDiverged
from ..through_time import Signal, mean_rate
from ..through_time.finite import name_samples
from .mixed_timesteps import separate_statistics

if TYPE_CHECKING:
    from .finite import Batch, Window
    from .module import DistillationModule

# Where something that is not finite appears, in order: the input, layer 1, 2, ... of the pass, and what comes after the network.
_INPUT, _TEACHER, _LOSS, _GRADIENT, _NOWHERE = 0, 10**6, 10**6 + 1, 10**6 + 2, 10**6 + 3


class Sighting(NamedTuple):
    """The first place in a batch where something is not finite.

    Attributes:
        order: how early that is.
        layer: its name; None if the outputs of all layers are finite.
        samples: indices in the training set of the samples that caused it; the whole batch if they are not known.
        size: the size of the batch, on this process.
        terms: the terms of the loss, by name.
        what: the number that was not finite first, in words; None if it is in another process.
    """

    order: int
    layer: str | None
    samples: list[int]
    size: int
    terms: dict[str, float]
    what: str | None


def diverged(module: "DistillationModule", window: "Window", kind: str, preface: str = "") -> RunDiverged:
    """The error to raise for a step that is not finite; all processes call this together.

    Args:
        module: the module, with weights and draws as in that step.
        window: the step.
        kind: the kind of the number that was not finite first, one of `KINDS`.
        preface: words before the message.
    """
    own = min((_look_again(module, window, batch, kind) for batch in window.batches), key=lambda seen: seen.order)
    of_all: list[Any] = [own] * module.trainer.world_size
    if len(of_all) > 1:
        torch.distributed.all_gather_object(of_all, own)
    first = min(of_all, key=lambda seen: seen.order)
    concerned = [seen for seen in of_all if (seen.order, seen.layer) == (first.order, first.layer)]
    samples = sorted(sample for seen in concerned for sample in seen.samples)
    whole = len(samples) == sum(seen.size for seen in of_all) > 1
    samples = sorted(set(samples))  # two processes may both have the last samples of an epoch
    what = next((seen.what for seen in [first, *of_all] if seen.what), f"a {kind}")

    if kind == "input":
        where, advice = "", "repair or remove these samples"
    else:
        found = f"the first layer with such an output is {first.layer}" if first.layer else _ELSEWHERE[first.order]
        shown = ", ".join(f"{name} {value:g}" for name, value in first.terms.items())
        where, advice = f"; {found}; the terms of the loss are {shown}", "lower --optimizer.lr, or set --trainer.clip"
    which = f"all {len(samples)} samples of the batch" if whole else f"{name_samples(samples)} of the training set"
    if not preface:
        advice += ", or skip such steps with --trainer.on-nonfinite skip"
    message = (
        f"{preface}{what} became NaN or infinite in step {window.step}, epoch {window.epoch}{where}; on {which}. No checkpoint "
        f"holds this step: {advice}"
    )
    terms = {name: value if math.isfinite(value) else str(value) for name, value in first.terms.items()}
    layer = first.layer
    if layer is None and kind == "running statistic":
        layer = what.rpartition(" ")[2].rpartition(".")[0] or None  # the layer of that tensor
    details = {"step": window.step, "epoch": window.epoch, "what": what, "layer": layer, "terms": terms}
    return RunDiverged(message, details | {"samples": samples, "message": message})


_ELSEWHERE = {
    _TEACHER: "the outputs of all layers are finite, and those of the teacher are not",
    _LOSS: "the outputs of all layers are finite, and the loss is not",
    _GRADIENT: "the outputs of all layers are finite, and gradients are not",
    _NOWHERE: "the outputs of all layers are finite",
}


def _as_trained(module: "DistillationModule", places: Tensor) -> Tensor:
    """The samples at these places as they were read in this epoch."""
    seed = module.plan.config.seed if RESIZED_CROP in module.plan.augmentations else None
    return next(Ahead(module.plan.train, seed=seed).batches([places], module.current_epoch))


def _look_again(module: "DistillationModule", window: "Window", batch: "Batch", kind: str) -> Sighting:
    """Compute all passes of a batch once more, with the same draws. Every process does, because they may exchange statistics."""
    plan, places, trainer = module.plan, batch.places.tolist(), module.trainer
    samples = trainer.precision_plugin.convert_input(_as_trained(module, batch.places.cpu())).to(module.device)
    target = plan.train.targets[batch.places.cpu()].to(module.device)
    bad_inputs = _rows(samples, len(places))
    if samples.is_floating_point():
        samples = samples.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    backward = kind in ("loss", "gradient")
    layers: list[tuple[int, str, list[bool]]] = []
    gradient, bad_gradients = None, None
    with torch.set_grad_enabled(backward), _unchanged_statistics(module):
        with trainer.precision_plugin.train_step_context(), _first_bad_layer(module, len(places), layers):
            inputs, mix = module.prepared(samples, target, batch.number)
            total = torch.zeros((), device=module.device)
            logits: list[Tensor] = []
            compared: list[Tensor] = []
            with separate_statistics(module) as renew:
                for timesteps in module.draw(plan, module.current_epoch, batch.number):
                    renew()
                    _, submodels, features = module.look(inputs, batch.places, module.plain_student, timesteps)
                    at = module.at_hand(inputs, target, batch.places, submodels, features)
                    total = total + module.value_of(at, mix)[0].total
                    logits.append(submodels)
                    compared += at.features
        if backward:
            gradient, bad_gradients = _gradients(module, total, logits, compared, len(places))
    answers, _ = at.taught
    bad_answers = [] if answers is None else _rows(answers, len(places))

    order, layer, bad = _NOWHERE, None, [True] * len(places)
    if any(bad_inputs):
        order, bad = _INPUT, bad_inputs
    elif layers:
        order, layer, bad = layers[0]
    elif any(bad_answers):
        order, bad = _TEACHER, bad_answers
    elif not batch.loss.isfinite():
        order, bad = _LOSS, bad_gradients or bad
    elif gradient is not None:
        order, bad = _GRADIENT, bad_gradients or bad
    terms = {name: float(term) for name, term in batch.terms.items()}
    concerned = [place for place, is_bad in zip(places, bad, strict=True) if is_bad]
    what = window.what or (f"the gradient of {gradient}" if kind == "gradient" and gradient else None)
    return Sighting(order, layer, concerned, len(places), terms, what)


def _gradients(
    module: "DistillationModule", total: Tensor, logits: list[Tensor], features: list[Tensor], count: int
) -> tuple[str | None, list[bool] | None]:
    """The parameter whose gradient is the first that is not finite, and the samples that caused it; None if all are finite."""
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    outputs, axes = [*logits, *features], [1] * len(logits) + [0] * len(features)
    found = torch.autograd.grad(total, [*outputs, *(p for _, p in named)], allow_unused=True)
    of_outputs = [
        _rows(gradient, count, axis) for gradient, axis in zip(found, axes, strict=False) if gradient is not None
    ]
    bad = [any(flags) for flags in zip(*of_outputs, strict=True)]
    # gradients flow backward, so the last one in the network is the first that was not finite
    for (name, _), gradient in zip(reversed(named), reversed(found), strict=False):
        if gradient is not None and not gradient.isfinite().all():
            return plain_name(name), bad if any(bad) else None
    return None, bad if any(bad) else None


def _rows(value: Tensor, count: int, axis: int = 0) -> list[bool]:
    """Which samples have a value that is not finite; all of them if that axis is not the batch."""
    bad = ~value.detach().isfinite()
    if bad.ndim <= axis or bad.shape[axis] != count:
        return [bool(bad.any())] * count
    return bad.movedim(axis, 0).reshape(count, -1).any(1).tolist()


@contextmanager
def _first_bad_layer(
    module: "DistillationModule", count: int, found: list[tuple[int, str, list[bool]]]
) -> Iterator[None]:
    """Put into `found` the first layer with an output that is not finite: its number in the pass, its name, and which samples."""
    calls = 0

    def after(name: str) -> Any:
        def look(layer: nn.Module, inputs: Any, output: Any) -> None:
            nonlocal calls
            calls += 1
            if found:
                return
            with torch.no_grad():
                for leaf in pytree.tree_leaves(output, is_leaf=lambda part: isinstance(part, Signal)):
                    value = mean_rate(leaf)
                    if isinstance(value, Tensor) and value.is_floating_point() and any(bad := _rows(value, count)):
                        found.append((calls, name, bad))
                        return

        return look

    # not the network itself, whose output has all timesteps: its layers have been checked by then
    layers = {
        **dict(module.network.named_modules(prefix="network")),
        **dict(module.transforms.named_modules(prefix="transforms")),
    }
    skipped = ("network", "transforms", "network.module")
    handles = [
        layer.register_forward_hook(after(plain_name(name)))
        for name, layer in layers.items()
        if name not in skipped and "parametrizations" not in name
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _unchanged_statistics(module: nn.Module) -> Iterator[None]:
    """Put the running statistics back afterwards."""
    kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)


def plain_name(name: str) -> str:
    """The name of a layer or tensor for reports, without the names of the modules that wrap the network."""
    for prefix in ("network.", "module.", "network."):
        name = name.removeprefix(prefix)
    return name
