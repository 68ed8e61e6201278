"""Is it useful? Accuracy against milliseconds of one image on one thread: spiking networks with early exit beside ordinary ones.

Every network is trained on the same images for as many epochs. Each is used in every way that this machine has: spiking networks in
one call, with early exit, with dense layers, with layers on spikes and with those that a run would choose, compiled, and in ONNX
Runtime; ordinary networks of several widths in PyTorch and in ONNX Runtime, in float32 and in 8 bits; one with heads behind its
stages; and one whose activations are held in bits that layers on spikes take.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor

from spikedistill.config import Config
from spikedistill.data import Dataset, Samples, as_network_input
from spikedistill.evaluation import AnytimeClassifier, calibrate_threshold, exit_times
from spikedistill.evaluation.comparison.differences import FEWEST_SEEDS, paired_difference
from spikedistill.evaluation.comparison.record_format import Answers
from spikedistill.exporting import Options, export, onnx
from spikedistill.exporting.run import subject_of
from spikedistill.objectives.submodels import prefix_means, right_submodels
from spikedistill.run_folder import RunFolder, dataset_of, load
from spikedistill.sparse import sparse_layers
from spikedistill.training import train
from spikedistill.training.plan import plan_without_teacher

from .detectable import detectable
from .early_exit_ann import EarlyExitAnn, as_timesteps, parts_of
from .exits import POLICY
from .frozen import Frozen
from .pairs import mean_and_spread
from .plans import TEACHER_SEED, Plan, step_seconds
from .relu_in_bits import ReluInBits
from .runtimes import stepwise
from .study_file import StudyFile

SPIKING = ("sce", "twkd", "tks")
WIDTHS = (0.25, 0.5, 1.0)
WIDTH = WIDTHS[0]  # of the spiking networks
BITS = (3, 4, 5)
MAX_DROP = 0.5  # points on held-out images that early exit, or activations in bits, may lose
# few epochs have no use for the stronger augmentation of the data set's recipes
_SETTINGS: tuple[str, ...] = ("--model.name", "resnet18", "--data.holdout", "0.1", "--data.augment", "crop", "flip")
_SETTINGS += ("--data.batch-size", "32", "--optimizer.lr", "0.05")
_SHOWN = 256  # images of a round
_WAYS = {"as chosen": "auto", "on spikes": "always", "dense": "never"}  # of layers
_CALIBRATED = 500  # training images from which ranges of activations are taken
Classifier = Callable[[Tensor], Any]


class Used(NamedTuple):
    """One way to use a trained network.

    Attributes:
        network: its name.
        way: how it is used.
        classify: takes one image `[1, C, H, W]`.
        right: whether it is right on each test image, `[N]`.
        times: timesteps, or heads, that each takes, `[N]`.
    """

    network: str
    way: str
    classify: Classifier
    right: Tensor
    times: Tensor


def configs(plan: Plan, seed: int) -> dict[str, Config]:
    """The runs of a seed by name; teachers come before their students."""
    folder = plan.out / f"seed{seed}"
    teacher = folder / "teacher"
    heads = ("--model.neuron", "relu", "--timesteps", "1", "--gradient", "bptt")
    wanted: dict[str, tuple[str, tuple[str, ...]]] = {
        _ann(width): ("ann", ("--model.width", str(width))) for width in WIDTHS
    }
    wanted["teacher"] = ("ann", ("--model.width", str(WIDTH)))
    wanted["ANN with exits"] = ("esd", ("--model.width", str(WIDTH), *heads))
    for method in SPIKING:
        taught = ("--teacher", str(teacher)) if method == "twkd" else ()
        wanted[method] = (method, ("--model.width", str(WIDTH), *taught))
    return {
        name: plan.configs([method], (*_SETTINGS, *settings))[0].model_copy(
            update={
                "seed": seed + (TEACHER_SEED if name == "teacher" else 0),
                "out": folder / name,
                "resume": "auto",
            }
        )
        for name, (method, settings) in wanted.items()
    }


def _ann(width: float) -> str:
    return f"ANN of width {width:g}"


def budget(plan: Plan) -> str:
    """About how many hours of one core the whole will take, by the time of a training step of each network here."""
    steps = {name: step_seconds(config) for name, config in configs(plan, plan.seeds[0]).items()}
    each = 1.2 * plan.epochs * plan.samples * sum(steps.values()) / 3600  # with a last evaluation
    use = 0.1  # of every seed, as measured once
    hours = len(plan.seeds) * (each + use)
    return f"about {hours:.1f} CPU hours: training {len(plan.seeds) * each:.1f}, use {len(plan.seeds) * use:.1f}"


def study(plan: Plan, file: Path, rounds: int, command: str) -> list[dict[str, Any]]:
    """Train and measure the networks of every seed, and add a line of JSON for each; goes on where it was stopped.

    Returns:
        `{seed, rows: [{network, way, accuracy, steps, right, ms, ms_q1, ms_q3, timed_steps}]}` for each seed: percent and mean
        timesteps of all test images, which of them are right, and milliseconds and mean timesteps of the images that were timed.

    Raises:
        ValueError: if the file holds a study with another plan.
    """
    settings = {name: value for name, value in plan._asdict().items() if name not in ("root", "out", "jobs")}
    found = StudyFile(file, settings | {"rounds": rounds, "threads": 1}, command)
    for seed in plan.seeds:
        if any(run["seed"] == seed for run in found.runs):
            continue
        threads = torch.get_num_threads()
        for config in configs(plan, seed).values():
            train(config)
        torch.set_num_threads(1)
        torch._dynamo.reset()  # functions of earlier seeds count towards the limit of compiled ones, and cost time
        rows = _measured(_uses(plan, seed), dataset_of(configs(plan, seed)[_ann(WIDTH)]), rounds)
        torch.set_num_threads(threads)
        found.add({"seed": seed, "rows": rows})
        print(f"{len(found.runs)} of {len(plan.seeds)} seeds", flush=True)
    return found.runs


def _measured(uses: list[Used], dataset: Dataset, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds of an image in every way, which take turns on the same images."""
    images = _inputs(dataset, dataset.test, torch.arange(_SHOWN)).split(1)
    taken: list[list[float]] = [[] for _ in uses]
    dice = random.Random(0)
    for _ in range(rounds + 1):
        for place in dice.sample(range(len(uses)), len(uses)):
            begun = time.perf_counter()
            for image in images:
                uses[place].classify(image)
            taken[place].append(1000 * (time.perf_counter() - begun) / len(images))
    rows = []
    for used, each in zip(uses, taken, strict=True):
        low, middle, high = statistics.quantiles(each[1:], n=4, method="inclusive")  # the first compiles
        right, times = used.right.double(), used.times.double()
        about = {"network": used.network, "way": used.way, "accuracy": 100 * float(right.mean())}
        about |= {"steps": float(times.mean()), "timed_steps": float(times[:_SHOWN].mean())}
        about["right"] = Answers.packed(used.right[None].numpy()).model_dump()
        rows.append(about | {"ms": middle, "ms_q1": low, "ms_q3": high})
    return rows


