"""AutoAugment against Pillow, image by image, with the draws given."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from spikedistill.data.autoaugment import POLICY, Draw, apply, apply_policies, autoaugment, draw_policies
from spikedistill.data.randaugment import OPERATIONS as RANDOM
from spikedistill.data.randaugment import randaugment

OPERATIONS = sorted({step[0] for steps in POLICY for step in steps} | {"shear_x", "rotate_either_way"})
FUSIBLE = {
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
}  # rounded otherwise where a machine fuses * and +
GREY = (128, 128, 128)


def pictures(height: int = 32, width: int = 32) -> Tensor:
    """8-bit images of several kinds, `[6, 3, height, width]` in [0, 1]: smooth, noise, dark, black and white, ramps, one colour."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)[0]
    noise = torch.rand(3, height, width, generator=generator)
    ramp = (torch.arange(height)[:, None] * 3 + torch.arange(width) * 5) % 256 / 255
    images = (smooth, noise, 221 / 255 * noise, noise.round(), ramp.expand(3, -1, -1), torch.full_like(noise, 0.3))
    return (torch.stack(images) * 255).round() / 255


def to_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def from_pillow(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def with_pillow(operation: str, image: Image.Image, strength: int, sign: int) -> Image.Image:
    """The operation as Pillow does it, with strengths as the published policy's: m of 0..9 on a linear scale."""

    def from_0_to(end: float) -> float:
        return float(np.linspace(0, end, 10)[strength])

    def affine(*matrix: float, resample: Image.Resampling = Image.Resampling.NEAREST) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=GREY)

    width, height = image.size
    match operation:
        case "color" | "contrast" | "brightness" | "sharpness":
            return getattr(ImageEnhance, operation.capitalize())(image).enhance(1 + sign * from_0_to(0.9))
        case "shear_x":
            return affine(1, sign * from_0_to(0.3), 0, 0, 1, 0, resample=Image.Resampling.BICUBIC)
        case "rotate_either_way":
            return image.rotate(sign * from_0_to(30), fillcolor=GREY)
        case "shear_y":
            return affine(1, 0, 0, sign * from_0_to(0.3), 1, 0, resample=Image.Resampling.BICUBIC)
        case "translate_x":
            return affine(1, 0, sign * from_0_to(150 / 331) * width, 0, 1, 0)
        case "translate_y":
            return affine(1, 0, 0, 0, 1, sign * from_0_to(150 / 331) * height)
        case "rotate":  # whatever the sign
            return image.rotate(from_0_to(30), fillcolor=GREY)
        case "posterize":
            return ImageOps.posterize(image, int(np.linspace(8, 4, 10).round()[strength]))
        case "solarize":
            return ImageOps.solarize(image, np.linspace(256, 0, 10)[strength])
    return {"equalize": ImageOps.equalize, "auto_contrast": ImageOps.autocontrast, "invert": ImageOps.invert}[
        operation
    ](image)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_is_pillow_s_at_every_strength(operation: str, sign: int) -> None:
    images = torch.cat([pictures(24, 40)] * 10)
    strength = torch.arange(10, dtype=torch.float64).repeat_interleave(6)
    results = apply(operation, 255 * images, strength, sign * strength) / 255
    expected = [
        from_pillow(with_pillow(operation, to_pillow(image), int(m), sign))
        for image, m in zip(images, strength, strict=True)
    ]
    difference = (results - torch.stack(expected)).abs() * 255
    assert difference.max() < (1.5 if operation in FUSIBLE else 1e-3)
    assert (difference > 1e-3).float().mean() < 1e-3


def test_randaugment_draws_two_of_fourteen_operations_for_each_image() -> None:
    assert len(RANDOM) == 14
    image = pictures(16, 16)[:1]
    outcomes = {}  # of every pair of operations and signs
    for first, second in itertools.product(RANDOM, RANDOM):
        for signs in itertools.product((-1, 1), (-1, 1)):
            result = 255 * image
            for operation, sign in zip((first, second), signs, strict=True):
                if operation is not None:
                    strength = torch.tensor([8.1], dtype=torch.float64)
                    result = apply(operation, result.round(), strength, sign * strength)
            outcomes.setdefault(tuple(result.round().flatten().int().tolist()), set()).add((first, second))
    torch.manual_seed(0)
    batch = (255 * randaugment(image.repeat(3000, 1, 1, 1))).round().int().flatten(1)
    drawn = [outcomes[tuple(row)] for row in batch.tolist()]  # nothing else occurs
    plain = sum((None, None) in pairs for pairs in drawn)
    assert 3 <= plain < 60  # 3000 / 196 are as they were, and a few more that an operation does not change
    assert len({tuple(sorted(map(str, pairs))) for pairs in drawn}) > 100


