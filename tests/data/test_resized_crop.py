"""Resized crops, and the middle of test images, as torchvision computes them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spikedistill.data.images import read_image
from spikedistill.data.resized_crop import Box, draw_box, read_resized_crop

sides = st.integers(1, 700)


@given(sides, sides, st.integers(0, 2**40))
def test_a_part_lies_inside_and_has_an_allowed_size_and_shape(height: int, width: int, seed: int) -> None:
    box = draw_box(height, width, torch.Generator().manual_seed(seed))
    assert box.height >= 1
    assert box.width >= 1
    assert 0 <= box.top <= height - box.height
    assert 0 <= box.left <= width - box.width
    if min(height, width) > 60 and 3 / 4 < height / width < 4 / 3:
        assert 0.08 * 0.95 < box.height * box.width / (height * width) <= 1
        assert 0.72 < box.width / box.height < 1.4


def test_a_share_of_the_pixels_and_the_logarithm_of_the_ratio_are_uniform() -> None:
    boxes = [draw_box(400, 400, torch.Generator().manual_seed(seed)) for seed in range(4000)]
    shares = np.array([box.height * box.width / 160_000 for box in boxes])
    # draws that do not fit are repeated, so that large parts are a little rarer
    assert 0.45 < shares.mean() < 0.54
    ratios = np.log([box.width / box.height for box in boxes])
    assert abs(ratios.mean()) < 0.02
    assert ratios.std() == pytest.approx(math.log(4 / 3) / math.sqrt(3), rel=0.1)
    places = np.array([box.top / max(400 - box.height, 1) for box in boxes])
    assert places.mean() == pytest.approx(0.5, abs=0.03)


def test_where_no_draw_fits_the_middle_is_taken() -> None:
    generator = torch.Generator().manual_seed(0)
    # 2 x 90: no part of 8 percent of the area and an allowed ratio lies inside
    assert draw_box(2, 90, generator) == Box(0, 43, 2, 3)
    assert draw_box(90, 2, generator) == Box(43, 0, 3, 2)


def test_the_same_seed_gives_the_same_part(tmp_path: Path) -> None:
    levels = np.arange(60 * 80 * 3, dtype=np.uint32).reshape(60, 80, 3).astype(np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(levels).save(path)
    found = read_resized_crop(path, 7, 24)
    assert (found.shape, found.dtype) == ((3, 24, 24), torch.uint8)
    assert torch.equal(found, read_resized_crop(path, 7, 24))
    assert not torch.equal(found, read_resized_crop(path, 8, 24))
    box = draw_box(60, 80, torch.Generator().manual_seed(7))
    part = levels[box.top : box.top + box.height, box.left : box.left + box.width]
    expected = np.asarray(Image.fromarray(part).resize((24, 24), Image.Resampling.BILINEAR))
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(
    ("height", "width", "scaled"),
    [
        (350, 400, (256, 292)),  # int(256 * 400 / 350) = int(292.57)
        (500, 375, (341, 256)),  # int(256 * 500 / 375) = int(341.33)
        (256, 512, (256, 512)),
        (100, 100, (256, 256)),
    ],
)
def test_the_middle_of_an_image_as_published(tmp_path: Path, height: int, width: int, scaled: tuple[int, int]) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(levels).save(path)
    large = np.asarray(Image.fromarray(levels).resize(scaled[::-1], Image.Resampling.BILINEAR))
    top, left = round((scaled[0] - 224) / 2), round((scaled[1] - 224) / 2)
    expected = large[top : top + 224, left : left + 224]
    assert np.array_equal(read_image(path, 224, resize="centre").permute(1, 2, 0).numpy(), expected)
