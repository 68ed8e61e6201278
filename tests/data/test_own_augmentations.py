"""Augmentations that users register."""

import random

import numpy as np
import pytest
import torch
from quick_runs import assert_resumes_to_the_same_bytes, quick

from spikedistill import UserError, register_augmentation
from spikedistill.config import DataConfig
from spikedistill.data import AUGMENTATIONS, augment, augmentation_identity, augmentation_version, try_augmentations
from spikedistill.training.plan import make_plan

IMAGES, EVENTS = torch.rand(6, 1, 8, 8), torch.rand(3, 6, 2, 8, 8)


@pytest.fixture
def darker(fresh_names):
    @register_augmentation("darker")
    def darker(images):
        """Also in place, which must not reach the samples."""
        return images.mul_(torch.rand(images.shape[-4]).view(-1, 1, 1, 1))

    return darker


def test_it_takes_batches_as_the_network_does_beside_those_of_the_library(darker):
    for inputs in (IMAGES, EVENTS):
        before = inputs.clone()
        torch.manual_seed(0)
        found = augment(inputs, ("flip", "darker", "crop"))
        torch.manual_seed(0)
        expected = augment(darker(augment(inputs, ("flip",)).clone()), ("crop",))
        assert torch.equal(found, expected)
        assert torch.equal(inputs, before)
    assert AUGMENTATIONS.origin("darker") == __name__


def test_what_a_run_is_resumed_with_names_it_and_its_file(darker):
    assert augmentation_identity(("crop", "flip")) == "1"
    assert augmentation_identity(("autoaugment", "darker")) == f"2, darker of {__name__}"
    assert augmentation_version(("crop", "darker")) == 1


def test_a_run_is_resumed_to_the_same_bytes(darker, tmp_path, monkeypatch):
    data = DataConfig(name="digits", batch_size=60, train_samples=240, augment=("darker", "crop"))
    assert_resumes_to_the_same_bytes(quick("digits-sce", out=tmp_path, data=data), monkeypatch)


GENERATOR = np.random.default_rng(0)
SHIFTS = iter(range(100))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: None, "augmentation 'mine' returned a NoneType, expected a tensor"),
        (lambda x: x[:2], r"returned \[2, 1, 8, 8\] .* for a batch \[6, 1, 8, 8\] .*: expected the same"),
        (lambda x: x.double(), "returned .*torch.float64.* expected the same"),
        (lambda x: x / 0, "returned numbers that are not finite: expected images"),
        (lambda x: x * random.random(), "draws random numbers from another generator than torch's global one"),
        (lambda x: x * float(np.random.rand()), "draws random numbers from another generator"),
        (lambda x: x * (random.random() > 2), "draws random numbers from another generator"),
        (lambda x: x * float(GENERATOR.random()), "draws random numbers from another generator"),
        (lambda x: x * next(SHIFTS), "draws random numbers from another generator"),
    ],
)
def test_what_could_not_be_trained_with_is_refused_before_training(function, message, fresh_names):
    register_augmentation("mine")(function)
    with pytest.raises(UserError, match=message) as raised:
        try_augmentations(("mine",), IMAGES)
    assert "\n" not in str(raised.value)


def test_the_trial_leaves_the_generators_as_they_were(darker):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    try_augmentations(("darker", "crop"), IMAGES)
    try_augmentations(("darker",), EVENTS)
    assert torch.equal(torch.rand(3), expected)


def test_names_are_checked_when_a_run_is_planned(darker):
    def plan(*names):
        return make_plan(quick("digits-sce", data=DataConfig(name="digits", train_samples=100, augment=names)))

    assert plan("darker").augmentations == ("darker",)
    with pytest.raises(UserError, match="no augmentation is called 'dark': did you mean 'darker'"):
        plan("dark")
    with pytest.raises(UserError, match="augmentation 'crop' is registered already, by spikedistill"):
        register_augmentation("crop")(lambda x: x)
