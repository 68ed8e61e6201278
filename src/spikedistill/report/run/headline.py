"""The first screen of a report: what was trained, its accuracy, and a description of the curve."""

from typing import Any

from ...evaluation.intervals import wilson
from ..blocks import Number, Numbers
from .reading import Run
from .sections.accuracy import verdict


def trained(run: Run) -> str:
    """What was trained, in one sentence made from the configuration."""
    config = run.config
    model, objective = _name(config, "model"), _name(config, "objective")
    width = config["model"].get("width") if isinstance(config.get("model"), dict) else None
    parts = [
        f"A {model or 'network'}" + (f" of width {width:g}" if isinstance(width, int | float) else ""),
        f"trained on {run.results.dataset or _name(config, 'data') or 'unnamed data'}",
        f"to answer within {run.results.timesteps} timestep{'s' if run.results.timesteps > 1 else ''}",
    ]
    details = [
        (objective, "objective {}"),
        (config.get("teacher"), "teacher {}"),
        (config.get("gradient"), "gradients by {}"),
        (config.get("epochs"), "{} epochs"),
        (config.get("seed"), "seed {}"),
    ]
    named = [text.format(value) for value, text in details if value is not None]
    return " ".join(parts) + (f": {', '.join(named)}" if named else "") + "."


def headline(run: Run) -> tuple[str, Numbers]:
    """The curve in words, and the accuracy at k = 1 and at k = T."""
    curve = run.results.last.ensemble
    numbers = [
        Number(
            name=f"accuracy_{entry.k}",
            value=entry.accuracy,
            text=f"{100 * entry.accuracy:.2f} %",
            label=f"test accuracy at k = {entry.k}",
            note="" if run.samples is None else sampling_interval(entry.accuracy, run.samples),
        )
        for entry in (curve[0], curve[-1])[: len(curve)]
    ]
    return verdict([entry.accuracy for entry in curve]), Numbers(numbers)


def sampling_interval(accuracy: float, count: int) -> str:
    """Wilson's 95 % interval of an accuracy measured on `count` samples."""
    low, high = wilson(accuracy, count)
    return f"95 % interval {100 * low:.1f} to {100 * high:.1f} %, from {count:,} samples"


def _name(config: dict[str, Any], key: str) -> str | None:
    value = config.get(key)
    return value.get("name") if isinstance(value, dict) else value
