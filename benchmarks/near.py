"""The gradient towards the input of neurons near their threshold alone, beside the dense one: whether a bounded surrogate pays."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from spikedistill.native import call, library

from .results import commit, machine, versions
from .timing import seconds
from .workloads import Step

LAYERS = ((64, 32), (128, 16), (256, 8), (512, 4))  # channels and sides of the 3x3 layers of ResNet-18
SHARES = (0.1, 0.22, 0.41)
_SPANS = (64, 128, 256, 512)
_IMAGES = 64  # 16 samples at four timesteps


def measure_near(out: Path, rounds: int, command: str) -> list[dict[str, Any]]:
    """Milliseconds on one thread of both, for each layer and share of marked neurons, which are drawn independently."""
    torch.set_num_threads(1)
    rows = [_row(*layer, share, rounds) for layer in LAYERS for share in SHARES]
    about = {"machine": machine("cpu"), "versions": versions(), **commit(), "command": command, "rounds": rounds}
    about["written"] = datetime.now(UTC).isoformat(timespec="seconds")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(line) + "\n" for line in (about, *rows)))
    return rows


def _row(channels: int, side: int, share: float, rounds: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    dy = torch.randn(_IMAGES, channels, side, side, generator=generator).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, generator=generator).to(memory_format=torch.channels_last)
    like = torch.empty_like(dy)
    marks = torch.rand(_IMAGES, side, side, channels, generator=generator) < share
    ways: dict[str, Callable[[], Any]] = {"dense": lambda: _dense(dy, like, weight)}
    for span in _SPANS:
        if span <= channels:
            ways[f"near {span}"] = _near(dy, weight, marks, span)
    wanted = ways["dense"]().permute(0, 2, 3, 1) * marks
    found = ways["near 64"]()
    if not torch.allclose(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max())):
        raise AssertionError("the two gradients differ")
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(seconds(Step(way), "cpu", at_least=0.02))
    ms = {name: 1e3 * median(values) for name, values in taken.items()}
    best = min((name for name in ms if name != "dense"), key=lambda name: ms[name])
    ratio = round(ms[best] / ms["dense"], 3)
    row = {"channels": channels, "side": side, "share": share, "dense_ms": round(ms["dense"], 2)}
    return row | {"near_ms": round(ms[best], 2), "ratio": ratio, "span": int(best.split()[1])}


def _dense(dy: Tensor, like: Tensor, weight: Tensor) -> Tensor:
    one, none = [1, 1], [0, 0]
    mask = [True, False, False]
    return torch.ops.aten.convolution_backward(dy, like, weight, None, one, one, one, False, none, 1, mask)[0]


def _near(dy: Tensor, weight: Tensor, marks: Tensor, span: int) -> Callable[[], Tensor]:
    N, K, H, W = dy.shape
    around = torch.zeros(N, H + 2, W + 2, K)
    around[:, 1:-1, 1:-1] = dy.permute(0, 2, 3, 1)
    taps = torch.stack([weight[:, :, 2 - tap // 3, 2 - tap % 3].T for tap in range(9)])  # [9, C, K]
    blocks = taps.unflatten(1, (-1, 64)).transpose(0, 1).contiguous()
    powers = 2 ** torch.arange(63)
    split = marks.unflatten(3, (-1, 64))
    # the highest bit is the sign of an int64
    words = (split[..., :63] * powers).sum(-1) + split[..., 63] * torch.iinfo(torch.int64).min
    dx = torch.zeros(N, H, W, weight.shape[1])
    function = library(Path(__file__).with_name("near.cpp"), {}).near

    def run() -> Tensor:
        dx.zero_()
        call(function, N, H, W, K, words.shape[-1], span, around, blocks, words, dx)
        return dx

    return run


def to_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Ratios to the dense gradient, layers down and shares across."""
    lines = ["| layer | dense, ms | " + " | ".join(f"{share:g}" for share in SHARES) + " |", "|---" * 5 + "|"]
    for channels, side in LAYERS:
        of_layer = [row for row in rows if row["channels"] == channels]
        cells = [f"{row['ratio']:.2f}" for row in of_layer]
        lines.append(f"| {channels}, {side}x{side} | {of_layer[0]['dense_ms']:.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
