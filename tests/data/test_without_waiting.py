"""The host never waits for a device that augments: draws are sent from pinned memory, and nothing is read back."""

import pytest
import torch
from waiting import DEVICE, NoWaiting, Waits

from spikedistill.data import AUGMENTATIONS, as_network_input, augment
from spikedistill.data.resized_crop import RESIZED_CROP
from spikedistill.data.sending import sent


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_no_augmentation_waits(name: str) -> None:
    torch.manual_seed(0)
    images = torch.zeros(64, 3, 32, 32, dtype=torch.uint8, device=DEVICE)
    with NoWaiting() as seen:
        augmented = augment(as_network_input(images, "image"), (name,))
    assert augmented.device == DEVICE
    assert augmented.shape == images.shape
    # resized crops are drawn while images are read
    assert (seen.copies > 0) == (name != RESIZED_CROP), "its draws were sent"


def test_the_same_draws_are_used_on_every_device() -> None:
    left = []
    for device in ("cpu", DEVICE):
        torch.manual_seed(3)
        with NoWaiting():
            augment(torch.zeros(16, 3, 32, 32, device=device), tuple(AUGMENTATIONS))
        left.append(torch.rand(1))
    assert left[0] == left[1]


def test_what_waits_is_refused() -> None:
    x, host = torch.zeros(4, 3, device=DEVICE), torch.zeros(4, dtype=torch.int64)
    waits = {
        "item": lambda: x.sum().item(),
        "nonzero": lambda: x.nonzero(),
        "mask": lambda: x[x > 0],
        "mask to write": lambda: x.__setitem__(x > 0, 1.0),
        "index of the host": lambda: x[host],
        "copy": lambda: host.to(DEVICE),
        "blocking copy": lambda: host.pin_memory().to(DEVICE),
        "unpinned copy": lambda: host.to(DEVICE, non_blocking=True),
        "read back": lambda: x.to("cpu"),
        "comparison": lambda: bool((x > 0).any()),
    }
    for wait in waits.values():
        with pytest.raises((Waits, RuntimeError, NotImplementedError)), NoWaiting():
            wait()
    with NoWaiting() as seen:
        assert x[sent(host, DEVICE)].shape == (4, 3)
    assert seen.copies == 1
