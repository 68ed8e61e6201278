"""Images and events: data sets by name, their splits, and augmentation on the batch."""

from .augment import (
    AUGMENTATION_VERSION,
    AUGMENTATIONS,
    augment,
    augmentation_identity,
    augmentation_version,
    register_augmentation,
    try_augmentations,
)
from .batches import Batches, as_network_input, in_order, kept_on
from .dataset import BrokenSample, Dataset, FileSamples, Samples, TensorSamples
from .fingerprint import fingerprint
from .preprocess import Preprocess
from .registry import example_tree, expected_files, list_datasets, load_dataset, usual_settings, what_loading_checks
from .sets.nmnist import SLICING_VERSION, slicing_version
from .split import balanced_order, samples_per_class, split_holdout, training_indices
from .verify import verify

__all__ = [
    "AUGMENTATIONS",
    "AUGMENTATION_VERSION",
    "SLICING_VERSION",
    "Batches",
    "BrokenSample",
    "Dataset",
    "FileSamples",
    "Preprocess",
    "Samples",
    "TensorSamples",
    "as_network_input",
    "augment",
    "augmentation_identity",
    "augmentation_version",
    "balanced_order",
    "example_tree",
    "expected_files",
    "fingerprint",
    "in_order",
    "kept_on",
    "list_datasets",
    "load_dataset",
    "register_augmentation",
    "samples_per_class",
    "slicing_version",
    "split_holdout",
    "training_indices",
    "try_augmentations",
    "usual_settings",
    "verify",
    "what_loading_checks",
]
