"""Checks the inputs of objectives where they enter. Each error message contains what was given, what is expected and what to do.

Values are read only on a CPU: reading one from a GPU would stall it, and PyTorch's own cross-entropy reports a label outside
0..C-1 there, with a device assert. Values are also not read while PyTorch traces, compiles or exports, in a dispatch mode, under
`torch.func` transforms, and with tensors that hold no values.
"""

import math
from collections.abc import Collection, Sequence
from typing import TypeGuard

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from ..errors import UserError

HIGHEST_WEIGHT = 1e9
TEMPERATURES = 1e-3, 1e6
# A class is masked if its logit is -inf, or as low as torch.finfo(dtype).min, which would overflow in sums and products.
MASKED = -1e30
_AS_TENSOR = "pass torch.as_tensor(...) of it"


def check_logits(logits: Tensor) -> Tensor:
    """The logits in float32 or better; UserError unless floating point [S, B, C], none of the three empty and C 2 or more."""
    if not _is_floating(logits) or logits.ndim != 3 or 0 in logits.shape:
        raise UserError(
            f"logits must be floating point [submodels, batch, classes], none of them 0; got {_describe(logits)}: "
            f"{_how_to_make_logits(logits)}"
        )
    if logits.shape[-1] == 1:
        raise UserError(
            f"one class has nothing to tell apart; got logits {list(logits.shape)}: use a network with 2 outputs or more, one for "
            "each class"
        )
    return _at_least_float32(logits)


def check_pair(logits: Tensor) -> Tensor:
    """The logits; UserError unless they come from as many exits of one network as of the other."""
    if len(logits) % 2:
        raise UserError(
            f"logits must come from as many exits of an ANN as of a spiking network, an even number; got {len(logits)}: use a "
            "network made with joint=True"
        )
    return logits


def check_target(target: Tensor | None, logits: Tensor, ignore_index: int | None = None) -> Tensor:
    """The target; UserError unless int64 class indices [B] in 0..C-1, or `ignore_index`, for logits [S, B, C]."""
    batch = logits.shape[1]
    if not isinstance(target, Tensor) or target.dtype != torch.int64 or target.shape != (batch,):
        raise UserError(
            f"target must be int64 class indices of shape [{batch}]; got {_describe(target)}: "
            f"{_how_to_make_target(target, logits)}"
        )
    if ignore_index is not None and type(ignore_index) is not int:
        raise UserError(f"ignore_index must be an int or None; got {ignore_index!r}: -100 is usual")
    check_labels(target, logits.shape[-1], ignore_index)
    return target


def check_labels(target: Tensor, classes: int, ignore_index: int | None = None) -> None:
    """UserError, with the label and its place, unless the labels [B] are in 0..classes-1 or `ignore_index`; read only on a CPU."""
    if not _has_values(target):
        return
    wrong = (target < 0) | (target >= classes)
    if ignore_index is not None:
        wrong &= target != ignore_index
    if wrong.any():
        place = int(wrong.nonzero()[0])
        label = int(target[place])
        hint = f"task losses leave such samples out with ignore_index={label}" if label < 0 else "labels count from 0"
        raise UserError(f"label {label} at place {place} of the batch is no class: expected 0 to {classes - 1}; {hint}")


def check_label_kept(logits: Tensor, target: Tensor, ignore_index: int | None = None) -> None:
    """UserError if the logits [S, B, C] mask the class of a label, whose loss would be infinite; read only on a CPU.

    Logits that hold NaN or inf, or mask all classes, come from a network that has diverged: they are accepted, and their loss is
    not finite.
    """
    if not _has_values(logits) or not _has_values(target):
        return
    classes = target if ignore_index is None else target.clamp(0, logits.shape[-1] - 1)
    lost = is_masked(logits.gather(-1, classes.expand(logits.shape[:2]).unsqueeze(-1)).squeeze(-1)).any(0)
    if ignore_index is not None:
        lost &= target != ignore_index
    if lost.any() and (logits < math.inf).all() and not is_masked(logits).all(-1).any():
        place = int(lost.nonzero()[0])
        raise UserError(
            f"label {int(target[place])} at place {place} of the batch is a class that the logits mask with -inf: omit the sample, "
            "or do not mask the class"
        )


