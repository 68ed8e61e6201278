"""Training on wrong labels: only the samples that are trained on get them."""

import torch
from quick_runs import quick

from spikedistill.config import DataConfig
from spikedistill.training.plan import make_plan


def test_only_training_samples_get_wrong_labels():
    clean, noisy = (
        make_plan(
            quick("digits-sce", data=DataConfig(name="digits", holdout=0.2, train_samples=500, label_noise=share))
        )
        for share in (0.0, 0.4)
    )
    assert int((noisy.train.targets != clean.train.targets).sum()) == 200
    assert torch.equal(noisy.holdout.targets, clean.holdout.targets)
    assert torch.equal(noisy.dataset.test.targets, clean.dataset.test.targets)
    places = torch.arange(500)
    assert torch.equal(noisy.train.inputs(places), clean.train.inputs(places))
