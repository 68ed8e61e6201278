"""Trains one run, from a configuration to a run folder."""

import contextlib
import json
import logging
import signal
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import distributed

from ..config import Config
from ..data import RESIZED_CROP, Batches, augmentation_identity, fingerprint, kept_on, slicing_version, workers_for
from ..errors import UserError
from ..evaluation import evaluate
from ..files import alone_in, sha256, write_atomically
from ..from_python import same_path
from ..imports import needing
from ..objectives import objective_options
from ..report import write_report
from ..run_folder import RunDiverged, RunFolder, RunStopped
from ..sparse import sparse_layers
from ..stopping import Stop
from .batch_size import check_one_process_chooses, with_batch_size, with_fitting_batch_size
from .class_weights import class_weights_line
from .estimate import estimate_line
from .given import Given, ModelLike, TeacherLike, with_given
from .initial import initial_file
from .origins import origins_of
from .out_of_memory import saying_what_takes_memory
from .plan import Plan, plan_of
from .precision import with_fastest_precision
from .processes import check_processes, depending_on_others, is_main_process, stop_with_launcher

if TYPE_CHECKING:
    import lightning as L

    from .module import DistillationModule
    from .progress import Speedometer


def train(
    config: Config, *, model: ModelLike | None = None, data: Any = None, teacher: TeacherLike | None = None
) -> Path:
    """Train, evaluate and report one run.

    What comes from Python is recorded in config.yaml by its import path, and never imported: to go on with such a run, to repeat or
    to evaluate it, give it again. Several processes, as torchrun starts them, are each given the same.

    Args:
        config: what to train; `spikedistill.recipes.recipe(name)` returns one to start from.
        model: a network of your own instead of `config.model`: a module written for `[B, ...]` with `LIF` between its layers,
            also under `temporal`, or a class or function that makes one. A copy is trained, with the gradient rule of the
            configuration. Images `[B, C, H, W]` in [0, 1] are normalised in front of it by the mean and standard deviation of the
            data set, unless a `spikedistill.models.Normalize` is in it. A module's own weights are the initial ones, whatever the
            seed; a class or function is called with the generator of PyTorch seeded.
        data: a data set of your own instead of `config.data`: a pair (training, test) of `torch.utils.data.Dataset`, a mapping with
            "train", "test" and other arguments of `spikedistill.data.from_torch`, or a `spikedistill.data.Dataset`.
        teacher: for objectives that learn from a trained network, instead of `config.teacher`: a module or any function from
            images `[B, C, H, W]` in [0, 1] to logits `[B, classes]`; a network over time, whose mean logits teach; a run or a
            file. Objectives that compare features need a network with the layers that they name.

    Returns:
        The run folder, which holds config.yaml, metrics.csv, checkpoints/, model.safetensors, results.json,
        logits.safetensors and report.html.

    Raises:
        UserError: for parts that do not fit each other, or another number of processes than torchrun started.
        FileNotFoundError: if the data set is missing.
        FileExistsError: if the run folder holds a run already and neither `resume` nor `overwrite` is set, or files that no run
            has written. Only files that a run writes are deleted, and only after everything else has been checked.
        BlockingIOError: if another process trains in the run folder.
        RunStopped: after SIGTERM or SIGINT; a checkpoint is saved, and `resume="auto"` goes on.
        RunFailed: if another process of this run has ended, or does not respond in time.
        RunDiverged: if a loss, gradient, weight or running statistic becomes NaN or infinite; the last good checkpoint stays.
        BrokenSample: if a training sample cannot be read; a checkpoint is saved.
    """
    check_processes(config.trainer)
    check_one_process_chooses(config)
    stop_with_launcher()
    config, given = with_given(config, model, data, teacher)
    with sparse_layers(config.trainer.sparse):
        return _train(config, given)