def _inputs(dataset: Dataset, samples: Samples, places: Tensor) -> Tensor:
    return as_network_input(samples.inputs(places), dataset.kind)


def _all(dataset: Dataset, samples: Samples) -> Tensor:
    return _inputs(dataset, samples, torch.arange(len(samples)))


def _uses(plan: Plan, seed: int) -> list[Used]:
    found: list[Used] = []
    scratch = plan.out / f"seed{seed}" / "exported"
    scratch.mkdir(parents=True, exist_ok=True)
    for name, config in configs(plan, seed).items():
        run = config.run_folder
        if name in SPIKING:
            found += _spiking(name, run, scratch)
        elif name.startswith("ANN of"):
            found += _ordinary(name, run, scratch)
        elif name != "teacher":
            found += _with_exits(name, run)
    found.append(_in_bits(plan.out / f"seed{seed}" / _ann(WIDTH)))
    return found


def _spiking(name: str, run: Path, scratch: Path) -> Iterator[Used]:
    saved, T = load_file(RunFolder(run).logits), RunFolder(run).config().timesteps
    chosen = calibrate_threshold(saved["holdout_logits"], saved["holdout_targets"], POLICY, max_drop=MAX_DROP)
    right = right_submodels(prefix_means(saved["logits"].double()), saved["targets"])
    times = exit_times(saved["logits"], POLICY, chosen.threshold)
    whole = right[-1], torch.full_like(times, T)
    early = right.gather(0, times[None] - 1)[0], times
    for way, mode in _WAYS.items():
        model = load(run)
        classifier = AnytimeClassifier(load(run), POLICY, chosen.threshold, T)
        yield Used(name, f"T={T}, {way}", partial(_under, mode, partial(_all_at_once, model, T)), *whole)
        yield Used(name, f"early exit, {way}", partial(_under, mode, classifier), *early)
    compiled = AnytimeClassifier(load(run), POLICY, chosen.threshold, T, compiled=True)
    yield Used(name, "early exit, dense, compiled", compiled, *early)
    export(run, "onnx", scratch / f"{name}.onnx", Options(policy=POLICY, threshold=chosen.threshold))
    subject = subject_of(run, Options(policy=POLICY, threshold=chosen.threshold))
    session = stepwise(onnx.runner(scratch / f"{name}.onnx", subject.description), subject)
    yield Used(name, "early exit, ONNX Runtime", lambda image: session(image, chosen.threshold), *early)


