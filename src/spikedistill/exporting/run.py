"""`spikedistill export`: a trained run in another form, written only after it was checked."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from ..config import Config
from ..data import Dataset, Samples, as_network_input, balanced_order
from ..errors import UserError
from ..evaluation import Conformal, calibrate_threshold, collect_logits, exit_curve
from ..evaluation.exits import Policy, check_policy
from ..evaluation.runs import check_classes, parts_of_run
from ..files import write_atomically
from ..objectives.submodels import prefix_means, right_submodels
from ..run_folder import RunFolder
from ..trained import Trained
from . import archive, bundle, executorch, nir, nir_reading, onnx, web
from .description import HELD_OUT, TRAINED_ON, Description, Exit, Form
from .flat import FlatStep, WholeSequence
from .folder import write_folder
from .verify import LEAST_SAMPLES, ExportDiffers, Runner, Verified, verify

Format = Literal["onnx", "torch", "executorch", "nir", "web", "bundle"]
MOST_LOST = 1.0  # points, by 8 bits at any k
_MOST_DROP = 0.5  # points, by the threshold that is chosen
_CALIBRATION = 1000  # samples


class Options(NamedTuple):
    """How a network is exported.

    Attributes:
        form: "step", one timestep with an explicit state, which can stop early; or "sequence", all T timesteps at once.
        int8: weights and inputs of layers in 8 bits; ONNX only.
        policy: the score of early exit.
        threshold: at which a sample stops; default one that costs at most 0.5 points on samples that were held out of training,
            or on training samples if none were.
        licence: of the weights, for the card of a bundle, such as "apache-2.0".
        runtime: for a web page, the folder of the npm package onnxruntime-web; default ./node_modules/onnxruntime-web, or what npm
            downloads.
    """

    form: Form = "step"
    int8: bool = False
    policy: Policy = "confidence"
    threshold: float | None = None
    licence: str | None = None
    runtime: Path | None = None


class Exported(NamedTuple):
    """What was written.

    Attributes:
        path: the file or folder.
        description: what it says of itself.
        verified: what was checked; None for 8 bits and whole sequences, which have checks of their own.
        accuracy: in percent after k = 1..T timesteps, of the exported network on the samples of the check that are test samples.
    """

    path: Path
    description: Description
    verified: Verified | None
    accuracy: tuple[float, ...]


class Subject(NamedTuple):
    """A trained network with samples to check it on.

    Attributes:
        network: the network.
        frames: inputs of T timesteps, `[N, ...]` each; images are the same at each.
        targets: `[N]`.
        tested: how many of these samples, the first, are of the test set.
        training: further inputs `[N', ...]` of T timesteps, of the training set.
        description: of the step.
        step: the step.
    """

    network: Trained
    frames: Sequence[Tensor]
    targets: Tensor
    tested: int
    training: Sequence[Tensor]
    description: Description
    step: FlatStep


def export(
    run: Path | str,
    format: Format,
    out: Path | str,
    options: Options | None = None,
    *,
    root: Path | None = None,
    data: Any = None,
    model: nn.Module | Callable[[], nn.Module] | None = None,
) -> Exported:
    """Write a trained run in another form, after a check on real samples on which the network fires.

    Args:
        run: the run folder.
        format: "onnx"; "torch", an archive of `torch.export`; "executorch"; "nir"; "web", a folder with a page that runs in a
            browser; or "bundle", a folder to share and to load again.
        out: the file or folder; an existing one is replaced only when the new one is complete and was checked.
        options: how it is exported.
        root: folder of the data sets, if it has moved.
        data: for a run whose data set came from Python, the same again.
        model: for a run whose network came from Python, an instance or a function that makes one.

    Raises:
        FileNotFoundError: if the run or its data set is missing.
        ExportDiffers: if the exported network computes something else.
        UserError: for a network that the format cannot hold, or options that do not fit; nothing is written.
    """
    chosen = Options() if options is None else options
    _check(format, chosen)
    subject = subject_of(run, chosen, root, data, model)
    if format in ("web", "bundle"):
        return _folder(format, Path(out), RunFolder(run), subject, chosen)
    if chosen.form == "sequence":
        content, accuracy = _sequence(format, subject)
        description, verified = subject.description._replace(form="sequence", state=()), None
    else:
        description = subject.description
        content, start = _step(format, subject)
        if chosen.int8:
            content = onnx.in_eight_bits(content, description, subject.step, subject.training)
            verified, accuracy = None, _eight_bits(subject, start(content))
        else:
            verified = verify(subject.step, start(content), subject.frames, description.exit)
            accuracy = _accuracy(subject, _logits(subject, start(content)))
    write_atomically(Path(out), content)
    return Exported(Path(out), description, verified, accuracy)


def _folder(format: Format, out: Path, folder: RunFolder, subject: Subject, chosen: Options) -> Exported:
    """A page or a bundle, checked as its step is."""
    description = subject.description
    if format == "web":
        content, start = _step("onnx", subject)
        run = start(content)
        tested = subject.frames[0][: subject.tested], subject.targets[: subject.tested]
        made = web.page_of(content, description, *tested, chosen.runtime)
    else:
        made = bundle.bundle_of(folder, subject.network, description, chosen.licence)
        again = FlatStep(bundle.network_in(made), subject.frames[0][:4])
        run = again.run
    verified = verify(subject.step, run, subject.frames, description.exit)
    write_folder(out, format, made)
    return Exported(out, description, verified, _accuracy(subject, _logits(subject, run)))


def _check(format: str, chosen: Options) -> None:
    """Refuse an unknown format, and options that do not belong to it.

    Raises:
        UserError: naming the first.
    """
    if format not in get_args(Format):
        raise UserError(f"no format is called {format!r}: choose one of {', '.join(get_args(Format))}")
    if chosen.form not in get_args(Form):
        raise UserError(f"form is {chosen.form!r}, expected one of {', '.join(get_args(Form))}")
    if chosen.int8 and (format != "onnx" or chosen.form != "step"):
        raise UserError("8 bits are for the step of an ONNX file: leave int8 out, or use --format onnx")
    if chosen.form != "step" and format not in ("onnx", "torch"):
        raise UserError(
            f"{format} holds a step, which is called T times: leave --form out, or use --format onnx or torch"
        )
    if chosen.licence is not None and format != "bundle":
        raise UserError("the licence is for the card of a bundle: leave it out, or use --format bundle")
    if chosen.runtime is not None and format != "web":
        raise UserError("runtime is for the page: leave it out, or use --format web")
    policy, threshold = cast(object, chosen.policy), cast(object, chosen.threshold)
    if isinstance(policy, Conformal):
        raise UserError(
            "an export holds a score with one threshold, and no conformal rule: choose a policy such as 'confidence', or keep the "
            "rule with AnytimeClassifier.save"
        )
    if isinstance(threshold, Sequence):
        raise UserError(
            f"an export holds one threshold for all timesteps, got {len(threshold)}: give one, or keep them with "
            "AnytimeClassifier.save"
        )
    if chosen.threshold is not None:
        check_policy(chosen.policy, chosen.threshold)


def subject_of(
    run: Path | str,
    chosen: Options,
    root: Path | None = None,
    data: Any = None,
    model: nn.Module | Callable[[], nn.Module] | None = None,
) -> Subject:
    """A trained run's network with real samples, its step, and what a file says of it."""
    folder = RunFolder.trained(run)
    config = folder.config()
    dataset, own = parts_of_run(config, data, model, root, "export(run, format, out")
    check_classes(folder, dataset)
    network = folder.load_network(folder.model, own)
    if network.input is None:
        raise UserError(f"{folder.model} does not say what the network takes: train it with a newer version")
    T = config.timesteps
    frames, targets, tested = _samples(dataset, T)
    training = _frames(dataset, dataset.train, balanced_order(dataset.train.targets)[:_CALIBRATION], T)
    exit = _exit(folder, network, config, dataset, chosen)
    step = FlatStep(network, frames[0][:4])
    classes = network.classes or dataset.classes
    description = Description("step", T, classes, network.input, step.state, exit)
    return Subject(network, frames, targets, tested, training, description, step)


