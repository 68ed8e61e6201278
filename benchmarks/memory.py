"""The most memory that PyTorch's allocator has handed out at once during a step."""

import os

import torch
from torch.profiler import ProfilerActivity, profile

from .workloads import Step

# the profiler would announce each start and stop
os.environ.setdefault("KINETO_LOG_LEVEL", "99")


def peak_bytes(step: Step, device: str) -> int:
    """Run the step once; the peak of what is allocated during it, above what was held when it began.

    Parameters, buffers and input are held before; activations, what autograd keeps, gradients and temporaries come on top and are
    what is counted. On a CPU it is summed up from the allocator's events. The process's resident memory would not do: glibc keeps
    freed memory for the next allocation, so what one sees there is history, and it holds libraries, compilers and code besides.
    Memory that oneDNN takes for itself during a convolution goes past the allocator and is in neither.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        step.run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - held
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step.run()
    recorded = profiler.profiler.kineto_results.events()
    events = sorted((event for event in recorded if event.name() == "[memory]"), key=lambda event: event.start_ns())
    allocated = peak = 0
    for event in events:
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak
