"""Images and events: data sets by name, their splits, and augmentation on the batch."""

from .augment import AUGMENTATIONS, augment
from .batches import Batches, as_network_input, in_order
from .dataset import Dataset, FileSamples, Samples, TensorSamples
from .registry import expected_files, list_datasets, load_dataset
from .split import balanced_order, split_holdout, training_indices

__all__ = [
    "AUGMENTATIONS",
    "Batches",
    "Dataset",
    "FileSamples",
    "Samples",
    "TensorSamples",
    "as_network_input",
    "augment",
    "balanced_order",
    "expected_files",
    "in_order",
    "list_datasets",
    "load_dataset",
    "split_holdout",
    "training_indices",
]
