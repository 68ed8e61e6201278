"""The typed, validated configuration of a run. A recipe is a function that returns one; the command line overrides its fields.

The docstring of each field is its line in `spikedistill train RECIPE --help`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import UserError
from .files import parse_yaml
from .learned import in_our_words
from .options import OptionValue
from .recipe_name import RecipeName
from .setting_errors import explain
from .setting_types import (
    AUTO,
    SEEDS,
    WIDEST,
    BatchSize,
    ClassWeights,
    Count,
    Devices,
    Epochs,
    LearnedText,
    Length,
    Name,
    NotNegative,
    Positive,
    Size,
    Timesteps,
)

# The version of the names and values in a written configuration. Files without one are of version 1, which wrote "number" for the
# value of data.slicing that is called "even" now. Versions before 3 wrote "time" for "even-time".
WORDING = 3

# The gradient rules of `through_time/rules.py`, which needs torch.
Gradient = Literal["bptt", "sltt", "rate", "dsr"]
"""The name of a gradient rule."""

ProtocolName = Literal["esd", "max-former", "qkformer", "s2w", "sdt", "spikformer", "tser-unofficial", "twkd"]
"""The name of a paper whose settings can be taken."""


class ConfigError(UserError):
    """A configuration that is refused, with each setting by its full name."""


class _Section(BaseModel):
    """Unknown keys are refused, and so are NaN and infinity; docstrings below a field are its help.

    Attributes:
        place: where the section stands in a configuration, such as "model.lif.".
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
    place: ClassVar[str] = ""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(explain(error, self.place)) from None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some values changed, which are checked; pydantic's own method checks nothing."""
        same = super().model_copy(deep=deep)
        return type(self)(**{name: getattr(same, name) for name in type(self).model_fields} | dict(update or {}))


class NeuronConfig(_Section):
    """Spiking neurons."""

    place = "model.lif."
    decay: Annotated[float, Field(ge=0, le=1)] | LearnedText = 0.5
    """Share of the membrane potential that is left after a timestep, 0 to 1; 1 means no leak. learned trains one value
    for each layer (PLIF), starting at 0.5; learned:0.8 starts at 0.8; learned_per_channel trains one for each
    channel."""
    threshold: Positive | LearnedText = 1.0
    """A neuron fires when its membrane potential reaches this value. learned trains one positive value for each layer,
    starting at 1; learned:0.8 starts at 0.8; learned_per_channel trains one for each channel."""
    v_reset: float | None = None
    """What happens to the membrane potential after a spike. None subtracts the threshold (soft reset); a number sets it
    to that number (hard reset)."""
    detach_reset: bool = False
    """Let no gradient flow through the reset."""
    surrogate: str = "sigmoid"
    """Derivative of a spike in the backward pass: sigmoid, rectangular, triangular, arctan, dspike, or a registered
    one."""
    v_init: float | Literal["half"] | LearnedText = 0.0
    """Membrane potential before the first timestep: a number, half (of the threshold), or learned for each channel."""


