"""Data sets of images and events by name, their splits, and augmentation of batches."""

from .ahead import workers_for
from .augment import (
    AUGMENTATION_VERSION,
    AUGMENTATIONS,
    augment,
    augmentation_identity,
    augmentation_version,
    register_augmentation,
    try_augmentations,
)
from .batches import Batches, as_network_input, in_order, kept_on, of_one_length
from .dataset import BrokenSample, Dataset, FileSamples, Samples, TensorSamples, lengths_of
from .entries import DATASETS, Entry, register_dataset
from .fingerprint import fingerprint
from .from_torch import as_dataset, data_path, from_torch
from .preprocess import Preprocess
from .recordings import SLICING_VERSION, Recording, read_recording, slicing_version
from .registry import (
    dataset_options,
    example_tree,
    expected_files,
    find_root,
    list_datasets,
    load_dataset,
    usual_settings,
    what_loading_checks,
)
from .resized_crop import RESIZED_CROP
from .split import balanced_order, samples_per_class, split_holdout, training_indices, with_wrong_labels
from .torch_samples import TorchSamples, draws_at_random
from .verify import verify

__all__ = [
    "AUGMENTATIONS",
    "AUGMENTATION_VERSION",
    "DATASETS",
    "RESIZED_CROP",
    "SLICING_VERSION",
    "Batches",
    "BrokenSample",
    "Dataset",
    "Entry",
    "FileSamples",
    "Preprocess",
    "Recording",
    "Samples",
    "TensorSamples",
    "TorchSamples",
    "as_dataset",
    "as_network_input",
    "augment",
    "augmentation_identity",
    "augmentation_version",
    "balanced_order",
    "data_path",
    "dataset_options",
    "draws_at_random",
    "example_tree",
    "expected_files",
    "find_root",
    "fingerprint",
    "from_torch",
    "in_order",
    "kept_on",
    "lengths_of",
    "list_datasets",
    "load_dataset",
    "of_one_length",
    "read_recording",
    "register_augmentation",
    "register_dataset",
    "samples_per_class",
    "slicing_version",
    "split_holdout",
    "training_indices",
    "try_augmentations",
    "usual_settings",
    "verify",
    "what_loading_checks",
    "with_wrong_labels",
    "workers_for",
]