def _train(config: Config, given: Given) -> Path:
    """`train`, once what came from Python is known."""
    if config.overwrite and config.resume == "auto":
        raise UserError("--overwrite begins a run anew and --resume auto goes on with it: leave one of them out")
    run = RunFolder(config.run_folder)
    resuming = config.resume == "auto" and run.config_file.is_file()
    if resuming:
        config = _with_what_was_chosen(config, run)
        check_same_run(config, run.config(), run.path)
    if resuming and run.is_complete:
        return run.path
    with needing(config.imported, config.recipe):
        plan = plan_of(config, given)
    plan = replace(plan, config=config.model_copy(update={"imported": origins_of(config)}))
    if config.data.most_batch_size is not None:
        plan = with_fitting_batch_size(plan)
    if config.trainer.precision == "auto":
        plan = with_fastest_precision(plan)
    config = plan.config
    from .progress import Speedometer  # imports Lightning, which takes seconds

    trained = resuming and run.is_trained
    speed, origin = Speedometer(), made_from(plan)
    trainer = None if trained else make_trainer(plan, run.path, make_callbacks(plan, run, speed), origin)
    main = is_main_process(config.trainer)
    if main and not resuming:
        print(*(f"{line}\n" for line in plan.dataset.describe()), sep="", end="", flush=True)
    if main and plan.class_weights is not None and not trained:
        print(class_weights_line(plan.class_weights, plan.dataset.classes), flush=True)
    if main and plan.initial is not None and not resuming:
        print(plan.initial.said, flush=True)
    if main and not resuming:
        _check_free(run, overwrite=config.overwrite)
    with alone_in(run.path) if main else contextlib.nullcontext():
        if main:
            if not resuming:
                _check_free(run, overwrite=config.overwrite)  # checked again, because the folder is locked only now
            if config.overwrite:
                run.delete_files()
            run.begin(config)
        if trainer is not None:
            with saying_what_takes_memory(config, run.checkpoint), depending_on_others(config.trainer):
                _fit(plan, run, trainer, speed, origin, resuming)
        if main:
            own = None if given.model is None else given.model.bare
            evaluate(run.path, None if given.data is None else plan.dataset, model=own)
            write_report(run.path)
    return run.path


def _with_what_was_chosen(config: Config, run: RunFolder) -> Config:
    """The configuration with the batch size and precision that the begun run has chosen, and the names of what came from Python."""
    begun = run.config()
    if config.data.most_batch_size is not None:
        config = with_batch_size(config, begun.data.batch_size)
    if config.trainer.precision == "auto":
        update = {"precision": begun.trainer.precision, "channels_last": begun.trainer.channels_last}
        config = config.model_copy(update={"trainer": config.trainer.model_copy(update=update)})
    recorded = {
        role: begun.from_python[role] if same_path(begun.from_python.get(role, ""), path) else path
        for role, path in config.from_python.items()
    }
    return config.model_copy(update={"from_python": recorded})


def check_same_run(config: Config, begun: Config, run: Path) -> None:
    """Refuse to resume a run with other settings than it was begun with.

    Raises:
        UserError: naming the settings that differ.
    """
    differing = changed_settings(config, begun)
    if config.trainer.on_nonfinite == "skip":
        differing.pop(
            "trainer.on_nonfinite", None
        )  # a run in which nothing was NaN or infinite is the same under either setting
    if differing:
        changes = ", ".join(
            f"{key} was {before!r} and is now {now!r}" for key, (before, now) in [*differing.items()][:3]
        )
        raise UserError(f"{run} was begun with other settings ({changes}): use those, or another --out")


def changed_settings(config: Config, begun: Config) -> dict[str, tuple[Any, Any]]:
    """The settings that decide the outcome of a run and differ from those it was begun with: `{name: (before, now)}`, by name."""
    before, now = _settings(begun), _settings(config)
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return {key: (before.get(key), now.get(key)) for key in differing}


def _settings(config: Config) -> dict[str, Any]:
    """The settings that decide the outcome of a run, as a flat mapping."""
    ignored = {
        "imported",
        "out",
        "resume",
        "overwrite",
        "trainer.progress",
        "trainer.capture",
        "trainer.grace_seconds",
        "trainer.timeout_seconds",
        "data.root",
        "data.workers",
        "data.options.source",
        "data.options.workers",
    }
    flat: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                visit(f"{prefix}.{key}" if prefix else key, inner)
        elif prefix not in ignored:
            flat[prefix] = (
                value if prefix not in ("teacher", "init_from") or value is None else str(Path(value).resolve())
            )

    settings = config.model_dump(mode="json")
    # a run from before an option existed had its default
    with needing(config.imported, config.recipe):
        settings["objective"]["options"] = objective_options(config.objective.name) | settings["objective"]["options"]
    visit("", settings)
    return flat


