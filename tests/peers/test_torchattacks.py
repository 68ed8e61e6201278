"""Attacks give the adversarial images of torchattacks, from the same starting points."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn

from spikedistill.robustness import Apgd, Bim, CarliniWagner, Fgsm, Pgd

torchattacks = pytest.importorskip("torchattacks")

EPS = 8 / 255


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(392, 5)
    ).double()  # fmt: skip
    with torch.no_grad():
        net[-1].weight.mul_(6)
        net[-1].bias.add_(30)  # the library's CW takes the largest of the other logits and 0
    return net.eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def labels(network: nn.Module, images: Tensor) -> Tensor:
    return network(images).argmax(1)


def look(network: nn.Module):
    return lambda x: network(x)[None]


def close(ours: Tensor, theirs: Tensor, x: Tensor) -> None:
    assert (ours - x).abs().max() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_fgsm_and_bim(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    close(Fgsm(EPS)(look(network), images, labels), torchattacks.FGSM(network, EPS)(images, labels), images)
    theirs = torchattacks.BIM(network, EPS, 2 / 255, 10)(images, labels)
    close(Bim(EPS, step=2 / 255, steps=10)(look(network), images, labels), theirs, images)


@pytest.mark.parametrize("targeted", [False, True])
def test_pgd(network: nn.Module, images: Tensor, labels: Tensor, targeted: bool) -> None:
    attack, goal = torchattacks.PGD(network, EPS, 2 / 255, 20), labels
    if targeted:
        goal = (labels + 1) % 5
        attack.set_mode_targeted_by_function(lambda _, labels: (labels + 1) % 5)
    torch.manual_seed(3)
    theirs = attack(images, labels)
    torch.manual_seed(3)
    start = torch.empty_like(images).uniform_(-EPS, EPS) / EPS
    ours = Pgd(EPS, step=2 / 255, steps=20, targeted=targeted)(look(network), images, goal, start)
    close(ours, theirs, images)


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("steps", [10, 50])
def test_apgd(network: nn.Module, images: Tensor, labels: Tensor, loss: str, steps: int) -> None:
    eps = 2 / 255  # at which some images hold out, and steps are halved
    network, images = copy.deepcopy(network).float(), images.float()  # the library compares losses in float32
    theirs = torchattacks.APGD(network, eps=eps, steps=steps, loss=loss, seed=4)(images, labels)
    torch.manual_seed(4)
    start = 2 * torch.rand(images.shape) - 1
    ours = Apgd(eps, loss=loss, steps=steps)(look(network), images, labels, start)
    fooled = network(ours).argmax(1) != labels
    assert 0 < fooled.sum() < 12
    close(ours, theirs, images)
    labels = torch.where(torch.arange(12) < 3, (labels + 1) % 5, labels)  # what is mistaken already comes back
    theirs = torchattacks.APGD(network, eps=eps, steps=steps, loss=loss, seed=4)(images, labels)
    start = start.clone()
    wrong = network(images).argmax(1) != labels
    torch.manual_seed(4)
    start[~wrong] = 2 * torch.rand(images[~wrong].shape) - 1  # the library draws for the others alone
    close(Apgd(eps, loss=loss, steps=steps)(look(network), images, labels, start), theirs, images)


@pytest.mark.parametrize("targeted", [False, True])
def test_carlini_and_wagner(network: nn.Module, images: Tensor, labels: Tensor, targeted: bool) -> None:
    attack, goal = torchattacks.CW(network, c=1, steps=60, lr=0.01), labels
    if targeted:
        goal = (labels + 1) % 5
        attack.set_mode_targeted_by_function(lambda _, labels: (labels + 1) % 5)
    ours = CarliniWagner(c=1, steps=60, lr=0.01, targeted=targeted)
    close(ours(look(network), images, goal), attack(images, labels), images)
    # image by image, of which the library stops each by its own cost
    theirs = torch.cat([attack(images[k : k + 1], labels[k : k + 1]) for k in range(len(images))])
    close(dataclasses.replace(ours, alone=True)(look(network), images, goal), theirs, images)
