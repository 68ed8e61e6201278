"""The training settings of papers, by data set; `--protocol` puts them in place of a recipe's settings.

Values are those of the authors' released code, or of the paper if no code is released. Settings that neither states are
listed in `unknown`.
"""

from dataclasses import dataclass, field, replace
from typing import Any

Settings = dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """A paper's settings on one data set.

    Attributes:
        dataset: the paper's name of it.
        settings: values by the full names of settings.
        options: options of objectives, by the names of the objectives.
        teacher: settings that replace these for the ANN teacher; None if the authors did not train it.
        also: further values that the paper reports results for, by setting.
        differs: differences between this library and the paper.
        unknown: what the sources do not state, and what this library does.
    """

    dataset: str
    settings: Settings
    options: dict[str, Settings] = field(default_factory=dict)
    teacher: Settings | None = field(default_factory=dict)
    also: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    differs: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


# Settings of all protocols: whole training sets, plain batch-norm, float32.
PLAIN: Settings = {
    "gradient_scale": "1",
    "model.width": 1.0,
    "model.norm": "batch",
    "model.lif.threshold": 1.0,
    "model.lif.v_init": 0.0,
    "data.train_samples": None,
    "data.holdout": 0.0,
    "optimizer.name": "sgd",
    "optimizer.lr": 0.1,
    "optimizer.momentum": 0.9,
    "optimizer.decayed": "weights",
    "optimizer.warmup_epochs": 0.0,
    "trainer.precision": "32-true",
    "trainer.sync_batch_norm": False,
    "trainer.accumulate": 1,
    "trainer.clip": None,
    "trainer.ema": None,
}

# The code that TWKD, ESD and RateBP share.
_SHARED: Settings = PLAIN | {
    "model.name": "resnet18",
    "model.lif.surrogate": "sigmoid",
    "optimizer.weight_decay": 5e-4,
    "optimizer.schedule": "cosine",
    "optimizer.schedule_per": "epoch",
    "epochs": 300,
}
_CIFAR: Settings = {"data.batch_size": 128, "data.augment": ("crop", "flip", "autoaugment", "cutout")}
_DVS: Settings = {
    "timesteps": 10,
    "data.slicing": "number",
    "data.batch_size": 32,
    "data.augment": ("flip", "nda"),
}
_IMAGENET: Settings = {
    "timesteps": 4,
    "epochs": 100,
    "model.name": "resnet34",
    "data.size": 224,
    "data.resize": "centre",
    "data.batch_size": 512,
    "data.augment": ("resized-crop", "flip"),
    "optimizer.lr": 0.2,
    "optimizer.weight_decay": 2e-5,
}
_HARD: Settings = {"model.lif.decay": 0.5, "model.lif.v_reset": 0.0, "model.lif.detach_reset": False}
_SOFT: Settings = {"model.lif.decay": 0.2, "model.lif.v_reset": None, "model.lif.detach_reset": True}
_EVENTS = (
    "frames and test set are those given, where the code scales frames to 48x48 and tests on 1000 recordings drawn once"
)

# TWKD


def _taught(temperature: float) -> dict[str, Settings]:
    """Options of TWKD's objective and of its ablations."""
    hard, own = {"temperature": temperature}, {"beta": 0.5, "temperature": temperature, "teacher": "correct"}
    ablations = ("skd", "sce-twkl", "twce-skl", "twce-twkl")
    return {name: {"alpha": 0.2} | hard for name in ablations} | {"twkd": {"alpha": 0.2} | own, "twce-twsd": own}


_ENSEMBLE = "whether TWSD's teacher in published runs was the mean of all timesteps (paper) or of those that are right (code, here)"
# ann.py leaves AutoAugment and Cutout off, and decays all parameters.
_TWKD_TEACHER: Settings = {
    "model.name": "cifar_resnet34",
    "data.augment": ("crop", "flip"),
    "optimizer.decayed": "all",
}


