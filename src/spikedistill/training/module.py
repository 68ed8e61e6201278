"""One training step, for Lightning's Trainer."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor

from ..data import as_network_input, augment, lengths_of
from ..data.mixing import Mixed, mixed
from ..models import Branched
from ..objectives import ObjectiveValue, mean_value
from ..objectives.checks import is_masked
from ..objectives.submodels import held_after, until
from ..robustness import LEVEL, Pgd
from ..robustness.training import pgd_images, retract, trades, trades_images
from ..seeds import derive_seed
from ..through_time import Captured
from ..through_time.steps import evaluating
from .features import TRANSFORMS
from .finite import EVERY, Batch, Watch
from .inputs import AtHand, inputs_of
from .means import EpochMeans, means_of_step
from .mixed_timesteps import Draw, drawn_timesteps, separate_statistics
from .optimizers import learning_rate_factor, make_optimizer
from .plan import Plan
from .student import StudentPass, Timesteps
from .whole_step import WholeStep, can_be_whole


class Pass(NamedTuple):
    """One pass of a batch.

    Attributes:
        value: the objective.
        step: its means over the samples, by name.
        submodels: the logits that the objective took, `[S, B, C]`, detached.
    """

    value: ObjectiveValue
    step: dict[str, Tensor]
    submodels: Tensor


class DistillationModule(L.LightningModule):
    """Trains a network with an objective over its timesteps.

    Args:
        plan: the run.
        every: steps between two checks that all numbers are finite; more than one needs a fused optimiser. Default every step, and
            on a GPU several, because each check waits for it.
        whole: take every step as one function of tensors that stay in place, which needs a fused optimiser; default if a GPU
            can record it.
        draw: the numbers of timesteps that each batch runs for.
    """

    def __init__(
        self, plan: Plan, *, every: int | None = None, whole: bool | None = None, draw: Draw = drawn_timesteps
    ) -> None:
        super().__init__()
        self.plan = plan
        self.every = every
        self.wants_whole = whole
        self.draw = draw
        self.network = plan.build_network()
        kind = plan.objective.transform
        self.transforms = torch.nn.ModuleList(TRANSFORMS[kind](channels) for channels in plan.layers.values() if kind)
        timesteps = None if plan.dataset.kind == "events" else plan.config.timesteps
        counts_spikes = plan.objective.needs_firing_rates
        student = StudentPass(
            self.network, timesteps, tuple(plan.layers), stages=plan.stages, counts_spikes=counts_spikes
        )
        # a function instead of a submodule, so that a checkpoint holds the network only once
        self.plain_student: Callable[..., tuple[Tensor, ...]] = student.forward
        self.student: Callable[..., tuple[Tensor, ...]] = self.plain_student
        self.lengths = lengths_of(plan.train)
        # a recording is of one number of timesteps
        if plan.config.trainer.captures and self.lengths is None and plan.config.timestep_draws is None:
            self.student = Captured(student)
        self.cached: Tensor | None = None
        self.class_weights = plan.class_weights  # not a buffer, so that checkpoints do not change
        self.means = EpochMeans()
        self.summed_epoch = 0
        self.skipped = 0
        self.watch: Watch | None = None
        self.whole: WholeStep | None = None
        # updates the moving average of the weights, if there is one
        self.update_average: Callable[[], None] | None = None

    def look(
        self,
        inputs: Tensor,
        places: Tensor,
        student: Callable[..., tuple[Tensor, ...]] | None = None,
        timesteps: Timesteps = None,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits `[T, B, C]` of the timesteps, those `[S, B, C]` that the objective takes (of heads, or the same), features, of
        which the last are the firing rates if the objective takes them.

        Args:
            inputs: the batch.
            places: the places of its samples in the training set, `[B]`.
            student: another way to run the network than usual.
            timesteps: another number of timesteps than that of the run.
        """
        run, lengths = student or self.student, self.lengths_at(places)
        options: dict[str, Timesteps] = {} if timesteps is None else {"timesteps": timesteps}
        logits, *others = run(inputs, **options) if lengths is None else run(inputs, lengths)
        submodels = others.pop(0) if isinstance(self.network, Branched) else logits
        return logits, submodels, others

    def lengths_at(self, places: Tensor) -> Tensor | None:
        """The timesteps of each of these training samples, `[B]`; None if all have the same."""
        return None if self.lengths is None else self.lengths[places.to(self.lengths.device)].to(self.device)

    def average(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes that share a batch."""
        return self.trainer.strategy.reduce(value, reduce_op="mean")

    @property
    def looks_lazily(self) -> bool:
        """Whether flags stay on the device: not if steps are skipped, nor in fp16, whose scaler reads a flag in every step."""
        options = self.plan.config.trainer
        if options.on_nonfinite == "skip" or options.precision == "16-mixed":
            return False
        return self.device.type == "cuda" if self.every is None else self.every > 1

    def on_fit_start(self) -> None:
        skip = self.plan.config.trainer.on_nonfinite == "skip"
        self.watch = Watch(self, skip=skip, lazily=self.looks_lazily, every=self.every or EVERY)
        self.begin_on_device()

    def begin_on_device(self, cached: Tensor | None = None) -> None:
        """Move to the device what is not part of the module.

        Args:
            cached: the teacher's logits on all training samples, `[N, C]`; by default they are computed on every batch.
        """
        if self.class_weights is not None:
            self.class_weights = self.class_weights.to(self.device)
        # the teacher is not a submodule, so that DDP does not wrap it and no checkpoint holds it
        if self.plan.teacher is None:
            return
        self.plan.teacher.to(self.device)
        if self.plan.config.teacher_logits == "cached":
            teacher, kind = self.plan.teacher, self.plan.dataset.kind
            self.cached = teacher.logits_of(self.plan.train, kind, self.device) if cached is None else cached

    def on_fit_end(self) -> None:
        # evaluation needs the memory
        if self.whole is not None:
            self.whole.release()
        if isinstance(self.student, Captured):
            self.student.release()

    def on_train_epoch_start(self) -> None:
        # a resumed epoch continues with the sums from the checkpoint
        if self.current_epoch != self.summed_epoch:
            self.means.reset()
            self.skipped, self.summed_epoch = 0, self.current_epoch

    def on_train_start(self) -> None:
        # a checkpoint also restores options of the optimiser, which may be those of another device
        for group in self.optimizer.param_groups:
            group["fused"] = self.looks_lazily or None
        for state in self.optimizer.state.values():
            if "step" in state:
                state["step"] = state["step"].to(self.device if self.looks_lazily else "cpu")
        whole = self.device.type == "cuda" if self.wants_whole is None else self.wants_whole
        if whole and self.looks_lazily and can_be_whole(self.plan):
            self.whole = WholeStep(self)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_index: int) -> Tensor:
        assert self.watch is not None
        accumulate = self.trainer.accumulate_grad_batches
        samples, target, places = batch
        samples = self.watch.begin(self.optimizer, samples, batch_index % accumulate == 0)
        inputs, mix = self.prepared(samples, target, batch_index)
        if self.whole is not None and self.whole.failed:
            self.whole = None
        if self.whole is not None:
            return self.whole(batch_index, inputs, target, places)
        drawn = self.draw(self.plan, self.current_epoch, batch_index)
        value, step, submodels = self.passes(inputs, target, places, mix, drawn)
        total = value.total
        self.means.add(step, len(target))
        self.means.seen += len(target)
        self.watch.saw(Batch(batch_index, places, total.detach(), value.terms), submodels)
        # Lightning divides by the number of batches in a whole window, and the last window of an epoch may have fewer
        of_window = min(accumulate, int(self.trainer.num_training_batches) - batch_index // accumulate * accumulate)
        if of_window != accumulate:
            total = total * (accumulate / of_window)
        return self.scaled(total)

    def passes(
        self, inputs: Tensor, target: Tensor, places: Tensor, mix: Mixed | None, drawn: Sequence[Timesteps]
    ) -> "Pass":
        """The passes of a batch, one for each number of timesteps, as one: their losses are added, and their means averaged."""
        if len(drawn) == 1:
            return self.one_pass(inputs, target, places, mix, drawn[0])
        found = []
        with separate_statistics(self) as renew:
            for timesteps in drawn:
                renew()
                found.append(self.one_pass(inputs, target, places, mix, timesteps))
        value = mean_value([(1.0, each.value) for each in found])
        step = {name: torch.stack([each.step[name] for each in found]).mean(0) for name in found[0].step}
        return Pass(value, step, torch.cat([each.submodels for each in found]))

    def one_pass(
        self, inputs: Tensor, target: Tensor, places: Tensor, mix: Mixed | None, timesteps: Timesteps
    ) -> "Pass":
        """The objective and the means of a batch that runs for so many timesteps; None: those of the run."""
        logits, submodels, features = self.look(inputs, places, timesteps=timesteps)
        at = self.at_hand(inputs, target, places, submodels, features)
        value, scores = self.value_of(at, mix)
        answers = logits.detach() if at.lengths is None else held_after(logits.detach(), at.lengths)
        if timesteps is not None:
            answers, scores = until(answers, self.plan.config.timesteps), None
        heads = self.plan.objective.submodels != "timesteps"
        step = means_of_step(answers, submodels.detach(), target, scores, value.total, value.terms, heads=heads)
        return Pass(value, step, submodels.detach())

    def scaled(self, total: Tensor) -> Tensor:
        """The loss whose gradients the optimiser uses."""
        return total / self.plan.config.timesteps if self.plan.config.gradient_scale == "1/T" else total

    def prepared(self, samples: Tensor, target: Tensor, batch_index: int) -> tuple[Tensor, Mixed | None]:
        """The samples of a batch of this epoch as the network takes them, augmented and attacked, and what they are mixed with."""
        # every random number of this step depends only on its position in training, so the step can be repeated
        seed = derive_seed(self.plan.config.seed, self.current_epoch, batch_index, self.global_rank)
        # `torch.manual_seed` records a stack trace in every step for a GPU that is not used
        torch.default_generator.manual_seed(seed)
        if self.device.type in ("cuda", "mps"):
            getattr(torch, self.device.type).manual_seed(seed)
        inputs = as_network_input(samples, self.plan.dataset.kind)
        if self.plan.augmentations:
            inputs = augment(inputs, self.plan.augmentations)
        if self.plan.config.objective.adversarial == "pgd":
            with evaluating(self.network):
                inputs = pgd_images(self.logits_of, inputs, target, self.attack)
        data = self.plan.config.data
        if data.mix == "none":
            return inputs, None
        mix = mixed(inputs, data.mix, data.mix_alpha)
        return mix.inputs, mix

    def logits_of(self, images: Tensor) -> Tensor:
        """Logits `[T, B, C]` of images, as attacks see them."""
        logits: Tensor = self.network(images, self.plan.config.timesteps)
        return logits

    @property
    def attack(self) -> Pgd:
        """The attack of adversarial training."""
        options = self.plan.config.objective
        step = None if options.adversarial_step is None else options.adversarial_step / LEVEL
        return Pgd(options.adversarial_eps / LEVEL, step=step, steps=options.adversarial_steps)

    def at_hand(
        self, inputs: Tensor, target: Tensor, places: Tensor, submodels: Tensor, features: list[Tensor]
    ) -> AtHand:
        """What the objective's inputs are made of.

        Args:
            inputs: the batch.
            target: the labels, `[B]`.
            places: the places of its samples in the training set, `[B]`.
            submodels: logits `[S, B, C]`.
            features: the features of the student.
        """
        # the networks mask no class; logits so low that an objective would treat them as masked mean that training has diverged
        submodels = submodels * torch.where(is_masked(submodels).any(), math.nan, 1.0)
        rates = None
        if self.plan.objective.needs_firing_rates:
            *features, rates = features
        return AtHand(
            objective=self.plan.objective,
            teacher=self.plan.teacher,
            kind=self.plan.dataset.kind,
            inputs=inputs,
            target=target,
            submodels=submodels,
            features=features,
            firing_rates=rates,
            transforms=list(self.transforms),
            cached=None if self.cached is None else self.cached[places],
            average=self.average if self._trainer is not None and self.trainer.world_size > 1 else None,
            progress=self.current_epoch / self.plan.config.epochs,
            class_weights=self.class_weights,
            lengths=self.lengths_at(places),
            network=self.network,
        )

    def value_of(self, at: AtHand, mix: Mixed | None = None) -> tuple[ObjectiveValue, Tensor | None]:
        """The objective on a batch, and how strong each of its submodels is, if it ranks them.

        Args:
            at: the batch, with the samples' own labels. Samples of each length have a value of their own.
            mix: what the samples are mixed with.
        """
        if at.lengths is not None:
            parts = [(share, self.value_of(part)[0]) for share, part in at.of_each_length()]
            return mean_value(parts), None
        given = inputs_of(at)
        value, scores = self.plan.objective(at.submodels, at.target, **given), given.get("scores")
        if mix is None:
            return self.with_trades(value, at), scores
        other, _ = self.value_of(at.with_target(at.target[mix.partners]))
        return mean_value([(mix.share, value), (1 - mix.share, other)]), scores

    def with_trades(self, value: ObjectiveValue, at: AtHand) -> ObjectiveValue:
        """The objective's value with the term of TRADES, if that is trained."""
        options = self.plan.config.objective
        if options.adversarial != "trades":
            return value
        with evaluating(self.network):
            changed = trades_images(self.logits_of, at.inputs, self.attack)
        clean = at.submodels if self.plan.objective.submodels == "timesteps" else self.logits_of(at.inputs)
        term = trades(clean, self.logits_of(changed)[: len(clean)])  # of as many timesteps as this pass has
        terms = value.terms | {"trades": term.detach()}
        return ObjectiveValue(value.total + options.adversarial_weight * term, terms)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        assert self.watch is not None
        # the scaler of fp16 skips steps with infinite gradients itself; at a scale of 1 or less, scaling is not their cause
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        self.watch.before_update(optimizer, gradients=scaler is None or scaler.get_scale() <= 1)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        if self.whole is not None:
            optimizer_closure()  # the training step has made the update
            return
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if beta := self.plan.config.optimizer.orthogonal:
            retract(self.network, beta)
        assert self.watch is not None
        self.watch.after_update()

    def backward(self, loss: Tensor, *arguments: Any, **options: Any) -> None:
        if self.whole is None:
            super().backward(loss, *arguments, **options)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        if self.whole is None:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.trainer.optimizers[0]

    def epoch_means(self) -> dict[str, float]:
        """Means over the samples of the epoch so far, on this process.

        Raises:
            RunDiverged: if a step was not finite, or every step was skipped.
        """
        assert self.watch is not None
        self.watch.settle()
        if not self.means.seen:
            raise self.watch.nothing_is_left()
        return {name: total / self.means.seen for name, total in self.means.as_sums().items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = {
            "sums": self.means.as_sums(),
            "seen": self.means.seen,
            "epoch": self.summed_epoch,
            "skipped": self.skipped,
        }
        # each process has its own sums, and only the checkpoint of the first process is kept
        of_all: list[Any] = [own] * self.trainer.world_size
        if len(of_all) > 1:
            torch.distributed.all_gather_object(of_all, own)
        checkpoint["epoch_means"] = of_all

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = checkpoint["epoch_means"][self.global_rank]
        self.means.load(own["sums"], own["seen"])
        self.summed_epoch = own["epoch"]
        self.skipped = own.get("skipped", 0)  # version 0.1.0 skipped none

    def configure_optimizers(self) -> Any:
        options = self.plan.config.optimizer
        optimizer = make_optimizer(self, options, fused=self.looks_lazily)
        steps_per_epoch = int(self.trainer.estimated_stepping_batches) / self.plan.config.epochs
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step / steps_per_epoch, self.plan.config.epochs, options)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