class ModelConfig(_Section):
    """The network."""

    place = "model."
    name: str = "convnet"
    """Name of the network; `spikedistill list models` shows all."""
    options: dict[str, OptionValue] = {}
    """Options of a registered network."""
    width: Annotated[float, Field(gt=0, le=WIDEST)] = 1.0
    """Multiplies the number of channels of every hidden layer; 0.5 is half as wide. At most 64."""
    neuron: str = "lif"
    """lif, relu for the ANN twin of the same layout, or the name of a registered neuron."""
    neuron_options: dict[str, OptionValue] = {}
    """Options of a registered neuron; those of lif are settings of model.lif."""
    norm: Literal["batch", "timestep_batch", "tdbn"] = "batch"
    """Batch-norm. batch: one mean and variance for all timesteps; timestep_batch: separate ones for each timestep;
    tdbn: like batch, with weights initialised to the firing threshold."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """For transformers: the share of samples for which the last block is left out in training; it grows evenly from 0 at the
    first block. The same at all timesteps of a sample."""
    branches: bool = False
    """Add auxiliary classifiers on the early stages during training, for objectives that need them (esd,
    sm-unofficial). Not saved."""
    branch_count: Annotated[int, Field(ge=1, le=100)] | None = None
    """With --model.branches: how many, those behind the deepest stages; default one behind every stage but the last."""
    joint: bool = False
    """Train an ANN of the same layout alongside, for joint-asnn-unofficial; each convolution shares its singular
    vectors with its ANN twin. Not saved."""
    lif: NeuronConfig = NeuronConfig()

    def as_ann(self) -> Self:
        """The same layout with ReLU instead of spiking neurons, and without their settings."""
        return self.model_copy(update={"neuron": "relu", "neuron_options": {}, "lif": NeuronConfig()})


class DataConfig(_Section):
    """The data set and its batches."""

    place = "data."
    name: str = "digits"
    """Name of the data set; `spikedistill list data` shows all."""
    options: dict[str, OptionValue] = {}
    """Options of a registered data set."""
    root: Path | None = None
    """Folder that holds the data sets; default the value of the environment variable SPIKEDISTILL_DATA."""
    size: Size = None
    """Height and width in pixels of the images of image_folder and arrays, or one number for both; default 32 for
    image_folder, and the size that the arrays have."""
    resize: Literal["crop", "pad", "stretch", "centre"] | None = None
    """How images are brought to that size. crop (default): scale them until they cover it, and crop at the centre; pad:
    scale them until they fit in, and fill the rest with the mean colour; stretch: scale height and width separately;
    centre: scale them until they cover 8/7 of it, and take the middle, as published networks for ImageNet do."""
    channels: Literal[1, 3] | None = None
    """Train on the images of image_folder in grey (1) or in colour (3, the default)."""
    test_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """For image_folder, event_frames and arrays without test samples: the share of each class to test on, such as
    0.2."""
    slicing: Literal["number", "even", "time", "even-time", "duration"] | None = None
    """How recordings of events become frames. number (default): each frame has the same number of events, and the last
    also the remainder; even: the remainder is spread over the frames; time: each frame lasts as many microseconds, and
    the last also the remainder; even-time: each frame is exactly equally long; duration: each frame lasts
    --data.options.milliseconds, and the rest of the recording is not used."""
    batch_size: BatchSize = 128
    """Images per training step, over all devices together. auto chooses the largest power of two, up to the recipe's
    own batch size, whose step fits into the free memory; auto:512 sets another limit. The learning rate stays as it is: for a
    smaller batch, try to reduce it by the same factor."""
    train_samples: Count | None = None
    """Train on this many images only, with about the same number from each class; default all. The same number always
    gives the same images."""
    label_noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training samples that get the label of another class, to study wrong labels and wrong teachers. The same
    share always gives the same labels; held-out and test samples keep theirs."""
    augment: tuple[str, ...] | None = None
    """Augmentations of the training images, in this order, such as crop flip; without a name, there are none. Default:
    those that papers use for the data set."""
    mix: Literal["none", "mixup", "cutmix"] = "none"
    """Mix each training image with another of the batch, and their losses. mixup: a weighted mean; cutmix: a rectangle shows
    the other."""
    mix_alpha: Positive = 1.0
    """How much images are mixed: the weight is drawn from Beta(alpha, alpha), so 1 draws it evenly and 0.2 is near 0 or 1."""
    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    """Processes that read image files ahead; they change nothing in the numbers. Default: one for each core, up to 8, for
    folders of 2000 images or more; 0 reads in the process that trains."""
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training set that is held out, such as 0.1. It selects the best epoch and calibrates the
    network."""

    @property
    def most_batch_size(self) -> int | None:
        """The limit of an automatic batch size; None if the batch size is a number."""
        text = str(self.batch_size)
        if not text.startswith(AUTO):
            return None
        return int(text.partition(":")[2] or type(self).model_fields["batch_size"].default)


class ObjectiveConfig(_Section):
    """What is learned."""

    place = "objective."
    name: str = "sce"
    """Name of the loss; `spikedistill list objectives` shows all."""
    options: dict[str, OptionValue] = {}
    """Weights, temperatures and variants of the loss."""
    class_weights: ClassWeights | None = None
    """How much a sample of each class counts in the cross-entropy of the labels. balanced: rare classes count more, N /
    (C n) for a class with n of N training samples, of C classes. Or one number for each class in order (1 1 2.5), or
    numbers by name (cat=2 dog=0.5; the others count 1). Default all count 1."""

    adversarial: Literal["none", "pgd", "trades"] = "none"
    """Train on images that an attack has changed. pgd: the loss is that of the changed images; trades: that of the images
    themselves, plus adversarial-weight times how far the prediction moves on changed ones."""
    adversarial_eps: Annotated[float, Field(gt=0, le=255)] = 2.0
    """With --objective.adversarial: how far each pixel may move, in levels of 255."""
    adversarial_steps: Annotated[int, Field(ge=1, le=1000)] = 2
    """With --objective.adversarial: steps of the attack; each costs about as much time as a training step."""
    adversarial_step: Positive | None = None
    """With --objective.adversarial: length of a step in levels of 255; default 2.5 eps / steps."""
    adversarial_weight: Positive = 6.0
    """With --objective.adversarial trades: the weight of that term."""
    firing_weight: NotNegative = 0.0
    """Weight of a penalty on spikes, added to the loss: the mean over the layers of neurons of how far their firing rate
    lies above --objective.firing-target. Fewer spikes make layers on spikes faster, and cost accuracy; 0.1 to 3 are
    worth trying."""
    firing_target: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """With --objective.firing-weight: the firing rate of a layer that costs nothing, such as 0.1."""


class OptimizerConfig(_Section):
    """Optimiser and learning rate."""

    place = "optimizer."
    name: Literal["sgd", "adamw"] = "sgd"
    """sgd (with momentum) or adamw."""
    lr: Positive = 0.1
    """Highest learning rate, reached after the warm-up."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: NotNegative = 5e-4
    """Weight decay of the optimiser: how strongly weights are pulled towards 0."""
    decayed: Literal["weights", "all"] = "weights"
    """Which parameters have weight decay. weights: those of convolutions and linear layers; all: also biases and
    batch-norm."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """How the learning rate changes. cosine: it falls to 0 along a cosine; step: it is multiplied by step-factor every
    step-epochs; constant: it stays."""
    schedule_per: Literal["step", "epoch"] = "step"
    """Whether the cosine changes the learning rate at every step, or once per epoch as in the papers' code. The warm-up
    always changes it at every step."""
    warmup_epochs: NotNegative = 0.0
    """Epochs of warm-up, in which the learning rate rises from 0 in a straight line."""
    step_epochs: Epochs = 30
    """With --optimizer.schedule step: epochs between two reductions of the learning rate."""
    step_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """With --optimizer.schedule step: the factor of each reduction."""
    orthogonal: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """After each step, move the rows of every weight towards orthogonality by this factor; 0.001 in regularised adversarial
    training (RAT)."""


class TrainerConfig(_Section):
    """The machine."""

    place = "trainer."
    accelerator: str = "auto"
    """Where to train: cpu, gpu, or auto (a GPU if there is one)."""
    devices: Devices = 1
    """Number of GPUs to train on, or of processes on a CPU."""
    nodes: Devices = 1
    """Number of machines to train on."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed", "64-true"] = "32-true"
    """Number format of convolutions: 32-true is float32, bf16-mixed and 16-mixed are half precision. Membrane
    potentials and batch-norm statistics stay in float32 or better. auto times a step in float32 and in bf16, each with
    and without channels-last, and takes the fastest."""
    sparse: Literal["auto", "always", "never"] = "auto"
    """On a CPU, run convolutions and linear layers on spikes as sums of the weights of the spikes that are there. auto: where
    that is faster, at the density of the spikes; never: as dense layers."""
    channels_last: bool = False
    """Store images and weights with the channels last in memory, which is faster on some machines."""
    sync_batch_norm: bool = False
    """Compute batch-norm statistics over the batches of all devices together; by default, each device uses its own batch."""
    accumulate: Count = 1
    """Number of batches whose gradients are added up before each step of the optimiser."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What to do if a loss, gradient, weight or running statistic becomes NaN or infinite. stop: end the run before the
    update; skip: skip the step and count it, which is slower on a GPU."""
    clip: Positive | None = None
    """Clip the gradient to this norm; default no clipping."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Average the weights over training with this decay per step, such as 0.999 (exponential moving average); the
    averaged weights are evaluated and saved. Default no average."""
    logger: Literal["none", "tensorboard", "csv", "wandb", "mlflow", "comet"] = "none"
    """Also log to this logger of Lightning, whose package must be installed. metrics.csv is always written."""
    track_test: bool = False
    """Also score the test set after every epoch. The best test epoch is reported, marked as optimistic, and never used
    to choose a model."""
    checkpoint_seconds: NotNegative = 300.0
    """Seconds between two checkpoints within an epoch; each epoch also ends with one."""
    grace_seconds: NotNegative = 10.0
    """After Ctrl-C or SIGTERM, seconds to finish the step and save a checkpoint before the process ends. A second
    signal ends it at once."""
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    """With several devices: seconds to wait for the other processes before giving up."""
    keep_memory: bool = True
    """Keep freed memory in the process rather than return it to the system, which makes training on a CPU faster (Linux
    with glibc)."""
    capture: bool = True
    """On a GPU, record the kernels of a step once and replay them as a CUDA graph, which is faster. Only with one
    device and without --trainer.accumulate."""
    progress: bool = True
    """Show the progress of training: a bar in a terminal, elsewhere one line for each epoch, and an estimate of the
    time before it starts."""

    @property
    def captures(self) -> bool:
        """Whether a step may be recorded: not if other devices or batches add to its gradients."""
        return self.capture and self.devices * self.nodes * self.accumulate == 1


