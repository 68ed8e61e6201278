"""Small data sets in the formats that the library reads."""

from pathlib import Path

import numpy as np


def image_folder(root: Path, count: int, suffix: str = ".png") -> None:
    """Images of 16 x 16 in two classes, `count` of each for training and four for testing."""
    from PIL import Image

    draw = np.random.default_rng(0)
    for split, number in (("train", count), ("test", 4)):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for k in range(number):
                Image.fromarray(draw.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / f"{k:03}{suffix}")