def _check_free(run: RunFolder, *, overwrite: bool) -> None:
    """Refuse a folder with files that may not be deleted.

    Raises:
        FileExistsError: if it is not empty, and holds no run that may be overwritten.
    """
    if run.is_free():
        return
    if not overwrite:
        raise FileExistsError(
            f"{run.path} is not empty: --resume auto goes on with the run in it, --overwrite deletes that run's files, "
            "--out writes elsewhere"
        )
    if not run.is_run():
        raise FileExistsError(
            f"{run.path} is not empty and no run folder, so --overwrite deletes nothing in it: choose another --out"
        )


def made_from(plan: Plan) -> dict[str, str]:
    """What decides the numbers of a run, apart from its settings: digests of the data and the teacher, and versions, by name."""
    found = fingerprint(plan.dataset)
    found["augmentation"] = augmentation_identity(plan.augmentations)
    found["slicing"] = str(slicing_version(plan.dataset.options.get("slicing")))
    taught_by = plan.config.teacher
    if taught_by is not None:
        file = taught_by if taught_by.suffix == ".safetensors" else RunFolder(taught_by).model
        found["teacher"] = sha256(file.read_bytes())
    elif plan.teacher is not None:
        found["teacher"] = plan.teacher.identity()
    if plan.config.init_from is not None:
        found["init_from"] = sha256(initial_file(plan.config.init_from).read_bytes())
    return found


def _fit(
    plan: Plan, run: RunFolder, trainer: "L.Trainer", speed: "Speedometer", origin: Mapping[str, str], resuming: bool
) -> None:
    """Train to the last epoch and leave the model in the run folder.

    Raises:
        UserError: if the processes do not begin at the same step, or the checkpoint is damaged.
        RunStopped: after SIGTERM or SIGINT; a checkpoint is saved.
    """
    from .allocator import keep_freed_memory
    from .checkpoints import check_fits, check_made_from, last_good_checkpoint
    from .mixed_timesteps import recalibrate_mixed
    from .module import DistillationModule

    if plan.config.trainer.keep_memory:
        keep_freed_memory()
    # if the run is not resumed, the main process is about to delete any checkpoint there
    checkpoint = last_good_checkpoint(run) if resuming else None
    steps_done = 0 if checkpoint is None else checkpoint["global_step"]
    if plan.config.trainer.progress and trainer.is_global_zero and (line := estimate_line(plan, steps_done)):
        print(line, flush=True)
    module = DistillationModule(plan)
    group_was_open = distributed.is_available() and distributed.is_initialized()
    if checkpoint is not None:
        check_made_from(run.path, checkpoint, origin)
        check_fits(run.checkpoint, checkpoint, module.state_dict())
    if trainer.is_global_zero:
        run.diverged.unlink(missing_ok=True)
    try:
        fit(trainer, module, None if checkpoint is None else run.checkpoint)
    except RunDiverged as error:
        if trainer.is_global_zero:
            write_atomically(run.diverged, json.dumps(error.details, indent=1))
        raise
    if trainer.is_global_zero:
        with run.rewriting(run.metrics, run.selected_model, run.cost, run.model):
            write_atomically(run.cost, json.dumps(speed.cost(), indent=2))
            recalibrate_mixed(plan, module.network)
            plan.save(module.network, run.model)
    trainer.save_checkpoint(run.checkpoint)
    stop = _wish_to_stop(trainer)
    if stop is not None and stop.asked:  # a signal in the last step, which no callback has checked
        raise RunStopped("stopped after the last epoch, before evaluation")
    if trainer.world_size > 1 and not group_was_open:
        # a process that ends while its group is open sometimes aborts, and the others with it
        distributed.barrier()
        distributed.destroy_process_group()


def fit(trainer: "L.Trainer", module: "DistillationModule", resume_from: Path | None = None) -> None:
    """Run the training loop of a Trainer, from a checkpoint on if there is one.

    Raises:
        UserError: if the checkpoint is whole, but does not hold what Lightning and the callbacks expect.
        KeyboardInterrupt: if SIGTERM or SIGINT came before the first step or after the last.
    """
    on_interrupt = signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():
        # Lightning 2.6 calls functions that PyTorch 2.13 deprecates, and warns that our batches have no state, which they do not
        # need
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*dataloader is not resumable")
        try:
            trainer.fit(module, make_batches(module.plan, trainer), ckpt_path=resume_from, weights_only=True)
        except SystemExit:  # Lightning turns a KeyboardInterrupt into this, and ignores SIGINT from then on
            signal.signal(signal.SIGINT, on_interrupt)
            raise KeyboardInterrupt from None
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            if resume_from is None or _wish_to_stop(trainer) is not None:  # training had begun
                raise
            raise UserError(
                f"{resume_from} does not hold what this version expects ({type(error).__name__}: {error}): go on with the "
                "version that wrote it, or begin anew with --overwrite"
            ) from error


