"""A whole training step as one function of tensors that stay in place, which a GPU records once and replays.

It goes from the prepared batch to the updated weights: passes, loss, gradients, the check for NaN, clipping, the optimiser,
the moving average, and the means of the epoch. Augmentation stays outside, because AutoAugment groups images by the draws.
"""

import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data import lengths_of
from ..objectives.inputs import INPUTS
from .finite import Batch, Window, not_finite
from .means import means_of_step
from .teacher import MeanLogits

if TYPE_CHECKING:
    from .module import DistillationModule
    from .plan import Plan

logger = logging.getLogger("spikedistill")

# Batches of an epoch have two sizes at most, which differ by one.
KINDS_OF_BATCHES = 2


def can_be_whole(plan: "Plan") -> bool:
    """Whether a step of this plan is a function of tensors: one device, no scaler, and nothing that Python decides in each step."""
    options, teacher = plan.config.trainer, plan.teacher
    taught = teacher is None or plan.config.teacher_logits == "cached" or isinstance(teacher.function, MeanLogits)
    return (
        options.captures
        and plan.config.timestep_draws is None
        and options.precision in ("32-true", "bf16-mixed")
        and options.on_nonfinite == "stop"
        and not any(INPUTS[name].is_number for name in plan.objective.inputs)
        and taught
        and plan.config.data.mix == "none"  # whose share is a number of Python
        and lengths_of(plan.train) is None
        and plan.config.objective.adversarial != "trades"  # whose images are made in the step
        and not plan.config.optimizer.orthogonal
    )


class WholeStep:
    """The whole training step of a module: recorded at the second batch of a size if the module is on a GPU, else called.

    If recording fails, a log line says so, `failed` is set, and the module trains without recording from the next step on.

    Args:
        module: the module, as it begins to train.
    """

    def __init__(self, module: "DistillationModule") -> None:
        self.module = module
        self.steps: dict[tuple[object, ...], StaticStep] = {}
        self.failed = False
        self.pool = None
        self.stream = None
        if module.device.type == "cuda":
            self.pool = torch.cuda.graph_pool_handle()
            self.stream = torch.cuda.Stream(module.device)

    def __call__(self, number: int, inputs: Tensor, target: Tensor, places: Tensor) -> Tensor:
        """Train on a batch of the epoch; returns the loss, detached."""
        module, watch = self.module, self.module.watch
        assert watch is not None
        assert watch.window is not None
        window, kind = watch.window, (inputs.shape, inputs.dtype)
        if kind not in self.steps:
            self.steps[kind] = StaticStep(module, inputs, target, places)
        step = self.steps[kind]
        step.take(inputs, target, places, window.flags)
        if step.graph is None:
            self._run_or_record(step)
        if step.graph is not None:
            step.graph.replay()
        module.means.seen += len(target)
        window.flags, values = step.window.flags.clone(), step.values.clone()
        loss, *terms = values.unbind()
        window.batches.append(Batch(number, places, loss, dict(zip(step.terms, terms, strict=True))))
        watch.window = None
        watch.keep(window)
        return loss

    def release(self) -> None:
        """Give back the memory of the recordings."""
        self.steps.clear()
        self.module.optimizer.zero_grad()  # the gradients are stored in that memory
        if self.module.device.type == "cuda":
            torch.cuda.empty_cache()

    def _run_or_record(self, step: "StaticStep") -> None:
        """Run a step; on a GPU record it once it has run, and let the replay run it."""
        if self.stream is None:
            step.compute()
            return
        recorded = sum(other.graph is not None for other in self.steps.values())
        # a recording keeps the nodes that accumulate gradients, which belong to the stream of the recording
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        torch.clear_autocast_cache()  # a cast that autocast has cached would be missing from the recorded graph
        try:
            if step.has_run and recorded < KINDS_OF_BATCHES and not self.failed:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                    step.compute()
                step.graph = graph
                return
        except (RuntimeError, AssertionError) as error:
            reason = (str(error).splitlines() or ["no reason given"])[0]
            logger.warning("a training step is recorded in parts only: %s", reason)
            self.failed = True
        finally:
            torch.clear_autocast_cache()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            step.compute()
        torch.cuda.current_stream().wait_stream(self.stream)


class StaticStep:
    """The step on batches of one size.

    Attributes:
        inputs, target, places: those of the batch.
        rates: the learning rate of each group of the optimiser, float32 scalars.
        window: whose flags the step raises.
        values: the loss and its terms, `[1 + len(terms)]`.
        terms: their names.
        has_run: whether the optimiser has its state and the kernels are loaded.
        graph: the recording.
    """

    def __init__(self, module: "DistillationModule", inputs: Tensor, target: Tensor, places: Tensor) -> None:
        self.module = module
        self.inputs, self.target, self.places = (torch.empty_like(part) for part in (inputs, target, places))
        groups = module.optimizer.param_groups
        self.rates = [torch.zeros((), device=inputs.device) for _ in groups]
        self.window = Window(0, 0, inputs.device)
        self.values = torch.zeros(0)
        self.terms: tuple[str, ...] = ()
        self.has_run = False
        self.graph: torch.cuda.CUDAGraph | None = None

    def take(self, inputs: Tensor, target: Tensor, places: Tensor, flags: Tensor) -> None:
        """Put a batch, the flags that it has raised and the learning rates in place."""
        for own, given in zip((self.inputs, self.target, self.places), (inputs, target, places), strict=True):
            own.copy_(given)
        self.window.flags.copy_(flags)
        for rate, group in zip(self.rates, self.module.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])

    def compute(self) -> None:
        """The step, from and to the tensors above and those of the module, its optimiser, average, watch and means."""
        module, watch, optimizer, clip = (
            self.module,
            self.module.watch,
            self.module.optimizer,
            self.module.plan.config.trainer.clip,
        )
        assert watch is not None
        logits, submodels, features = module.look(self.inputs, self.places, module.plain_student)
        value, scores = module.value_of(module.at_hand(self.inputs, self.target, self.places, submodels, features))
        heads = module.plan.objective.submodels != "timesteps"
        step = means_of_step(
            logits.detach(), submodels.detach(), self.target, scores, value.total, value.terms, heads=heads
        )
        module.means.add(step, len(self.target))
        self.terms = tuple(value.terms)
        self.values = torch.stack([value.total.detach().float(), *(term.float() for term in value.terms.values())])
        watch.window = self.window
        self.window.flag("loss", not_finite([value.total.detach(), submodels.detach()]))
        mixed = module.plan.config.trainer.precision == "bf16-mixed"
        with torch.autocast(self.inputs.device.type, enabled=False) if mixed else nullcontext():
            optimizer.zero_grad()
            module.scaled(value.total).backward()
            watch.before_update(optimizer, gradients=True)
            if clip is not None:
                module.trainer.precision_plugin.clip_grad_by_norm(optimizer, clip)
            self._update(optimizer)
            watch.look_after(self.window)
            if module.update_average is not None:
                module.update_average()
        self.has_run = True

    def _update(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the optimiser read the learning rates on the device."""
        before = [dict(group) for group in optimizer.param_groups]
        try:
            for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate
                if "capturable" in group:
                    group["capturable"] = True  # the optimiser's count of steps is on the device already
            optimizer.step()
        finally:
            for group, own in zip(optimizer.param_groups, before, strict=True):
                group.update(own)
