"""The trained network that a run learns from."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import Config
from ..data import Dataset, Samples, as_network_input, in_order, lengths_of
from ..errors import UserError
from ..from_python import import_path
from ..models import check_finite, create_model, load_weights
from ..objectives import Objective
from ..recipe_name import RecipeName
from ..run_folder import RunFolder, load
from ..through_time import Temporal, mean_rate
from ..through_time.features import outputs_of
from .features import classifier_of, layer_names


class Teacher:
    """A frozen function from the batch that the student gets to logits `[B, C]`.

    Args:
        function: takes images `[B, C, H, W]` in [0, 1], augmented as for the student (for events, one frame), and normalises
            them itself.
        num_classes: C, the length of its logits.
        frames: how many frames the teacher cut event recordings into when it was trained. Its input is the sum of the student's
            frames divided by this number; by default it is their mean.

    Attributes:
        classifier: from features `[B, c, ...]` of its last stage to logits `[B, C]`, for objectives that use it.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], num_classes: int, frames: int | None = None) -> None:
        self.function = function
        self.num_classes = num_classes
        self.frames = frames
        self.classifier: Callable[[Tensor], Tensor] | None = None

    def logits(self, inputs: Tensor, kind: str) -> Tensor:
        """Logits `[B, C]` on a batch of images, or of event frames `[T, B, C, H, W]`.

        Raises:
            UserError: if the function returns anything else.
        """
        return self.look(inputs, kind)[0]

    @torch.no_grad()
    def look(self, inputs: Tensor, kind: str, lengths: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Logits `[B, C]` as `logits` returns them, and the features `[B, ...]` of a network's named layers, in one pass.

        Args:
            inputs: the batch.
            kind: "image" or "events".
            lengths: the frames of each recording, `[B]`, if they differ; the others are empty.

        Raises:
            UserError: if the function returns anything but logits `[B, C]`.
        """
        images = inputs
        if kind == "events":
            images = inputs.mean(0) if self.frames in (None, len(inputs)) else inputs.sum(0) / self.frames
            if lengths is not None:
                images = images * (len(inputs) / lengths.to(images.dtype)).view(-1, 1, 1, 1)
        features: list[Tensor] = []
        if isinstance(self.function, MeanLogits | PlainNetwork):
            logits, features = self.function.look(images)
        else:
            logits = self.function(images)
        if not isinstance(logits, Tensor) or logits.shape != (len(images), self.num_classes):
            got = list(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise UserError(
                f"the teacher returned {got} for {len(images)} inputs; expected logits [{len(images)}, {self.num_classes}]"
            )
        return logits, features

    def logits_of(self, samples: Samples, kind: str, device: torch.device, batch_size: int = 250) -> Tensor:
        """Logits `[N, C]` in float32 on all samples, in their order.

        Raises:
            UserError: as `logits`.
        """
        lengths = lengths_of(samples)
        parts = []
        for number, (inputs, _) in enumerate(in_order(samples, batch_size)):
            own = None if lengths is None else lengths[number * batch_size :][: len(inputs)].to(device)
            parts.append(self.look(as_network_input(inputs.to(device), kind), kind, own)[0])
        return torch.cat(parts).float()

    def identity(self) -> str:
        """For checkpoints: the digest of a module's weights; a fixed text for a function, whose parameters are not known."""
        if not isinstance(self.function, nn.Module):
            return "given from Python"
        digest = hashlib.sha256()
        for name, tensor in sorted(self.function.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def to(self, device: torch.device) -> None:
        """Move the teacher to a device, if it is a module."""
        if isinstance(self.function, nn.Module):
            self.function.to(device)


class MeanLogits(nn.Module):
    """A network over time as a function to logits `[B, C]`, the mean over its timesteps; in eval mode.

    Args:
        network: the network.
        timesteps: T.
        layers: names, within `network.module`, of layers whose features `look` returns.
    """

    def __init__(self, network: Temporal, timesteps: int, layers: Sequence[str] = ()) -> None:
        super().__init__()
        self.network = network.eval()
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


class PlainNetwork(nn.Module):
    """A network without time as a function to logits `[B, C]`; in eval mode.

    Args:
        network: the network.
        layers: names of the layers whose features `look` returns.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str] = ()) -> None:
        super().__init__()
        self.network = network.eval()
        self.layers = tuple(layers)

    def forward(self, images: Tensor) -> Tensor:
        weight = next((p for p in self.network.parameters() if p.is_floating_point()), None)
        logits: Tensor = self.network(images if weight is None else images.to(weight.dtype))
        return logits

    def look(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits `[B, C]`, and what each layer returns, `[B, ...]`."""
        with outputs_of(self.network, self.layers) as outputs:
            logits = self(images)
        return logits, [outputs[layer] for layer in self.layers]


def relu_twin(config: Config, seed: int, out: Path) -> Config:
    """The run that trains the ReLU twin of a run's network, on the same data and with the same schedule."""
    name = RecipeName(config.data.name, "ann")
    # one frame of a fixed duration, or of a padded recording, would be its beginning
    whole = config.data.slicing != "duration" and not config.data.options.get("pad")
    norm = "batch" if config.model.norm == "tdbn" else config.model.norm  # an ANN has no threshold
    return Config(
        recipe=name,
        seed=seed,
        out=out / name / f"seed{seed}",
        resume="auto",
        timesteps=1 if whole else config.timesteps,
        epochs=config.epochs,
        data=config.data,
        optimizer=config.optimizer,
        trainer=config.trainer,
        model=config.model.as_ann().model_copy(
            update={"norm": norm, "branches": False, "branch_count": None, "joint": False, "drop_path": 0.0}
        ),
    )


def load_teacher(
    config: Config, objective: Objective, dataset: Dataset, given: nn.Module | Callable[[Tensor], Tensor] | None = None
) -> Teacher | None:
    """The teacher that a run names or is given.

    Raises:
        UserError: for a teacher that the objective does not use, one that is missing, one of other classes, or one with a number
            that is not finite.
        FileNotFoundError: if that run or file is not there.
    """
    if not objective.needs_teacher:
        if config.teacher is not None or given is not None:
            raise UserError(
                f"objective {objective.name!r} learns from no teacher: leave it out ({config.teacher or import_path(given)})"
            )
        return None
    if given is not None:
        teacher = given_teacher(given, config, objective, dataset)
    elif config.teacher is not None:
        network = read_network(config.teacher, config.teacher_model, dataset)
        layers = layer_names(network, objective.layers) if objective.needs_features else ()
        frames = RunFolder(config.teacher).config().timesteps if config.teacher.is_dir() else None
        teacher = Teacher(MeanLogits(network, config.timesteps, layers), len(dataset.classes), frames)
    elif config.from_python:
        raise UserError(
            f"objective {objective.name!r} learns from a trained network: pass one, train(config, teacher=...), a module, a "
            "function from images to logits, or a run"
        )
    else:
        ann = f"{config.data.name}-ann"
        protocol = f" --protocol {config.protocol}" if config.protocol else ""
        raise UserError(
            f"objective {objective.name!r} learns from a trained network: train one, spikedistill train {ann}{protocol}, "
            f"and pass it, --teacher runs/{ann}/seed0"
        )
    first = dataset.train.inputs(torch.zeros(1, dtype=torch.int64))
    logits, features = teacher.look(as_network_input(first, dataset.kind), dataset.kind)
    if "classifier" in objective.inputs and isinstance(teacher.function, MeanLogits | PlainNetwork):
        teacher.classifier = classifier_of(teacher.function.network, features[-1], logits)
    return teacher


def given_teacher(
    given: nn.Module | Callable[[Tensor], Tensor], config: Config, objective: Objective, dataset: Dataset
) -> Teacher:
    """The teacher that a run is given from Python. A module is put into eval mode, and its weights are not changed.

    Raises:
        UserError: for a function if the objective learns from features, a module without the layers that the objective names, or a
            number that is not finite.
    """
    classes = len(dataset.classes)
    if not isinstance(given, nn.Module):
        if objective.needs_features:
            raise UserError(
                f"objective {objective.name!r} learns from features inside the teacher, and a function returns only logits: pass "
                "a torch.nn.Module, a run or a file"
            )
        return Teacher(given, classes)
    check_finite({**dict(given.named_parameters()), **dict(given.named_buffers())}, "the teacher")
    layers = layer_names(given, objective.layers) if objective.needs_features else ()
    if not isinstance(given, Temporal):
        return Teacher(PlainNetwork(given, layers), classes)
    over_time = Temporal(given.module, given.rule, given.sample_axes)
    return Teacher(MeanLogits(over_time, config.timesteps, layers), classes, getattr(given, "timesteps", None))


def read_network(path: Path, model: str | None, dataset: Dataset) -> Temporal:
    """The network of a run folder, of a model file, or of a safetensors file with the weights of the ReLU twin of a named model."""
    if model is None:
        found = load(path)
        found.checks_range = False  # augmented images, which the student gets too, may leave [0, 1]
        return found.requires_grad_(False)
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
    return network.eval().requires_grad_(False)
