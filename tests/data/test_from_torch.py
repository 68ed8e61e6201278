"""Data sets of PyTorch: what their samples may be, what is found from them, and what is refused."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from spikedistill import UserError
from spikedistill.data import Batches, as_dataset, fingerprint, from_torch, in_order


class Pairs(Dataset):
    """Items as they are given, and how often each was read."""

    def __init__(self, inputs, labels):
        self.inputs, self.labels = inputs, labels
        self.reads = [0] * len(labels)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, place):
        self.reads[place] += 1
        return self.inputs[place], self.labels[place]


class WithTargets(Pairs):
    """As data sets of torchvision are."""

    classes = ("zero", "one", "two")

    @property
    def targets(self):
        return self.labels


GREY = (torch.arange(5 * 12).reshape(5, 3, 4) * 4).to(torch.uint8)  # 5 images of 3x4
LABELS = [0, 1, 2, 1, 0]
COLOUR = torch.stack([GREY, GREY // 2, 255 - GREY], 1)


def pillow(images):
    return [Image.fromarray(image.numpy() if image.ndim == 2 else image.permute(1, 2, 0).numpy()) for image in images]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (GREY, GREY[:, None]),
        (GREY[:, None] / 255, GREY[:, None] / 255),
        (GREY.double() / 255, GREY[:, None] / 255),
        (COLOUR, COLOUR),
        (list(COLOUR.numpy()), COLOUR),
        (list((COLOUR.numpy() / 255).astype(np.float16)), COLOUR / 255),
        (GREY.long(), GREY[:, None]),
        (list(GREY.numpy().astype(">u2")), GREY[:, None]),
        (GREY > 100, (GREY > 100)[:, None].to(torch.uint8) * 255),
        (pillow(GREY), GREY[:, None]),
        (pillow(COLOUR), COLOUR),
    ],
    ids=[
        "HW",
        "CHW float",
        "HW double",
        "CHW",
        "array",
        "array of float16",
        "int64",
        "big-endian",
        "bool",
        "Pillow grey",
        "Pillow colour",
    ],
)
def test_samples_of_every_form_are_read_as_what_they_are(inputs, expected):
    data = from_torch(Pairs(inputs, LABELS), Pairs(inputs, LABELS))
    read = data.train.inputs(torch.tensor([4, 0]))
    assert read.dtype == (torch.uint8 if expected.dtype == torch.uint8 else torch.float32)
    torch.testing.assert_close(read, expected[[4, 0]].to(read.dtype), atol=5e-4, rtol=0)
    assert (data.kind, data.channels, data.size) == ("image", expected.shape[1], (3, 4))
    assert data.classes == ("0", "1", "2")
    assert data.train.targets.tolist() == LABELS
    values = expected.double() / (255 if expected.dtype == torch.uint8 else 1)
    assert data.mean == pytest.approx(values.mean((0, 2, 3)).tolist(), abs=5e-4)
    assert data.std == pytest.approx(values.std((0, 2, 3), correction=0).tolist(), abs=5e-4)


def test_statistics_of_close_values_keep_their_digits():
    close = 0.5 + torch.tensor([-2e-5, 0.0, 2e-5, 0.0, 0.0])[:, None, None, None].expand(5, 1, 3, 4)
    both = torch.cat([close, torch.full((5, 1, 3, 4), 0.3)], 1)
    data = from_torch(Pairs(both, LABELS), Pairs(both, LABELS))
    # the deviation is sqrt(2 · 4e-10 / 5); a channel that never changes has deviation 1
    assert data.std == pytest.approx((1.265e-5, 1.0), rel=0.01)


def test_event_frames_bring_their_time_and_are_not_normalised():
    frames = torch.randint(0, 9, (5, 6, 2, 3, 4))
    data = from_torch(Pairs(frames, LABELS), Pairs(frames, LABELS))
    assert (data.kind, data.channels, data.size, data.mean, data.std) == ("events", 2, (3, 4), (0.0,) * 2, (1.0,) * 2)
    assert torch.equal(data.train.inputs(torch.tensor([1])), frames[1:2].float())


@pytest.mark.parametrize("label", [int, np.int64, torch.tensor, np.array], ids=["int", "int64", "tensor", "array"])
def test_labels_are_whole_numbers_of_any_kind(label):
    labels = [label(y) for y in LABELS]
    assert from_torch(Pairs(GREY, labels), Pairs(GREY, labels)).train.targets.tolist() == LABELS


def test_subsets_and_joined_sets_know_their_labels_and_classes_without_reading_all():
    source = WithTargets(GREY.repeat(20, 1, 1), LABELS * 20)
    train = ConcatDataset([Subset(source, range(0, 90, 2)), Subset(source, [3, 1])])
    data = from_torch(train, Subset(source, [4]), mean=[0.5], std=[0.5], name="mine")
    assert data.train.targets.tolist() == [(LABELS * 20)[place] for place in (*range(0, 90, 2), 3, 1)]
    assert (data.name, data.classes, data.mean) == ("mine", ("zero", "one", "two"), (0.5,))
    assert data.source.endswith("test_from_torch.WithTargets")
    assert source.reads.count(0) > 30, "labels came from the attribute"
    assert torch.equal(data.train.inputs(torch.tensor([45, 46])), source.inputs[[3, 1]][:, None])
    assert torch.equal(data.train.subset(torch.tensor([46])).inputs(torch.tensor([0])), source.inputs[[1]][:, None])


def test_training_and_test_samples_must_number_their_classes_alike():
    train, test = (WithTargets(GREY, LABELS) for _ in range(2))
    test.classes = ["zero", "two", "one"]
    with pytest.raises(UserError, match="label 1 is the class 'one' of training samples and 'two' of test samples"):
        from_torch(train, test)
    assert from_torch(train, test, classes=["a", "b", "c"]).classes == ("a", "b", "c")
    test.classes = ["zero", "one", "two", "three"]
    assert from_torch(train, test).classes == ("zero", "one", "two")


def test_an_attribute_that_tells_other_labels_than_the_samples_is_not_trusted():
    class Shifted(WithTargets):
        def __getitem__(self, place):
            return self.inputs[place], (self.labels[place] + 1) % 3

    data = from_torch(Shifted(GREY, LABELS), Shifted(GREY, LABELS))
    assert data.train.targets.tolist() == [1, 2, 0, 2, 1]


def test_a_tensor_dataset_stays_in_memory_and_others_are_read_when_needed():
    source = Pairs(GREY, LABELS)
    lazy = from_torch(source, source)
    source.reads = [0] * 5
    lazy.train.inputs(torch.tensor([2]))
    assert source.reads == [0, 0, 1, 0, 0]
    memory = from_torch(TensorDataset(GREY, torch.tensor(LABELS)), TensorDataset(GREY, torch.tensor(LABELS)))
    assert torch.equal(memory.train.data, GREY[:, None])
    assert memory.name == "data"
    assert lazy.name == "Pairs"


def test_the_fingerprint_changes_with_a_value_a_label_or_the_order_and_with_nothing_else():
    def of(inputs, labels):
        return fingerprint(from_torch(Pairs(inputs, labels), Pairs(GREY, LABELS)))

    other = GREY.clone()
    other[3, 2, 1] += 1
    same = of(GREY, LABELS)
    assert of(GREY.clone(), [*LABELS]) == same
    for changed in (of(other, LABELS), of(GREY, [0, 1, 2, 1, 1]), of(GREY.flip(0), LABELS)):
        assert changed["train"] != same["train"]
        assert changed["test"] == same["test"]


class Noisy(Pairs):
    def __getitem__(self, place):
        noise = torch.rand(3, 4) + random.random() + float(np.random.rand())
        return noise / 3, self.labels[place]


def test_what_transforms_draw_depends_on_seed_epoch_and_batch_only():
    data = from_torch(Noisy(GREY, LABELS), Noisy(GREY, LABELS))
    assert fingerprint(data) == fingerprint(from_torch(Noisy(GREY, LABELS), Noisy(GREY, LABELS)))

    def epoch(number, done=0, seed=0):
        batches = Batches(data.train, 2, seed, lambda: (number, done))
        return [inputs for inputs, _, _ in batches]

    first = epoch(0)
    torch.manual_seed(9), random.seed(9), np.random.seed(9)
    before = torch.get_rng_state(), random.getstate()
    assert all(map(torch.equal, epoch(0), first))
    assert all(map(torch.equal, epoch(0, done=1), first[1:])), "a run that goes on sees the same"
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert not torch.equal(epoch(1)[0].sort().values, first[0].sort().values)
    scored = [[inputs for inputs, _ in in_order(data.test, 2)] for _ in range(2)]
    assert all(map(torch.equal, *scored)), "and scores repeat"


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(GREY, LABELS, strict=True))


@pytest.mark.parametrize(
    ("train", "options", "message"),
    [
        (Pairs(GREY.float(), LABELS), {}, r"sample 0 holds numbers up to 44, expected \[0, 1\]: divide by 255"),
        (Pairs(GREY / 128 - 1, LABELS), {}, "leave Normalize out of its transform"),
        (Pairs(GREY / 0.0, LABELS), {}, "NaN or infinite"),
        (Pairs(GREY.long() * 9, LABELS), {}, r"whole numbers from 0 to \d+, expected 0 to 255"),
        (
            Pairs((GREY > 20).byte(), LABELS),
            {},
            r"no whole numbers but 0 and 1, expected .* as floating-point numbers, x\.float",
        ),
        (
            Pairs((GREY > 20).byte(), LABELS),
            {"mean": [0.5], "std": [1.0]},
            "no whole numbers but 0 and 1",
        ),
        (Pairs(GREY[:, 0], LABELS), {}, r"sample 0 is \[4\], expected an image \[C, H, W\] or \[H, W\]"),
        (Pairs(torch.zeros(5, 8, 8, 3), LABELS), {}, r"channels last, expected \[C, H, W\]: x.permute\(2, 0, 1\)"),
        (
            Pairs([GREY[0], GREY[1, :, :2]] * 2, LABELS[:4]),
            {},
            r"training sample 1 is \[1, 3, 2\] .* the first training sample is \[1, 3, 4\]",
        ),
        (Pairs(GREY, [y + 1 for y in LABELS]), {}, "labels run from 1 to 3, expected 0 to 2: subtract 1"),
        (
            Pairs(GREY, [y + 1 for y in LABELS]),
            {"classes": "abc"},
            "label 3, and there are names of 3 classes: labels count",
        ),
        (Pairs(GREY, [0, 1, 3, 1, 0]), {}, "no training sample has the label 2"),
        (Pairs(GREY, [0, 1, -1, 1, 0]), {}, "the label -1, expected 0 or more"),
        (Pairs(GREY, [0.0, 1.0] * 2), {}, r"sample 0 has the label 0\.0, expected the number of a class"),
        (Pairs(GREY, torch.eye(5)), {}, r"a label \[5\], expected the number of a class: y.argmax\(\)"),
        (Pairs(GREY, ["cat"] * 5), {}, "the label 'cat', expected the number of a class"),
        (Pairs(["a.png"] * 5, LABELS), {}, "sample 0 is a str, expected a tensor, a NumPy array or a Pillow image"),
        (Pairs(GREY, []), {}, "train has no samples"),
        (TensorDataset(GREY), {}, r"sample 0 is 1 values, expected \(x, y\)"),
        (Stream(), {}, "train is a Stream, expected a map-style"),
        (DataLoader(Pairs(GREY, LABELS)), {}, "train is a DataLoader, expected the data set in it, loader.dataset"),
        (Pairs(GREY, LABELS), {"mean": [0.5]}, "mean and std come together"),
        (Pairs(GREY, LABELS), {"mean": [0.5], "std": [0.0]}, "each std above 0"),
        (Pairs(GREY, LABELS), {"classes": "aab"}, "a name twice"),
        (Pairs(GREY, LABELS), {"name": "my data"}, "expected a text without spaces"),
        (Pairs(COLOUR, LABELS), {}, r"test sample 0 is \[1, 3, 4\] .* first training sample is \[3, 3, 4\]"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(train, options, message):
    with pytest.raises(UserError, match=message) as caught:
        from_torch(train, Pairs(GREY, LABELS), **options)
    assert "\n" not in str(caught.value)


def test_data_are_a_pair_a_mapping_or_ours():
    pairs = Pairs(GREY, LABELS)
    ours = as_dataset((pairs, pairs))
    assert as_dataset(ours) is ours
    named = as_dataset({"train": pairs, "test": pairs, "classes": ["a", "b", "c"], "mean": (0.1,), "std": (0.2,)})
    assert (named.classes, named.mean) == (("a", "b", "c"), (0.1,))
    for wrong, message in (
        (pairs, r"data is a Pairs, expected a pair .* data=\(train, test\)"),
        ({"train": pairs}, "data has no 'test'"),
        ({"train": pairs, "test": pairs, "val": pairs}, "data has 'val'"),
    ):
        with pytest.raises(UserError, match=message):
            as_dataset(wrong)
