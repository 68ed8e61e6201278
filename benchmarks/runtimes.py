"""Milliseconds of an image at batch 1 on one thread: a trained network and its ANN twin in PyTorch, ONNX Runtime and ExecuTorch.

Every runtime gets the same images, one at a time, in turn. It stops where the threshold of the file says, or runs all timesteps.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spikedistill.evaluation import AnytimeClassifier
from spikedistill.evaluation.exits import advance, exit_score
from spikedistill.exporting import Options, executorch, export, onnx
from spikedistill.exporting.run import Subject, subject_of
from spikedistill.exporting.verify import Runner
from spikedistill.run_folder import load

from .results import commit, machine, versions


class Answer(NamedTuple):
    """The class of an image, and the timestep after which it was given."""

    label: int
    timestep: int


Classifier = Callable[[Tensor, float], Answer]
"""From one image `[1, C, H, W]` and a threshold to its answer."""


def measure_runtimes(run: Path, ann: Path, scratch: Path, images: int, rounds: int, command: str) -> dict[str, Any]:
    """Times and accuracies of every runtime that is installed, as they are written to a file.

    Args:
        run: a trained spiking run.
        ann: a run of the same network without spikes, on the same data.
        scratch: folder for exported files.
        images: of the test set, which each round classifies one by one.
        rounds: how often; the median of a round's mean counts.
        command: what is run.
    """
    torch.set_num_threads(1)
    scratch.mkdir(parents=True, exist_ok=True)
    subject, twin = subject_of(run, Options()), subject_of(ann, Options())
    threshold = subject.description.exit.threshold
    assert threshold is not None
    spiking, plain = _classifiers(run, subject, scratch / "snn"), _classifiers(ann, twin, scratch / "ann")
    shown = [subject.frames[0][n : n + 1] for n in range(images)]
    targets = subject.targets[:images].tolist()
    cases: dict[tuple[str, str], tuple[Classifier, float]] = {}
    for name, classify in spiking.items():
        cases["all timesteps", name] = classify, float("inf")
        cases["early exit", name] = classify, threshold
    cases |= {
        ("ANN", name): (classify, float("inf")) for name, classify in plain.items() if name != "ONNX Runtime, 8 bits"
    }
    seconds: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    found: dict[tuple[str, str], list[Answer]] = {}
    dice = random.Random(0)
    for _ in range(rounds + 1):  # the first warms up
        for case in dice.sample(list(cases), len(cases)):
            classify, limit = cases[case]
            begun = time.perf_counter()
            found[case] = [classify(image, limit) for image in shown]
            seconds[case].append((time.perf_counter() - begun) / images)
    rows = [
        {
            "network": network,
            "runtime": runtime,
            "ms": 1000 * statistics.median(seconds[network, runtime][1:]),
            "ms_low": 1000 * min(seconds[network, runtime][1:]),
            "ms_high": 1000 * max(seconds[network, runtime][1:]),
            "accuracy": 100
            * statistics.mean(a.label == t for a, t in zip(found[network, runtime], targets, strict=True)),
            "timesteps": statistics.mean(answer.timestep for answer in found[network, runtime]),
        }
        for network, runtime in cases
    ]
    about = {"machine": machine("cpu"), "versions": versions(), **commit(), "command": command, "threads": 1}
    written = datetime.now(UTC).isoformat(timespec="seconds")
    exit = subject.description.exit._asdict()
    return about | {"written": written, "run": str(run), "exit": exit, "images": images, "rounds": rounds, "rows": rows}


def _classifiers(run: Path, subject: Subject, scratch: Path) -> dict[str, Classifier]:
    """What classifies one image in each runtime."""
    scratch.mkdir(exist_ok=True)
    T = subject.description.timesteps

    def torch_(compiled: bool) -> Classifier:
        classifier = AnytimeClassifier(load(run), subject.description.exit.policy, 0.5, T, compiled=compiled)

        def classify(image: Tensor, threshold: float) -> Answer:
            classifier.threshold = threshold
            out = classifier(image)
            return Answer(int(out.predictions), int(out.exit_times))

        return classify

    found = {"PyTorch": torch_(False), "PyTorch, compiled": torch_(True)}
    export(run, "onnx", scratch / "step.onnx")
    found["ONNX Runtime"] = stepwise(onnx.runner(scratch / "step.onnx", subject.description), subject)
    if subject.description.state:
        export(run, "onnx", scratch / "int8.onnx", Options(int8=True))
        found["ONNX Runtime, 8 bits"] = stepwise(onnx.runner(scratch / "int8.onnx", subject.description), subject)
    if find_spec("executorch"):
        export(run, "executorch", scratch / "step.pte")
        found["ExecuTorch"] = stepwise(executorch.runner(scratch / "step.pte"), subject)
    return found


def stepwise(run: Runner, subject: Subject) -> Classifier:
    """Classifies with a network that is given step by step."""
    T, policy = subject.description.timesteps, subject.description.exit.policy

    def classify(image: Tensor, threshold: float) -> Answer:
        state: Sequence[Tensor] = subject.step.initial(1)
        progress = None
        for t in range(1, T + 1):
            logits, state = run(image, state)
            progress = advance(progress, logits)
            if t == T or float(exit_score(progress, policy)) >= threshold:
                break
        assert progress is not None
        return Answer(int(progress.answer), t)

    return classify


def to_markdown(found: dict[str, Any]) -> str:
    """A row for each runtime: milliseconds and accuracy of all timesteps, of early exit, and of the ANN."""
    by_case = {(row["network"], row["runtime"]): row for row in found["rows"]}
    networks = ("all timesteps", "early exit", "ANN")
    lines = ["| runtime | " + " | ".join(f"{name}, ms | %" for name in networks) + " |", "|---" + "|--:" * 6 + "|"]
    for runtime in dict.fromkeys(row["runtime"] for row in found["rows"]):
        cells = []
        for network in networks:
            row = by_case.get((network, runtime))
            if row is None:
                cells += ["", ""]
                continue
            steps = f" after {row['timesteps']:.2f}" if network == "early exit" else ""
            cells += [f"{row['ms']:.2f} ({row['ms_low']:.2f} to {row['ms_high']:.2f})", f"{row['accuracy']:.1f}{steps}"]
        lines.append(f"| {runtime} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