class Config(_Section):
    """One training run."""

    recipe: Name
    """Name of the recipe that these settings come from."""
    protocol: ProtocolName | None = None
    """Use the network, neurons, schedule and augmentation of this paper instead of the recipe's (see
    docs/papers.md)."""
    seed: Annotated[int, Field(ge=0, lt=SEEDS)] = 0
    """Seed of all random numbers. The same seed and settings give the same run."""
    epochs: Epochs = 10
    """Number of passes over the training set."""
    timesteps: Timesteps = 4
    """Number of timesteps T that the network is trained for, at most 10000."""
    timestep_draws: Annotated[int, Field(ge=1, le=100)] | None = None
    """Mixed timesteps: run each batch of images this many times, each time for a number of timesteps drawn from 1 to
    --timesteps, and add the losses. Batch-norm statistics are computed anew after every epoch. Default: run it once, for
    --timesteps."""
    timestep_draws_of: Literal["network", "stages"] = "network"
    """With --timestep-draws: network: the whole network runs for the number that is drawn; stages: a number is drawn for
    every stage, and between them spikes are repeated, or added up."""
    gradient: Gradient = "bptt"
    """Gradient rule. bptt: backpropagation through time; sltt: without the path through the previous membrane
    potential; rate: through mean firing rates, with less time and memory; dsr: through the spike representation, for
    neurons with soft reset."""
    segments: Length | tuple[Length, ...] = 1
    """With --gradient rate: number of segments that time is divided into, each with a gradient of its own; or their
    lengths."""
    chunk: Timesteps | None = None
    """With --gradient rate: number of timesteps to compute at a time, so that memory hardly grows with T; default
    all."""
    recompute: bool = True
    """With --chunk: compute every convolution twice; without, keep the outputs of one layer at a time, which takes more
    memory."""
    checkpoint: bool = False
    """With bptt or sltt: use less memory by keeping only the spikes of each layer and computing its convolution
    twice."""
    gradient_scale: Literal["1", "1/T"] = "1"
    """Factor on the gradient: 1, or 1/T as in the released code of RateBP and ESD."""
    out: Path | None = None
    """Folder to write the run into; default runs/<recipe>/seed<k>."""
    resume: Literal["never", "auto"] = "never"
    """auto continues the run in the folder from its last checkpoint; if it is complete, nothing is done."""
    overwrite: bool = False
    """First delete the files of the run that is in the folder."""
    init_from: Path | None = None
    """Start from the weights in this run folder or safetensors file: of the same network, also one with other classes,
    or of its ANN twin."""
    init_membranes: bool = False
    """With --init-from and --model.lif.v-init learned: start each layer's membrane potential at the mean of where it ends
    on training samples (MP-Init)."""
    teacher: Path | None = None
    """Trained network to learn from, for losses that need one: a run folder such as runs/cifar10-ann/seed0, or a
    safetensors file."""
    teacher_model: str | None = None
    """Network whose weights the teacher's safetensors file holds, such as resnet34; not needed for files of this
    library."""
    teacher_logits: Literal["computed", "cached"] = "computed"
    """computed: run the teacher on every batch; cached: run it once over the training set before training, which is
    faster and only possible without augmentation."""
    imported: tuple[str, ...] = ()
    """Files and modules that register names of this configuration. They are recorded, and imported only by --import."""
    from_python: dict[str, str] = {}
    """What train(config, model=..., data=..., teacher=...) was given, by import path. It is recorded, and never
    imported."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    trainer: TrainerConfig = TrainerConfig()

    @model_validator(mode="before")
    @classmethod
    def _with_parts_of_name(cls, values: Any) -> Any:
        """The recipe's name with its parts, if it came as text."""
        if not isinstance(values, dict) or "recipe" not in values:
            return values
        data = values.get("data", DataConfig())
        dataset = data.get("name", DataConfig().name) if isinstance(data, Mapping) else getattr(data, "name", "")
        return values | {"recipe": RecipeName.from_written(values["recipe"], str(dataset))}

    @property
    def run_folder(self) -> Path:
        """Where the run is written."""
        return self.out or Path("runs") / self.recipe / f"seed{self.seed}"

    def written(self) -> dict[str, Any]:
        """What goes into files: every setting, and the version of their names."""
        recipe = {"recipe": self.recipe.written(self.data.name)}
        return {"wording": WORDING} | self.model_dump(mode="json") | recipe

    @classmethod
    def from_written(cls, values: Mapping[str, Any]) -> Self:
        """Read what `written` returned, in this version or an earlier one: settings keep the meaning that they were written with.

        Raises:
            UserError: if it is no configuration, or one of a newer version.
        """
        return cls(**_in_our_words(values))

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.written(), sort_keys=False)

    @classmethod
    def from_yaml(cls, content: bytes | str, origin: str = "the text") -> Self:
        """Read what `to_yaml` wrote, or settings that a user wrote; those that are not named have their defaults.

        Raises:
            UserError: naming `origin`, if it is no such configuration.
        """
        values = parse_yaml(content.encode() if isinstance(content, str) else content, origin)
        if cls._missing(values):  # written by a user, with the names of this version
            values = {"wording": WORDING} | values
        return cls._checked(values, origin)

    @classmethod
    def of_run(cls, content: bytes, origin: str) -> Self:
        """Read a complete file that `to_yaml` wrote: a default must not replace a setting that was cut off.

        Raises:
            UserError: naming `origin`, if it is no configuration, or only a part of one.
        """
        values = parse_yaml(content, origin)
        if missing := cls._missing(values):
            raise UserError(f"{origin} is cut short: it {missing}; copy it again, or train the run again")
        return cls._checked(values, origin)

    @classmethod
    def _missing(cls, values: dict[str, Any]) -> str:
        """Why the values are only a part of what `to_yaml` wrote, in words; empty if they are complete."""
        sections = [name for name, field in cls.model_fields.items() if isinstance(field.default, _Section)]
        if missing := [name for name in ("recipe", "seed", *sections) if name not in values]:
            return f"has no {missing[0]!r}"
        whole = isinstance(values["trainer"], dict) and "progress" in values["trainer"]  # which comes last
        return "" if whole else "ends before trainer.progress"

    @classmethod
    def _checked(cls, values: dict[str, Any], origin: str) -> Self:
        try:
            return cls.from_written(values)
        except (TypeError, UserError) as error:
            raise UserError(f"{origin} is no configuration of a run: {explain(error)}") from None


def _in_our_words(values: Mapping[str, Any]) -> dict[str, Any]:
    """A written configuration with the names and values of this version, and without the version number."""
    ours = dict(values)
    wording = ours.pop("wording", 1)
    if wording not in range(1, WORDING + 1):
        raise UserError(
            f"wording: got {wording!r}, expected at most {WORDING}: a newer version of spikedistill wrote it"
        )
    data = ours.get("data")
    if isinstance(data, Mapping) and data.get("name") == "nmnist":
        names = {None: "even", "number": "even"} if wording == 1 else {}
        names |= {"time": "even-time"} if wording < 3 else {}
        slicing = data.get("slicing")
        ours["data"] = {**data, "slicing": names[slicing]} if slicing in names else data
    model = ours.get("model")
    if isinstance(model, Mapping) and isinstance(model.get("lif"), Mapping):
        ours["model"] = {**model, "lif": in_our_words(model["lif"])}
    return ours