def _under(mode: Any, classify: Classifier, image: Tensor) -> Any:
    with sparse_layers(mode):
        return classify(image)


def _all_at_once(model: Any, timesteps: int, image: Tensor) -> Any:
    with torch.no_grad():
        return model(image, timesteps)


def _ordinary(name: str, run: Path, scratch: Path) -> Iterator[Used]:
    saved = load_file(RunFolder(run).logits)
    whole = _right(saved["logits"][0], saved["targets"])
    once = torch.ones(len(whole))
    plain = load(run).module  # what runs networks over time would cost it as much again
    yield Used(name, "PyTorch", partial(_answered, plain), whole, once)
    yield Used(name, "compiled", partial(_answered, Frozen(plain)), whole, once)
    subject = subject_of(run, Options())
    dataset = dataset_of(RunFolder(run).config())
    tested = _all(dataset, dataset.test)
    file = scratch / f"{name}.onnx"
    export(run, "onnx", file, Options())
    yield Used(name, "ONNX Runtime", partial(_once, onnx.runner(file, subject.description)), whole, once)
    # whatever it loses: an export would refuse what loses more than a point
    in_8 = onnx.in_eight_bits(file.read_bytes(), subject.description, subject.step, subject.training)
    session = onnx.runner(in_8, subject.description)
    logits = torch.cat([session(images, ())[0] for images in tested.split(100)])
    yield Used(name, "ONNX Runtime, 8 bits", partial(_once, session), _right(logits, dataset.test.targets), once)


def _answered(network: Classifier, image: Tensor) -> int:
    with torch.no_grad():
        return int(network(image).argmax())


def _once(session: Any, image: Tensor) -> int:
    return int(session(image, ())[0].argmax())


def _with_exits(name: str, run: Path) -> Iterator[Used]:
    network = EarlyExitAnn(run)
    made = plan_without_teacher(RunFolder(run).config())
    assert made.holdout is not None
    heldout, tested = (
        as_timesteps(torch.cat([network.logits(images) for images in _all(made.dataset, samples).split(100)], 1))
        for samples in (made.holdout, made.dataset.test)
    )
    chosen = calibrate_threshold(heldout, made.holdout.targets, POLICY, max_drop=MAX_DROP)
    network.threshold = chosen.threshold
    times = exit_times(tested, POLICY, chosen.threshold)
    right = right_submodels(prefix_means(tested), made.dataset.test.targets).gather(0, times[None] - 1)[0]
    yield Used(name, "early exit, PyTorch", network, right, times)
    yield Used(name, "early exit, compiled", EarlyExitAnn(run, chosen.threshold, "compiled"), right, times)
    yield Used(name, "early exit, ONNX Runtime", EarlyExitAnn(run, chosen.threshold, "ONNX Runtime"), right, times)


