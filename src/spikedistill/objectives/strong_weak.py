"""Strong and weak timesteps of one batch teach each other.

Ding et al.: Synergy Between the Strong and the Weak: Spiking Neural Networks are Inherently Self-Distillers
(NeurIPS 2025).

Shapes: logits [S, B, C], target int64 [B], scores [S]; every loss is a scalar, a mean over the students and B.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import UserError
from .checks import check_choice, check_logits, check_scores, check_target, check_temperature
from .divergences import DIVERGENCES, log_probabilities
from .submodels import Average, compares_submodels, right_submodels
from .task import Labels, cross_entropies

VARIANTS = ("pair", "ensemble_teacher", "ensemble_student", "cascade")


@compares_submodels
def strong2weak(
    logits: Tensor,
    *,
    target: Tensor | None = None,
    variant: str = "pair",
    measure: str = "confidence",
    temperature: float = 2.0,
    scores: Tensor | None = None,
    average: Average | None = None,
    divergence: str = "kl",
    teacher_grad: bool = False,
) -> Tensor:
    """The strongest timestep teaches the weakest: KL(softmax(z_strong / tau) || softmax(z_weak / tau)), no tau² factor.

    The whole batch has one ranking, by `timestep_scores` with this `measure` (which may need the target) or by the
    given `scores`, higher is stronger; `average`, the mean of a tensor over the processes that share the batch, makes them
    all rank alike. With one timestep the loss is 0.

    variant: "pair" as above; "ensemble_teacher": the mean of all others teaches the weakest; "ensemble_student": the
    strongest teaches each of the others; "cascade": each rank teaches the next weaker, mean over the S-1 pairs.
    In a tie the earlier timestep is taken, both as the strongest and as the weakest, and is the stronger of two in the
    cascade; so if all are tied, "pair" is 0.
    divergence: "kl"; "mse" of the logits (without temperature); "standardized", the KL of standardised logits.

    Raises UserError for inputs of another type or shape, unknown names and tau outside 0.001..1e6.
    """
    logits = check_logits(logits)
    scores = _scores(logits, target, measure, scores, average)
    stronger, weaker = _teacher_and_student(logits, scores, variant, strong_teaches=True)
    return _divergence(divergence, weaker, stronger, temperature, teacher_grad)


@compares_submodels
def weak2strong(
    logits: Tensor,
    *,
    target: Tensor | None = None,
    variant: str = "pair",
    measure: str = "confidence",
    temperature: float = 2.0,
    scores: Tensor | None = None,
    average: Average | None = None,
    divergence: str = "kl",
    teacher_grad: bool = False,
) -> Tensor:
    """The weakest timestep teaches the strongest: `strong2weak` with the roles exchanged in every variant.

    "first_to_last" and "last_to_first" fix which timestep teaches, so here they raise UserError: use them in `strong2weak`.
    """
    logits = check_logits(logits)
    if scores is None and measure in ("first_to_last", "last_to_first"):
        raise UserError(
            f"measure {measure!r} fixes which timestep teaches, so weak2strong has no use for it: use strong2weak (s2w)"
        )
    scores = _scores(logits, target, measure, scores, average)
    weaker, stronger = _teacher_and_student(logits, scores, variant, strong_teaches=False)
    return _divergence(divergence, stronger, weaker, temperature, teacher_grad)


def timestep_scores(logits: Tensor, target: Tensor | None = None, *, measure: str = "confidence") -> Tensor:
    """How strong each timestep is on this batch, [S], higher is stronger; no gradient.

    "confidence": mean over the batch of the largest probability. "entropy": minus the mean entropy. "margin": mean
    difference of the two largest probabilities. The paper's controls: "accuracy" and minus the cross-entropy "loss"
    (both need the target), "random" (drawn from torch's global generator), "first_to_last" and "last_to_first" (the
    first, or the last, is the strongest).
    """
    logits = check_logits(logits)
    check_choice("measure", measure, _MEASURES)
    with torch.no_grad():
        return _MEASURES[measure](logits, target)


def _confidence(logits: Tensor, target: Tensor | None) -> Tensor:
    return log_probabilities(logits).exp().amax(-1).mean(-1)


def _negative_entropy(logits: Tensor, target: Tensor | None) -> Tensor:
    log_p = log_probabilities(logits)
    return (log_p.exp() * log_p).sum(-1).mean(-1)


def _margin(logits: Tensor, target: Tensor | None) -> Tensor:
    largest = log_probabilities(logits).exp().topk(2).values
    return (largest[..., 0] - largest[..., -1]).mean(-1)


def _accuracy(logits: Tensor, target: Tensor | None) -> Tensor:
    return right_submodels(logits, check_target(target, logits)).to(logits.dtype).mean(-1)


def _negative_loss(logits: Tensor, target: Tensor | None) -> Tensor:
    return -cross_entropies(logits, Labels(check_target(target, logits))).mean(-1)


def _random(logits: Tensor, target: Tensor | None) -> Tensor:
    return torch.rand(len(logits), device=logits.device)


def _last_is_strongest(logits: Tensor, target: Tensor | None) -> Tensor:
    return torch.arange(len(logits), dtype=logits.dtype, device=logits.device)


def _first_is_strongest(logits: Tensor, target: Tensor | None) -> Tensor:
    return -_last_is_strongest(logits, target)


_MEASURES: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "confidence": _confidence,
    "entropy": _negative_entropy,
    "margin": _margin,
    "accuracy": _accuracy,
    "loss": _negative_loss,
    "random": _random,
    "first_to_last": _first_is_strongest,
    "last_to_first": _last_is_strongest,
}


def _scores(
    logits: Tensor,
    target: Tensor | None,
    measure: str,
    scores: Tensor | None,
    average: Average | None,
) -> Tensor:
    check_choice("measure", measure, _MEASURES)
    if scores is not None:
        return check_scores(scores, logits)
    own = timestep_scores(logits, target, measure=measure)
    return own if average is None else average(own)


def _teacher_and_student(
    logits: Tensor, scores: Tensor, variant: str, *, strong_teaches: bool
) -> tuple[Tensor, Tensor]:
    """The logits of teachers and students, [n, B, C] or [1, B, C] for the same teacher or student throughout."""
    check_choice("variant", variant, VARIANTS)
    if len(logits) == 1:  # a single timestep is strongest and weakest: a zero that still has a graph
        return logits, logits
    if variant == "cascade":
        ranks = scores.argsort(descending=True, stable=True)
        stronger, weaker = logits.index_select(0, ranks[:-1]), logits.index_select(0, ranks[1:])
        return (stronger, weaker) if strong_teaches else (weaker, stronger)
    # torch documents that argmax and argmin return the first of equals
    strongest, weakest = scores.argmax(0, keepdim=True), scores.argmin(0, keepdim=True)
    teacher, student = (strongest, weakest) if strong_teaches else (weakest, strongest)
    if variant == "ensemble_teacher":
        others = logits.index_select(0, _all_but(student, len(logits)))
        return others.mean(0, keepdim=True), logits.index_select(0, student)
    students = _all_but(teacher, len(logits)) if variant == "ensemble_student" else student
    return logits.index_select(0, teacher), logits.index_select(0, students)


def _all_but(index: Tensor, count: int) -> Tensor:
    """The numbers 0..count-1 without the one in `index` [1], whose value is not read, because that would wait for the GPU."""
    rest = torch.arange(count - 1, device=index.device)
    return rest + (rest >= index)


def _divergence(name: str, student: Tensor, teacher: Tensor, temperature: float, teacher_grad: bool) -> Tensor:
    check_choice("divergence", name, DIVERGENCES)
    check_temperature(temperature)
    return DIVERGENCES[name](student, teacher, temperature=temperature, teacher_grad=teacher_grad).mean()
