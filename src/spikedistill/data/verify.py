"""Reads every sample of a data set, to find broken ones before training."""

from collections.abc import Callable, Iterable

import torch

from .dataset import BrokenSample, Dataset, Samples


def verify(dataset: Dataset, track: Callable[[range], Iterable[int]] = iter) -> list[str]:
    """Read every sample of both splits and list the broken ones.

    Args:
        dataset: as loaded.
        track: wraps the sequence of places, one for each sample, to show progress.

    Returns:
        A line for each broken sample, training samples first: its file, what is wrong and what to do. Empty if all are sound.
    """
    training = len(dataset.train)
    faults = []
    for number in track(range(training + len(dataset.test))):
        if number < training:
            fault = _fault(dataset, dataset.train, number, "training")
        else:
            fault = _fault(dataset, dataset.test, number - training, "test")
        if fault:
            faults.append(fault)
    return faults


def _fault(dataset: Dataset, samples: Samples, place: int, split: str) -> str | None:
    """What is wrong with the sample at `place`, if anything."""
    name = f"{dataset.name}: {split} sample {place}"
    try:
        shape = list(samples.inputs(torch.tensor([place])).shape[-3:])
    except BrokenSample as error:
        return error.fault
    except (ValueError, OSError) as error:
        return f"{name}: {error}"
    expected = [dataset.channels, *dataset.size]
    if shape != expected:
        return f"{name} has the shape {shape} of channels, height and width, expected {expected}"
    label, last = int(samples.targets[place]), len(dataset.classes) - 1
    if not 0 <= label <= last:
        return f"{name} has label {label}, expected 0 to {last}"
    return None
