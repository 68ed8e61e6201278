"""Every loss over classes as one function of logits [4, 6, C], labels [6], a trained network's logits [6, C], and other inputs."""

import torch

from spikedistill import objectives
from spikedistill.objectives import create_objective, list_objectives

STRONG = ("confidence", "entropy", "margin", "accuracy", "loss", "first_to_last")
VARIANTS = ("pair", "ensemble_teacher", "ensemble_student", "cascade")
DRAW = 3

TASK = {
    "sce": objectives.sce,
    "twce": objectives.twce,
    "heads_ce": objectives.heads_ce,
    "prefix_ce": objectives.prefix_ce,
    "weighted_heads_ce": objectives.weighted_heads_ce,
    "exits_ce": objectives.exits_ce,
}
WITH_LABELS = {name: lambda z, y, a, loss=loss: loss(z, y) for name, loss in TASK.items()} | {
    "sce smoothed": lambda z, y, a: objectives.sce(z, y, label_smoothing=0.1),
    "twce smoothed": lambda z, y, a: objectives.twce(z, y, label_smoothing=1.0),
    "tet_of_some": lambda z, y, a: objectives.tet_of_some(z, y),
    "label_mse": lambda z, y, a: objectives.label_mse(z, y),
    "wsld": lambda z, y, a: objectives.wsld(z, y, a),
    "reliable": lambda z, y, a: objectives.reliable(z, y, teacher_grad=True),
    "twsd correct": lambda z, y, a: objectives.twsd(z, y, teacher="correct"),
    "twsd correct_masked": lambda z, y, a: objectives.twsd(z, y, teacher="correct_masked"),
    "right_sum": lambda z, y, a: objectives.right_sum(z, y),
    "aligned_kd": lambda z, y, a: objectives.aligned_kd(z, y, a),
    "s2w by accuracy": lambda z, y, a: objectives.strong2weak(z, target=y, measure="accuracy"),
    "w2s by loss": lambda z, y, a: objectives.weak2strong(z, target=y, measure="loss"),
}
WITHOUT_LABELS = {
    "entropy": lambda z, y, a: objectives.entropy(z),
    "logit_mse": lambda z, y, a: objectives.logit_mse(z),
    "logit_kd": lambda z, y, a: objectives.logit_kd(z, a, teacher_grad=True),
    "prefix_kd": lambda z, y, a: objectives.prefix_kd(z, a),
    "twkl": lambda z, y, a: objectives.twkl(z, a, teacher_grad=True),
    "head_tail_kd": lambda z, y, a: objectives.head_tail_kd(z, a),
    "noisy_kd": lambda z, y, a: objectives.noisy_kd(z, a),
    "twsd ensemble": lambda z, y, a: objectives.twsd(z, teacher_grad=True),
    "all_pairs": lambda z, y, a: objectives.all_pairs(z, teacher_grad=True),
    "adjacent": lambda z, y, a: objectives.adjacent(z),
    "selective": lambda z, y, a: objectives.selective(z),
    "mutual": lambda z, y, a: objectives.mutual(z),
    "exits_kd": lambda z, y, a: objectives.exits_kd(z),
    **{f"s2w {v}": lambda z, y, a, v=v: objectives.strong2weak(z, variant=v, teacher_grad=True) for v in VARIANTS},
    **{
        f"w2s {d}": lambda z, y, a, d=d: objectives.weak2strong(z, divergence=d, variant="cascade")
        for d in ("mse", "standardized")
    },
}


def of_catalogue(name):
    """An entry of the catalogue, with features, a classifier and weights that have nothing to do with the logits."""
    objective = create_objective(name)

    def loss(logits, target, teacher):
        features = torch.linspace(0, 1, 6 * 4, dtype=logits.dtype).view(6, 4, 1, 1)
        return objective(
            logits,
            target,
            teacher_logits=teacher,
            features=[features],
            teacher_features=[features.flip(0)],
            transforms=[torch.nn.Identity()],
            classifier=lambda seen: seen.flatten(1).mean(1, keepdim=True) + teacher,
            weights=[torch.linspace(-1, 1, 6, dtype=torch.float64)],
            progress=0.5,
        ).total

    return loss


CATALOGUE = {f"objective {name}": of_catalogue(name) for name in list_objectives()}
EVERY_LOSS = WITH_LABELS | WITHOUT_LABELS | CATALOGUE


def values(loss, logits, target, teacher):
    """The loss, and its gradients in the logits and in the teacher's , zeros where there are none; the same draws each time."""
    logits, teacher = logits.clone().requires_grad_(), teacher.clone().requires_grad_()
    torch.manual_seed(DRAW)
    value = loss(logits, target, teacher)
    gradients = torch.autograd.grad(value, [logits, teacher], allow_unused=True, materialize_grads=True)
    return value.detach(), *gradients
