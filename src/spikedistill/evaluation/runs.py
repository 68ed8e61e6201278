"""Scores a trained run on its test set at every number of timesteps."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ..config import Config
from ..data import (
    Dataset,
    Samples,
    as_dataset,
    as_network_input,
    data_path,
    draws_at_random,
    lengths_of,
    split_holdout,
)
from ..errors import UserError
from ..files import alone_in, write_atomically
from ..from_python import check_given, import_path
from ..models import plain_module, read_model
from ..objectives.submodels import prefix_means, right_submodels
from ..run_folder import RunFolder, dataset_of, device_of
from ..through_time import Temporal
from .attacked import check_kind
from .collecting import collect_logits
from .deployment import deployment, energy_per_timestep
from .fitting_batches import in_fitting_batches
from .networks import Attack, evaluate_network
from .recalibrated_runs import Recalibration, check_samples
from .recorder import FiringRates, record
from .results import SCHEMA, write_results
from .timesteps import calibrated_metrics, timestep_metrics, timestep_reliability

# Timesteps for which static images are shown, or 2T if that is more.
LONGEST = 8


def evaluate_run(
    run: Path | str,
    batch_size: int | None,
    root: Path | None,
    data: Any,
    model: nn.Module | Callable[[], nn.Module] | None,
    recalibrate: int | None = None,
) -> dict[str, Any]:
    """`evaluate` for a run folder."""
    folder = RunFolder.trained(run)
    config = folder.config()
    usual = 250 if device_of(config.trainer).type == "cpu" else 50
    dataset, own = parts_of_run(config, data, model, root)
    with alone_in(folder.path, wait=True):
        if batch_size is not None:
            return _evaluate(folder, batch_size, dataset, own, recalibrate)
        return in_fitting_batches(lambda size: _evaluate(folder, size, dataset, own, recalibrate), usual)


def evaluate_attacked(
    run: Path | str,
    batch_size: int | None,
    root: Path | None,
    data: Any,
    model: nn.Module | Callable[[], nn.Module] | None,
    attack: Attack,
) -> dict[str, Any]:
    """`evaluate` for a run folder, on test samples that an attack has changed; nothing is written."""
    folder = RunFolder.trained(run)
    config = folder.config()
    dataset, own = parts_of_run(config, data, model, root)
    network = folder.load_network(folder.model, own).to(device_of(config.trainer))
    events = dataset.kind == "events"
    check_kind(attack, as_network_input(dataset.test.inputs(torch.arange(1)), dataset.kind), events=events)
    timesteps = None if events else config.timesteps
    return evaluate_network(network, dataset, timesteps=timesteps, batch_size=batch_size, attack=attack)


def _evaluate(
    folder: RunFolder, batch_size: int, dataset: Dataset, own: nn.Module | None, recalibrate: int | None
) -> dict[str, Any]:
    config = folder.config()
    device = device_of(config.trainer)
    check_classes(folder, dataset)
    if recalibrate is not None:
        check_samples(recalibrate, dataset)
    if "data" in config.from_python:
        check_same_samples(folder, dataset)
    heldout = held_out(config, dataset)
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "recipe": config.recipe,
        "dataset": dataset.name,
        "classes": list(dataset.classes),
        "samples": len(dataset.test),
        "timesteps": config.timesteps,
    }
    tensors: dict[str, Tensor] = {}
    for name, file in (("selected", folder.selected_model), ("last", folder.model)):
        if file.is_file():
            model = folder.load_network(file, own).to(device)
            results[name], tensors = score(model, config, dataset, heldout, batch_size)
    if config.timesteps > 1 and config.model.neuron != "relu":
        estimate = energy_per_timestep(model, dataset, config.timesteps, batch_size)
        accuracy = [entry["accuracy"] for entry in results["last"]["ensemble"]]
        results["deployment"] = deployment(
            tensors["logits"], tensors["targets"], accuracy, estimate, tensors.get("lengths")
        )
    taught_by = teacher_logits(config, len(dataset.test))
    if taught_by is not None:
        results["teacher"] = agreement(tensors["logits"].mean(0), taught_by, tensors["targets"])
    if recalibrate is not None:
        results["recalibrated"] = Recalibration(model, config, dataset, recalibrate).scores()
    best = best_test_epoch(folder, config.timesteps)
    if best is not None:
        results["best_test"] = best
    results["cost"] = folder.read_cost()
    with folder.rewriting(folder.samples, folder.logits, folder.results):
        write_atomically(folder.samples, save(example_images(dataset, tensors["logits"])))
        write_atomically(folder.logits, save(tensors))
        write_results(folder, results)
    return results


def check_classes(folder: RunFolder, dataset: Dataset) -> None:
    """Refuse to score a network on other classes than it was trained on.

    Raises:
        UserError: naming both.
    """
    classes = read_model(folder.model, folder.read(folder.model)).classes
    if classes is not None and tuple(classes) != tuple(dataset.classes):
        raise UserError(
            f"{folder.model} was trained on the classes {', '.join(classes[:6])}, {len(classes)} in all, and the data set "
            f"{dataset.name} now has {', '.join(dataset.classes[:6])}, {len(dataset.classes)} in all: use the data of the run"
        )


def check_same_samples(folder: RunFolder, dataset: Dataset) -> None:
    """Refuse to score a run on other test samples than before, of a data set that came from Python.

    It compares all labels, and the sample images that the run keeps.

    Raises:
        UserError: if they differ; the message says how to score the network on other data.
    """
    try:
        targets = folder.read_tensors(folder.logits, "targets")["targets"]
        kept = folder.read_tensors(folder.samples, "images", "indices")
    except (FileNotFoundError, UserError):
        return  # it is scored for the first time, or a damaged file is written again
    same = torch.equal(targets, dataset.test.targets)
    if same and not draws_at_random(dataset.test):
        same = torch.equal(kept["images"], _shown(dataset, kept["indices"]))
    if not same:
        raise UserError(
            f"{folder.path} was scored on other test samples than data holds: give the data of the run, or score its network on "
            "others with evaluate(load(run), data, timesteps=T)"
        )


def score(
    model: Temporal, config: Config, dataset: Dataset, heldout: Samples | None, batch_size: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """All scores of one network on the test set, and its logits.

    Temperatures are fitted on the held-out samples, if there are any. A static image can also run for more timesteps than in
    training. "beyond" has these scores, for up to twice T timesteps, or 8 if that is more.
    """
    T = config.timesteps
    longer = max(2 * T, LONGEST) if dataset.kind == "image" and config.model.neuron != "relu" else T
    with record(model) as recording:
        rates = FiringRates(recording)
        logits = collect_logits(model, dataset.test, dataset.kind, longer, batch_size, after_batch=rates.add)
    targets, lengths = dataset.test.targets, lengths_of(dataset.test)
    tensors = {"logits": logits[:T].contiguous(), "targets": targets}
    if lengths is not None:
        tensors["lengths"] = lengths
    figures: dict[str, Any] = timestep_metrics(tensors["logits"], targets, lengths)
    figures["reliability"] = timestep_reliability(tensors["logits"], targets)
    figures["firing_rates"] = rates.means(T)
    if longer > T:
        figures["beyond"] = timestep_metrics(logits, targets)["ensemble"][T:]
        right = right_submodels(prefix_means(logits.double())[T:], targets)
        tensors["beyond_right"] = right.to(torch.uint8)
    if heldout is not None:
        tensors["holdout_logits"] = collect_logits(model, heldout, dataset.kind, T, batch_size)
        tensors["holdout_targets"] = heldout.targets
        figures["calibrated"] = calibrated_metrics(
            tensors["logits"], targets, tensors["holdout_logits"], tensors["holdout_targets"]
        )
    return figures, tensors


def teacher_logits(config: Config, samples: int) -> Tensor | None:
    """Logits `[N, C]` of the teacher's run on the same test samples; None if it was no run, or its folder is gone."""
    teacher = None if config.teacher is None else RunFolder(config.teacher)
    if teacher is None or not teacher.logits.is_file():
        return None
    logits = teacher.read_tensors(teacher.logits, "logits")["logits"].mean(0)
    return logits if len(logits) == samples else None