def is_masked(logits: Tensor) -> Tensor:
    """Which classes are masked, bool of the shape of the logits: those at -inf, or below -1e30 as torch.finfo(dtype).min is."""
    return logits < MASKED


def check_teacher(teacher_logits: Tensor | None, logits: Tensor) -> Tensor:
    """The teacher's logits in float32 or better; UserError unless floating point [B, C] or [S, B, C]."""
    if not _is_floating(teacher_logits) or teacher_logits.shape not in (logits.shape, logits.shape[1:]):
        raise UserError(
            f"teacher_logits must be floating point {list(logits.shape[1:])} or {list(logits.shape)} to teach logits "
            f"{list(logits.shape)}; got {_describe(teacher_logits)}: "
            f"{_how_to_make_teacher(teacher_logits, logits)}"
        )
    return _at_least_float32(teacher_logits)


def check_scores(scores: Tensor, logits: Tensor) -> Tensor:
    """The scores; UserError unless one number per submodel, [S]."""
    if not isinstance(scores, Tensor) or scores.shape != logits.shape[:1]:
        raise UserError(
            f"scores must hold one strength per submodel, shape [{len(logits)}]; got {_describe(scores)}: "
            "pass timestep_scores(...)"
        )
    return scores


def check_temperature(temperature: float) -> float:
    """The temperature; UserError unless a number from 0.001 to 1e6."""
    low, high = TEMPERATURES
    if not isinstance(temperature, int | float) or not low <= temperature <= high:
        raise UserError(f"temperature must lie between {low:g} and {high:,.0f}; got {temperature!r}: 2 to 5 are usual")
    return temperature


def check_label_smoothing(label_smoothing: float) -> float:
    """The label smoothing; UserError unless a number from 0 to 1."""
    if not isinstance(label_smoothing, int | float) or not 0 <= label_smoothing <= 1:
        raise UserError(f"label_smoothing must lie between 0 and 1; got {label_smoothing!r}: 0.1 is usual")
    return label_smoothing


def check_class_weights(class_weights: Tensor, logits: Tensor) -> Tensor:
    """The weights of classes; UserError unless floating point [C], of which, on a CPU, all are finite and 0 or more, one above."""
    classes = logits.shape[-1]
    if not _is_floating(class_weights) or class_weights.shape != (classes,):
        raise UserError(
            f"class_weights must be floating point [{classes}], one number for each class; got {_describe(class_weights)}: pass "
            "torch.tensor(weights) with a float for each class"
        )
    if _has_values(class_weights):
        fits = (class_weights >= 0) & (class_weights < math.inf)
        if not fits.all() or not class_weights.any():
            raise UserError(
                f"class_weights must be finite, at least 0 and not all 0; got {[f'{w:g}' for w in class_weights.tolist()]}: 1 "
                "leaves a class as it is"
            )
    return class_weights


def check_share(name: str, value: float) -> float:
    """The value; UserError unless a number from 0 to 1."""
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f"{name} must lie between 0 and 1; got {value!r}")
    return value


def check_weights(**weights: float) -> None:
    """UserError unless each is a number from 0 to 1e9: a loss to be minimised with a negative weight would be maximised."""
    for name, value in weights.items():
        if not isinstance(value, int | float) or not 0 <= value <= HIGHEST_WEIGHT:
            raise UserError(f"{name} must be a number from 0 to {HIGHEST_WEIGHT:,.0f}; got {value!r}")


def check_progress(progress: float) -> float:
    """The share of training that is done; UserError unless a number from 0 to 1."""
    return check_share("progress", progress)


def check_count(name: str, value: int) -> int:
    """The value; UserError unless a whole number from 1 to 10,000."""
    if not isinstance(value, int) or not 1 <= value <= 10_000:
        raise UserError(f"{name} must be a whole number from 1 to 10,000; got {value!r}")
    return value


