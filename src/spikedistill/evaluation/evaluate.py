"""Scores a trained run, a network or logits at every number of timesteps."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from ..errors import UserError
from ..through_time import Steps
from ..through_time.steps import check_steps, evaluating
from .logits_file import LabelledLogits, LogitsLike
from .networks import Attack, Labelled, evaluate_logits, evaluate_network
from .runs import evaluate_attacked, evaluate_run


def evaluate(
    run: Path | str | Steps | LogitsLike,
    data: Labelled | LogitsLike | None = None,
    *,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    timesteps: int | None = None,
    heldout: Any = None,
    classes: Sequence[str] | None = None,
    energy: bool = True,
    spiking: tuple[type[nn.Module], ...] = (),
    out: Path | str | None = None,
    batch_size: int | None = None,
    root: Path | None = None,
    attack: Attack | None = None,
    recalibrate: int | None = None,
) -> dict[str, Any]:
    """Score a trained run, any network that runs step by step, or logits, at every k = 1..T.

    - `evaluate(run)`: a run folder on its test set. results.json and logits.safetensors are written into it. A run whose network or
      data set came from Python needs them again: `evaluate(run, data, model=net)`.
    - `evaluate(model, data, timesteps=T)`: a network from `load`, `create_model` or `temporal`, or anything with
      `step(x, state) -> (logits, state)`, such as `from_spikingjelly(net)`, on labelled samples. It runs in eval
      mode, and afterwards every module has the mode that it had.
    - `evaluate(logits, labels)`: logits `[T, N, C]` of any library, and labels `[N]`; tensors or arrays.

    Args:
        run: the run folder, the network or the logits.
        data: for a network, labelled samples: batches of (inputs, targets) such as a DataLoader, a torch `Dataset`, or a
            data set from `load_dataset`, of which the test samples are taken. Inputs are `[B, ...]` with `timesteps`, or
            sequences `[T, B, ...]` without. For logits, their labels.
        model: for a run whose network came from Python: an instance, which is copied, or a function that makes one; the
            run's weights are loaded into it.
        timesteps: T, for a network and static inputs.
        heldout: further samples, as `data`, or a pair of logits and labels, to fit one temperature for each k.
        classes: the names of the classes; default those of the data set or of the loaded network, else numbers.
        energy: for a network, whether to estimate the energy, from 32 samples.
        spiking: for a network, types of its neurons that this library does not recognise, as in `record`.
        out: for a network or logits, a folder to write results.json and logits.safetensors into; default none.
        batch_size: samples per forward pass, of which every layer's currents and spikes are recorded; default 250, or
            50 for a run on a GPU, and half of it, a quarter and so on for a run if memory runs out.
        root: for a run, folder of the data sets, if it is no longer the one that the run was trained with.
        attack: for a run or a network, changes the samples of every batch first: `attack(look, x, targets)` returns them changed,
            for samples `[B, ...]` and a function from samples to logits `[T, B, C]`, which has gradients. Those of
            `spikedistill.robustness` are such, as `Pgd(8 / 255)`, and a targeted one aims at the class after the label. Nothing
            is then written for a run.
        recalibrate: for a run, also score it with batch-norm statistics computed anew from so many training samples; see
            `evaluation.recalibration`.

    Returns:
        What results.json holds, as `evaluation.results.Results` describes it: `{schema, timesteps, last: {ensemble:
        [{k, accuracy, nll, ece, confidence, ...}], single: [...], ...}, ...}`. `ensemble` scores the mean logits of the
        first k timesteps, `single` those of timestep k only. `deployment` holds what exit policies give, for a spiking
        network of two timesteps or more: see `deployment.deployment`. Of a run also: `selected`, the same as `last` for
        the epoch that a hold-out selected; `cost: {training_s, images_per_s, peak_mib}`; and `teacher`, how often the
        network predicts the same class as its teacher: see `runs.agreement`.

    Raises:
        FileNotFoundError: if the run or its data set is missing.
        UserError: for anything else than these three, an argument that does not belong to it, or data that do not fit.
    """
    arguments = {
        "data": data,
        "model": model,
        "timesteps": timesteps,
        "heldout": heldout,
        "classes": classes,
        "out": out,
        "batch_size": batch_size,
        "root": root,
        "spiking": spiking or None,
        "energy": None if energy else energy,
        "attack": attack,
        "recalibrate": recalibrate,
    }
    if isinstance(run, (str, Path)):
        _refuse_others(arguments, "a run folder", "root", "batch_size", "data", "model", "attack", "recalibrate")
        if recalibrate is not None and attack is not None:
            raise UserError(f"recalibrate is {recalibrate}, and no attack is expected beside it")
        if attack is not None:
            return evaluate_attacked(run, batch_size, root, data, model, attack)
        return evaluate_run(run, batch_size, root, data, model, recalibrate)
    if isinstance(run, (Tensor, np.ndarray)):
        _refuse_others(arguments, "logits", "data", "heldout", "classes", "out")
        if data is None:
            raise UserError("logits came without labels, expected evaluate(logits, labels)")
        given = LabelledLogits.of(run, cast("LogitsLike", data), classes=classes, heldout=heldout)
        return evaluate_logits(given, out)
    ours = ("root", "model", "recalibrate")
    _refuse_others(arguments, "a network", *(name for name in arguments if name not in ours))
    check_steps(run)
    if data is None:
        raise UserError("a network came without data, expected evaluate(model, data, timesteps=T)")
    with evaluating(run):
        return evaluate_network(
            run,
            data,
            timesteps=timesteps,
            heldout=heldout,
            classes=classes,
            energy=energy,
            spiking=spiking,
            batch_size=batch_size,
            out=out,
            attack=attack,
        )


def _refuse_others(given: dict[str, Any], kind: str, *expected: str) -> None:
    """Refuse arguments that do not belong to what is evaluated.

    Raises:
        UserError: naming them.
    """
    if others := [name for name, value in given.items() if value is not None and name not in expected]:
        raise UserError(f"{', '.join(others)} came for {kind}, which takes only {', '.join(expected)}: leave them out")
