"""Handwritten digits, 8x8, which come with scikit-learn: the default data set, without files."""

import torch

from ..dataset import Dataset, TensorSamples
from ..entries import Entry, register_dataset
from ..split import position_in_class


def load_digits() -> Dataset:
    """The 1,797 digits of scikit-learn (UCI "Optical Recognition of Handwritten Digits", its test part), 8x8, grey.

    Grey levels 0..16 become round(255/16 * level). The split is fixed and stratified: every fifth sample of its class, in
    scikit-learn's order, is a test sample, which gives 1,442 training and 355 test samples.
    """
    from sklearn.datasets import load_digits as sklearn_digits

    bunch = sklearn_digits()
    images = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)[:, None]
    targets = torch.from_numpy(bunch.target).long()
    test = position_in_class(targets) % 5 == 4
    return Dataset(
        name="digits",
        train=TensorSamples(images[~test], targets[~test]),
        test=TensorSamples(images[test], targets[test]),
        classes=tuple("0123456789"),
        mean=(0.3052,),
        std=(0.3760,),
        kind="image",
        channels=1,
        size=(8, 8),
    )


register_dataset(
    Entry(
        name="digits",
        about="1,797 grey digits of 8 x 8. They come with scikit-learn: no download.",
        load=load_digits,
        page="scikit-learn",
        checked="nothing, because it comes with scikit-learn",
        usual={"epochs": 30, "data.batch_size": 64, "optimizer.lr": 0.1},
    )
)
