"""ImageNet (Russakovsky et al., 2015) and Tiny-ImageNet, from folders of classes or from their archives."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..archives import unpack_imagenet, unpack_tiny_imagenet
from ..class_folders import Files, labelled_files
from ..dataset import Dataset
from ..entries import Entry, register_dataset
from ..images import MEANS, STDS, SUFFIXES, read_image
from ..preprocess import Resize, check_resize
from ..resized_crop import RESIZED_CROP, read_resized_crop
from .image_folder import check_size

IMAGENET = "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php"
TINY_IMAGENET = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


def load_imagenet(root: Path, size: int | Sequence[int] = 224, resize: Resize = "centre") -> Dataset:
    """Images in `root/imagenet/{train,val}/<class>/`, read when they are used; any of the 1,000 classes may be there.

    Args:
        root: the data root.
        size: height and width that all images get, or one number for both.
        resize: how test images get that size; see `Preprocess`.

    Raises:
        FileNotFoundError: a folder is missing.
        UserError: if a class is empty or unknown in training, or an option has another value.
    """
    check_resize(resize)
    return _folders("imagenet", root / "imagenet", check_size(size), resize, (RESIZED_CROP, "flip"))


def load_tiny_imagenet(root: Path, size: int | Sequence[int] = 64) -> Dataset:
    """Images of 64 x 64 in `root/tiny_imagenet/{train,val}/<class>/`, read when they are used.

    Args:
        root: the data root.
        size: height and width that all images get, or one number for both.

    Raises:
        FileNotFoundError: a folder is missing.
        UserError: if a class is empty or unknown in training, or the size has another value.
    """
    return _folders("tiny_imagenet", root / "tiny_imagenet", check_size(size), "crop", ("crop", "flip"))


def _folders(
    name: str, folder: Path, sides: tuple[int, int], resize: Resize, augmentations: tuple[str, ...]
) -> Dataset:
    kind = Files(name, SUFFIXES, partial(read_image, size=sides, resize=resize))
    train, test, classes, notes = labelled_files(kind, folder / "train", folder / "val")
    return Dataset(
        name=name,
        train=replace(train, draw=partial(read_resized_crop, size=sides)),
        test=test,
        classes=classes,
        mean=MEANS[3],
        std=STDS[3],
        kind="image",
        channels=3,
        size=sides,
        augmentations=augmentations,
        options={"size": list(sides), "resize": resize},
        resize=resize,
        describe=partial(list, notes),
    )


register_dataset(
    Entry(
        name="imagenet",
        about="1.28 million photos in 1,000 classes, as 224 x 224.",
        load=load_imagenet,
        unpack=unpack_imagenet,
        checked="file names and classes; images are not read: --verify reads them",
        files="imagenet/{train,val}/<class>/*.JPEG",
        page=IMAGENET,
        options=("size", "resize"),
        usual={
            "epochs": 100,
            "timesteps": 4,
            "model.name": "resnet34",
            "data.batch_size": 512,
            "optimizer.lr": 0.2,
            "optimizer.weight_decay": 2e-5,
        },
    )
)
register_dataset(
    Entry(
        name="tiny_imagenet",
        about="100,000 photos of 64 x 64 in 200 classes.",
        load=load_tiny_imagenet,
        unpack=unpack_tiny_imagenet,
        checked="file names and classes; images are not read: --verify reads them",
        files="tiny_imagenet/{train,val}/<class>/*.JPEG",
        page=TINY_IMAGENET,
        options=("size",),
        usual={"epochs": 100, "timesteps": 4, "model.name": "resnet18", "data.batch_size": 128, "optimizer.lr": 0.1},
    )
)