@pytest.mark.parametrize("policy", range(25))
def test_each_sub_policy_is_what_pillow_makes_of_each_image(policy: int) -> None:
    # the second operation would show what the first one left unrounded: posterize and equalize make it larger
    cases = [*itertools.product([True, False], [True, False], [-1, 1], [-1, 1])]
    images = torch.cat([pictures()] * len(cases))
    *applied, first, second = torch.tensor(cases).repeat_interleave(6, 0).T
    draw = Draw(torch.full((len(images),), policy), torch.stack(applied).bool(), torch.stack([first, second]))
    results = apply_policies(images, draw)
    for b, image in enumerate(images):
        expected = to_pillow(image)
        for place, (operation, _, strength) in enumerate(POLICY[policy]):
            if draw.applied[place, b]:
                expected = with_pillow(operation, expected, strength, int(draw.sign[place, b]))
        difference = (results[b] - from_pillow(expected)).abs() * 255
        assert difference.max() < 1.5, (POLICY[policy], draw.applied[:, b], draw.sign[:, b])


def test_a_batch_of_mixed_policies_is_that_of_each_alone_and_leaves_the_others_untouched() -> None:
    torch.manual_seed(0)
    images = pictures(12, 12).repeat(30, 1, 1, 1) + 0.001  # of more than 8 bits
    draw = draw_policies(len(images))
    together = apply_policies(images, draw)
    for b in range(len(images)):
        alone = apply_policies(images[b : b + 1], Draw(*(field[..., b : b + 1] for field in draw)))
        assert torch.equal(together[b : b + 1], alone)
    untouched = ~draw.applied.any(0)
    assert 10 < untouched.sum() < 100
    assert torch.equal(together[untouched], images[untouched])
    changed = 255 * together[~untouched]
    torch.testing.assert_close(changed, changed.round())


def test_rotation_is_counter_clockwise_and_a_shear_interpolates_by_hand() -> None:
    row = torch.zeros(1, 3, 32, 32)
    row[:, :, 16, 24:] = 255  # right of the centre: 7.5 to 14.5 pixels away, which 6.7 degrees lift by 0.9 to 1.7
    for sign in (-1, 1):
        turned = apply("rotate", row, torch.tensor([2.0]).double(), sign * torch.tensor([2.0]).double())
        assert not (turned[0, 0, 17:] == 255).any()
        assert (turned[0, 0, 13:16] == 255).any()
    line = torch.zeros(1, 3, 8, 8)
    line[:, :, 4] = 100
    # at x = 0.5 and slope 0.1 a pixel shows what lies 0.05 below: by Keys' cubic with a = -1, the distance from row 4 being 0.05,
    # 0.95 and 1.05, 100 (d^3 - 2 d^2 + 1) = 99.5, 100 (d^3 - 2 d^2 + 1) = 5.2, and -100 (d^3 - 5 d^2 + 8 d - 4) = -4.5
    sheared = apply("shear_y", line, torch.tensor([3.0]).double(), torch.tensor([3.0]).double())
    assert sheared[0, 0, :, 0].tolist() == [0, 0, 0, 5, 99, 0, 0, 0]


def test_the_policy_is_the_paper_s_as_kornia_lists_it_but_for_the_probability_published_networks_have() -> None:
    from kornia.augmentation.auto.autoaugment.autoaugment import cifar10_policy

    strengthless = {"invert", "equalize", "auto_contrast"}
    ours = [[(name, p, None if name in strengthless else m) for name, p, m in steps] for steps in POLICY]
    assert cifar10_policy[16] == [("equalize", 0.2, None), ("equalize", 0.6, None)]
    assert ours == [*cifar10_policy[:16], [("equalize", 0.2, None), ("equalize", 0.8, None)], *cifar10_policy[17:]]


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (300, 4)])
def test_images_of_any_size_and_type_come_back_as_they_were(size: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    images = torch.rand(100, 3, *size, dtype=torch.float64).to(dtype)
    results = autoaugment(images)
    assert (results.shape, results.dtype) == (images.shape, dtype)
    assert ((results >= 0) & (results <= 1)).all()
