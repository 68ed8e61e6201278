import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikedistill.data import TensorSamples, balanced_order, split_holdout, with_wrong_labels


@settings(deadline=None)
@given(st.integers(2, 8), st.integers(10, 40), st.floats(0.1, 0.5), st.integers(0, 2**32 - 1))
def test_both_parts_together_hold_every_sample_once(classes: int, per_class: int, fraction: float, seed: int) -> None:
    targets = torch.arange(classes).repeat(per_class)
    train, holdout = split_holdout(targets, fraction, seed)
    assert torch.equal(torch.cat([train, holdout]).sort().values, torch.arange(len(targets)))
    # every class loses its share, up to rounding to whole samples
    lost = torch.bincount(targets[holdout], minlength=classes)
    assert (lost - fraction * per_class).abs().max() <= 1


def test_a_tenth_of_two_unequal_classes_is_a_tenth_of_each() -> None:
    targets = torch.tensor([0] * 100 + [1] * 50)
    _, holdout = split_holdout(targets, 0.1, seed=0)
    assert torch.bincount(targets[holdout]).tolist() == [10, 5]


def test_the_seed_alone_decides() -> None:
    targets = torch.arange(10).repeat(100)
    first, again, other = (split_holdout(targets, 0.1, seed)[1] for seed in (0, 0, 1))
    torch.rand(3)
    assert torch.equal(first, again)
    assert torch.equal(first, split_holdout(targets, 0.1, 0)[1])
    assert not torch.equal(first, other)


def test_indices_come_in_ascending_order_and_nothing_is_held_out_at_zero() -> None:
    targets = torch.arange(5).repeat(20)
    train, holdout = split_holdout(targets, 0.2, seed=3)
    assert torch.equal(train, train.sort().values)
    assert torch.equal(holdout, holdout.sort().values)
    train, holdout = split_holdout(targets, 0.0, seed=3)
    assert torch.equal(train, torch.arange(100))
    assert holdout.shape == (0,)
    assert holdout.dtype == torch.int64


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0, float("nan")])
def test_a_share_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        split_holdout(torch.arange(4).repeat(4), fraction, seed=0)


@pytest.mark.parametrize(
    ("targets", "fraction"),
    [([0, 0, 0, 1], 0.5), ([0, 1] * 10, 0.01), ([0, 1] * 10, 0.99)],
    ids=["a class of one", "one sample for two classes", "no sample left to train a class"],
)
def test_too_small_a_part_is_refused(targets: list[int], fraction: float) -> None:
    with pytest.raises(ValueError, match=f"of {len(targets)} samples with every one of 2 classes on both sides"):
        split_holdout(torch.tensor(targets), fraction, seed=0)


def test_every_beginning_of_the_balanced_order_is_balanced() -> None:
    targets = torch.tensor([0, 0, 0, 1, 2, 2, 1, 0, 2])
    # first of each class in order of appearance: 0, 3, 4; second: 1, 5, 6; third: 2, 8; fourth: 7
    assert balanced_order(targets).tolist() == [0, 3, 4, 1, 5, 6, 2, 8, 7]


def test_wrong_labels_are_of_other_classes_the_same_for_the_same_share_and_kept_for_a_larger_one() -> None:
    targets = torch.arange(10).repeat_interleave(100)
    samples = TensorSamples(torch.arange(1000), targets)
    fifth, again, more = (with_wrong_labels(samples, share, 10) for share in (0.2, 0.2, 0.4))
    wrong = fifth.targets != targets
    assert (int(wrong.sum()), int((more.targets != targets).sum())) == (200, 400)
    assert torch.equal(fifth.targets, again.targets)
    assert torch.equal(fifth.targets[wrong], more.targets[wrong])
    # each of nine other classes for 22 of 200 on average; each class loses 20 of 100 on average
    moved = torch.bincount((fifth.targets - targets)[wrong] % 10, minlength=10)
    assert moved[0] == 0
    assert 10 <= moved[1:].min() <= moved.max() <= 36
    assert 8 <= torch.bincount(targets[wrong]).min() <= torch.bincount(targets[wrong]).max() <= 34
    assert torch.equal(samples.targets, targets)
    assert torch.equal(fifth.inputs(torch.tensor([3, 5])), torch.tensor([3, 5]))