def _in_bits(run: Path) -> Used:
    """With the fewest bits that lose little on held-out images."""
    network = ReluInBits(*parts_of(run))
    made = plan_without_teacher(RunFolder(run).config())
    assert made.holdout is not None
    heldout, tested = (_all(made.dataset, samples) for samples in (made.holdout, made.dataset.test))
    given = _inputs(made.dataset, made.train, torch.arange(_CALIBRATED))
    whole = _percent(_right(_by_hundreds(network, heldout), made.holdout.targets))
    for bits in BITS:
        network.hold_in_bits(bits, given)
        lost = whole - _percent(_right(_by_hundreds(network, heldout), made.holdout.targets))
        if lost <= MAX_DROP:
            break
    way = f"{bits} bits, {network.on_spikes} layers on spikes" + ("" if lost <= MAX_DROP else ", loses too much")
    right = _right(_by_hundreds(network, tested), made.dataset.test.targets)
    return Used(_ann(WIDTH), way, network, right, torch.ones(len(right)))


def _by_hundreds(network: Classifier, images: Tensor) -> Tensor:
    return torch.cat([network(part) for part in images.split(100)])


def _right(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.argmax(-1) == targets


def _percent(right: Tensor) -> float:
    return 100 * float(right.double().mean())


def to_markdown(lines: list[dict[str, Any]]) -> str:
    """A row for every network and way: accuracy, timesteps and milliseconds, means over seeds and the spread of the runs.

    Timesteps are of all test images, and of those that were timed. The accuracy is also compared with that of the ordinary network
    of the same width, with the interval of the difference and the smallest difference that would be found in four of five such
    studies, once for all ways that have the same answers.
    """
    base = _answers(next(rows for network, _, rows in _by_way(lines) if network == _ann(WIDTH)))
    table = [
        "| network | way | accuracy, % | timesteps | of those timed | ms | accuracy less the ANN's | could be seen |",
        "|---|---|--:|--:|--:|--:|---|--:|",
    ]
    said = [base]
    for network, way, rows in _by_way(lines):
        cells = [
            mean_and_spread([row[key] for row in rows], digits)
            for key, digits in (("accuracy", 1), ("steps", 2), ("timed_steps", 2), ("ms", 2))
        ]
        own = _answers(rows)
        if len(own) < FEWEST_SEEDS or any((own == other).all() for other in said):
            cells += ["", ""]
        else:
            said.append(own)
            row = {name: 100 * value for name, value in paired_difference(own, base).items()}
            cells.append(f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]")
            cells.append(f"{100 * detectable(own, base):.2f}")
        table.append(f"| {network} | {way} | " + " | ".join(cells) + " |")
    return "\n".join(table)


def _answers(rows: list[dict[str, Any]]) -> npt.NDArray[np.float64]:
    """Whether each test image is right, `[S, N]`, from the rows of the seeds."""
    return np.stack([Answers(**row["right"]).unpacked()[0] for row in rows]).astype(float)


def _by_way(lines: list[dict[str, Any]]) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """The rows of all seeds of each way; how many bits and layers are in bits may differ between seeds, and each is named."""
    for place, first in enumerate(lines[0]["rows"]):
        rows = [line["rows"][place] for line in lines]
        yield first["network"], "; ".join(dict.fromkeys(row["way"] for row in rows)), rows


def draw(lines: list[dict[str, Any]], out: Path) -> None:
    """Accuracy against milliseconds of every way, means over seeds with the spread of the runs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"svg.hashsalt": "spikedistill", "svg.fonttype": "none", "font.size": 8}):
        figure, axes = plt.subplots(figsize=(7.5, 5), layout="constrained")
        for network, way, rows in _by_way(lines):
            x, y = ([row[key] for row in rows] for key in ("ms", "accuracy"))
            marker, color = ("o", "C0") if network in SPIKING else ("s", "C1")
            several = len(rows) > 1
            axes.errorbar(
                statistics.mean(x),
                statistics.mean(y),
                xerr=statistics.stdev(x) if several else None,
                yerr=statistics.stdev(y) if several else None,
                marker=marker,
                color=color,
            )
            words = f"{network}: {way}"
            axes.annotate(
                words, (statistics.mean(x), statistics.mean(y)), textcoords="offset points", xytext=(4, 3), fontsize=6
            )
        axes.set(xlabel="milliseconds of an image, one thread", ylabel="test accuracy, %", xscale="log")
        figure.savefig(out, metadata={"Date": None})
        plt.close(figure)