def _samples(dataset: Dataset, timesteps: int) -> tuple[list[Tensor], Tensor, int]:
    """At least 500 samples, of the test set first: inputs of T timesteps, labels, and how many are test samples."""
    chosen = balanced_order(dataset.test.targets)[: 2 * LEAST_SAMPLES]
    frames = _frames(dataset, dataset.test, chosen, timesteps)
    targets = dataset.test.targets[chosen]
    if (missing := LEAST_SAMPLES - len(chosen)) > 0:
        further = balanced_order(dataset.train.targets)[:missing]
        more = _frames(dataset, dataset.train, further, timesteps)
        frames = [torch.cat(pair) for pair in zip(frames, more, strict=True)]
        targets = torch.cat([targets, dataset.train.targets[further]])
    return frames, targets, len(chosen)


def _frames(dataset: Dataset, samples: Samples, indices: Tensor, timesteps: int) -> list[Tensor]:
    x = as_network_input(samples.inputs(indices), dataset.kind)
    return list(x.unbind(0)) if dataset.kind == "events" else [x] * timesteps


def _exit(folder: RunFolder, network: Trained, config: Config, dataset: Dataset, chosen: Options) -> Exit:
    """When samples stop: as said, or by samples that the network was not trained on, or by training samples."""
    if chosen.threshold is not None:
        return Exit(chosen.policy, chosen.threshold, "--threshold")
    if config.timesteps == 1:
        return Exit(chosen.policy, None, "one timestep")
    by = HELD_OUT
    if config.data.holdout:
        saved = folder.read_tensors(folder.logits, "holdout_logits", "holdout_targets")
        logits, targets = saved["holdout_logits"], saved["holdout_targets"]
    else:
        by = TRAINED_ON
        some = dataset.train.subset(balanced_order(dataset.train.targets)[:_CALIBRATION])
        logits = collect_logits(network, some, dataset.kind, config.timesteps)
        targets = some.targets
    point = calibrate_threshold(logits, targets, chosen.policy, max_drop=_MOST_DROP)
    return Exit(chosen.policy, _between(exit_curve(logits, targets, chosen.policy).thresholds, point.threshold), by)


