"""`spikedistill recalibrate`, `predict` and `export`: what a trained run is used for."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..errors import UserError
from .data_commands import Flag, Root

Run = Annotated[Positional[Path], arg(metavar="RUN")]


def recalibrate(
    run: Run,
    *,
    out: Path,
    timesteps: Annotated[int | None, arg(metavar="K", help_behavior_hint="")] = None,
    samples: int = 2000,
    root: Root = None,
) -> None:
    """Compute a run's batch-norm statistics anew from training samples, without training, for fewer timesteps.

    Without --timesteps each timestep gets statistics that are partly its own: most at the first, nothing at the last. Accuracy
    after all timesteps then changes little. With --timesteps K they are those of the first K, and the network then serves K
    timesteps.

    The run stays as it is. spikedistill evaluate RUN --recalibrate 2000 shows both for every k.

    Args:
        run: a run folder, such as runs/digits-twsd/seed0
        out: the model file, which load, predict and AnytimeClassifier take
        timesteps: K, if the network is to serve that number only
        samples: training samples that the statistics are computed from
        root: folder of the data sets, if it has moved
    """
    from ..evaluation.recalibrated_runs import Recalibration
    from ..evaluation.runs import parts_of_run
    from ..run_folder import RunFolder, device_of

    if out.is_dir() or (out.parent / "manifest.json").is_file():
        where = "a folder" if out.is_dir() else "in the folder of a run, which stays as it is"
        raise UserError(f"--out {out} is {where}: name another file, such as every.safetensors")
    folder = RunFolder.trained(run)
    config = folder.config()
    dataset, _ = parts_of_run(config, root=root)
    network = folder.load_network(folder.model, None).to(device_of(config.trainer))
    accuracies = Recalibration(network, config, dataset, samples, timesteps).write(out)
    for name, values in accuracies.items():
        print(f"{name}: " + ", ".join(f"{100 * value:.2f} % at k={k}" for k, value in values.items()))
    print(out)


def predict(
    run: Annotated[Positional[Path], arg(metavar="RUN")],
    samples: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE_OR_FOLDER ...")],
    *,
    timesteps: Annotated[int | None, arg(metavar="K", help_behavior_hint="")] = None,
    early: Flag = False,
    batch_size: int = 100,
) -> None:
    """Classify image files, or event frames in .npz files, with a trained network: a line for each file.

    A line has the file, its class, the confidence in percent and the timesteps that ran, with tabs between.

    Args:
        run: a run folder, a bundle or a model file
        samples: files, and folders whose files are taken
        timesteps: how many to run at most; default those of training
        early: stop each sample at the threshold of the bundle or file
        batch_size: samples at a time
    """
    from ..data.given import samples_of
    from ..data.progress import progress
    from ..evaluation import AnytimeClassifier
    from ..run_folder import load

    model = load(run)
    if model.input is None:
        raise UserError(f"{run} does not say what the network takes: train it with a newer version")
    files = [file for given in samples for file in samples_of(given, model.input)]
    classifier = AnytimeClassifier.load(run) if early else None
    if classifier is not None and timesteps is not None:
        classifier.max_timesteps = min(timesteps, classifier.max_timesteps)
    names = model.classes
    batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    for batch in progress(batches, description="classifying") if len(batches) > 1 else batches:
        if classifier is not None:
            out = classifier(model.preprocess(batch))
            confidence, labels = out.logits.softmax(-1).max(-1)
            ran = out.exit_times.tolist()
        else:
            found = model.predict(batch, timesteps=timesteps, batch_size=batch_size)
            confidence, labels, ran = found.confidence, found.labels, [timesteps or model.timesteps] * len(batch)
        for file, label, share, k in zip(batch, labels.tolist(), confidence.tolist(), ran, strict=True):
            print(file, label if names is None else names[label], f"{100 * share:.1f}", k, sep="\t")


def export(
    run: Run,
    *,
    format: Literal["onnx", "torch", "executorch", "nir", "web", "bundle"],
    out: Path,
    form: Literal["step", "sequence"] = "step",
    int8: Flag = False,
    policy: Literal["confidence", "sum_confidence", "entropy", "margin", "gap", "stability"] = "confidence",
    threshold: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint="")] = None,
    licence: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None,
    runtime: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")] = None,
    root: Root = None,
) -> None:
    """Write a trained run for another runtime, or as a folder to show or to share.

    onnx, torch and executorch hold one timestep, input and state to logits and state, which a device calls T times or fewer. nir is
    for neuromorphic tools. web is a folder with a page that runs the network in a browser, offline. bundle is a folder with the
    network, its threshold and a card, which spikedistill.load takes.

    At least 500 real samples run through the result before anything is written: predictions and exit times agree but for rounding.

    Args:
        run: a run folder, such as runs/digits-twsd/seed0
        format: onnx, torch (an archive of torch.export), executorch, nir, web or bundle
        out: the file, or for web and bundle the folder
        form: step, or sequence: all T timesteps at once (onnx and torch)
        int8: weights and inputs of layers in 8 bits (onnx)
        policy: the score of early exit
        threshold: at which a sample stops; default one that costs at most 0.5 points, on held-out samples if the run has some
        licence: of the weights, for the card of a bundle, such as apache-2.0
        runtime: for web, the folder of the npm package onnxruntime-web; default node_modules/onnxruntime-web, or npm's download
        root: folder of the data sets, if it has moved
    """
    from ..exporting import Options
    from ..exporting import export as export_run
    from ..exporting.description import TRAINED_ON

    options = Options(form, int8, policy, threshold, licence, runtime)
    made = export_run(run, format, out, options, root=root)
    exit = made.description.exit
    if made.verified is not None:
        print(made.verified)
    print("accuracy, %: " + ", ".join(f"{value:.2f} at k={k}" for k, value in enumerate(made.accuracy, 1)))
    if exit.threshold is not None:
        advice = (
            "; networks are overconfident on them, so hold some out with --data.holdout 0.1"
            if exit.chosen == TRAINED_ON
            else ""
        )
        print(f"stops at a {exit.policy} of {exit.threshold:.4g}, from {exit.chosen}{advice}")
    print(made.path)