def _wish_to_stop(trainer: "L.Trainer") -> Stop | None:
    """Whether SIGTERM or SIGINT came while the process trained; None if training has not begun."""
    from .callbacks import Checkpoints

    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback.stop for callback in callbacks if isinstance(callback, Checkpoints)), None)


def make_batches(plan: Plan, trainer: "L.Trainer") -> Batches:
    """The training batches of this process, from the Trainer's position on; samples that fit are kept on its GPU."""
    device = trainer.strategy.root_device

    def position() -> tuple[int, int]:
        return trainer.current_epoch, trainer.fit_loop.epoch_loop.batch_progress.current.ready

    return Batches(
        kept_on(plan.train, device),
        plan.config.data.batch_size,
        plan.config.seed,
        position,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
        device=device,
        workers=workers_for(plan.train, plan.config.data.workers),
        draws=RESIZED_CROP in plan.augmentations,
    )


def make_callbacks(plan: Plan, run: RunFolder, speed: "Speedometer") -> list["L.Callback"]:
    """The callbacks of a run."""
    from .callbacks import Checkpoints, EpochRecord, MovingAverage
    from .progress import EpochLines, ProgressBar

    options = plan.config.trainer
    scored = {"holdout": plan.holdout, "test": plan.dataset.test if options.track_test else None}
    record = EpochRecord(run, plan, {name: samples for name, samples in scored.items() if samples is not None})
    callbacks: list[L.Callback] = [
        record,
        speed,
        # last, so that the checkpoint holds the state of the other callbacks
        Checkpoints(run.checkpoint, options.checkpoint_seconds, options.grace_seconds),
    ]
    if options.ema is not None:
        callbacks.insert(0, MovingAverage(decay=options.ema))
    if options.progress and sys.stdout.isatty():
        callbacks.insert(0, ProgressBar(refresh_rate=10))
    elif options.progress:
        callbacks.insert(-1, EpochLines(record, speed, plan.config.timesteps))
    return callbacks


def make_trainer(
    plan: Plan, folder: Path, callbacks: list["L.Callback"], made_from: Mapping[str, str] | None = None
) -> "L.Trainer":
    """Lightning's Trainer for the epochs of a plan; `made_from` goes into its checkpoints.

    Raises:
        UserError: for an accelerator or a number of devices that this machine does not have.
    """
    import lightning as L
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from .checkpoints import AtomicCheckpoints
    from .progress import ProgressBar
    from .strategy import make_strategy

    # hides notices about accelerators and products; errors still show
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    options = plan.config.trainer
    assert options.precision != "auto"  # train() has chosen
    try:
        return L.Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            num_nodes=options.nodes,
            strategy=make_strategy(options),
            precision=options.precision,
            accumulate_grad_batches=options.accumulate,
            gradient_clip_val=options.clip,
            max_epochs=plan.config.epochs,
            callbacks=callbacks,
            plugins=[AtomicCheckpoints(made_from or {})],
            logger=make_logger(options.logger, folder),
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
            use_distributed_sampler=False,
            log_every_n_steps=1,
            default_root_dir=folder,
        )
    except (MisconfigurationException, ImportError, ValueError) as error:
        raise UserError(f"--trainer.accelerator {options.accelerator}, {options.devices} devices: {error}") from None


_LOGGERS = {
    "tensorboard": "TensorBoardLogger",
    "csv": "CSVLogger",
    "wandb": "WandbLogger",
    "mlflow": "MLFlowLogger",
    "comet": "CometLogger",
}


def make_logger(name: str, folder: Path) -> Any:
    """A logger of Lightning's that writes below a folder; False for "none".

    Raises:
        UserError: if its package is missing.
    """
    if name == "none":
        return False
    from lightning.pytorch import loggers

    try:
        return getattr(loggers, _LOGGERS[name])(save_dir=folder)
    except ModuleNotFoundError as error:
        raise UserError(
            f"the logger {name!r} needs a package that is not installed: pip install {error.name or name}"
        ) from None
