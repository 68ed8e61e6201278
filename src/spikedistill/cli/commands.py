"""The commands as typed functions: a signature declares the arguments, and its docstring the help."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Fixed, Positional, Suppress, arg

from ..errors import UserError
from .data_commands import Flag, Root, data, info, prepare
from .deploy_commands import Run, export, predict, recalibrate

if TYPE_CHECKING:
    from ..config import Config


def train(config: "Config") -> None:
    """Train, evaluate and report one run."""
    from rich.console import Console

    from .. import training
    from ..evaluation.results import read_results
    from ..imports import needing
    from ..recipes import protocol_line
    from ..report.terminal import results_table, training_line
    from ..run_folder import RunDiverged, RunFolder
    from ..training.combinations import objective_of

    followed = protocol_line(config) if config.protocol else None
    main = training.is_main_process(config.trainer)
    if main:
        with needing(config.imported, config.recipe):
            objective = objective_of(config)
        print(f"{config.recipe}: loss = {objective}", flush=True)
        if followed:
            print(followed, flush=True)
    try:
        folder = RunFolder(training.train(config))
    except RunDiverged:
        if main:
            raise
        sys.exit(1)  # all processes raise the error, and the main one prints it
    if main:
        results = read_results(folder)
        Console().print(results_table(results))
        if took := training_line(results):
            print(took)
        print(f"report: {folder.report}")


def evaluate(
    run: Run,
    *,
    root: Root = None,
    sparse: Literal["auto", "always", "never"] = "auto",
    recalibrate: Annotated[int | None, arg(metavar="SAMPLES", help_behavior_hint="")] = None,
) -> None:
    """Score a trained run at every number of timesteps.

    Args:
        run: a run folder, such as runs/digits-twsd/seed0
        root: folder of the data sets, if it has moved
        sparse: run layers on spikes where that is faster (auto), always, or never, as --trainer.sparse in training
        recalibrate: also score it with batch-norm statistics computed anew from so many training samples, for each k and for
            each timestep; see spikedistill recalibrate
    """
    from rich.console import Console

    from .. import evaluation, report
    from ..evaluation.results import read_results
    from ..report.terminal import recalibration_table, results_table, training_line
    from ..run_folder import RunFolder
    from ..sparse import sparse_layers

    with sparse_layers(sparse):
        evaluation.evaluate(run, root=root, recalibrate=recalibrate)
    results = read_results(RunFolder(run))
    page = report.write_report(run)
    Console().print(results_table(results))
    if (other := recalibration_table(results)) is not None:
        Console().print(other)
    if took := training_line(results):
        print(took)
    print(f"report: {page}")


def compare(
    *,
    recipes: Annotated[tuple[str, ...], arg(metavar="RECIPE ...")],
    out: Path,
    seeds: Annotated[tuple[int, ...], arg(metavar="INT ...")] = (0, 1, 2),
    equal_time: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")] = None,
    count_teacher: Flag = False,
    tune: Flag = False,
    jobs: int = 1,
    cluster: Annotated[str | None, arg(metavar="ADDRESS", help_behavior_hint="")] = None,
    retry_diverged: Flag = False,
    two_budgets: Flag = False,
    teacher_seeds: Annotated[tuple[int, ...], arg(metavar="INT ...", help_behavior_hint="")] = (),
    settings: Annotated[tuple[str, ...], Fixed, Suppress] = (),
    command: Annotated[str | None, Fixed, Suppress] = None,
) -> None:
    """Train several recipes and seeds and compare them at every number of timesteps.

    Runs that are finished are kept, and those that were stopped go on.
    Every setting of `spikedistill train` may follow, for all runs: --epochs 5 --timesteps 4 --model.width 0.5

    Args:
        recipes: two or more of one data set, the first is the baseline; settings of one recipe only follow it after commas:
            fashion_mnist-rate,segments=2
        out: folder of the comparison; its runs are in <recipe>/seed<k>
        seeds: the seeds that each recipe is trained with
        equal_time: train each method for as many epochs as fit into the training time of the first; the weights of losses are
            taken from the finished comparison in FOLDER
        count_teacher: with --equal-time, training its teacher, and what it starts from, is part of the time of a method
        tune: choose the weights of each method first, times 0.5, 1 or 2, by one run each and its accuracy on held-out samples
        jobs: runs to train at a time; they share the cores, or take one GPU each if there are several
        cluster: train on the nodes of the Ray cluster at ADDRESS, such as 10.0.0.1:6379, or auto on one of them; they must
            share the folder of the comparison; --jobs is then the runs at a time on each GPU or, without GPUs, on each node
        retry_diverged: train the runs again that diverged
        two_budgets: also train every method for a quarter of its epochs; one method is then ranked before another only where it
            is better after both training times
        teacher_seeds: train every taught method with each of these teachers, for each seed; default: one, with the first seed
        settings: of `spikedistill train`
        command: the command that the page shows to repeat the comparison
    """
    from rich.console import Console

    from .. import comparisons
    from ..recipes import protocol_line
    from ..recipes.settings import variant
    from ..recipes.small_data import sized_line
    from ..report.comparison.intervals import why_no_intervals
    from ..report.comparison.lost import what_was_lost, why_no_differences
    from ..report.terminal import costs_table, differences_table, guards_table, leaderboard_table

    configs = [variant(text, settings) for text in recipes]
    if configs and (line := sized_line(configs[0])):
        print(f"{configs[0].recipe}: {line}", flush=True)
    for config in configs:
        if config.protocol:
            print(f"{config.recipe}: {protocol_line(config)}", flush=True)
    comparison = comparisons.compare(
        configs,
        seeds,
        out,
        equal_time=equal_time,
        count_teacher=count_teacher,
        tune=tune,
        jobs=jobs,
        cluster=cluster,
        retry_diverged=retry_diverged,
        two_budgets=two_budgets,
        teacher_seeds=teacher_seeds,
        command=command,
    )
    makers = leaderboard_table, differences_table, guards_table, costs_table
    tables = [make(comparison) for make in makers]
    Console().print(*(table for table in tables if table is not None))
    rows = comparison.leaderboard
    if reason := why_no_intervals(rows):
        print(reason)
    print(f"leaderboard: {out / 'leaderboard.csv'}")
    print(f"report: {out / 'report.html'}")
    if lost := what_was_lost(rows):
        hints = f"The reasons are in {out / 'runs.csv'}; --retry-diverged trains diverged runs again."
        said = [lost, why_no_differences(rows), hints]
        print(f"spikedistill compare: {' '.join(sentence for sentence in said if sentence)}", file=sys.stderr)


def gradients(
    run: Run,
    *,
    timesteps: Annotated[tuple[int, ...], arg(metavar="T ...", help_behavior_hint="")] = (),
    segments: Annotated[tuple[int, ...], arg(metavar="m ...")] = (1, 2, 4, 8),
    batches: int = 4,
    batch_size: int = 128,
    root: Root = None,
) -> None:
    """Compare gradient rules with backpropagation through time (BPTT) on a trained run, layer by layer.

    The cosine of the angle between the two gradients: 1 is the same direction, 0 is unrelated, below 0 points the other way.

    The norm ratio: the norm of the rule's gradient over that of BPTT's: under SGD, 2 acts like twice the learning rate.

    The rules are sltt, rate with m segments (m = 1 is RateBP, m = T is SLTT), and BPTT with the other surrogates, but
    not dsr. BPTT has the surrogate that the run was trained with. The loss is the cross-entropy of the mean output on
    training images, with batch statistics as in training. Nothing is trained: the network stays as it is.

    The numbers of every layer go to gradients.csv in the run folder, and to its report.html.

    Args:
        run: a run folder, such as runs/digits-twsd/seed0
        timesteps: default 2 4 8; for event data only the T of the run
        segments: numbers of segments for rate; at each T, larger ones are skipped
        batches: to average over
        batch_size: images per batch; a smaller batch takes less memory
        root: folder of the data sets, if it has moved
    """
    from rich.console import Console
    from rich.progress import track

    from .. import evaluation, report
    from ..report.terminal import gradient_tables
    from ..run_folder import RunFolder

    rows = evaluation.gradient_microscope(
        run,
        timesteps=timesteps or None,
        segments=segments,
        batches=batches,
        batch_size=batch_size,
        root=root,
        track=functools.partial(track, description="comparing gradients"),
    )
    Console().print(*gradient_tables(rows))
    print(f"every layer: {RunFolder(run).gradients}")
    print(f"report: {report.write_report(run)}")


def robustness(
    run: Run,
    *,
    attacks: Annotated[tuple[str, ...], arg(metavar="ATTACK ...", help_behavior_hint="")] = (),
    eps: Annotated[tuple[float, ...], arg(metavar="EPS ...", help_behavior_hint="")] = (),
    timesteps: Annotated[tuple[int, ...], arg(metavar="K ...", help_behavior_hint="")] = (),
    steps: int = 50,
    through: Annotated[tuple[str, ...], arg(metavar="SURROGATE ...", help_behavior_hint="")] = (),
    restarts: int = 1,
    samples: int | None = None,
    batch_size: int = 100,
    seed: int = 0,
    checks: bool = True,
    corruptions: Flag = False,
    exits: Annotated[float | None, arg(metavar="THRESHOLD", help_behavior_hint="")] = None,
    twin: Annotated[Path | None, arg(metavar="RUN", help_behavior_hint="")] = None,
    step: Annotated[float | None, arg(metavar="LEVELS", help_behavior_hint="")] = None,
    targeted: Flag = False,
    root: Root = None,
) -> None:
    """Attack a trained run on test samples: its accuracy under adversarial changes and noise, at several numbers of timesteps.

    Every attack takes gradients through several surrogates in turn, each on what the ones before have left, because a network can
    withstand one surrogate and fall to another. The network itself stays as it is. An attack at k timesteps sees k timesteps.

    The attacks: fgsm, bim, pgd, apgd, apgd-dlr and sa-pgd use gradients. square tries random squares. random moves every pixel up
    or down, and noise is Gaussian with the standard deviation EPS. Each keeps every pixel within EPS / 255 of where it was, but
    for noise. cw looks for the nearest image that the network mistakes, without a bound.

    On event frames sparse adds and removes single events by their gradients, event-search without gradients, and random-events at
    random. EPS is then the number of changes in percent of a recording's events.

    Further rows check whether the others can be believed: no bound, twice the steps, square and random directions. A row that fails
    a check is marked.

    The results go to robustness.json in the run folder, and to its report.html. Results of batches are kept, and the same command
    goes on from there.

    Args:
        run: a run folder, such as runs/digits-twsd/seed0
        attacks: names of attacks; default noise fgsm pgd sa-pgd, or random-events sparse
        eps: sizes, in levels of 255 or percent of events; default 2 4 8, or 1 2 5
        timesteps: k at which the network is attacked; default 1 and T
        steps: of the attacks that have steps; square takes 20 times as many queries
        through: trained (the network's own surrogates), arctan, pdsg and assg (which follow the membranes), rate (mean rates),
            or any other; default all five
        restarts: starting points for each surrogate
        samples: of the test set, of all classes alike; default 500, or all if there are fewer
        batch_size: samples attacked at a time
        seed: of the starting points
        checks: measure the rows that check the others
        corruptions: also measure noise, blur, brightness, contrast, JPEG and pixelation in five severities
        exits: also attack the network that stops when its confidence reaches THRESHOLD: its answers, and its time
        twin: a run of an ANN on the same data, whose attacked images are tried on this network as one more check
        step: of pgd and bim, in levels of 255; default 2.5 times EPS divided by the steps
        targeted: attacks aim at the class after the label, and from further starts at those after it
        root: folder of the data sets, if it has moved
    """
    from rich.console import Console

    from .. import report
    from ..data.progress import progress
    from ..report.terminal import robustness_tables
    from ..robustness import Choices, measure_run
    from ..run_folder import RunFolder

    choices = Choices(
        attacks=attacks,
        eps=eps,
        timesteps=timesteps,
        steps=steps,
        step=step,
        targeted=targeted,
        through=through,
        restarts=restarts,
        samples=samples,
        batch_size=batch_size,
        seed=seed,
        checks=checks,
        corruptions=corruptions,
        exits=exits,
        twin=twin,
    )
    measured = measure_run(run, choices, root=root, track=functools.partial(progress, description="attacking"))
    Console().print(*robustness_tables(measured))
    print(f"every row: {RunFolder(run).robustness}")
    print(f"report: {report.write_report(run)}")


def write_report(
    run: Annotated[Positional[Path], arg(metavar="RUN_OR_LOGITS")],
    *,
    out: Annotated[Path | None, arg(metavar="PAGE", help_behavior_hint="")] = None,
    title: Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")] = None,
) -> None:
    """Write the report of an evaluated run anew, or a page of logits of any library.

    Logits [T, N, C] and labels [N] are the arrays logits and labels of an .npz or .safetensors file. The arrays classes (names),
    holdout_logits and holdout_labels (to fit temperatures on) are optional.

    Args:
        run: a run folder, such as runs/digits-twsd/seed0, or a file such as logits.npz
        out: for logits, the path of the page; default next to their file
        title: for logits, the title of the page
    """
    from rich.console import Console

    from .. import report
    from ..report.terminal import results_table

    if report.may_be_logits(run):
        page, results = report.write_logits_report(run, out=out, title=title)
        Console().print(results_table(results))
        print(f"report: {page}")
        return
    if out is not None or title is not None:
        raise UserError(f"--out and --title are for a file of logits, and {run} is none: leave them out")
    print(report.write_report(run))


def list_names(
    what: Positional[Literal["all", "recipes", "methods", "models", "objectives", "data"]] = "all",
) -> None:
    """Name the data sets, methods, models and objectives, and explain them.

    Args:
        what: recipes, methods, models, objectives or data, to explain these; default all names on one screen
    """
    from .listing import LISTS

    print(*LISTS[what](), sep="\n")


COMMANDS: dict[str, Callable[..., None]] = {
    "train": train,
    "evaluate": evaluate,
    "compare": compare,
    "gradients": gradients,
    "recalibrate": recalibrate,
    "robustness": robustness,
    "export": export,
    "predict": predict,
    "report": write_report,
    "list": list_names,
    "data": data,
}
# Second words of `spikedistill data`.
DATA_COMMANDS: dict[str, Callable[..., None]] = {"data prepare": prepare, "data info": info}
