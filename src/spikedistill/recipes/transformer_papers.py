"""The training settings of spiking transformers on CIFAR, which are those of their released code."""

from typing import Any

from .papers import PAIR, PLAIN, Protocol, Settings

_TRAINED: Settings = PLAIN | {
    "timesteps": 4,
    "model.lif.decay": 0.5,
    "model.lif.threshold": 2.0,
    "model.lif.v_reset": 0.0,
    "model.lif.detach_reset": True,
    "model.lif.surrogate": "sigmoid",
    "model.drop_path": 0.0,
    "data.augment": ("flip", "randaugment", "erase"),
    "data.mix": "mixup",
    "data.mix_alpha": 0.5,
    "optimizer.name": "adamw",
    "optimizer.weight_decay": 0.06,
    "optimizer.schedule": "cosine",
    "optimizer.schedule_per": "epoch",
    "optimizer.warmup_epochs": 20.0,
}
# S2W's paper gives this weight for QKFormer, and no settings of its training.
_PAIRS: dict[str, Settings] = {name: {"weight": 0.01} | PAIR for name in ("s2w", "w2s")}
_DIFFERS = (
    "RandAugment applies two operations of one magnitude, there one of a magnitude that is drawn, from other operations",
    "the warm-up rises from 0 in every step, there from a small rate in every epoch",
    "the learning rate ends at 0, there at 1e-5, which ten more epochs keep",
    "the surrogate is twice as high and half as wide, because there half of the current enters a threshold of 1",
)
_ERASING = "a rectangle of half of the images becomes noise, there of a quarter, and it becomes the mean"
_HALF = "precision is float32, there float16 mixed"
_CUTMIX = "images are mixed by mixup, there by mixup or CutMix, each in half of the batches"
_NAMES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


def _on_cifar(dataset: str, *differs: str, mixed: int = 200, **settings: Any) -> Protocol:
    """A paper's settings.

    Args:
        dataset: the data set.
        differs: what is different here, beside what is different in all.
        mixed: epochs in which images are mixed.
        settings: its own values, with two underscores for a dot.
    """
    own = {name.replace("__", "."): value for name, value in settings.items()}
    until = f"images are mixed in all epochs, there in the first {mixed}"
    options = {"label-smoothing": {"epsilon": 0.1}} | (_PAIRS if own["model.name"] == "qkformer" else {})
    return Protocol(_NAMES[dataset], _TRAINED | own, options, differs=(*_DIFFERS, until, *differs))


def _spikformer(dataset: str) -> Protocol:
    own: dict[str, Any] = {"model__name": "spikformer", "epochs": 300, "data__batch_size": 128, "optimizer__lr": 5e-4}
    return _on_cifar(dataset, _ERASING, _HALF, **own)


def _sdt(dataset: str) -> Protocol:
    return _on_cifar(
        dataset,
        model__name="sdt",
        epochs=300,
        data__batch_size=64,
        data__augment=("flip", "randaugment"),
        optimizer__lr=3e-4,
    )


def _qkformer(dataset: str) -> Protocol:
    own: dict[str, Any] = {"model__name": "qkformer", "epochs": 400, "data__batch_size": 64, "optimizer__lr": 1e-3}
    return _on_cifar(dataset, _ERASING, _HALF, **own)


_OF_MAX = (_ERASING, _HALF, _CUTMIX)
_MAX: dict[str, Any] = {"model__name": "max_former", "epochs": 400, "optimizer__lr": 1.5e-3}

TRANSFORMERS: dict[str, dict[str, Protocol]] = {
    "spikformer": {"cifar10": _spikformer("cifar10")},
    "sdt": {name: _sdt(name) for name in _NAMES},
    "qkformer": {name: _qkformer(name) for name in _NAMES},
    "max-former": {
        "cifar10": _on_cifar("cifar10", *_OF_MAX, data__batch_size=128, **_MAX),
        "cifar100": _on_cifar("cifar100", *_OF_MAX, mixed=250, data__batch_size=64, data__mix_alpha=0.75, **_MAX),
    },
}
"""Settings of papers on spiking transformers by name, and by data set."""