def agreement(logits: Tensor, teacher: Tensor, targets: Tensor) -> dict[str, float | None]:
    """How often a network predicts the same class as its teacher.

    Args:
        logits: `[N, C]`.
        teacher: the teacher's, `[N, C]`.
        targets: `[N]`.

    Returns:
        Fractions `{accuracy, agreement, agreement_where_wrong}`: the teacher's accuracy, the agreement on all samples, and that on
        samples on which the teacher is wrong, None if there are none.
    """
    answers, taught = logits.argmax(-1), teacher.argmax(-1)
    same, wrong = answers == taught, taught != targets
    return {
        "accuracy": 1 - float(wrong.double().mean()),
        "agreement": float(same.double().mean()),
        "agreement_where_wrong": float(same[wrong].double().mean()) if wrong.any() else None,
    }


def held_out(config: Config, dataset: Dataset) -> Samples | None:
    """The training samples that the run held out."""
    if not config.data.holdout:
        return None
    return dataset.train.subset(split_holdout(dataset.train.targets, config.data.holdout)[1])


def best_test_epoch(folder: RunFolder, timesteps: int) -> dict[str, Any] | None:
    """The epoch with the best test accuracy, which papers report; None if the run did not track it."""
    rows = folder.read_rows(folder.metrics)
    column = f"test_accuracy_{timesteps}"
    if not rows or column not in rows[0]:
        return None
    best = max(rows, key=lambda row: float(row[column]))
    return {"epoch": int(best["epoch"]), "accuracy": float(best[column])}


