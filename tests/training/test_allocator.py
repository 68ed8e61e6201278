"""Memory that is freed and taken again at every step."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from spikedistill.training.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_kept_memory_is_not_faulted_in_again():
    """Ten tensors of 64 MiB: 10 * 16,384 pages of 4 KiB, or some of 2 MiB, are taken anew each time unless they are kept."""
    faults = {
        how: int(subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "leave")
    }
    assert faults["keep"] < faults["leave"] / 5
