"""Who takes part: a name and a small function each; the first of a table is what the others are divided by."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikedistill import lif, temporal
from spikedistill.objectives import create_objective
from spikedistill.sparse import SparseMode, sparse_layers
from spikedistill.through_time import Captured, CompiledStep

from .floors import bandwidth, convolutions
from .peers import NEURONS, PeerNetwork
from .two_pass import TwoPass
from .workloads import Contender, LeftOut, NetworkWorkload, NeuronWorkload, Step, Workload


@dataclass(frozen=True)
class Suite:
    """A benchmark: its workload, its contenders, and the timesteps at which it is of interest.

    Attributes:
        workload: the defaults.
        contenders: by name; the first is the reference of the ratios.
        timesteps: the T that are measured where nothing else is asked for.
    """

    workload: Workload
    contenders: dict[str, Contender]
    timesteps: tuple[int, ...]

    @property
    def reference(self) -> str:
        return next(iter(self.contenders))


def training_step(
    work: NetworkWorkload, network: nn.Module, forward: Callable[[Tensor], Tensor], *, captured: bool = False
) -> Step:
    """Forward, cross-entropy of the mean logits `[B, C]` that `forward(images)` returns, and backward; no optimiser.

    Args:
        captured: record forward and backward of the network, and replay them.
    """
    images, labels = work.images(), work.labels()
    network.train()
    if captured:
        if work.device == "cpu":
            raise LeftOut("CUDA graphs need a GPU")
        forward = Captured(_Forward(network, forward))

    def run() -> None:
        with work.autocast():
            loss = F.cross_entropy(forward(images), labels)
        loss.backward()

    return Step(run, list(network.parameters()))


class _Forward(nn.Module):
    """A function of a network, as a module."""

    def __init__(self, network: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


def ann(work: NetworkWorkload, timesteps: int, *, captured: bool = False) -> Step:
    """An ordinary ReLU network; it knows no time, so T changes nothing."""
    network = work.network("relu")
    return training_step(work, network, network, captured=captured)


def ours(*, captured: bool = False, sparse: SparseMode = "auto", **rule: Any) -> Contender:
    """The library under a gradient rule, with the arguments of `spikedistill.temporal`.

    Args:
        captured: see `training_step`.
        sparse: which layers run on spikes.
    """

    def make(work: NetworkWorkload, timesteps: int) -> Step:
        if rule.get("segments", 1) > timesteps:
            raise LeftOut(f"{rule['segments']} segments need as many timesteps, T is {timesteps}")
        model = temporal(work.at_density(work.network().train(), timesteps), **rule)
        return with_sparse(
            sparse,
            training_step(work, model, lambda images: model(images, timesteps=timesteps).mean(0), captured=captured),
        )

    return make


def with_sparse(mode: SparseMode, step: Step) -> Step:
    """The step, with layers on spikes chosen in that way."""

    def run() -> None:
        with sparse_layers(mode):
            step.run()

    return Step(run, step.parameters, only_time=step.only_time)


def two_pass(work: NetworkWorkload, timesteps: int, *, fused: bool) -> Step:
    """Rate-based gradients in the form of the papers."""
    network = TwoPass(work.network(), fused=fused)
    return training_step(work, network, lambda images: network(images, timesteps))


def peer(work: NetworkWorkload, timesteps: int, *, neuron: Callable[[], nn.Module], captured: bool = False) -> Step:
    """BPTT with another library's neurons."""
    network = PeerNetwork(work.network(), neuron, timesteps).to(work.device)
    return training_step(work, network, lambda images: network(images).mean(0), captured=captured)


STEP = Suite(
    NetworkWorkload(),
    {
        "ann": ann,
        "convolutions": convolutions,
        "bptt": ours(gradient="bptt"),
        "sltt": ours(gradient="sltt"),
        "bptt-dense": ours(gradient="bptt", sparse="never"),
        "rate-m1-dense": ours(gradient="rate", segments=1, sparse="never"),
        "bptt-checkpoint": ours(gradient="bptt", checkpoint=True),
        "rate-m1": ours(gradient="rate", segments=1),
        "rate-m2": ours(gradient="rate", segments=2),
        "rate-chunk1": ours(gradient="rate", chunk=1),
        "rate-chunk1-kept": ours(gradient="rate", chunk=1, recompute=False),
        "rate-two-pass": partial(two_pass, fused=False),
        "rate-two-pass-fused": partial(two_pass, fused=True),
        **{name: partial(peer, neuron=neuron) for name, neuron in NEURONS.items()},
        # on a GPU, without the gaps between kernels in which Python finds the next one
        "ann-captured": partial(ann, captured=True),
        "convolutions-captured": partial(convolutions, captured=True),
        "bptt-captured": ours(gradient="bptt", captured=True),
        "rate-m1-captured": ours(gradient="rate", segments=1, captured=True),
        "spikingjelly-captured": partial(peer, neuron=NEURONS["spikingjelly"], captured=True),
    },
    timesteps=(1, 2, 4, 6, 8, 16),
)


