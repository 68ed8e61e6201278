"""How long one waits before anything happens, in processor time, so that a busy machine does not matter."""

import resource
import subprocess
import sys


def seconds(*command: str) -> float:
    """Processor seconds of the fastest of three runs of a Python process."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def test_importing_costs_little_more_than_torch_and_help_less_than_a_second_more():
    torch, ours, everything, help_ = (
        seconds("-c", "import torch"),
        seconds("-c", "import spikedistill"),
        seconds("-c", "import spikedistill; from spikedistill import *"),
        seconds("-m", "spikedistill", "--help"),
    )
    assert ours < 1.5 * torch, f"import spikedistill {ours:.2f} s, import torch {torch:.2f} s"
    assert everything < 1.5 * torch, f"all public names {everything:.2f} s, import torch {torch:.2f} s"
    assert help_ < torch + 1, f"--help {help_:.2f} s, import torch {torch:.2f} s"
