"""The README's Python, run as it stands there; other libraries' networks where those libraries are installed."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

README = (Path(__file__).parents[2] / "README.md").read_text()


def block_after(heading: str) -> str:
    return re.search(re.escape(heading) + r"\n```python\n(.*?)```", README, re.DOTALL).group(1)


def check_gradients(net: nn.Module) -> None:
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert any(p.grad.abs().sum() > 0 for p in net.parameters())


def test_a_plain_network_as_in_the_readme():
    namespace: dict = {}
    exec(block_after("`temporal` runs it over time:\n"), namespace)
    assert namespace["logits"].shape == (4, 8, 10)
    check_gradients(namespace["net"])


@pytest.mark.filterwarnings("ignore")
def test_objectives_on_a_spikingjelly_network():
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    from spikingjelly.activation_based import functional, neuron

    net = nn.Sequential(
        layer.Conv2d(1, 8, 3, padding=1), layer.BatchNorm2d(8), neuron.LIFNode(), layer.Flatten(), layer.Linear(512, 10)
    )
    functional.set_step_mode(net, "m")
    images, labels = torch.rand(6, 1, 8, 8), torch.randint(10, (6,))
    exec(
        block_after("<!-- test: spikingjelly -->"),
        {"functional": functional, "net": net, "images": images, "labels": labels},
    )
    check_gradients(net)


@pytest.mark.filterwarnings("ignore")
def test_objectives_on_an_snntorch_network():
    snn = pytest.importorskip("snntorch")
    from snntorch import utils

    leaky = snn.Leaky(beta=0.5, init_hidden=True)
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), leaky, nn.Flatten(), nn.Linear(512, 10))
    images, labels = torch.rand(6, 1, 8, 8), torch.randint(10, (6,))
    exec(
        block_after("<!-- test: snntorch -->"),
        {"utils": utils, "net": net, "images": images, "labels": labels, "torch": torch},
    )
    check_gradients(net)
