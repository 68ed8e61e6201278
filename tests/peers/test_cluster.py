"""`compare --cluster` on two real Ray nodes on this machine, of which one is killed."""

import contextlib
import csv
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray")

PORT = 6399  # below the ports of Ray's workers
RAY = [str(Path(sys.executable).with_name("ray"))]
SETTINGS = [
    "--recipes", "digits-sce", "digits-twce", "digits-twkd", "--seeds", "0", "1",
    "--epochs", "3", "--timesteps", "3", "--data.train-samples", "400", "--model.width", "0.25",
]  # fmt: skip


def node(*options: str) -> subprocess.Popen[bytes]:
    """A Ray node with a core, in a process group of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*RAY, "start", *options, "--block", "--num-cpus=1", "--num-gpus=0", "--disable-usage-stats",
               "--object-store-memory=80000000"]  # fmt: skip
    return subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )


def descendants(pid: int) -> list[int]:
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()
    ]
    return [*children, *(other for child in children for other in descendants(child))]


def kill(process: subprocess.Popen[bytes]) -> None:
    """A node with all that runs on it, as when a machine is lost."""
    for pid in (process.pid, *descendants(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def wait_for_port() -> None:
    for _ in range(200):
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", PORT), timeout=1).close()
        time.sleep(0.2)
    raise TimeoutError("the head of the cluster did not begin")


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    begun = [
        node(
            "--head",
            "--include-dashboard=false",
            f"--port={PORT}",
            "--node-ip-address=127.0.0.1",
            f"--temp-dir=/tmp/ray-{os.getpid()}",
        )
    ]
    try:
        wait_for_port()
        begun.append(node(f"--address=127.0.0.1:{PORT}", "--node-ip-address=127.0.0.2"))
        time.sleep(6)
        yield begun
    finally:
        for process in reversed(begun):
            if process.poll() is None:
                kill(process)


def compare(out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "spikedistill", "compare", *SETTINGS, "--out", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def accuracies(out: Path) -> list[tuple[str, ...]]:
    with (out / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return sorted((row["method"], row["seed"], *(row[f"accuracy_{k}"] for k in (1, 2, 3))) for row in rows)


def test_a_comparison_ends_with_the_same_table_although_a_node_is_killed(nodes, tmp_path: Path) -> None:
    running = compare(tmp_path / "cluster", "--cluster", f"127.0.0.1:{PORT}")
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("cluster/*/seed*/checkpoints"))) < 2:  # both nodes train
        assert running.poll() is None, running.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    kill(nodes[1])
    said, _ = running.communicate(timeout=400)
    assert running.returncode == 0, said
    alone = compare(tmp_path / "alone")
    said_alone, _ = alone.communicate(timeout=400)
    assert alone.returncode == 0, said_alone
    assert accuracies(tmp_path / "cluster") == accuracies(tmp_path / "alone")


def test_what_is_no_cluster_is_refused_in_a_line(tmp_path: Path) -> None:
    running = compare(tmp_path / "out", "--cluster", "127.0.0.1:1")
    said, _ = running.communicate(timeout=200)
    assert running.returncode == 2, said
    assert "no Ray cluster answers at 127.0.0.1:1" in said
    assert "Traceback" not in said
