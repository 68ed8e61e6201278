"""How much memory this process may still take: what the machine has left, within the limits that are set for the process."""

import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from .allocator import return_freed_memory

_NO_LIMIT = 2**60  # control groups of version 1 without a limit report a number above this


def free_memory(device: torch.device, root: Path = Path("/")) -> int:
    """Bytes that this process may still take on a device: of a GPU its free memory, else main memory.

    Main memory is the least of what the machine has available, what is left in each control group (v1 or v2) that the process is
    in, such as that of a container, and what `ulimit -v` and `ulimit -d` leave.

    Args:
        device: the device.
        root: the folder that holds /proc and /sys.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    left = [*_of_machine(root), *_of_groups(root), *_of_process(root)]
    return max(0, min(left))


def _of_machine(root: Path) -> Iterator[int]:
    available = _numbers(root / "proc/meminfo").get("MemAvailable")
    if available is not None:
        yield 1024 * available
    else:  # not Linux: assume half of the memory
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _of_groups(root: Path) -> Iterator[int]:
    """What is left in the process's control groups of memory and in those around them; files that they cache can be dropped."""
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers == "":
            top, limit, used, cached = mount, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, limit = mount / "memory", "memory.limit_in_bytes"
            used, cached = "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        group = top / place.lstrip("/")
        # in a container the path may be that of the host, and the container's own group is the root of the tree
        for folder in (group, *group.parents):
            if not folder.is_relative_to(top):
                break
            most, taken = _text(folder / limit).strip(), _text(folder / used).strip()
            if most.isdigit() and taken.isdigit() and int(most) < _NO_LIMIT:
                yield int(most) - int(taken) + _numbers(folder / "memory.stat").get(cached, 0)


def _of_process(root: Path) -> Iterator[int]:
    status = _numbers(root / "proc/self/status")
    for limit, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY and used in status:
            yield most - 1024 * status[used]


def _numbers(file: Path) -> dict[str, int]:
    """The numbers of a file of lines `name: number ...` or `name number`."""
    rows = (line.replace(":", " ").split() for line in _text(file).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def begin_peak(device: torch.device) -> None:
    """Start `peak_memory` anew; only Linux allows that for main memory, elsewhere the peak so far stays."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        return_freed_memory()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held since `begin_peak`: on a CPU resident pages, on a GPU those of its tensors."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    highest = _numbers(Path("/proc/self/status")).get("VmHWM")
    if highest is not None:
        return 1024 * highest
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