def check_features(
    features: Sequence[Tensor], teacher_features: Sequence[Tensor], logits: Tensor, *, same_shape: bool
) -> list[tuple[Tensor, Tensor]]:
    """Student's and teacher's features of each layer, in float32 or better.

    UserError unless both have the same number of layers, one or more, each of floating point [B, ...], and of one shape if that
    is required.
    """
    if len(features) != len(teacher_features) or not features:
        raise UserError(
            f"features and teacher_features must come from as many layers, 1 or more; got {len(features)} and "
            f"{len(teacher_features)}: name layers that both networks have"
        )
    batch = logits.shape[1]
    for layer, pair in enumerate(zip(features, teacher_features, strict=True)):
        for tensor in pair:
            if not _is_floating(tensor) or tensor.ndim < 2 or len(tensor) != batch:
                raise UserError(
                    f"features must be floating point [{batch}, ...], a mean over time for every sample; got "
                    f"{_describe(tensor)} for layer {layer}"
                )
        if same_shape and pair[0].shape != pair[1].shape:
            raise UserError(
                f"features of layer {layer} are {list(pair[0].shape)} in the student and {list(pair[1].shape)} in the teacher, "
                "and must have one shape: use a teacher of the student's network and width"
            )
    return [(_at_least_float32(s), _at_least_float32(t)) for s, t in zip(features, teacher_features, strict=True)]


def check_choice(option: str, value: str, choices: Collection[str]) -> str:
    """The value; UserError unless it is one of the choices."""
    if value not in choices:
        raise UserError(f"unknown {option} {value!r}: choose one of {', '.join(choices)}")
    return value


def _how_to_make_logits(logits: object) -> str:
    """Advice for wrong logits."""
    if isinstance(logits, list | tuple):
        return "stack the timesteps' outputs with torch.stack(outputs)"
    if not isinstance(logits, Tensor):
        return _AS_TENSOR if hasattr(logits, "__array__") else "pass the network's outputs"
    if 0 in logits.shape:
        return "leave a batch without samples out"
    if logits.ndim > 3:
        return (
            "where every pixel has a label, each is a sample: pass logits.movedim(2, -1).flatten(1, -2) and target.flatten(), with "
            "the classes at axis 2; where an image has one label, take the mean over its pixels"
        )
    if not logits.is_floating_point():
        return "pass the outputs themselves, not the predicted classes"
    return "stack the timesteps' outputs with torch.stack(outputs), or add the axis of a single one with unsqueeze(0)"


def _how_to_make_target(target: object, logits: Tensor) -> str:
    """Advice for a wrong target; the logits are right."""
    _, batch, classes = logits.shape
    if target is None:
        return "pass the labels"
    if not isinstance(target, Tensor):
        return _AS_TENSOR if hasattr(target, "__array__") else "pass torch.tensor(labels)"
    if target.shape == (batch, classes) and classes > 1:
        return "pass target.argmax(-1) for one-hot labels"
    if target.numel() == batch:
        return "pass target.flatten().long()" if target.ndim != 1 else "pass target.long()"
    if target.ndim == 2 and target.shape == logits.shape[:2]:
        return "pass the labels of one timestep, target[0], which are those of all"
    return "pass one label for each sample of the batch that the logits are of"


def _how_to_make_teacher(teacher: object, logits: Tensor) -> str:
    """Advice for wrong teacher logits."""
    if isinstance(teacher, list | tuple):
        return "stack the timesteps' outputs with torch.stack(outputs)"
    if not isinstance(teacher, Tensor):
        return _AS_TENSOR if hasattr(teacher, "__array__") else "pass the teacher's outputs on the student's batch"
    if teacher.ndim > 3:
        return (
            "make every pixel a sample, as of the student's logits: [B, C, H, W] becomes movedim(1, -1).flatten(0, -2)"
        )
    if not teacher.is_floating_point():
        return "pass the outputs themselves, not the predicted classes"
    if teacher.ndim == 3 and teacher.shape[1:] == logits.shape[1:]:
        return f"pass the mean over its {len(teacher)} timesteps, teacher_logits.mean(0), or as many as the student has"
    return "use a teacher with the student's classes, on the student's batch"


def _has_values(tensor: Tensor) -> bool:
    """Whether values may be read here; see the top of this file."""
    if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
        return False
    plain = tensor.device.type == "cpu" and type(tensor) in (Tensor, torch.nn.Parameter)
    return plain and torch._C._functorch.peek_interpreter_stack() is None


def _is_floating(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.is_floating_point()


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _describe(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