def _twkd_on_cifar(dataset: str) -> Protocol:
    return Protocol(
        dataset,
        _SHARED | _CIFAR | _HARD | {"timesteps": 6},
        _taught(3.0),
        teacher=_TWKD_TEACHER,
        also={"timesteps": (4, 2), "model.name": ("resnet19",)},
        unknown=("the accuracy of the teacher", _ENSEMBLE),
    )


_TWKD = {
    "cifar10": _twkd_on_cifar("CIFAR-10"),
    "cifar100": _twkd_on_cifar("CIFAR-100"),
    "cifar10-dvs": Protocol(
        "CIFAR10-DVS",
        _SHARED | _DVS | _HARD,
        _taught(3.0),
        teacher={"model.name": "resnet19"},
        also={"timesteps": (4,)},
        differs=(_EVENTS,),
        unknown=("how the teacher was trained (here as the student)", _ENSEMBLE),
    ),
    "imagenet": Protocol(
        "ImageNet",
        _SHARED | _IMAGENET | _SOFT | {"model.lif.detach_reset": False, "trainer.sync_batch_norm": True},
        _taught(1.0),
        teacher=None,
        unknown=("the accuracy of the teacher (timm's resnet34)", _ENSEMBLE),
    ),
}

# ESD

_POOLING = "branches pool all pixels, where the code pools the first 4x4"


def _esd_options(alpha: float, beta: float) -> dict[str, Settings]:
    own = {"alpha": alpha, "beta": beta, "temperature": 3.0, "teachers": "reliable", "factor": 1.0, "reduction": "sum"}
    return {"esd": own}


def _esd_on_cifar(dataset: str, *unknown: str) -> Protocol:
    return Protocol(
        dataset,
        _SHARED | _CIFAR | _SOFT | {"timesteps": 6, "gradient_scale": "1/T"},
        _esd_options(1.0, 0.3),
        also={"model.name": ("resnet19",)},
        unknown=unknown,
    )


_ESD = {
    "cifar10": _esd_on_cifar("CIFAR-10", "whether beta is 0.3 here too (the code's default)"),
    "cifar100": _esd_on_cifar("CIFAR-100"),
    "cifar10-dvs": Protocol(
        "CIFAR10-DVS",
        _SHARED | _DVS | _SOFT | {"gradient_scale": "1/T"},
        _esd_options(1.0, 0.1),
        differs=(_EVENTS, _POOLING),
        unknown=("whether beta is 0.1 (the code's default)",),
    ),
    "imagenet": Protocol(
        "ImageNet",
        _SHARED | _IMAGENET | _SOFT | {"gradient_scale": "1/T"},
        _esd_options(0.7, 0.3),
        differs=(
            "batch statistics are of a device's share of the batch, there of 64 images",
            _POOLING,
        ),
    ),
}

# S2W, whose code is not released

_S2W_SETTINGS: Settings = PLAIN | {
    "epochs": 100,
    "model.lif.decay": 0.5,
    "model.lif.v_reset": None,
    "model.lif.detach_reset": False,
    "model.lif.surrogate": "rectangular",
    "data.batch_size": 64,
    "optimizer.schedule": "step",
    "optimizer.step_epochs": 30,
    "optimizer.step_factor": 0.1,
}
PAIR: Settings = {
    "temperature": 2.0,
    "variant": "pair",
    "measure": "confidence",
    "divergence": "kl",
    "teacher_grad": False,
}
_S2W_OPTIONS: dict[str, Settings] = {
    "s2w": {"weight": 1.0} | PAIR,
    "w2s": {"weight": 1.0} | PAIR,
    "s2w-w2s": {"s2w_weight": 1.0, "w2s_weight": 1.0} | PAIR,
}
_S2W_UNKNOWN = (
    "how tau = 2 acts (here decay 0.5, inputs not scaled)",
    "whether gradients pass the reset (here they do) and the distillation's teacher (here not)",
    "whether KL has the factor tau² (here not)",
    "which parameters decay (here the weights of convolutions and linear layers)",
)