def _between(thresholds: Tensor, threshold: float) -> float:
    """A threshold with the same decisions that no sample's score equals: rounding would decide then."""
    if threshold == math.inf:
        return threshold
    below = thresholds[thresholds < threshold]
    return (float(below.max()) + threshold) / 2 if len(below) else threshold * (1 - 1e-4)


def _step(format: Format, subject: Subject) -> tuple[bytes, Callable[[bytes], Runner]]:
    """The file of the step, and what runs such a file."""
    step, description = subject.step, subject.description
    rows = 1 if format == "executorch" else 4
    inputs = [subject.frames[0][:rows], *step.initial(rows)]
    if format == "executorch":
        return executorch.program_of(step, inputs, description), executorch.runner
    if format == "torch":
        return archive.archive_of(step, inputs, description), archive.runner
    if format == "nir":
        keys = [each.key for each in step.state]
        content = nir.nir_of(step.network, subject.frames[0][:1], description)
        return content, lambda content: nir_reading.runner(content, keys)
    return onnx.onnx_of(step, inputs, description), lambda content: onnx.runner(content, description)


def _sequence(format: Format, subject: Subject) -> tuple[bytes, tuple[float, ...]]:
    """The file of a whole sequence, checked against the step, and its accuracy at every k."""
    events = subject.description.input.kind == "events"
    T = subject.description.timesteps
    module = WholeSequence(subject.network, None if events else T)
    description = subject.description._replace(form="sequence", state=())
    x = torch.stack(list(subject.frames)) if events else subject.frames[0]
    some = x[:, :4] if events else x[:4]
    if format == "torch":
        content = archive.archive_of(module, [some], description)
        run = archive.runner(content)
    else:
        content = onnx.onnx_of(module, [some], description)
        run = onnx.runner(content, description)
    parts = x.split(100, dim=1 if events else 0)
    found = torch.cat([run(part, [])[0] for part in parts], 1)
    own = _logits(subject, subject.step.run)
    different = (prefix_means(own.double()).argmax(-1) != prefix_means(found.double()).argmax(-1)).any(0).sum()
    if int(different) > 0.005 * found.shape[1]:
        raise ExportDiffers(
            f"the exported sequence differs in a prediction on {int(different)} of {found.shape[1]} samples, expected at most 0.5 "
            "percent; nothing was written"
        )
    return content, _accuracy(subject, found)


@torch.no_grad()
def _logits(subject: Subject, run: Runner) -> Tensor:
    """Logits `[T, N, C]` of a step from the first timestep to the last."""
    parts = []
    for start in range(0, len(subject.targets), 100):
        frames = [frame[start : start + 100] for frame in subject.frames]
        state, logits = subject.step.initial(len(frames[0])), []
        for frame in frames:
            out, state = run(frame, state)
            logits.append(out)
        parts.append(torch.stack(logits))
    return torch.cat(parts, 1)


def _accuracy(subject: Subject, logits: Tensor) -> tuple[float, ...]:
    some = slice(0, subject.tested)
    right = right_submodels(prefix_means(logits[:, some].double()), subject.targets[some])
    return tuple(100 * float(share) for share in right.double().mean(1))


def _eight_bits(subject: Subject, run: Runner) -> tuple[float, ...]:
    """The accuracy of a network in 8 bits at every k.

    Raises:
        ExportDiffers: if it is lower than that in float32 by more than 1 point at any k.
    """
    own = _accuracy(subject, _logits(subject, subject.step.run))
    found = _accuracy(subject, _logits(subject, run))
    lost = [before - after for before, after in zip(own, found, strict=True)]
    if max(lost) > MOST_LOST:
        k = lost.index(max(lost)) + 1
        raise ExportDiffers(
            f"in 8 bits the network loses {max(lost):.2f} points at k={k} ({own[k - 1]:.2f} to {found[k - 1]:.2f} %), expected at "
            f"most {MOST_LOST:g}; nothing was written: leave --int8 out"
        )
    return found
