"""Settings that follow the size of a user's own data: network, epochs, images per step and learning rate.

| training samples | network for images up to 64 pixels | for larger ones | epochs | images per step | learning rate |
|---|---|---|---|---|---|
| below 20,000 | convnet | spiking_resnet18 of half the width | as many as make 1500 steps, 20 to 100 | a sixteenth of the samples as a power of two, 8 to 128 | 0.05 for 32 images per step and in proportion to them, 0.1 at most |
| below 200,000 | resnet18 | spiking_resnet18 | 60 | 128 | 0.1 |
| more | resnet18 | resnet34 | 100 | 512 | 0.2 |

From 200,000 samples on, the images of a folder get 224 pixels unless --data.size is given, and weights decay by 2e-5,
as in papers on ImageNet.

T of event frames is the number of frames in the files.

The rule is for recipes of image folders, arrays and event frames without --protocol. Every value can be overridden.
config.yaml records the resulting values, so a repeat from that file is exact.
"""  # noqa: E501  (a table)

from typing import Any

from ..config import Config
from ..data import load_dataset
from ..errors import UserError
from .catalogue import usual_config, with_network
from .protocols import with_settings

OWN_DATA = ("image_folder", "arrays", "event_frames")
MEDIUM, LARGE = 20_000, 200_000
SMALL_IMAGES, LARGE_IMAGES = 64, 224
STEPS = 1500


def settings_for(samples: int, side: int, *, resizable: bool = False) -> dict[str, Any]:
    """The settings, by their full names, for a number of training samples.

    Args:
        samples: the number of training samples.
        side: the longer side of the images in pixels.
        resizable: whether images can be read at a larger size, and no size was asked for.
    """
    if samples >= LARGE:
        size = {"data.size": LARGE_IMAGES} if resizable else {}
        network = "resnet34" if resizable or side > SMALL_IMAGES else "resnet18"
        schedule = {"epochs": 100, "data.batch_size": 512, "optimizer.lr": 0.2, "optimizer.weight_decay": 2e-5}
        return {"model.name": network} | schedule | size
    if samples >= MEDIUM:
        network = "resnet18" if side <= SMALL_IMAGES else "spiking_resnet18"
        return {"model.name": network, "epochs": 60, "data.batch_size": 128, "optimizer.lr": 0.1}
    batch = min(max(_power_of_two(samples // 16), 8), 128)
    epochs = min(max(round(STEPS / -(-samples // batch)), 20), 100)
    schedule = {"epochs": epochs, "data.batch_size": batch, "optimizer.lr": min(0.05 * batch / 32, 0.1)}
    if side <= SMALL_IMAGES:
        return {"model.name": "convnet"} | schedule
    return {"model.name": "spiking_resnet18", "model.width": 0.5} | schedule


def sized_to_data(default: Config, chosen: Config | None = None) -> Config:
    """A recipe's configuration with the settings that suit the size of its data; unchanged if the rule does not apply.

    Settings that the recipe changes from the usual ones of the data set stay as they are.

    Args:
        default: the recipe's.
        chosen: the same configuration with a user's settings, such as the folder of the data; by default the recipe's.
    """
    settings = _settings_of(chosen or default)
    if settings is None:
        return default
    usual = usual_config(default.data.name)
    settings = {key: value for key, value in settings.items() if _value(default, key) == _value(usual, key)}
    if "model.name" in settings:
        default = with_network(default, settings.pop("model.name"))
    return with_settings(default, settings)


def sized_line(config: Config) -> str | None:
    """One line on the settings of a run that follow the size of its data; None if none do."""
    settings = _settings_of(config)
    followed = (
        {} if settings is None else {key: value for key, value in settings.items() if _value(config, key) == value}
    )
    flags = [_flag(key, value) for key, value in followed.items()]
    return f"chosen by the size of the data: {' '.join(flags)}" if flags else None


def _settings_of(config: Config) -> dict[str, Any] | None:
    """The settings of the rule for a configuration's data; None if it does not apply, or the data cannot be read."""
    if config.protocol is not None or config.data.name not in OWN_DATA:
        return None
    data = config.data
    try:
        dataset = load_dataset(  # with the T of its files
            data.name,
            data.root,
            size=data.size,
            resize=data.resize,
            channels=data.channels,
            test_share=data.test_share,
            options=data.options,
        )
    except (UserError, OSError):
        return None  # training raises the error about the data
    left = round(len(dataset.train) * (1 - config.data.holdout))
    samples = min(config.data.train_samples or left, left)
    resizable = config.data.name == "image_folder" and config.data.size in (None, LARGE_IMAGES)
    settings = settings_for(samples, max(dataset.size), resizable=resizable)
    return settings | ({"timesteps": dataset.options["timesteps"]} if dataset.kind == "events" else {})


def _power_of_two(most: int) -> int:
    """The largest power of two up to a number; 1 for numbers below 1."""
    return 1 << max(most.bit_length() - 1, 0)


def _value(config: Config, key: str) -> Any:
    found: Any = config
    for name in key.split("."):
        found = getattr(found, name)
    return found


def _flag(key: str, value: Any) -> str:
    return f"--{key.replace('_', '-')} {value if isinstance(value, str) else f'{value:g}'}"