def _s2w_on_cifar(dataset: str, *augment: str) -> Protocol:
    return Protocol(
        dataset,
        _S2W_SETTINGS
        | {"timesteps": 4, "model.name": "ms_resnet18", "optimizer.weight_decay": 1e-4, "data.augment": augment},
        _S2W_OPTIONS,
        also={"model.name": ("vgg9",)},
        unknown=_S2W_UNKNOWN,
    )


_S2W = {
    "cifar10": _s2w_on_cifar("CIFAR-10", "crop", "flip", "autoaugment"),
    "cifar100": _s2w_on_cifar("CIFAR-100", "crop", "flip"),
    "cifar10-dvs": Protocol(
        "CIFAR10-DVS",
        _S2W_SETTINGS
        | {
            "timesteps": 5,
            "data.slicing": "number",
            "model.name": "vgg9",
            "optimizer.weight_decay": 1e-3,
            "data.augment": (),
        },
        _S2W_OPTIONS,
        also={"model.name": ("ms_resnet18",)},
        differs=(
            "frames and test set are those given, where the paper scales frames to 48x48 and tests on a tenth drawn for each run",
        ),
        unknown=(
            "whether frames are by number (here) or time",
            "how events are augmented (here not)",
            "the layers of VGG-9 (here TET's)",
            *_S2W_UNKNOWN,
        ),
    ),
}

# TSER, of which neither code nor settings could be read


def _tser_on_cifar(dataset: str) -> Protocol:
    return Protocol(
        dataset,
        _SHARED | _CIFAR | _HARD | {"timesteps": 4},
        {"tser-unofficial": {"alpha": 0.5, "gamma": 0.1, "temperature": 3.0}},
        teacher=_TWKD_TEACHER,
        unknown=(
            "the weights of its loss, which nobody published (here a third party's), so its results are not set beside "
            "published numbers",
            "T, neurons, teacher, schedule and augmentation (here those of TWKD, by some of its authors, with T=4)",
        ),
    )


_TSER = {"cifar10": _tser_on_cifar("CIFAR-10"), "cifar100": _tser_on_cifar("CIFAR-100")}


def _on_recordings(events: Protocol, split: str, *differs: str, unknown: tuple[str, ...] = ()) -> Protocol:
    """Settings for event frames, with what also holds where the recordings of CIFAR10-DVS themselves are at hand."""
    settings = events.settings | {"data.size": 48, "data.options.split": split}
    return replace(events, settings=settings, differs=differs, unknown=(*events.unknown, *unknown))


_SCALED = "how frames are scaled to 48x48 (here by bilinear interpolation with antialiasing)"
_TWKD["cifar10_dvs"] = _on_recordings(_TWKD["cifar10-dvs"], "seed42", unknown=(_SCALED,))
_ESD["cifar10_dvs"] = _on_recordings(_ESD["cifar10-dvs"], "seed42", _POOLING, unknown=(_SCALED,))
_S2W["cifar10_dvs"] = _on_recordings(
    _S2W["cifar10-dvs"],
    "stratified",
    "the tenth that is tested on is the same in every run, where the paper draws it anew",
    unknown=(_SCALED,),
)
_S2W["dvs_gesture"] = replace(
    _S2W["cifar10-dvs"],
    dataset="DVS128 Gesture",
    settings=_S2W["cifar10-dvs"].settings | {"data.size": 48},
    differs=(),
    unknown=(*_S2W["cifar10-dvs"].unknown, _SCALED),
)

OF_DISTILLATION: dict[str, dict[str, Protocol]] = {"esd": _ESD, "s2w": _S2W, "tser-unofficial": _TSER, "twkd": _TWKD}
"""Settings of the papers on distillation by name, and by data set."""
