"""Common corruptions by hand, against Pillow and SciPy, and in the table of a run."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from spikedistill import UserError
from spikedistill.robustness.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    Corruption,
    blur,
    brightness,
    contrast,
    jpeg,
    pixelate,
)

IMAGES = (torch.rand(3, 3, 20, 24, generator=torch.Generator().manual_seed(0)) * 255).round() / 255


def corrupted(kind: str, severity: int, images: torch.Tensor = IMAGES) -> torch.Tensor:
    return Corruption(kind=kind, severity=severity)(lambda x: x, images, torch.zeros(len(images)))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_severity_changes_more_than_the_one_before_and_stays_in_range(kind):
    changes = []
    for severity in SEVERITIES:
        found = corrupted(kind, severity)
        assert found.shape == IMAGES.shape
        assert found.min() >= 0
        assert found.max() <= 1
        changes.append(float((found - IMAGES).abs().mean()))
        grey = corrupted(kind, severity, IMAGES[:, :1])
        assert grey.shape == (3, 1, 20, 24)
        assert torch.equal(corrupted(kind, severity), found), "the same every time"
    assert changes == sorted(changes)
    assert changes[0] > 0


def test_blur_is_scipy_s():
    expected = np.stack(
        [[gaussian_filter(channel, 0.8, mode="nearest") for channel in image] for image in IMAGES.numpy()]
    )
    torch.testing.assert_close(blur(IMAGES, 0.8), torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


def test_brightness_and_contrast_by_hand():
    pixel = torch.tensor([0.2, 0.4, 0.1]).view(1, 3, 1, 1)
    torch.testing.assert_close(brightness(pixel, 0.2).flatten(), torch.tensor([0.3, 0.6, 0.15]))
    torch.testing.assert_close(brightness(torch.zeros(1, 3, 1, 1), 0.2).flatten(), torch.full((3,), 0.2))
    torch.testing.assert_close(brightness(torch.full((1, 1, 1, 1), 0.9), 0.2).flatten(), torch.ones(1))
    pair = torch.tensor([0.2, 0.6]).view(1, 1, 1, 2)
    torch.testing.assert_close(contrast(pair, 0.5).flatten(), torch.tensor([0.3, 0.5]))


def test_jpeg_and_pixelate_are_pillow_s():
    for image, stored, coarse in zip(IMAGES, jpeg(IMAGES, 50), pixelate(IMAGES, 0.65), strict=True):
        picture = Image.fromarray((255 * image).byte().permute(1, 2, 0).numpy())
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=50)
        for made, found in (
            (Image.open(file), stored),
            (picture.resize((15, 13), Image.Resampling.BOX).resize((24, 20), Image.Resampling.BOX), coarse),
        ):
            assert torch.equal(torch.from_numpy(np.array(made)).permute(2, 0, 1) / 255, found)


def test_what_is_no_corruption_is_refused():
    for kind, severity in (("fog", 1), ("blur", 6)):
        with pytest.raises(UserError, match="expected one of noise, blur"):
            Corruption(kind=kind, severity=severity)
    with pytest.raises(UserError, match=r"corruptions are of images \[B, 1 or 3, H, W\]"):
        corrupted("blur", 1, torch.rand(2, 5, 2, 4, 4))