def evaluation(work: NetworkWorkload, network: nn.Module, forward: Callable[[Tensor], Any]) -> Step:
    """The logits of a batch in evaluation mode, without gradients."""
    images = work.images()
    network.eval()

    def run() -> None:
        with torch.no_grad(), work.autocast():
            forward(images)

    return Step(run)


def ann_inference(work: NetworkWorkload, timesteps: int) -> Step:
    """An ordinary ReLU network."""
    network = work.network("relu")
    return evaluation(work, network, network)


def evaluated_network(work: NetworkWorkload, timesteps: int) -> nn.Module:
    """The spiking network in evaluation mode, at the density that is asked for."""
    return work.at_density(work.network().eval(), timesteps)


def our_inference(work: NetworkWorkload, timesteps: int, *, sparse: SparseMode = "auto") -> Step:
    """All T logits of the library's network, hence those of every number of timesteps up to T, in one call."""
    model = temporal(evaluated_network(work, timesteps))
    return with_sparse(sparse, evaluation(work, model, lambda images: model(images, timesteps=timesteps)))


def streaming(work: NetworkWorkload, timesteps: int, *, compiled: bool) -> Step:
    """The same, one timestep at a time, as early exit uses it."""
    model = temporal(evaluated_network(work, timesteps))
    step = CompiledStep(model) if compiled else model.step

    def forward(images: Tensor) -> None:
        state = None
        for _ in range(timesteps):
            _, state = step(images, state, still=compiled)

    return evaluation(work, model, forward)


def peer_inference(work: NetworkWorkload, timesteps: int, *, neuron: Callable[[], nn.Module]) -> Step:
    """All T logits with another library's neurons."""
    network = PeerNetwork(work.network(), neuron, timesteps).to(work.device)
    return evaluation(work, network, network)


INFERENCE = Suite(
    NetworkWorkload(),
    {
        "ann": ann_inference,
        "convolutions": partial(convolutions, backward=False),
        "ours": our_inference,
        "ours-dense": partial(our_inference, sparse="never"),
        "ours-streaming": partial(streaming, compiled=False),
        "ours-streaming-compiled": partial(streaming, compiled=True),
        **{name: partial(peer_inference, neuron=neuron) for name, neuron in NEURONS.items()},
    },
    timesteps=(1, 2, 4, 8, 16),
)


def layer(work: NeuronWorkload, timesteps: int, *, make: Callable[[], Callable[[Tensor], Tensor]]) -> Step:
    """Forward and backward of a layer without parameters."""
    currents = work.values(timesteps).requires_grad_()
    function = make()
    gradient = torch.ones_like(currents)

    def run() -> None:
        out = function(currents)
        torch.autograd.grad(out, currents, gradient.to(out.dtype))

    return Step(run)


def eager_lif(currents: Tensor) -> Tensor:
    """The library's reference path: a decay that is a tensor is not compiled."""
    return lif(currents, decay=torch.tensor(0.5, device=currents.device))


NEURON = Suite(
    NeuronWorkload(),
    {
        "relu": partial(layer, make=lambda: torch.relu),
        "bandwidth": bandwidth,
        "ours": partial(layer, make=lambda: lif),
        "ours-eager": partial(layer, make=lambda: eager_lif),
        **{name: partial(layer, make=neuron) for name, neuron in NEURONS.items()},
    },
    timesteps=(1, 2, 4, 8, 16, 32),
)


def objective_step(work: NetworkWorkload, timesteps: int, *, name: str) -> Step:
    """BPTT with an objective of the catalogue; a trained ANN that it learns from is the ReLU twin, run on the same batch."""
    objective = create_objective(name)
    model, teacher = temporal(work.network()).train(), work.network("relu").eval().requires_grad_(False)
    images, labels = work.images(), work.labels()

    def run() -> None:
        with work.autocast():
            logits = model(images, timesteps=timesteps)
            with torch.no_grad():
                taught = teacher(images) if objective.needs_teacher else None
        objective(logits, labels, teacher_logits=taught).total.backward()

    return Step(run, list(model.parameters()))


OBJECTIVES = Suite(
    NetworkWorkload(model="convnet", batch=128, image_size=28),
    {
        name: partial(objective_step, name=name)
        for name in ("sce", "twce", "twce-twsd", "twkd", "s2w", "w2s", "etc", "prefix")
    },
    timesteps=(4,),
)

SUITES = {"step": STEP, "objectives": OBJECTIVES, "neurons": NEURON, "inference": INFERENCE}
