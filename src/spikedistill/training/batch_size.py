"""`--data.batch-size auto`: the largest batch whose training step fits into the free memory, chosen once before a run."""

from collections.abc import Callable
from dataclasses import replace

from ..config import Config
from ..errors import UserError, is_out_of_memory
from ..run_folder import device_of
from .allocator import keep_freed_memory
from .combinations import check_accumulation
from .estimate import trial
from .free_memory import begin_peak, free_memory, peak_memory
from .mixed_timesteps import most_timesteps
from .plan import Plan

# A step may take SHARE of the free memory less RESERVE. The rest is for needs that a trial step does not show, such as gaps
# between tensors and checkpoints.
SHARE, RESERVE = 0.8, 128 * 2**20
# The smallest difference in memory between two batches from which the memory of one image is computed; on a CPU only.
CLEAR = 64 * 2**20


def check_one_process_chooses(config: Config) -> None:
    """Refuse several processes, because each would choose its own batch size.

    Raises:
        UserError: naming what to use instead.
    """
    if config.data.most_batch_size is not None and config.trainer.devices * config.trainer.nodes > 1:
        raise UserError(
            "--data.batch-size auto tries batches in one process: with several devices or nodes give a number, such as 128"
        )


def with_fitting_batch_size(plan: Plan) -> Plan:
    """The plan with `data.batch_size="auto"` replaced by a number, and a line printed that says why.

    It is the largest power of two, no larger than the stated limit and the number of training samples, whose step takes no more
    than 0.8 of the free memory, of which 128 MiB are left for everything else.

    Raises:
        UserError: if even a batch of two images does not fit.
    """
    most = plan.config.data.most_batch_size
    assert most is not None
    device = device_of(plan.config.trainer)
    if plan.config.trainer.keep_memory:
        keep_freed_memory()  # as in training, because it changes the gaps between tensors
    free = free_memory(device)
    allowed = int(SHARE * max(free - RESERVE, 0))
    sizes = _powers_of_two(min(most, len(plan.train)))
    begin_peak(device)
    before = 0 if device.type == "cuda" else peak_memory(device)
    with trial(plan, most_timesteps) as step:

        def needed(size: int) -> int | None:
            """The most bytes that a step takes; None if there is not enough memory."""
            begin_peak(device)
            try:
                for _ in range(2):  # only the second step has the optimiser's state
                    step(size)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                return None
            return peak_memory(device) - before

        # when main memory runs out, the system may kill other processes too, so a batch is tried only if small batches predict
        # that it fits
        hopeful = sizes if device.type == "cuda" else foretold(sizes, allowed, needed)
        found = largest(hopeful, allowed, needed)
    if found is None:
        raise UserError(
            f"not even {sizes[0]} images fit into the {_gib(allowed)} that training may take here: use a smaller network "
            "(--model.width 0.5), fewer timesteps (--timesteps 2), --gradient rate, or --checkpoint under bptt and sltt"
        )
    size, takes = found
    print(
        f"batch size: {size}, the largest power of two up to {sizes[-1]} that fits: a step takes about {_gib(takes)} of the "
        f"{_gib(free)} that are free; the learning rate stays {plan.config.optimizer.lr:g}",
        flush=True,
    )
    chosen = with_batch_size(plan.config, size)
    check_accumulation(chosen, len(plan.train))
    return replace(plan, config=chosen)


def with_batch_size(config: Config, size: int) -> Config:
    """The configuration with that batch size."""
    return config.model_copy(update={"data": config.data.model_copy(update={"batch_size": size})})


Needed = Callable[[int], int | None]


def largest(sizes: list[int], allowed: int, needed: Needed) -> tuple[int, int] | None:
    """The largest size that fits into `allowed` bytes, and the bytes it needs; tries the largest first. None if none fits."""
    for size in reversed(sizes):
        takes = needed(size)
        if takes is not None and takes <= allowed:
            return size, takes
    return None


def foretold(sizes: list[int], allowed: int, needed: Needed) -> list[int]:
    """The sizes that should fit: the memory of one image is computed from two small batches that differ clearly."""
    needed(sizes[0])  # the first call also allocates memory that is allocated only once
    last: tuple[int, int] | None = None
    for place, size in enumerate(sizes):
        takes = needed(size)
        if takes is None or takes > allowed:
            return sizes[:place]
        if last is not None and takes - last[1] >= CLEAR:
            of_image = (takes - last[1]) / (size - last[0])
            return [other for other in sizes if takes + of_image * (other - size) <= allowed]
        last = size, takes
    return sizes


def _powers_of_two(most: int) -> list[int]:
    """2, 4, 8, ... up to the limit; the limit itself if it is below 2."""
    return [2**power for power in range(1, most.bit_length()) if 2**power <= most] or [most]


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
