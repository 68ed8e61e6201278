"""A user's images, in one folder per class."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ...errors import UserError
from ..class_folders import Files, own_folders
from ..dataset import Dataset
from ..entries import Entry, register_dataset
from ..files import MOST_VALUES
from ..images import MEANS, STDS, SUFFIXES, look_at, read_image
from ..preprocess import Resize, check_resize
from ..resized_crop import read_resized_crop

MOST_SIZE = math.isqrt(MOST_VALUES // 3)
LOOKED_AT = 200  # number of images whose size is read from the first bytes, to describe the sizes


def load_image_folder(
    root: Path,
    size: int | Sequence[int] = 32,
    resize: Resize = "crop",
    channels: int = 3,
    test_share: float | None = None,
) -> Dataset:
    """Images of any size in `root/train/<class>/` and `root/test/<class>/`, read when they are used.

    `read_image` describes how each kind of image is read. Mean and standard deviation are ImageNet's.

    Args:
        root: the folder; its test folder may also be called val, valid or validation.
        size: height and width that all images get, or one number for both.
        resize: how images get that size: "crop", "pad", "stretch" or "centre", see `Preprocess`.
        channels: 3 for colour, 1 for grey.
        test_share: if there are no test images: the share of each class to test on, see `own_folders`. The classes may then also
            be in `root/<class>/`.

    Raises:
        FileNotFoundError: a folder is missing.
        UserError: if a class is empty or unknown in training, or an option has another value.
        BrokenSample: when samples are read, if an image cannot be read.
    """
    height, width = check_size(size)
    check_resize(resize)
    if channels not in MEANS:
        raise UserError(f"channels is {channels!r}, expected 3 for colour or 1 for grey")
    read = partial(read_image, size=(height, width), channels=channels, resize=resize)
    train, test, classes, notes = own_folders(Files("image_folder", SUFFIXES, read), root, test_share)
    train = replace(train, draw=partial(read_resized_crop, size=(height, width), channels=channels))
    options: dict[str, object] = {"size": height if height == width else [height, width]}
    # defaults are left out, so that the fingerprints of earlier runs stay valid
    options |= {} if resize == "crop" else {"resize": resize}
    options |= {} if channels == 3 else {"channels": channels}
    return Dataset(
        name="image_folder",
        train=train,
        test=test,
        classes=classes,
        mean=MEANS[channels],
        std=STDS[channels],
        kind="image",
        channels=channels,
        size=(height, width),
        augmentations=("crop", "flip"),
        options=options,
        resize=resize,
        describe=partial(_describe, train.paths, (height, width), resize, channels, notes),
    )


def check_size(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width.

    Raises:
        UserError: if it is not one or two numbers of 1 to `MOST_SIZE`.
    """
    sides = [*size] if isinstance(size, Sequence) else [size, size]
    if len(sides) != 2 or not all(1 <= side <= MOST_SIZE for side in sides):
        raise UserError(
            f"size is the images' side in pixels, or height and width, at most {MOST_SIZE} and at least 1; got {size}"
        )
    return sides[0], sides[1]


def _describe(
    paths: Sequence[Path], size: tuple[int, int], resize: Resize, channels: int, notes: Sequence[str]
) -> list[str]:
    return [_what_happens(paths, size, resize, channels), *notes]


def _what_happens(paths: Sequence[Path], size: tuple[int, int], resize: Resize, channels: int) -> str:
    """How the images found are resized to the input of the network, in words."""
    step = -(-len(paths) // LOOKED_AT)
    seen = [found for path in paths[::step] if (found := look_at(path))]
    if not seen:
        return "no image could be looked at: --verify names the broken files"
    sizes = sorted({found[:2] for found in seen}, key=lambda sides: (math.prod(sides), sides))
    images = f"images of {_words(sizes[0])}" + (f" to {_words(sizes[-1])}" if len(sizes) > 1 else "")
    looked = "" if len(seen) == len(paths) else f"; {len(seen)} of {len(paths)} were looked at"
    if sizes == [size]:
        done = f"{images} (height x width) are taken as they are"
    else:
        done = f"{images} (height x width) are {HOW[resize].format(_words(size))}"
    grey = sum(not in_colour for *_, in_colour in seen)
    if channels == 1:
        colour = "in grey"
    elif grey == len(seen):
        colour = "in three equal channels, because all are grey: --data.channels 1 needs less"
    else:
        colour = f"in colour ({grey} are grey)" if grey else "in colour"
    return f"{done}, {colour}{looked}"


HOW: dict[str, str] = {
    "crop": "scaled and cropped at the centre to {}",
    "pad": "scaled to fit into {}, where the mean colour fills the rest",
    "stretch": "stretched to {}",
    "centre": "scaled to cover 8/7 of {}, of which the middle is taken",
}


def _words(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


register_dataset(
    Entry(
        name="image_folder",
        about="Your own images of any size, in a folder for each class.",
        load=load_image_folder,
        checked="file names and classes; pixels are not read: --verify reads them",
        files="{train,test}/<class>/*." + "{" + ",".join(suffix[1:] for suffix in SUFFIXES) + "}",
        options=("size", "resize", "channels", "test_share"),
        tree="""
            ROOT/
              train/
                cat/   0001.jpg  0002.png  ...   (of any size)
                dog/   0001.jpg  ...
              test/    the same folders; or leave it out and add --data.test-share 0.2
        """,
        # for small data; --protocol has the settings of the papers for ImageNet
        usual={"epochs": 30, "data.batch_size": 32, "optimizer.lr": 0.05},
    )
)