def example_images(dataset: Dataset, logits: Tensor, count: int = 12) -> dict[str, Tensor]:
    """Test images for the report: first those whose predicted class changes over time, then the first ones.

    Event recordings are shown as the sum of their frames.
    """
    answers = prefix_means(logits).argmax(-1)
    changes = (answers != answers[0]).any(0)
    indices = torch.cat([changes.nonzero().flatten(), (~changes).nonzero().flatten()])[:count].sort().values
    return {"images": _shown(dataset, indices), "indices": indices}


def _shown(dataset: Dataset, indices: Tensor) -> Tensor:
    """Test samples as images of bytes, `[n, C, H, W]`."""
    images = dataset.test.inputs(indices)
    if dataset.kind == "events":
        frames = images.sum(1)
        images = (255 * frames / frames.amax((1, 2, 3), keepdim=True).clamp(min=1)).to(torch.uint8)
    elif images.dtype != torch.uint8:
        images = (255 * images).round().clamp(0, 255).to(torch.uint8)
    return images.contiguous()


def parts_of_run(
    config: Config,
    data: Any = None,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    root: Path | None = None,
    call: str = "evaluate(run",
) -> tuple[Dataset, nn.Module | None]:
    """The data set of a run, and, if its network came from Python, the network to load its weights into.

    Args:
        config: of the run.
        data: for a run whose data came from Python, the same as in `train(config, data=...)`.
        model: for a run whose network came from Python, an instance, which is copied, or a function that makes one.
        root: folder of the data sets, if it is another one now.
        call: the name of the function that takes these arguments, for messages.

    Raises:
        FileNotFoundError: if files are missing.
        UserError: for data or a network that are missing, not wanted or of another class.
    """
    if data is not None and "data" not in config.from_python:
        raise UserError(
            f"data came for a run on {config.data.name}, which is loaded by name: leave it out, or score the network on other data "
            "with evaluate(load(run), data, timesteps=T)"
        )
    made = copy.deepcopy(model) if isinstance(model, nn.Module) else None if model is None else model()
    dataset = None if data is None else as_dataset(data)
    now = {
        "data": None if dataset is None else data_path(dataset),
        "model": None if made is None else import_path(plain_module(made)),
    }
    check_given(config.from_python, now, call)
    return dataset_of(config, root) if dataset is None else dataset, made
