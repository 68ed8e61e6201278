"""Test images with the network's prediction at every k."""

import base64
import io
from collections.abc import Iterable

import torch
from torch import Tensor

from ....objectives.submodels import prefix_means
from ...blocks import Prediction, Sample, Samples, Section, Text, thinned
from ..reading import Run

MOST = 12
MOST_TIMESTEPS = 16  # of each sample
LARGEST_PNG, LARGEST_SIDE = 64, 112  # pixels of an image: largest size as it is, and size on the page


def samples_section(run: Run) -> Section | None:
    """Images with the prediction at every k."""
    samples, changing = choose_samples(run)
    if not samples or run.images is None:
        return None
    change = f"{changing} of the {len(run.images)} stored test samples change their prediction over k, and come first."
    words = "Each line: k, the answer of the first k timesteps together, and how sure it is."
    text = Text(f"{words} {change}" if changing else words)
    return Section("samples", "Samples and their predictions", [text, Samples(samples)])


def choose_samples(run: Run) -> tuple[list[Sample], int]:
    """The stored images, those whose prediction changes most often over k first, at most 12; and how many change at all."""
    if run.images is None or run.indices is None or run.logits is None or run.targets is None:
        return [], 0
    probability, predicted = prefix_means(run.logits[:, run.indices].double()).softmax(-1).max(-1)  # [T, n] each
    changes = (predicted[1:] != predicted[:-1]).sum(0)
    order = torch.argsort(changes, descending=True, stable=True)[:MOST].tolist()
    truth = run.targets[run.indices]

    def shown(predictions: Iterable[tuple[Tensor, Tensor]]) -> list[tuple[int, tuple[Tensor, Tensor]]]:
        return thinned([*enumerate(predictions, 1)], MOST_TIMESTEPS)

    samples = [
        Sample(
            index=int(run.indices[i]),
            source=to_data_uri(run.images[i]),
            truth=run.classes[int(truth[i])],
            predictions=[
                Prediction(k, run.classes[int(label)], float(confidence), bool(label == truth[i]))
                for k, (label, confidence) in shown(zip(predicted[:, i], probability[:, i], strict=True))
            ],
        )
        for i in order
    ]
    return samples, int((changes > 0).sum())


def to_data_uri(image: Tensor) -> str:
    """A uint8 image `[channels, H, W]` as an inline picture: grey, colour, or events (the first polarity red, the second cyan).

    A small image keeps its pixels, as PNG. A large one is shrunk to the size that the page shows, as JPEG.
    """
    from PIL import Image

    if len(image) == 2:
        image = image[[0, 1, 1]]
    elif len(image) != 3:
        image = image[0]
    pixels = (image.movedim(0, -1) if image.ndim == 3 else image).contiguous().numpy()
    picture, file = Image.fromarray(pixels), io.BytesIO()
    is_large = max(picture.size) > LARGEST_PNG
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    kind = "jpeg" if is_large else "png"
    picture.save(file, kind, optimize=True)
    return f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode()
