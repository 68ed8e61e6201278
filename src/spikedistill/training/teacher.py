"""The trained network that a run learns from."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import Config
from ..data import Dataset, Samples, as_network_input, in_order
from ..errors import UserError
from ..models import check_finite, create_model, load_weights
from ..objectives import Objective
from ..recipe_name import RecipeName
from ..run_folder import RunFolder, load
from ..through_time import Temporal, mean_rate
from ..through_time.features import outputs_of
from .features import classifier_of, layer_names


class Teacher:
    """A frozen function from the student's own batch to logits `[B, C]`.

    Args:
        function: takes images `[B, C, H, W]` in [0, 1], augmented as the student sees them (for events, one frame), and normalises
            them itself.
        num_classes: C, which its logits must have.
        frames: how many frames it cut event recordings into as it was trained. The one frame that it sees holds so many times fewer
            events than the recording. By default it is the mean of the student's frames.

    Attributes:
        classifier: from features `[B, c, ...]` of its last stage to logits `[B, C]`, where the objective asks for it.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], num_classes: int, frames: int | None = None) -> None:
        self.function = function
        self.num_classes = num_classes
        self.frames = frames
        self.classifier: Callable[[Tensor], Tensor] | None = None

    def logits(self, inputs: Tensor, kind: str) -> Tensor:
        """Logits `[B, C]` on a batch of images, or of event frames `[T, B, C, H, W]`.

        Raises:
            UserError: where the function returns anything else.
        """
        return self.look(inputs, kind)[0]

    @torch.no_grad()
    def look(self, inputs: Tensor, kind: str) -> tuple[Tensor, list[Tensor]]:
        """Logits `[B, C]` as `logits` returns them, and the features `[B, ...]` of a network's named layers, in one pass.

        Raises:
            UserError: where the function returns anything but logits `[B, C]`.
        """
        images = inputs
        if kind == "events":
            images = inputs.mean(0) if self.frames in (None, len(inputs)) else inputs.sum(0) / self.frames
        features: list[Tensor] = []
        if isinstance(self.function, MeanLogits):
            logits, features = self.function.look(images)
        else:
            logits = self.function(images)
        if logits.shape != (len(images), self.num_classes):
            raise UserError(
                f"the teacher returned {list(logits.shape)} for {len(images)} inputs; expected logits "
                f"[{len(images)}, {self.num_classes}]"
            )
        return logits, features

    def logits_of(self, samples: Samples, kind: str, device: torch.device, batch_size: int = 250) -> Tensor:
        """Logits `[N, C]` in float32 on all samples, in their order.

        Raises:
            UserError: as `logits`.
        """
        parts = [
            self.logits(as_network_input(inputs.to(device), kind), kind) for inputs, _ in in_order(samples, batch_size)
        ]
        return torch.cat(parts).float()

    def to(self, device: torch.device) -> None:
        """Move it, where it is a module."""
        if isinstance(self.function, nn.Module):
            self.function.to(device)


class MeanLogits(nn.Module):
    """A network over time as a function to logits `[B, C]`, the mean over its timesteps; frozen, in eval mode.

    Args:
        network: the network.
        timesteps: T.
        layers: names, within `network.module`, of layers whose features `look` returns.

    Raises:
        UserError: for a layer that there is not.
    """

    def __init__(self, network: Temporal, timesteps: int, layers: Sequence[str] = ()) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.timesteps = timesteps
        self.layers = tuple(layers)

    def forward(self, images: Tensor) -> Tensor:
        # under 64-true the student's images are in float64
        images = images.to(next(self.network.parameters()).dtype)
        return self.network(images, timesteps=self.timesteps).mean(0)

    def look(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits `[B, C]`, and what each layer returns, `[B, ...]`, the mean over the timesteps."""
        with outputs_of(self.network.module, self.layers) as outputs:
            logits = self(images)
        return logits, [mean_rate(outputs[layer]) for layer in self.layers]


def relu_twin(config: Config, seed: int, out: Path) -> Config:
    """The run that trains the ReLU twin of a run's network, on the same data and schedule."""
    name = RecipeName(config.data.name, "ann")
    norm = "batch" if config.model.norm == "tdbn" else config.model.norm  # an ANN has no threshold
    return Config(
        recipe=name,
        seed=seed,
        out=out / name / f"seed{seed}",
        resume="auto",
        timesteps=1,
        epochs=config.epochs,
        data=config.data,
        optimizer=config.optimizer,
        trainer=config.trainer,
        model=config.model.as_ann().model_copy(update={"norm": norm, "branches": False, "joint": False}),
    )


def load_teacher(
    config: Config, objective: Objective, dataset: Dataset, given: Callable[[Tensor], Tensor] | None = None
) -> Teacher | None:
    """The teacher that a run names or is given.

    Raises:
        UserError: for a teacher without use, one that is missing, one of other classes, or one with a number that is not finite.
        FileNotFoundError: where that run or file is not there.
    """
    num_classes = len(dataset.classes)
    if not objective.needs_teacher:
        if config.teacher is not None or given is not None:
            raise UserError(
                f"objective {objective.name!r} learns from no teacher: leave it out ({config.teacher or given})"
            )
        return None
    if given is not None:
        if objective.needs_features:
            raise UserError(
                f"objective {objective.name!r} learns from features inside the teacher, and a function shows its logits alone: "
                "pass a run or a file, --teacher RUN"
            )
        if isinstance(given, nn.Module):
            check_finite({**dict(given.named_parameters()), **dict(given.named_buffers())}, "the teacher")
            given = given.eval().requires_grad_(False)
        teacher = Teacher(given, num_classes)
    elif config.teacher is not None:
        network = read_network(config.teacher, config.teacher_model, dataset)
        layers = layer_names(network, objective.layers) if objective.needs_features else ()
        frames = RunFolder(config.teacher).config().timesteps if config.teacher.is_dir() else None
        teacher = Teacher(MeanLogits(network, config.timesteps, layers), num_classes, frames)
    else:
        ann = f"{config.data.name}-ann"
        protocol = f" --protocol {config.protocol}" if config.protocol else ""
        raise UserError(
            f"objective {objective.name!r} learns from a trained network: train one, spikedistill train {ann}{protocol}, "
            f"and pass it, --teacher runs/{ann}/seed0"
        )
    first = dataset.train.inputs(torch.zeros(1, dtype=torch.int64))
    logits, features = teacher.look(as_network_input(first, dataset.kind), dataset.kind)
    if "classifier" in objective.inputs and isinstance(teacher.function, MeanLogits):
        teacher.classifier = classifier_of(teacher.function.network, features[-1], logits)
    return teacher


def read_network(path: Path, model: str | None, dataset: Dataset) -> Temporal:
    """The network of a run folder, of a model file, or of a safetensors file with the weights of the ReLU twin of a named model."""
    if model is None:
        found = load(path)
        found.checks_range = False  # whatever augmentation makes of images, the teacher sees what the student sees
        return found
    network = create_model(
        model,
        num_classes=len(dataset.classes),
        in_channels=dataset.channels,
        image_size=dataset.size,
        neuron="relu",
        mean=dataset.mean,
        std=dataset.std,
    )
    load_weights(network, path)
    return network.eval()
