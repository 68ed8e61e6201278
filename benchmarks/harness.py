"""Measure what a file of results does not hold yet."""

from collections.abc import Sequence
from statistics import median

from .contenders import Suite
from .fresh import measure_fresh
from .results import Results
from .timing import seconds
from .workloads import LeftOut, Step, Workload

# The first call compiles, the second finds the sizes of caches and buffers.
_WARM_UP = 2

# A step of a few milliseconds is repeated for so long in its turn: a single one would measure the caches that others left behind.
_TURN_S = 0.1


def measure(
    name: str,
    suite: Suite,
    workload: Workload,
    results: Results,
    *,
    timesteps: Sequence[int],
    rounds: int,
    contenders: Sequence[str] = (),
    fresh: bool = True,
    command: str = "",
) -> None:
    """Measure the contenders, all of them where none is named, at each T, and skip what is there.

    First steps and peak memory, each in a fresh process, are measured where `fresh` says so.

    Raises:
        ValueError: for an unknown contender, or results of something else.
    """
    unknown = sorted(set(contenders) - set(suite.contenders))
    if unknown:
        raise ValueError(f"no contender is called {', '.join(unknown)}: choose of {', '.join(suite.contenders)}")
    chosen = [c for c in suite.contenders if not contenders or c in contenders or c == suite.reference]
    workload.prepare()
    results.begin(name, workload, command)
    absent: dict[str, str] = {}
    for T in timesteps:
        steps = _missing_steps(suite, workload, results, T, rounds, chosen, absent)
        for contender, step in steps.items():
            if fresh and not step.only_time and (contender, T) not in results.fresh:
                _measure_fresh(name, contender, workload, results, T)
        _measure_rounds(suite, steps, workload, results, T, rounds)


def _missing_steps(
    suite: Suite,
    workload: Workload,
    results: Results,
    timesteps: int,
    rounds: int,
    chosen: Sequence[str],
    absent: dict[str, str],
) -> dict[str, Step]:
    """The steps of the contenders that lack figures, and of the reference, which takes part in each of their rounds.

    Why a contender is left out is said once, and kept in `absent`.
    """
    counts, steps = results.count(timesteps), {}
    lacking = [c for c in chosen if counts[c] < rounds or (c, timesteps) not in results.fresh]
    for contender in lacking:
        try:
            step = suite.contenders[contender](workload, timesteps)
        except (LeftOut, ImportError) as reason:
            if absent.get(contender) != str(reason):
                print(f"{contender} is left out: {reason}", flush=True)
            absent[contender] = str(reason)
            continue
        if counts[contender] < rounds or not step.only_time:
            steps[contender] = step
    if steps and suite.reference not in steps:
        steps = {suite.reference: suite.contenders[suite.reference](workload, timesteps), **steps}
    return steps


def _measure_fresh(suite: str, contender: str, workload: Workload, results: Results, timesteps: int) -> None:
    figures = measure_fresh(suite, contender, workload, timesteps)
    results.add("fresh", contender=contender, timesteps=timesteps, **figures)
    warm = figures["first_step_warm_s"]
    print(
        f"T={timesteps}: {contender}: peak {figures['peak_bytes'] / 2**20:.0f} MiB, first step {figures['first_step_s']:.1f} s"
        + ("" if warm is None else f", {warm:.1f} s with the compiled code at hand"),
        flush=True,
    )


def _measure_rounds(
    suite: Suite, steps: dict[str, Step], workload: Workload, results: Results, timesteps: int, rounds: int
) -> None:
    """One step of each contender in turn, or the mean of many where it is short, from another one on in every round.

    Whatever slows the machine down for a while then slows down all of them, and a ratio taken within a round hardly notices.
    """
    if all(count >= rounds for count in (results.count(timesteps)[c] for c in steps)):
        return
    for step in steps.values():
        for _ in range(_WARM_UP):
            seconds(step, workload.device)
    while lacking := [c for c in steps if results.count(timesteps)[c] < rounds]:
        names = list(dict.fromkeys([suite.reference, *lacking]))
        first = len(results.rounds[timesteps]) % len(names)
        order = names[first:] + names[:first]
        taken = {c: round(seconds(steps[c], workload.device, at_least=_TURN_S), 6) for c in order}
        results.add("round", timesteps=timesteps, seconds=taken)
    medians = {c: median(r[c] for r in results.rounds[timesteps] if c in r) for c in steps}
    print(f"T={timesteps}: " + ", ".join(f"{c} {1000 * value:.1f} ms" for c, value in medians.items()), flush=True)
