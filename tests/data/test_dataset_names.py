"""Data sets by name, and where their files are looked for."""

from pathlib import Path

import pytest
import torch

from spikedistill.data import expected_files, list_datasets, load_dataset


def test_digits_come_without_files_and_with_a_fixed_balanced_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPIKEDISTILL_DATA", raising=False)
    digits = load_dataset("digits")
    assert (len(digits.train), len(digits.test)) == (1442, 355)
    assert (digits.kind, digits.channels, digits.size, len(digits.classes)) == ("image", 1, (8, 8), 10)
    # scikit-learn's classes hold 174 to 183 samples: a fifth of each is 34 to 36
    counts = torch.bincount(digits.test.targets)
    assert (counts.min().item(), counts.max().item()) == (34, 36)
    images = digits.train.inputs(torch.arange(1442))
    assert (images.shape, images.dtype) == ((1442, 1, 8, 8), torch.uint8)
    # the first digit's first rows, in scikit-learn 0 0 5 13 9 1 0 0: level v becomes round(15.9375 v)
    assert images[0, 0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
    assert images.max() == 255
    assert digits.mean[0] == pytest.approx((images.float() / 255).mean().item(), abs=5e-5)
    assert digits.std[0] == pytest.approx((images.float() / 255).std().item(), abs=5e-5)


def test_samples_in_memory_read_by_index_and_split_into_subsets() -> None:
    train = load_dataset("digits").train
    indices = torch.tensor([7, 3, 7])
    part = train.subset(indices)
    assert len(part) == 3
    assert torch.equal(part.targets, train.targets[indices])
    assert torch.equal(part.inputs(torch.tensor([2, 1])), train.inputs(torch.tensor([7, 3])))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        ValueError,
        match="no data set is called 'cifar': did you mean 'cifar10' or 'cifar100'",
    ):
        load_dataset("cifar")


@pytest.mark.parametrize("name", [name for name in list_datasets() if name != "digits"])
def test_without_a_root_the_files_their_page_and_both_options_are_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPIKEDISTILL_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=f"^{name} is read from ROOT/") as error:
        load_dataset(name)
    assert expected_files(name) in str(error.value)
    assert "--data.root or $SPIKEDISTILL_DATA" in str(error.value)


def test_a_root_that_is_no_folder_is_named_with_the_option_that_gave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIKEDISTILL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"nowhere, given by \$SPIKEDISTILL_DATA, is no folder"):
        load_dataset("mnist")
    with pytest.raises(FileNotFoundError, match=r"elsewhere, given by --data\.root, is no folder"):
        load_dataset("mnist", tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/mnist/train-images-idx3-ubyte.gz is missing"):
        load_dataset("mnist", tmp_path)


def test_an_option_of_another_data_set_is_refused_but_timesteps_suit_all() -> None:
    with pytest.raises(
        ValueError,
        match=r"digits takes no 'size', which is an option of arrays, cifar10_dvs, .*, tiny_imagenet; leave it out",
    ):
        load_dataset("digits", size=16)
    with pytest.raises(
        ValueError,
        match="digits takes no 'slicing', which is an option of cifar10_dvs, dvs_gesture, event_folder, ncaltech101, nmnist",
    ):
        load_dataset("digits", slicing="time")
    assert load_dataset("digits", timesteps=4).size == (8, 8)
