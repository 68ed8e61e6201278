"""Augmentation of a batch: what may come out, that every sample draws for itself, and that the seed decides everything."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spikedistill.data import AUGMENTATIONS, augment
from spikedistill.data.pixels import rotate

CIFAR = ("crop", "flip", "autoaugment", "cutout")


def seeded(seed: int, inputs: Tensor, *names: str) -> Tensor:
    torch.manual_seed(seed)
    return augment(inputs, names)


def numbered(batch: int, height: int, width: int) -> Tensor:
    """Images in which every pixel has a number of its own, from 1 on, over the number of pixels."""
    pixels = torch.arange(1, height * width + 1, dtype=torch.float32) / (height * width)
    return pixels.view(1, 1, height, width).repeat(batch, 1, 1, 1)


def all_crops(image: Tensor) -> set[tuple[float, ...]]:
    padded = torch.nn.functional.pad(image, (4, 4, 4, 4))
    H, W = image.shape[-2:]
    return {tuple(padded[:, y : y + H, x : x + W].flatten().tolist()) for y in range(9) for x in range(9)}


def all_rolls(image: Tensor) -> set[tuple[float, ...]]:
    shifts = range(-5, 6)
    return {tuple(image.roll((y, x), (1, 2)).flatten().tolist()) for y in shifts for x in shifts}


def all_holes(image: Tensor) -> set[tuple[float, ...]]:
    results = set()
    H, W = image.shape[-2:]
    for y in range(H):
        for x in range(W):
            holed = image.clone()
            holed[:, max(y - 8, 0) : y + 8, max(x - 8, 0) : x + 8] = 0
            results.add(tuple(holed.flatten().tolist()))
    return results


def both_flips(image: Tensor) -> set[tuple[float, ...]]:
    return {tuple(image.flatten().tolist()), tuple(image.flip(2).flatten().tolist())}


@pytest.mark.parametrize(
    ("name", "possible", "outcomes"),
    [
        ("crop", all_crops, 81),  # 9 x 9 offsets
        ("flip", both_flips, 2),
        ("cutout", all_holes, 20 * 18),  # one for each centre: 20 and 18 exceed the hole
    ],
)
def test_every_result_is_one_of_those_published_and_all_occur(
    name: str, possible: Callable[[Tensor], set[tuple[float, ...]]], outcomes: int
) -> None:
    images = numbered(4000, 20, 18)
    expected = possible(images[0])
    assert len(expected) == outcomes
    found = {tuple(image.flatten().tolist()) for image in seeded(0, images, name)}
    # 4,000 draws from at most 360 outcomes miss one of them with probability 360 exp(-11)
    assert found == expected


def test_half_of_the_images_are_flipped() -> None:
    images = numbered(10_000, 1, 2)
    flipped = (seeded(1, images, "flip") != images).any((1, 2, 3)).float().mean().item()
    assert flipped == pytest.approx(0.5, abs=0.02)  # four standard deviations


def test_nda_rolls_turns_or_cuts_each_sample_a_third_of_the_time() -> None:
    image = numbered(1, 20, 20)[0]
    results = [tuple(result.flatten().tolist()) for result in seeded(0, image.repeat(3000, 1, 1, 1), "nda")]
    unchanged = tuple(image.flatten().tolist())  # a roll by nothing, one in 121, or a turn too small to show
    rolls, holes = all_rolls(image) - {unchanged}, all_holes(image)
    assert rolls <= set(results), "every shift occurs: 1,000 draws miss one of 121 with probability 121 exp(-8)"
    # 1,000 of each to within four standard deviations
    assert sum(result in rolls for result in results) == pytest.approx(1000 * 120 / 121, abs=105)
    assert sum(result in holes for result in results) == pytest.approx(1000, abs=105)
    assert sum(result not in rolls | holes | {unchanged} for result in results) > 800


def test_turns_stay_within_thirty_degrees() -> None:
    image = torch.zeros(1, 1, 41, 41)
    image[0, 0, 20, 40] = 1.0  # to the right of the centre, 20 pixels away
    turned = rotate(image.repeat(61, 1, 1, 1), torch.arange(-30.0, 31.0))
    for k, degrees in enumerate(range(-30, 31)):
        angle = torch.deg2rad(torch.tensor(float(degrees)))
        # counter-clockwise: up, that is to lower rows; the pixel nearest to where the point goes shows it or a neighbour does
        row, column = 20 - 20 * angle.sin(), 20 + 20 * angle.cos()
        found = turned[k, 0].nonzero().float()
        assert (found - torch.stack([row, column])).abs().amax(1).min() <= 1 if len(found) else True
    assert turned[30, 0, 20, 40] == 1
    assert torch.equal(rotate(image, torch.tensor([90.0]))[0, 0], image[0, 0].rot90())
    drawn = seeded(0, image.repeat(500, 1, 1, 1), "nda")
    rows = drawn[:, 0].nonzero()[:, 1]
    assert rows.min() >= 20 - 11
    assert rows.max() <= 20 + 11  # 20 sin 30 = 10


@given(st.lists(st.sampled_from([*CIFAR, "nda", "randaugment", "erase"]), max_size=4), st.integers(0, 2**31))
@settings(deadline=None, max_examples=30)
def test_the_same_seed_gives_the_same_bits_and_values_stay_in_range(names: list[str], seed: int) -> None:
    images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    first, second = seeded(seed, images, *names), seeded(seed, images, *names)
    assert torch.equal(first, second)
    assert torch.equal(images, before), "the caller's batch is left alone"
    assert (first.shape, first.dtype) == (images.shape, images.dtype)
    assert first.min() >= 0
    assert first.max() <= 1


def test_another_seed_gives_another_batch_and_equal_images_become_different() -> None:
    images = torch.rand(1, 3, 32, 32).repeat(64, 1, 1, 1)
    first = seeded(0, images, *CIFAR)
    assert not torch.equal(first, seeded(1, images, *CIFAR))
    assert len({tuple(image.flatten().tolist()) for image in first}) == 64


def test_only_torch_s_own_generator_is_drawn_from() -> None:
    import random

    import numpy as np

    images = torch.rand(8, 3, 32, 32)
    states = random.getstate(), repr(np.random.get_state())
    augment(images, CIFAR)
    assert (random.getstate(), repr(np.random.get_state())) == states


@pytest.mark.parametrize("name", ["crop", "flip", "cutout", "nda"])
def test_all_timesteps_of_a_sample_are_treated_alike_and_samples_differ(name: str) -> None:
    frame = torch.rand(1, 1, 2, 24, 26)
    events = (frame * torch.arange(1.0, 4.0).view(3, 1, 1, 1, 1)).repeat(
        1, 40, 1, 1, 1
    )  # step t holds t times the frame
    result = seeded(0, events, name)
    assert result.shape == (3, 40, 2, 24, 26)
    for t in (1, 2):
        torch.testing.assert_close(result[t], result[0] * (t + 1))
    assert len({tuple(sample.flatten().tolist()) for sample in result[0]}) > 1
    assert torch.equal(seeded(0, events[0], name), result[0]), "an event frame is treated as an image is"


def test_half_of_the_images_lose_a_rectangle_of_the_published_sizes_at_any_place() -> None:
    images = torch.full((4000, 3, 40, 50), 2.0)  # noise is below 1
    erased = seeded(0, images, "erase") < 1
    assert torch.equal(erased.any(1), erased.all(1)), "all channels of a pixel"
    found = erased[:, 0]
    rows, columns = found.any(2), found.any(1)
    assert torch.equal(found, rows[:, :, None] & columns[:, None]), "a rectangle"
    hit = found.any((1, 2))
    assert hit.float().mean() == pytest.approx(0.5, abs=0.03)
    heights, widths = rows[hit].sum(1).double(), columns[hit].sum(1).double()
    share, aspect = heights * widths / 2000, heights / widths
    assert 0.015 < share.min() < 0.03
    assert 0.35 < share.max() < 0.42
    assert 0.25 < aspect.min() < 0.4
    assert 2.8 < aspect.max() < 3.6
    for present, length in ((rows, 40), (columns, 50)):
        assert present[:, 0].any()
        assert present[:, length - 1].any()
    noise = seeded(0, images, "erase")[erased]
    assert noise.min() < 0.01
    assert noise.max() > 0.99
    assert noise.mean() == pytest.approx(0.5, abs=0.01)


def test_event_counts_stay_whole_numbers() -> None:
    events = torch.randint(0, 9, (4, 30, 2, 34, 34)).float()
    result = seeded(0, events, "flip", "nda")
    assert torch.equal(result, result.round())


def test_nothing_named_changes_nothing() -> None:
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(augment(images, ()), images)


@pytest.mark.parametrize(
    ("inputs", "names", "message"),
    [
        (
            torch.rand(2, 3, 8, 8),
            ("mixup",),
            "no augmentation is called 'mixup': choose one of autoaugment, crop, cutout, erase, flip, nda",
        ),
        (torch.rand(3, 8, 8), ("flip",), r"got \[3, 8, 8\] torch.float32"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), ("flip",), r"divided by 255\); got \[2, 3, 8, 8\] torch.uint8"),
        (torch.rand(2, 1, 8, 8), ("autoaugment",), r"takes colour images \[B, 3, H, W\]; got \[2, 1, 8, 8\]"),
        (torch.rand(4, 2, 3, 8, 8), ("autoaugment",), r"got \[4, 2, 3, 8, 8\]: leave it out"),
        (torch.rand(2, 1, 8, 8), ("randaugment",), r"takes colour images \[B, 3, H, W\]; got \[2, 1, 8, 8\]"),
        (torch.rand(4, 2, 3, 8, 8), ("erase",), r"takes images \[B, C, H, W\]; got \[4, 2, 3, 8, 8\]"),
    ],
)
def test_wrong_inputs_are_refused(inputs: Tensor, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        augment(inputs, names)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_a_gpu_gives_the_same_batch(name: str) -> None:
    images = torch.rand(64, 3, 32, 32)
    on_cpu, on_gpu = seeded(0, images, name), seeded(0, images.cuda(), name)
    assert on_gpu.device.type == "cuda"
    # at a rounding's edge a pixel may show its neighbour
    assert ((on_gpu.cpu() - on_cpu).abs() > 1e-5).float().mean() < 1e-3
