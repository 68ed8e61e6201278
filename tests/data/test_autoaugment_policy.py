"""AutoAugment against Pillow, image by image, with the draws given."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from spikedistill.data.autoaugment import POLICY, Draw, apply, apply_policies, draw_policies

OPERATIONS = sorted({step[0] for steps in POLICY for step in steps})
EXACT = {"translate_x", "translate_y", "rotate", "shear_y", "equalize", "posterize", "solarize", "invert"}


def pictures(number: int) -> Tensor:
    """Smooth colour images with noise, at 8 bits, `[N, 3, 32, 32]` in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(number, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic")
    noisy = smooth + 0.05 * torch.randn(number, 3, 32, 32, generator=generator)
    return (noisy.clamp(0, 1) * 255).round() / 255


def to_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def from_pillow(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def with_pillow(operation: str, image: Image.Image, strength: int, sign: int) -> Image.Image:
    """The operation as Pillow does it, with strengths as the published policy's: m of 0..9 on a linear scale."""
    grey = (128, 128, 128)
    size = 32

    def affine(*matrix: float) -> Image.Image:
        return image.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=grey)

    enhancers = {
        "color": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "brightness": ImageEnhance.Brightness,
        "sharpness": ImageEnhance.Sharpness,
    }
    if operation in enhancers:
        return enhancers[operation](image).enhance(1 + sign * 0.1 * strength)
    if operation == "shear_y":
        return affine(1, 0, 0, sign * 0.3 * strength / 9, 1, 0)
    if operation == "translate_x":
        return affine(1, 0, sign * 150 / 331 * size * strength / 9, 0, 1, 0)
    if operation == "translate_y":
        return affine(1, 0, 0, 0, 1, sign * 150 / 331 * size * strength / 9)
    if operation == "rotate":
        return image.rotate(sign * 30 * strength / 9, fillcolor=grey)
    if operation == "posterize":
        return ImageOps.posterize(image, int(np.linspace(8, 4, 10).round()[strength]))
    if operation == "solarize":
        return ImageOps.solarize(image, np.linspace(256, 0, 10)[strength])
    plain: dict[str, Callable[[Image.Image], Image.Image]] = {
        "equalize": ImageOps.equalize,
        "auto_contrast": ImageOps.autocontrast,
        "invert": ImageOps.invert,
    }
    return plain[operation](image)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_is_pillow_s_at_every_strength(operation: str, sign: int) -> None:
    images = pictures(10)
    strengths = torch.arange(10.0)
    results = apply(operation, images, strengths, sign * strengths)
    for strength, (image, result) in enumerate(zip(images, results, strict=True)):
        expected = from_pillow(with_pillow(operation, to_pillow(image), strength, sign))
        difference = (result - expected).abs() * 255
        if operation in EXACT:
            # where the source lies on the very edge of two pixels either may show
            clear = torch.ones(32, dtype=torch.bool)
            if (
                operation == "shear_y"
            ):  # by a whole number and a half pixel: columns where 0.3 m / 9 (x + 1/2) is n + 1/2
                fall = 0.3 * strength / 9 * (torch.arange(32) + 0.5) + 0.5
                clear = (fall - fall.round()).abs() > 1e-4
                assert clear.sum() >= 25
            assert (difference[..., clear] > 1e-3).float().mean() < (2e-3 if operation == "rotate" else 1e-9), strength
        else:
            assert difference.max() < 1.5, strength  # Pillow rounds to 8 bits, and its greys first


def test_a_batch_of_mixed_policies_is_what_pillow_makes_of_each_image() -> None:
    policy = torch.arange(25).repeat_interleave(4)
    applied = torch.tensor([[True, True, False, False], [True, False, True, False]]).repeat(1, 25)
    sign = torch.tensor([[1, -1, 1, 1], [-1, 1, 1, 1]]).repeat(1, 25)
    images = pictures(100)
    results = apply_policies(images, Draw(policy, applied, sign))
    for b in range(100):
        expected = to_pillow(images[b])
        for place, (operation, _, strength) in enumerate(POLICY[policy[b]]):
            if applied[place, b]:
                expected = with_pillow(operation, expected, strength, int(sign[place, b]))
        difference = (results[b] - from_pillow(expected)).abs() * 255
        # Pillow rounds between the two operations, which a second one that makes differences larger shows
        assert difference.mean() < 2.0, (POLICY[policy[b]], difference.mean())


def test_the_policy_is_the_published_one_as_kornia_lists_it() -> None:
    from kornia.augmentation.auto.autoaugment.autoaugment import cifar10_policy

    strengthless = {"invert", "equalize", "auto_contrast"}
    ours = [[(name, p, None if name in strengthless else m) for name, p, m in steps] for steps in POLICY]
    assert ours == cifar10_policy


def test_policies_operations_and_signs_are_drawn_as_often_as_published() -> None:
    torch.manual_seed(0)
    N = 100_000
    draw = draw_policies(N)
    counts = torch.bincount(draw.policy, minlength=25)
    assert (counts - N / 25).abs().max() < 5 * (N / 25) ** 0.5
    for k, steps in enumerate(POLICY):
        for place, (_, probability, _) in enumerate(steps):
            applied = draw.applied[place, draw.policy == k].float().mean().item()
            assert applied == pytest.approx(probability, abs=5 * 0.5 / (N / 25) ** 0.5)
    assert draw.sign.unique().tolist() == [-1, 1]
    assert draw.sign.float().mean().item() == pytest.approx(0, abs=5 / (2 * N) ** 0.5)


def test_an_image_of_one_colour_survives_every_operation() -> None:
    flat = torch.full((10, 3, 8, 8), 100 / 255)
    for operation in OPERATIONS:
        result = apply(operation, flat, torch.arange(10.0), torch.arange(10.0))
        assert result.isfinite().all(), operation
        if operation in {"auto_contrast", "equalize", "sharpness", "color", "contrast"}:
            torch.testing.assert_close(result, flat, msg=operation)
