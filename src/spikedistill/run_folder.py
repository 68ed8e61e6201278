"""A run folder: the files of a run."""

import contextlib
import csv
import functools
import io
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .config import Config, TrainerConfig
from .data import AUGMENTATION_VERSION, SLICING_VERSION, Dataset, Preprocess, load_dataset
from .errors import UserError
from .files import LOCK, PARTIAL, clear_partial, parse_json, write_atomically
from .from_python import check_given, import_path
from .imports import needing
from .manifest import MANIFEST, Manifest
from .models import ModelFile, build_model, plain_module, read_model
from .renamed import say_renamed
from .trained import Trained

logger = logging.getLogger("spikedistill")

BUNDLE = "export.json"  # of a folder that was exported: its form, and the checksums of its files

VERSIONS = {"augmentation": AUGMENTATION_VERSION, "slicing": SLICING_VERSION}


def device_of(options: TrainerConfig) -> torch.device:
    """The device for work outside Lightning: a GPU, if there is one and the run may use it."""
    wants_gpu = options.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if wants_gpu else "cpu")


class RunStopped(Exception):
    """A run was asked to stop, and has saved a checkpoint."""


class RunDiverged(RuntimeError):
    """A number of a run became infinite or NaN. The last good checkpoint stays, and `diverged.json` says where it happened.

    Args:
        message: one line.
        details: the content of `diverged.json`: `{step, epoch, what, layer, terms, samples, message}`.
    """

    def __init__(self, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details = details or {"message": message}


class RunFailed(RuntimeError):
    """Another process failed and has printed why: one of several runs, or one of the processes that train a run together."""


class RunFolder:
    """The files of one run.

    The manifest lists the complete files with their checksums, and reading checks a file against it.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.metrics = self.path / "metrics.csv"
        self.checkpoint = self.path / "checkpoints" / "last.ckpt"
        self.earlier_checkpoint = self.path / "checkpoints" / "previous.ckpt"
        self.diverged = self.path / "diverged.json"
        self.model = self.path / "model.safetensors"
        self.selected_model = self.path / "selected.safetensors"
        self.cost = self.path / "cost.json"
        self.results = self.path / "results.json"
        self.logits = self.path / "logits.safetensors"
        self.samples = self.path / "samples.safetensors"
        self.gradients = self.path / "gradients.csv"
        self.robustness = self.path / "robustness.json"
        self.attacked = self.path / "robustness.jsonl"
        self.report = self.path / "report.html"
        # Files that training writes, and files that a command can write again.
        self.of_training = (self.config_file, self.metrics, self.model, self.selected_model, self.cost)
        self.made_by = dict.fromkeys((self.results, self.logits, self.samples), "evaluate")
        self.made_by |= {self.gradients: "gradients", self.robustness: "robustness", self.report: "report"}

    @classmethod
    def trained(cls, path: Path | str) -> "RunFolder":
        """The folder of a run whose training has finished.

        Raises:
            FileNotFoundError: if the folder, its configuration or its trained model is missing.
        """
        run = cls(path)
        if not run.path.is_dir():
            raise FileNotFoundError(f"{run.path} is no folder: expected a run folder such as runs/digits-twsd/seed0")
        for file in (run.config_file, run.model):
            if not file.is_file():
                raise FileNotFoundError(
                    f"{run.path} holds no {file.name}: it is no run folder, or its training has not finished; "
                    "spikedistill train RECIPE --resume auto goes on with it"
                )
        return run

    @property
    def is_complete(self) -> bool:
        """Whether training and evaluation have written all their files.

        Raises:
            UserError: if the manifest is damaged.
        """
        if self.manifest() is None:
            return self._are_whole(self.model, self.report)
        return self._are_whole(self.model, self.results, self.logits, self.report)

    @property
    def is_trained(self) -> bool:
        """Whether training has written all its files. An existing model file is no proof, because a process may have been killed.

        Raises:
            UserError: if the manifest is damaged.
        """
        return self._are_whole(self.model)

    def _are_whole(self, *files: Path) -> bool:
        manifest = self.manifest()
        return all(file.is_file() and (manifest is None or file.name in manifest.files) for file in files)

    # The manifest

    def manifest(self) -> Manifest | None:
        """The list of complete files; None in a folder of version 0.1.0.

        Raises:
            UserError: if it is damaged.
        """
        return Manifest.read(self.path, "run")

    def begin(self, config: Config) -> None:
        """Write the configuration, and the manifest that marks the folder as a run's. Call it only inside `alone_in`."""
        clear_partial(self.path, self._names())
        clear_partial(self.checkpoint.parent, (self.checkpoint.name, self.earlier_checkpoint.name, "next.ckpt"))
        manifest = self.manifest() or Manifest.new("run", **VERSIONS)
        if self.config_file.name in manifest.files:
            manifest.without([self.config_file.name]).write(self.path)
        write_atomically(self.config_file, config.to_yaml())
        manifest.with_files(self.path, [self.config_file.name]).write(self.path)

    @contextlib.contextmanager
    def rewriting(self, *files: Path) -> Iterator[None]:
        """Remove files from the manifest, and add them again when the context has written all of them.

        A folder without a manifest gets none, because its other files would then seem verified.
        """
        names, manifest = [file.name for file in files], self.manifest()
        if manifest is not None and manifest.files.keys() & set(names):
            manifest.without(names).write(self.path)
        yield
        if manifest is not None:
            manifest.with_files(self.path, names).write(self.path)

    def read(self, file: Path) -> bytes:
        """The content of a file of the run, checked against the manifest.

        Raises:
            FileNotFoundError: if it is missing.
            UserError: if it is damaged, or a process was killed while it was written.
        """
        again = self._again(file)
        if not file.is_file():  # reading a pipe would block, and a device may never end
            raise FileNotFoundError(f"{self.path} holds no {file.name}: {again}")
        content = file.read_bytes()
        manifest = self.manifest()
        if manifest is None:
            _say_unverified(self.path.resolve())
        elif file.name in manifest.files:
            if not manifest.files[file.name].fits(content):
                raise UserError(f"{file} is damaged: it is not the file that {MANIFEST} lists; {again}")
        elif file in self.made_by:
            raise UserError(f"{file} is not whole: a process was stopped while it was written; {again}")
        return content

    def _again(self, file: Path) -> str:
        """How to get a file again."""
        command = self.made_by.get(file)
        if command:
            return f"spikedistill {command} {self.path} writes it anew"
        return "copy it again, or train the run again"

    # Deleting

    def is_free(self) -> bool:
        """Whether the folder is missing or holds only temporary files of killed processes.

        Raises:
            NotADirectoryError: if it is a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"{self.path} is no folder: choose another --out")
        return not self.path.exists() or all(
            path.name == LOCK or path.name.endswith(PARTIAL) for path in self.path.iterdir()
        )

    def is_run(self) -> bool:
        """Whether the folder is a run's: it has a manifest, or in version 0.1.0 a configuration with every setting."""
        try:
            if self.manifest() is not None:
                return True
            if not self.config_file.is_file():
                return False
            Config.of_run(self.config_file.read_bytes(), str(self.config_file))
        except (OSError, UserError):
            return False
        return True

    def delete_files(self) -> None:
        """Delete the files that a run writes, by name, and no others. A link is deleted, not its target.

        An empty manifest stays, so that the folder is known as a run's if the process is killed here.

        Raises:
            FileExistsError: if a folder has the name of such a file. Nothing is deleted then.
        """
        files = [self.path / name for name in self._names() if name != MANIFEST]
        checkpoints = self.checkpoint.parent
        files += [checkpoints] if checkpoints.is_symlink() else [self.checkpoint, self.earlier_checkpoint]
        if wrong := next((f for f in (*files, self.path / MANIFEST) if f.is_dir() and not f.is_symlink()), None):
            raise FileExistsError(f"{wrong} is a folder, and no run has written it: choose another --out")
        Manifest.new("run", **VERSIONS).write(self.path)
        clear_partial(checkpoints, (self.checkpoint.name, self.earlier_checkpoint.name, "next.ckpt"))
        for file in (*files, checkpoints / "next.ckpt"):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # if it holds other files
            checkpoints.rmdir()

    def _names(self) -> list[str]:
        """The names of the files that a run writes into its folder."""
        return [*(file.name for file in (*self.of_training, *self.made_by, self.attacked, self.diverged)), MANIFEST]

    # Reading

    def config(self) -> Config:
        """The configuration that the run was trained with.

        Raises:
            FileNotFoundError: if there is none.
            UserError: if config.yaml is damaged.
        """
        return Config.of_run(self.read(self.config_file), str(self.config_file))

    def read_results(self) -> dict[str, Any]:
        """The content of results.json: the old name of `spikedistill.evaluation.results.read_results`.

        Raises:
            FileNotFoundError: if the run has not been evaluated.
            UserError: if the file is damaged.
        """
        say_renamed("RunFolder.read_results()", "spikedistill.evaluation.results.read_results(folder)")
        return self._json(self.results)

    def read_tensors(self, file: Path, *names: str) -> dict[str, Tensor]:
        """The tensors that evaluation wrote into `logits` or `samples`, at least those of these names.

        Raises:
            FileNotFoundError: if the run has not been evaluated.
            UserError: if the file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        content = self.read(file)
        try:
            tensors = load(content)
        except SafetensorError as error:
            raise UserError(f"{file} is damaged ({error}): {self._again(file)}") from None
        if missing := next((name for name in names if name not in tensors), None):
            raise UserError(f"{file} holds no tensor {missing!r}: {self._again(file)}")
        return tensors

    def read_cost(self) -> dict[str, Any]:
        """Training time, speed and memory, `{training_s, images_per_s, peak_mib}`; empty if training measured none.

        Raises:
            UserError: if the file is damaged.
        """
        if not self.cost.is_file():
            return {}
        cost = self._json(self.cost)
        if not _is_cost(cost):
            raise UserError(
                f"{self.cost} is damaged: expected numbers named {', '.join(_COST)}; got {str(cost)[:100]}; "
                f"{self._again(self.cost)}"
            )
        return cost

    def read_rows(self, file: Path) -> list[dict[str, str]]:
        """The rows of a CSV file of the run, by column; none if it is missing.

        Raises:
            UserError: if it is damaged.
        """
        if not file.is_file():
            return []
        try:
            return list(csv.DictReader(io.StringIO(self.read(file).decode(), newline="")))
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{file} is damaged ({error}): {self._again(file)}") from None

    def load_network(self, file: Path, model: nn.Module | Callable[[], nn.Module] | None = None) -> Trained:
        """The network of `model` or `selected_model`, in eval mode.

        Args:
            file: one of the two.
            model: the network to fill, for one that was made in Python or whose name is not registered.

        Raises:
            FileNotFoundError: if it is missing.
            UserError: if it is damaged, or holds a number that is not finite, or a network that is neither registered nor given.
        """
        content = read_model(file, self.read(file))
        if content.timesteps is None:
            content = content._replace(timesteps=self.config().timesteps)
        if "python" in content.network:
            made = model if isinstance(model, nn.Module) or not callable(model) else model()
            path = import_path(plain_module(made)) if isinstance(made, nn.Module) else None
            check_given(self.config().from_python, {"model": path}, "load(run")
            model = made
        return _in_use(content, file, model)

    def _json(self, file: Path) -> dict[str, Any]:
        content = self.read(file)
        try:
            return parse_json(content, file)
        except UserError as error:
            raise UserError(f"{error}; {self._again(file)}") from None


_COST = ("images_per_s", "peak_mib", "training_s")


def _is_cost(cost: dict[str, Any]) -> bool:
    """Whether the values are training costs."""
    finite = all(isinstance(value, int | float) and math.isfinite(value) for value in cost.values())
    return finite and cost.keys() <= set(_COST)


@functools.cache
def _say_unverified(folder: Path) -> None:
    """Log once for each folder that its files cannot be checked."""
    logger.warning("%s has no %s, as in version 0.1.0: its files are read unverified", folder, MANIFEST)


def dataset_of(config: Config, root: Path | None = None) -> Dataset:
    """The data set of a run.

    Args:
        config: the configuration of the run.
        root: folder of the data sets, if it has moved.

    Raises:
        FileNotFoundError: if files are missing.
        UserError: for an unknown data set, an option that it does not have, or a damaged file.
    """
    check_given(config.from_python, {"data": None}, "evaluate(run")
    data = config.data
    with needing(config.imported, config.recipe):
        return load_dataset(
            data.name,
            root or data.root,
            timesteps=config.timesteps,
            size=data.size,
            slicing=data.slicing,
            resize=data.resize,
            channels=data.channels,
            test_share=data.test_share,
            options=data.options,
        )


def load(run: Path | str, *, model: nn.Module | Callable[[], nn.Module] | None = None) -> Trained:
    """The trained network of a run or of a model file, in eval mode.

    It takes images in [0, 1], or event frames, as `model(x, timesteps=T)`. It also has the names of its `classes`, `preprocess`
    for images and files of any size and format, and `predict`.

    Args:
        run: a run folder, a bundle that `spikedistill export` wrote, or a file that `save_model` wrote, such as the
            `model.safetensors` of either.
        model: the network to fill, for one that was made in Python or whose name is not registered: a plain module, or one from
            `temporal`, or a class or function that makes it.

    Raises:
        FileNotFoundError: if there is no trained run or no such file.
        UserError: if the model file is damaged, holds a number that is not finite, or holds a network that is neither registered
            nor given, or a network of another class than the given one.
    """
    path = Path(run)
    if (path / BUNDLE).is_file():
        path = path / "model.safetensors"
    if path.is_file() or path.suffix == ".safetensors":
        return _in_use(read_model(path), path, model)
    folder = RunFolder.trained(path)
    return folder.load_network(folder.model, model)


def _in_use(file: ModelFile, path: Path, model: nn.Module | Callable[[], nn.Module] | None) -> Trained:
    """The network of a model file, with what the file says of it."""
    taken = file.input if file.input is not None else _input_of_first_version(file.network)
    try:
        input = None if taken is None else Preprocess.from_written(taken)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    about = file._replace(tensors={})
    return Trained(build_model(file, path, model), file.classes, input, file.timesteps, about)


def _input_of_first_version(network: Mapping[str, Any]) -> dict[str, Any] | None:
    """The input of a network of version 0.1.0, whose files record it only for images; None for other inputs."""
    if not network.get("mean"):
        return None
    size = network.get("image_size", 32)
    return {"kind": "image", "channels": network.get("in_channels", 3), "size": [size, size]}
