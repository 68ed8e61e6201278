"""Training on the nodes of a Ray cluster, which start runs where there is room and repeat those that a lost node had."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..config import Config
from ..errors import UserError
from ..files import alone_in
from ..imports import to_import
from .side_by_side import DIVERGED, outcome_of, trained, without_progress
from .workers import Ended

RETRIES = 3  # of a run whose node is lost
_PACKAGE = "spikedistill"
_ROOT = "SPIKEDISTILL_DATA"


class _Place(NamedTuple):
    """Where a run is trained, and with what.

    Attributes:
        folder: the working folder.
        root: folder of the data sets, as the environment names it.
        threads: of the processor.
        imported: what to import first.
    """

    folder: str
    root: str | None
    threads: int
    imported: Mapping[str, str]


class Cluster:
    """The nodes of a Ray cluster. Each run takes a GPU or a part of one if there are some, else a part of a node's cores.

    Args:
        address: of the cluster, or "auto".
        each: runs at a time on each GPU, or without GPUs on each node.

    References: Moritz et al., Ray: A Distributed Framework for Emerging AI Applications, OSDI 2018.
    """

    def __init__(self, address: str, each: int = 1) -> None:
        self.address = address
        self.each = each
        self._running: dict[Any, Config] = {}

    def open(self, runs: Collection[Config]) -> None:
        self._ray = _ray()
        with _handlers_kept():
            try:
                if self.address != "auto":
                    _reach(self.address)
                self._ray.init(self.address, logging_level="ERROR")
            except (OSError, ValueError, RuntimeError) as error:
                raise UserError(
                    f"no Ray cluster answers at {self.address} ({_first_line(error)}): ray start --head starts one on this machine "
                    "and prints its address, and ray start --address ADDRESS adds another node"
                ) from None
        try:
            self._check_nodes(Path(os.path.commonpath([config.run_folder.absolute().parent for config in runs])))
        except BaseException:
            self._ray.shutdown()
            raise

    def close(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, recursive=False)  # interrupts the run, which saves a checkpoint
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=60)
        self._running.clear()
        self._ray.shutdown()

    def has_room(self) -> bool:
        cpus, gpus = self._shares()
        room = sum(
            int((node.get("GPU", 0) / gpus) if gpus else node.get("CPU", 0) // cpus) for node in self._resources()
        )
        return len(self._running) < max(1, room)

    def start(self, config: Config) -> None:
        cpus, gpus = self._shares()
        # a process for each run, so that peak memory is that run's
        task = self._ray.remote(max_calls=1, max_retries=RETRIES)(_train)
        place = _Place(os.getcwd(), os.environ.get(_ROOT), cpus, to_import())
        reference = task.options(num_cpus=cpus, num_gpus=gpus, name=str(config.recipe)).remote(
            without_progress(config), place
        )
        self._running[reference] = config

    def wait(self) -> list[Ended]:
        done, _ = self._ray.wait(list(self._running))
        return [self._outcome(self._running.pop(reference), reference) for reference in done]

    def _outcome(self, config: Config, reference: Any) -> Ended:
        try:
            code = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            return Ended(config, failure=f"the run in {config.run_folder} failed: {_first_line(error.cause)}")
        except self._ray.exceptions.RayError as error:
            return Ended(
                config,
                failure=f"the run in {config.run_folder} was lost with its node {RETRIES + 1} times ({_first_line(error)})",
            )
        return outcome_of(config, code)

    def _shares(self) -> tuple[int, float]:
        """Cores and GPUs of a run."""
        nodes = self._resources()
        if any(node.get("GPU", 0) for node in nodes):
            return 1, 1 / self.each
        return max(1, min(int(node["CPU"]) for node in nodes) // self.each), 0

    def _resources(self) -> list[dict[str, float]]:
        """Those of the nodes that can train."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        found = [node for node in nodes if node.get("CPU", 0) >= 1]
        if not found:
            raise UserError(f"the Ray cluster at {self.address} has no node with a core to train on")
        return found

    def _check_nodes(self, folder: Path) -> None:
        """Check that every node has this version and sees the folder of the runs.

        Raises:
            UserError: naming the node.
        """
        ours, here = version(_PACKAGE), os.getcwd()
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        looks = [
            self._ray.remote(num_cpus=0, scheduling_strategy=strategy(node["NodeID"], soft=False))(_look).remote(
                str(folder), here
            )
            for node in nodes
        ]
        for node, look in zip(nodes, looks, strict=True):
            name = f"node {node['NodeManagerAddress']}"
            try:
                theirs, missing = self._ray.get(look)
            except self._ray.exceptions.RayError as error:
                raise UserError(
                    f"{name} cannot import {_PACKAGE} ({_first_line(error)}): start Ray in an environment that has it"
                ) from None
            if theirs != ours:
                raise UserError(f"{name} has {_PACKAGE} {theirs}, and this process {ours}: install one version on all")
            if missing is not None:
                raise UserError(f"{name} does not see {missing}: choose an --out on a file system that all nodes share")


def _ray() -> Any:
    """Ray, an extra of the package.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise UserError(f"--cluster needs Ray ({error}): pip install 'spikedistill[cluster]'") from None
    return ray


def _reach(address: str) -> None:
    """Connect to HOST:PORT and no more, because Ray takes a minute to find that nothing is there.

    Raises:
        OSError: if nothing answers.
        ValueError: if it is no such address.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("expected HOST:PORT or auto")
    socket.create_connection((host, int(port)), timeout=10).close()


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _look(folder: str, here: str) -> tuple[str, str | None]:
    """On a node: the version of this package there, and what of these folders it does not see."""
    return version(_PACKAGE), next((name for name in (folder, here) if not Path(name).is_dir()), None)


def _train(config: Config, place: _Place) -> int:
    """On a node: train, and return an exit code."""
    os.chdir(place.folder)
    if place.root is not None:
        os.environ[_ROOT] = place.root
    torch.set_num_threads(place.threads)
    with alone_in(config.run_folder, wait=True):
        pass  # the process of a lost node may not have ended yet
    code = trained(config, place.imported)
    if code not in (0, DIVERGED):
        print(f"{config.run_folder}: ended with exit code {code}", file=sys.stderr)
    return code


def _first_line(error: Any) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
