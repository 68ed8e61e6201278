"""One training step, for Lightning's Trainer."""

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import OptimizerConfig
from ..data import as_network_input, augment
from ..models import Branched
from ..objectives.submodels import prefix_means, right_submodels
from ..seeds import derive_seed
from ..temporal import Captured
from .features import TRANSFORMS
from .plan import Plan
from .student import StudentPass


class DistillationModule(L.LightningModule):
    """Trains a network with an objective over its timesteps.

    Args:
        plan: the run.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.network = plan.build_network()
        kind = plan.objective.transform
        self.transforms = torch.nn.ModuleList(TRANSFORMS[kind](channels) for channels in plan.layers.values() if kind)
        timesteps = None if plan.dataset.kind == "events" else plan.config.timesteps
        student = StudentPass(self.network, timesteps, tuple(plan.layers))
        # a function, no submodule: a checkpoint holds the network once
        self.student: Callable[[Tensor], tuple[Tensor, ...]] = student.forward
        if plan.config.trainer.captures:
            self.student = Captured(student)
        self.cached: Tensor | None = None
        self.sums: dict[str, Tensor] = {}
        self.seen = 0
        self.summed_epoch = 0

    def teaching(self, inputs: Tensor, places: Tensor) -> dict[str, Any]:
        """What the teacher, where there is one, has for the objective on the student's own batch.

        Logits `[B, C]`, features, and its classifier.

        Args:
            inputs: the batch.
            places: of its samples in the training set, `[B]`.
        """
        if self.plan.teacher is None:
            return {}
        if self.cached is not None:
            return {"teacher_logits": self.cached[places]}
        logits, features = self.plan.teacher.look(inputs, self.plan.dataset.kind)
        return {"teacher_logits": logits, "teacher_features": features, "classifier": self.plan.teacher.classifier}

    def look(self, inputs: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits `[T, B, C]` of the timesteps, those `[S, B, C]` that the objective is over (of heads, or the same), features."""
        logits, *others = self.student(inputs)
        submodels = others.pop(0) if isinstance(self.network, Branched) else logits
        return logits, submodels, others

    def average(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes that share a batch."""
        return self.trainer.strategy.reduce(value, reduce_op="mean")

    def on_fit_start(self) -> None:
        # no submodule, so that DDP does not wrap it and no checkpoint holds it
        if self.plan.teacher is None:
            return
        self.plan.teacher.to(self.device)
        if self.plan.config.teacher_logits == "cached":
            self.cached = self.plan.teacher.logits_of(self.plan.train, self.plan.dataset.kind, self.device)

    def on_fit_end(self) -> None:
        # evaluation wants the memory
        if isinstance(self.student, Captured):
            self.student.release()

    def on_train_epoch_start(self) -> None:
        # an epoch that is resumed goes on with the sums that it has
        if self.current_epoch != self.summed_epoch:
            self.sums, self.seen, self.summed_epoch = {}, 0, self.current_epoch

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_index: int) -> Tensor:
        # every draw of this step depends on its place alone, so that a resumed run repeats it
        torch.manual_seed(derive_seed(self.plan.config.seed, self.current_epoch, batch_index, self.global_rank))
        inputs, target, places = as_network_input(batch[0], self.plan.dataset.kind), *batch[1:]
        if self.plan.augmentations:
            inputs = augment(inputs, self.plan.augmentations)
        logits, submodels, features = self.look(inputs)
        average = self.average if self.trainer.world_size > 1 else None
        scores = self.plan.objective.ranking(submodels, target, average)
        value = self.plan.objective(
            submodels,
            target,
            **self.teaching(inputs, places),
            scores=scores,
            features=features,
            transforms=list(self.transforms) or None,
            average=average,
            progress=self.current_epoch / self.plan.config.epochs,
        )
        self._collect(logits.detach(), submodels.detach(), target, scores, value.total.detach(), value.terms)
        scaled = self.plan.config.gradient_scale == "1/T"
        return value.total / self.plan.config.timesteps if scaled else value.total

    @torch.no_grad()
    def _collect(
        self,
        logits: Tensor,
        submodels: Tensor,
        target: Tensor,
        scores: Tensor | None,
        total: Tensor,
        terms: dict[str, Tensor],
    ) -> None:
        """Add this step to the means of the epoch, and show it on the progress bar."""
        prefixes = prefix_means(logits.float())
        right = (prefixes.argmax(-1) == target).float().mean(1)
        step = {"train_loss": total, "train_accuracy": right[-1], "train_accuracy_1": right[0]}
        step |= {f"loss/{name}": value for name, value in terms.items()}
        for kind, answers in (("single", logits.float()), ("prefix", prefixes)):
            for k, z in enumerate(answers, 1):
                step[f"ce_{kind}_{k}"] = F.cross_entropy(z, target)
        if self.plan.objective.submodels != "timesteps":
            right_heads = right_submodels(submodels, target)
            step |= {f"head_accuracy_{s}": share for s, share in enumerate(right_heads.float().mean(1), 1)}
            step["no_head_right"] = 1 - right_heads.any(0).float().mean()
        if scores is not None:
            places = torch.arange(len(scores), device=scores.device)
            for role, chosen in (("strongest", scores.argmax()), ("weakest", scores.argmin())):
                step |= {f"{role}_{k}": share for k, share in enumerate((places == chosen).float(), 1)}
        count = len(target)
        self.seen += count
        for name, value in step.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), device=value.device)) + value.float() * count
        bar = {"loss": total, "acc": right[-1], "acc@1": right[0]}
        self.log_dict(bar, prog_bar=True, logger=False, on_step=True, on_epoch=False)

    def epoch_means(self) -> dict[str, float]:
        """Means over the samples of the epoch so far, on this process."""
        return {name: float(value) / self.seen for name, value in self.sums.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        sums = {name: float(value) for name, value in self.sums.items()}
        own = {"sums": sums, "seen": self.seen, "epoch": self.summed_epoch}
        # each process has sums of its own, and the checkpoint of the first one is kept
        of_all: list[Any] = [own] * self.trainer.world_size
        if len(of_all) > 1:
            torch.distributed.all_gather_object(of_all, own)
        checkpoint["epoch_means"] = of_all

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = checkpoint["epoch_means"][self.global_rank]
        self.sums = {name: torch.tensor(value, dtype=torch.float32) for name, value in own["sums"].items()}
        self.seen, self.summed_epoch = own["seen"], own["epoch"]

    def configure_optimizers(self) -> Any:
        options = self.plan.config.optimizer
        optimizer = make_optimizer(self, options)
        steps_per_epoch = int(self.trainer.estimated_stepping_batches) / self.plan.config.epochs
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step / steps_per_epoch, self.plan.config.epochs, options)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def make_optimizer(network: torch.nn.Module, options: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimiser, with weight decay on the weights of convolutions and linear layers alone.

    Biases, batch-norm and what neurons learn have one dimension or none, and no decay.
    """
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if options.name == "adamw":
        return torch.optim.AdamW(groups, lr=options.lr)
    return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum)


def learning_rate_factor(epoch: float, epochs: int, options: OptimizerConfig) -> float:
    """What the highest learning rate is multiplied by after so many (fractional) epochs.

    A linear rise over the warm-up, then 0.5 (1 + cos(pi p)) with p the share of the remaining epochs done, or
    `step_factor ** floor(epoch / step_epochs)`, or 1.
    """
    if epoch < options.warmup_epochs:
        # the first step must not be wasted on a learning rate of zero
        return max(epoch, 1e-3) / options.warmup_epochs
    if options.schedule == "step":
        return options.step_factor ** (int(epoch) // options.step_epochs)
    if options.schedule == "constant":
        return 1.0
    progress = (epoch - options.warmup_epochs) / max(epochs - options.warmup_epochs, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
