"""The command line: `python -m benchmarks COMMAND`, from the root of the repository."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .contenders import SUITES
from .harness import measure
from .results import Results
from .run_options import Options
from .table import describe, print_table, rows_of, to_markdown, write_csv
from .workloads import NetworkWorkload, Workload

_HELP = """usage: python -m benchmarks COMMAND ...

  step        one training step of a network: an ordinary ANN, the gradient rules, other libraries, the convolutions alone
  objectives  one training step of a small network with SCE and with the objectives over timesteps
  neurons     one layer of neurons, forward and backward: a ReLU, ours, other libraries, the memory traffic alone
  inference   the logits of a batch: an ordinary ANN, ours, other libraries, the convolutions alone
  densities   a layer on spikes beside the dense layer, over the density of its spikes; goes on where it was stopped
  sparsity    accuracy, density and milliseconds of runs with penalties on spikes of different strength
  folds       methods on the recordings of N-MNIST at hand, by ten-fold cross-validation
  robust      objectives under attack, trained on images and on attacked images; goes on where it was stopped
  controls    methods over timesteps beside controls that train nothing for them; goes on where it was stopped
  papers      what the papers vary: weights, temperatures, teachers and controls; goes on where it was stopped
  along       how near ESD's gradients are to backpropagation through time, along training; goes on where it was stopped
  ours        ingredients one at a time, then together, on held-out images; goes on where it was stopped
  better      whether a method of a comparison is better than others at every k, in the mean and in its largest regret
  useful      accuracy against milliseconds of one image: spiking networks with early exit beside ordinary ones; goes on
  authors     TWKD by its authors' code and by ours, both pipelines whole; goes on where it was stopped
  exports     every network in every format: exported and checked, or what would be lost
  transformers  spiking transformers beside their authors' code: parameters, spikes of every layer, logits
  runtimes    milliseconds of one image in PyTorch, ONNX Runtime and ExecuTorch, beside the ANN
  profile     write the firing rates of a trained run's layers
  near        the gradient towards the input of neurons near their threshold alone, beside the dense one
  loading     images per second that training is given from a folder of JPEGs, beside PyTorch's own loader
  recordings  events per second that the readers of recordings decode, and that are counted into frames
  exits       what early exit saves on trained runs: thresholds calibrated on their held-out samples, and the seconds
  run         a whole run's images/s beside those of its bare step, and where the rest of the time goes
  checks      what it costs to look for NaN and infinity in a training step
  against     whether this code computes what an earlier commit did, to the bit, and as fast
  house       how scattered the ideas of the library are: files that an addition touches, parameters passed on, the LIF equation
  kernels     where the time of a training step goes: the kernels that take longest
  coverage    how often the intervals of a comparison contain the truth, and how often a difference is found: by simulation
  headline    the runs behind the published numbers, as far as the minutes go; goes on at the next call; see benchmarks/README.md
  split       cut a file or the folder of a run into shards that are small enough to carry
  join        make of shards again what they were cut from
  table       print the figures in a file, and write them as CSV
  plot        draw time and memory over T

  python -m benchmarks step --timesteps 1 2 4 --out step.jsonl   goes on where it was stopped; skips what is in the file
  python -m benchmarks table step.jsonl --to convolutions        ratios to another contender, taken within rounds
  python -m benchmarks COMMAND --help                            every option

Other libraries take part where they are installed: `make bench` runs everything in an environment that has them.
"""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How it is measured."""

    timesteps: tuple[int, ...]
    """The T to measure."""
    rounds: int = 15
    """Rounds of one step each at every T; 0 measures first step and memory alone."""
    contenders: tuple[str, ...] = ()
    """Only these, and the reference; default all."""
    fresh: bool = True
    """First step and peak memory, each in a process of its own."""
    out: Path | None = None
    """File of the raw figures, one JSON line each; default runs/bench/COMMAND.jsonl."""


def _measure(name: str, arguments: Sequence[str]) -> None:
    suite = SUITES[name]
    kind = type(suite.workload)

    def parse(work: Workload, plan: Plan) -> tuple[Workload, Plan]:
        return work, plan

    parse.__annotations__ = {
        "work": Annotated[kind, tyro.conf.OmitArgPrefixes],
        "plan": Annotated[Plan, tyro.conf.OmitArgPrefixes],
    }
    parse.__defaults__ = (suite.workload, Plan(suite.timesteps))
    parse.__doc__ = f"Contenders: {', '.join(suite.contenders)}. Ratios are taken to {suite.reference}."
    workload, plan = tyro.cli(parse, args=arguments, prog=f"python -m benchmarks {name}")
    results = Results(plan.out or Path("runs/bench") / f"{name}.jsonl")
    measure(
        name,
        suite,
        workload,
        results,
        timesteps=plan.timesteps,
        rounds=plan.rounds,
        contenders=plan.contenders,
        fresh=plan.fresh,
        command=shlex.join(["python", "-m", "benchmarks", name, *arguments]),
    )
    print(f"python -m benchmarks table {results.path}")


def _table(
    file: Annotated[Path, tyro.conf.Positional], to: str | None = None, csv: Path | None = None, markdown: bool = False
) -> None:
    """Print the figures in a file: medians over rounds, with quartiles of the ratios.

    Args:
        file: raw figures, as `step`, `neurons` or `inference` wrote them.
        to: the contender that ratios are taken to, within each round; default the benchmark's reference.
        csv: where the table is written as CSV; default beside the file.
        markdown: print tables for a document, contenders down and T across.
    """
    results = _read(file)
    rows = rows_of(results, to)
    write_csv(rows, csv or file.with_suffix(".csv"))
    if markdown:
        print(to_markdown(rows))
    else:
        print_table(rows, describe(results))


def _plot(file: Annotated[Path, tyro.conf.Positional], out: Path, to: str | None = None) -> None:
    """Draw time and peak memory over T.

    Args:
        file: raw figures, as `step`, `neurons` or `inference` wrote them.
        out: the SVG file.
        to: the contender that ratios are taken to; default the benchmark's reference.
    """
    from .plot import plot

    results = _read(file)
    rows = rows_of(results, to)
    plot(rows, to or SUITES[results.sessions[0]["suite"]].reference, out)
    print(out)


def _exits(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    max_drop: float = 0.2,
    batch_sizes: tuple[int, ...] = (64, 1),
    rounds: int = 15,
    anns: tuple[Path, ...] = (),
    threads: int = 2,
    out: Path = Path("runs/bench/exits.json"),
) -> None:
    """Calibrate exit policies on the held-out samples of trained runs, and measure what they give and save on the test set.

    Args:
        runs: run folders, trained with a hold-out.
        anns: run folders of ordinary networks on the same data set, timed beside them.
        threads: threads of PyTorch.
        max_drop: accuracy that may be lost on the held-out samples, in percentage points.
        batch_sizes: batches whose seconds are taken, under the policy "confidence".
        rounds: how often.
        out: the JSON file.
    """
    import torch

    from .exits import measure_exits, print_exits

    torch.set_num_threads(threads)
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    found = measure_exits(runs, max_drop, batch_sizes, rounds, command, anns)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print_exits(found)
    print(out)


def _run(options: Annotated[Options, tyro.conf.OmitArgPrefixes], out: Path = Path("runs/bench/run.json")) -> None:
    """Measure a whole run: images/s beside the bare step's, the shares of time, and microseconds per image of each augmentation.

    Args:
        options: the run.
        out: the JSON file.
    """
    from .run import measure_run, print_run

    found = measure_run(options, shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print_run(found)
    print(out)


def _checks(timesteps: int = 4, rounds: int = 15, model: str = "resnet18", batch: int = 16, threads: int = 2) -> None:
    """Time the checks of a training step, alone, beside the step itself.

    Args:
        timesteps: T.
        rounds: how often.
        model: one of `spikedistill list models`.
        batch: images in a step.
        threads: of PyTorch.
    """
    from .checks import check_seconds, describe_checks

    work = NetworkWorkload(model=model, batch=batch, threads=threads)
    print(f"{model}, batch {batch}, T={timesteps}: {describe_checks(check_seconds(work, timesteps, rounds))}")


def _against(
    commit: Annotated[str, tyro.conf.Positional],
    recipes: tuple[str, ...] | None = None,
    rounds: int = 0,
    width: float = 1.0,
    imports: int = 0,
) -> None:
    """Train twenty steps of digits under every gradient rule with this code and with that of a commit, and compare what they leave.

    Args:
        commit: the earlier one, by any name that git knows.
        recipes: the part behind `digits-` of the recipes to train; eight by default, and none for speed only.
        rounds: pairs of training steps of `resnet18` to time under bptt and under rate; 0 for none.
        width: of that network.
        imports: pairs of processes to time that import the library; 0 for none.
    """
    from .against import RECIPES, compare_imports, compare_losses, compare_steps

    found = compare_losses(commit, RECIPES if recipes is None else recipes)
    # of what both refuse, the words may have changed
    different = [
        name
        for name, (before, now) in found.items()
        if before != now and not before.keys() == now.keys() == {"refused"}
    ]
    for name, (_, now) in found.items():
        same = "DIFFERENT" if name in different else "the same"
        print(
            f"{name:34} {same:10} {'refused: ' + now['refused'] if 'refused' in now else 'last loss ' + now['losses'][-1]}"
        )
    if rounds:
        for rule, (ratio, low, high) in compare_steps(commit, rounds, width=width).items():
            print(f"a step under {rule}: {ratio:.3f} [{low:.3f}, {high:.3f}] of that of {commit}, {rounds} rounds")
    if imports:
        ratio, low, high = compare_imports(commit, imports)
        print(f"import spikedistill: {ratio:.3f} [{low:.3f}, {high:.3f}] of that of {commit}, {imports} pairs")
    if different:
        raise ValueError(f"{len(different)} of {len(found)} differ from {commit}: {'; '.join(different)}")


def _densities(
    out: Path = Path("runs/bench/densities.jsonl"), rounds: int = 31, threads: int = 2, plot: Path | None = None
) -> None:
    """Measure layers on spikes beside dense ones over the density of the spikes, or draw what was measured.

    Args:
        out: file of the figures, one JSON line each.
        rounds: of each density, in which the dense, the sparse and the chosen layer take turns.
        threads: of PyTorch.
        plot: draw the file into this SVG instead of measuring.
    """
    from .over_density import draw, measure_layers

    if plot is not None:
        draw(out, plot)
        print(plot)
        return
    measure_layers(out, rounds, threads, shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))


def _loading(
    folder: Path = Path("runs/bench/images"),
    images: int = 12_000,
    rounds: int = 3,
    workers: tuple[int, ...] = (1, 2),
    out: Path = Path("runs/bench/loading.jsonl"),
) -> None:
    """Measure images per second that training is given, beside the bare rate of one process and PyTorch's own loader.

    Args:
        folder: where the images are written, if they are not there.
        images: how many, of 400 x 350 pixels, in 100 classes.
        rounds: epochs of each way, in turns.
        workers: numbers of processes that read ahead.
        out: file of the figures, one JSON line each.
    """
    from rich.console import Console
    from rich.table import Table

    from .loading import measure_loading

    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    table = Table(box=None)
    for title in ("way", "images/s", "quartiles", "resident MiB after each epoch"):
        table.add_column(title, no_wrap=True)
    for row in measure_loading(folder, images, rounds, workers, out, command):
        memory = " ".join(map(str, row["resident_mib"]))
        table.add_row(row["way"], f"{row['images_per_second']:g}", f"{row['low']:g} to {row['high']:g}", memory)
    Console().print(table)
    print(out)


def _recordings(events: int = 4_000_000, rounds: int = 9, out: Path = Path("runs/bench/recordings.jsonl")) -> None:
    """Measure how many events a second the readers of recordings decode, on one core, from files that this command writes.

    Args:
        events: in each file.
        rounds: of all formats, in turns.
        out: file of the figures, one JSON line each.
    """
    from rich.console import Console
    from rich.table import Table

    from .recordings import measure_recordings

    table = Table(box=None)
    for title in ("what", "million events/s", "quartiles"):
        table.add_column(title, no_wrap=True)
    for row in measure_recordings(events, rounds, out, shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])):
        table.add_row(row["what"], f"{row['median']:g}", f"{row['low']:g} to {row['high']:g}")
    Console().print(table)
    print(out)


def _sparsity(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    out: Path = Path("runs/bench/sparsity.jsonl"),
    rounds: int = 15,
    batch: int = 16,
    threads: int = 2,
    plot: Path | None = None,
) -> None:
    """Time the networks of trained runs, and write what each has learned and how densely it fires; or draw such files.

    Args:
        runs: folders of runs, or with --plot the files to draw.
        out: a file of JSON lines.
        rounds: in which all runs take turns.
        batch: test images at once.
        threads: of PyTorch.
        plot: an SVG to draw into.
    """
    from .sparsity import draw, measure_sparsity, table_of

    if plot is not None:
        draw(runs, plot)
        print(plot)
        return
    measure_sparsity(runs, out, rounds, batch, threads, shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))
    for row in table_of(out):
        print(
            f"weight {row['firing_weight']:g}: {row['accuracy_1']:.2f} ± {row['accuracy_1_std']:.2f} % at k=1, "
            f"{row['accuracy_T']:.2f} ± {row['accuracy_T_std']:.2f} % at T, density {row['density']:.3f}, {row['ms']:.2f} ms, "
            f"dense {row['dense_ms']:.2f} ms"
        )


def _near(rounds: int = 15, out: Path = Path("runs/bench/near.jsonl")) -> None:
    """Time the gradient towards the input of neurons near their threshold, as a surrogate of bounded support would need it.

    Args:
        rounds: how often.
        out: the file of lines.
    """
    from .near import measure_near, to_markdown

    print(to_markdown(measure_near(out, rounds, shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))))
    print(out)


def _folds(
    root: Path,
    timesteps: int = 5,
    epochs: int = 10,
    seeds: tuple[int, ...] = (0, 1, 2),
    jobs: int = 1,
    study: Literal["methods", "s2w"] = "methods",
    methods: tuple[str, ...] = (),
    runs: Path = Path("runs/nmnist"),
    out: Path = Path("runs/bench/folds.json"),
) -> None:
    """Train methods on every fold of the recordings of N-MNIST at hand; goes on where it was stopped.

    The hours that it will take are printed first.

    Args:
        root: the data root, with N-MNIST in it.
        timesteps: T, frames of a recording.
        epochs: of every run.
        seeds: of every fold.
        jobs: runs at a time.
        study: six methods, or what S2W's paper varies.
        methods: other ones, with their settings behind commas, such as s2w,objective.options.measure=random
        runs: folder of the folds and runs.
        out: the JSON file.
    """
    from . import folds

    plan = folds.Plan(timesteps, epochs, seeds, jobs, methods or folds.STUDIES[study])
    made = folds.write_folds(root, runs / "folds")
    print(folds.budget(made, plan), flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    found = folds.study(made, runs, plan, out, shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))
    print(folds.to_markdown(found))
    print(out)


def _robust(
    root: Path,
    out: Path,
    dataset: Literal["fashion_mnist", "cifar10"] = "fashion_mnist",
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    samples: int = 10_000,
    epochs: int = 6,
    tested: int = 500,
    steps: int = 50,
    jobs: int = 2,
    runs: Path = Path("runs/robust"),
) -> None:
    """Train objectives on images and on attacked images, and attack all; goes on where it was stopped.

    The hours that it will take are printed first.

    Args:
        root: the data root.
        out: file of JSON lines, one for each run.
        dataset: what is trained on.
        seeds: of every objective; the first is checked.
        samples: images of training.
        epochs: of training.
        tested: images that are attacked.
        steps: of an attack.
        jobs: processes.
        runs: folder of the runs.
    """
    from .robust import Plan, budget, study, to_markdown

    plan = Plan(root, runs / dataset, dataset, seeds, samples, epochs, tested, steps, jobs)
    print(budget(plan), flush=True)
    print(to_markdown(study(plan, out, shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))))
    print(out)


def _controls(
    root: Path,
    out: Path = Path("runs/controls"),
    dataset: str = "fashion_mnist",
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    samples: int = 20_000,
    epochs: int = 30,
    jobs: int = 2,
) -> None:
    """Train methods and controls, and compute the batch-norm statistics of every run anew; goes on where it was stopped.

    The hours that it will take are printed first.

    Args:
        root: the data root.
        out: folder of the comparison.
        dataset: what is trained on.
        seeds: of every method.
        samples: images of training.
        epochs: of training.
        jobs: processes.
    """
    from .controls import budget, draw, smallest, study, to_markdown
    from .plans import Plan

    plan = Plan(root, out, dataset, seeds, samples, epochs, jobs)
    print(budget(plan), flush=True)
    study(plan, shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))
    print(to_markdown(out))
    print("a difference at k=1 is found in four of five studies from {:.2f} to {:.2f} points on".format(*smallest(out)))
    draw(out, out / "controls.svg")
    print(out / "controls.svg")


def _along(
    root: Path,
    out: Path = Path("runs/bench/along.jsonl"),
    dataset: str = "fashion_mnist",
    seeds: tuple[int, ...] = (0, 1, 2),
    samples: int = 10_000,
    epochs: int = 10,
    jobs: int = 2,
) -> None:
    """Train on rate-based gradients, with heads (ESD) and without, and compare the gradients with those of BPTT after each epoch.

    The hours that it will take are printed first.

    Args:
        root: the data root.
        out: file of JSON lines, one for each run.
        dataset: what is trained on.
        seeds: of both.
        samples: images of training.
        epochs: of training.
        jobs: processes, of one thread each.
    """
    from .along_training import budget, draw, study, to_markdown
    from .plans import Plan

    plan = Plan(root, Path(), dataset, seeds, samples, epochs, jobs)
    print(budget(plan), flush=True)
    found = study(plan, out, shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))
    print(to_markdown(found))
    draw(found, out.with_suffix(".svg"))
    print(out.with_suffix(".svg"))


def _ours(
    root: Path,
    out: Path = Path("runs/bench/ours.jsonl"),
    dataset: str = "fashion_mnist",
    seeds: tuple[int, ...] = (100, 101, 102, 103, 104),
    samples: int = 10_000,
    epochs: int = 5,
    jobs: int = 2,
    runs: Path = Path("runs/ours"),
    settings: tuple[str, ...] = (),
) -> None:
    """Try ingredients of a recipe alone and together, and as many weights of other methods; goes on where it was stopped.

    The hours that it will take are printed first. No trial is judged by test images.

    Args:
        root: the data root.
        out: file of JSON lines, one for each run.
        dataset: what is trained on.
        seeds: of every trial.
        samples: images of training; a tenth of the whole training set is held out besides.
        epochs: of training.
        jobs: processes, of one thread each.
        runs: folder of the runs.
        settings: of every run, such as model.width=0.25 data.batch-size=32
    """
    from .ours import budget, study, to_markdown
    from .plans import Plan

    plan = Plan(root, runs / dataset, dataset, seeds, samples, epochs, jobs, settings)
    print(budget(plan), flush=True)
    print(to_markdown(study(plan, out, shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])), seeds))
    print(out)


def _better(
    folder: Annotated[Path, tyro.conf.Positional], ours: str, against: tuple[str, ...] = (), margin: float = 0.3
) -> None:
    """Compare a method with others of a finished comparison, corrected for their number.

    Args:
        folder: of the comparison, with its records.
        ours: the method.
        against: the others, among which the largest regret is taken too; default all in the folder.
        margin: points that it may lose at a k.
    """
    from spikedistill.evaluation.comparison.differences import FEWEST_SEEDS

    from .better import methods_of, to_markdown, verdicts

    found = methods_of(folder, (ours, *against) if against else ())
    known = {*found.names}
    for teacher in found.lost_teachers:
        print(f"{teacher} diverged: methods that learn from it have no runs here\n")
    if unknown := [name for name in (ours, *against) if name not in known]:
        raise ValueError(f"{folder} has no {unknown[0]}, only {', '.join(methods_of(folder).names)}")
    if ours in found.diverged:
        with_seeds = ", ".join(map(str, found.diverged[ours]))
        raise ValueError(f"{ours} diverged with the seeds {with_seeds}: a method that diverges is not better")
    if known == {ours}:
        raise ValueError(f"{folder} has nothing to compare {ours} with: name other methods than itself")
    seeds = len(found.right[ours]) if found.right else 0
    others = {name: right for name, right in found.right.items() if name != ours}
    if (others or not found.right) and seeds < FEWEST_SEEDS:
        raise ValueError(
            f"{folder} has {seeds} seeds with which all were trained, expected {FEWEST_SEEDS} or more: p-values are for new seeds"
        )
    for name, lost in found.diverged.items():
        said = "these are left out for all" if name in others else "that is all of them"
        print(f"{name} diverged with the seeds {', '.join(map(str, lost))}: {said}\n")
    if others:
        print(to_markdown(verdicts(found.right[ours], others, margin), ours))


def _useful(
    root: Path,
    out: Path = Path("runs/bench/useful.jsonl"),
    dataset: str = "cifar10",
    seeds: tuple[int, ...] = (0, 1, 2),
    samples: int = 20_000,
    epochs: int = 4,
    rounds: int = 15,
    runs: Path = Path("runs/useful"),
) -> None:
    """Train spiking and ordinary networks, and measure accuracy and milliseconds of one image; goes on where it was stopped.

    The hours that it will take are printed first. Nothing else should run on the machine.

    Args:
        root: the data root.
        out: file of JSON lines, one for each seed.
        dataset: what is trained on.
        seeds: of every network.
        samples: images of training; a tenth of the whole training set is held out besides.
        epochs: of training.
        rounds: in which the networks take turns.
        runs: folder of the runs.
    """
    from .plans import Plan
    from .useful import budget, draw, study, to_markdown

    plan = Plan(root, runs, dataset, seeds, samples, epochs, 1)
    print(budget(plan), flush=True)
    found = study(plan, out, rounds, shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))
    print(to_markdown(found))
    draw(found, out.with_suffix(".svg"))
    print(out.with_suffix(".svg"))


def _authors(
    reference: Path,
    libraries: Path,
    root: Path,
    out: Path,
    seeds: tuple[int, ...] = (0, 1, 2, 3),
    samples: int = 9_984,
    epochs: int = 30,
    timesteps: int = 4,
    runs: Path = Path("runs/authors"),
) -> None:
    """Train TWKD on CIFAR-10 by its authors' code and by ours, and compare both at every k; goes on where it was stopped.

    It needs two libraries in a folder of their own, because Lightning does not import beside a torchvision that was
    built for another PyTorch: pip install --no-deps --target FOLDER torchvision spikingjelly==0.0.0.0.14

    Args:
        reference: a copy of the authors' repository, github.com/Intelli-Chip-Lab/snn_temporal_decoupling_distillation.
        libraries: the folder that these were installed into.
        root: the data root.
        out: file of JSON lines, one for each run.
        seeds: of both.
        samples: images of training, whole batches of 128.
        epochs: of training.
        timesteps: T.
        runs: folder of the runs.
    """
    from .authors import Plan, budget, study, to_markdown

    plan = Plan(reference, libraries, root, runs, seeds, samples, epochs, timesteps)
    print(budget(plan), flush=True)
    print(to_markdown(study(plan, out, shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))))
    print(out)


def _papers(
    root: Path,
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    out: Path = Path("runs/papers"),
    dataset: str = "fashion_mnist",
    seeds: tuple[int, ...] = (0, 1, 2),
    samples: int = 10_000,
    epochs: int = 10,
    jobs: int = 2,
    settings: tuple[str, ...] = (),
) -> None:
    """Compare methods with their own variants, one study after another; goes on where it was stopped.

    The hours that it will take are printed first.

    Args:
        root: the data root.
        names: studies; default all.
        out: folder of the comparisons.
        dataset: what is trained on.
        seeds: of every method.
        samples: images of training.
        epochs: of training.
        jobs: processes.
        settings: of every run, such as model.width=0.25
    """
    from .papers import STUDIES, budget, run_all
    from .plans import Plan

    if unknown := set(names) - set(STUDIES):
        raise ValueError(f"no study is called {', '.join(sorted(unknown))}: choose among {', '.join(STUDIES)}")
    plan, chosen = Plan(root, out, dataset, seeds, samples, epochs, jobs, settings), names or tuple(STUDIES)
    print(budget(plan, chosen), flush=True)
    run_all(plan, chosen)


def _transformers(
    references: Path,
    libraries: Path | None = None,
    networks: tuple[str, ...] = (),
    out: Path = Path("runs/bench/transformers.json"),
) -> None:
    """Copy the weights of released spiking transformers into ours, and compare parameters, spikes and logits in float64.

    Args:
        references: a folder with copies of the authors' repositories ZK-Zhou/spikformer, BICLab/Spike-Driven-Transformer,
            zhouchenlin2096/QKFormer and bic-L/MaxFormer.
        libraries: a folder with spikingjelly 0.0.0.0.12, whose neurons their code uses.
        networks: only these of ours; default all.
        out: the JSON file.
    """
    if libraries is not None:
        sys.path.append(str(libraries))
    from .transformers import compare_released, to_markdown

    print(to_markdown(compare_released(references, out, "python -m benchmarks transformers", networks)))


def _exports(out: Path = Path("runs/bench/exports.json")) -> None:
    """Export every network of the registry in every format, and check each; in an environment that has all runtimes.

    Args:
        out: the JSON file.
    """
    from .exports import measure_exports, to_markdown

    print(to_markdown(measure_exports(out, shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))))
    print(out)


def _runtimes(
    run: Annotated[Path, tyro.conf.Positional],
    ann: Path,
    images: int = 200,
    rounds: int = 7,
    scratch: Path = Path("runs/bench/runtimes"),
    out: Path = Path("runs/bench/runtimes.json"),
) -> None:
    """Time a trained network and its ANN twin in PyTorch, ONNX Runtime and ExecuTorch, one image at a time on one thread.

    Args:
        run: the folder of the spiking run.
        ann: the folder of the ANN's run.
        images: of the test set.
        rounds: how often.
        scratch: folder for exported files.
        out: the JSON file.
    """
    from .runtimes import measure_runtimes, to_markdown

    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    found = measure_runtimes(run, ann, scratch, images, rounds, command)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(to_markdown(found))
    print(out)


def _profile(run: Annotated[Path, tyro.conf.Positional], out: Path, images: int = 256) -> None:
    """Write the firing rate of every layer of a trained run on test images.

    Args:
        run: the folder of the run.
        out: a JSON file.
        images: so many.
    """
    from .trained_weights import write_profile

    written = write_profile(run, out, images)
    print(f"{out}: mean {written['mean']:.3f} over {len(written['rates'])} layers")


def _house(commits: Annotated[tuple[str, ...], tyro.conf.Positional] = (), details: bool = False) -> None:
    """Count, in the sources of commits and in those that lie here, how many files an addition touches, and what is said twice.

    Args:
        commits: earlier ones, by any names that git knows.
        details: also print what was counted here.
    """
    from . import house

    houses = {commit: house.House.of(commit) for commit in commits} | {"now": house.House.of()}
    print(house.to_markdown(houses))
    if details:
        print(house.details(houses["now"]))


def _coverage(
    seeds: tuple[int, ...] = (3, 4, 5, 8, 10),
    trials: int = 20_000,
    samples: int = 200,
    noises: tuple[float, ...] = (0.0, 0.5),
    differences: tuple[float, ...] = (0.0, 2.0, 3.0, 4.0),
    answers: bool = True,
    seed: int = 0,
    out: Path = Path("runs/bench/coverage.json"),
) -> None:
    """Simulate comparisons, and count how often their intervals contain the true difference.

    Args:
        seeds: the S of the grid, crossed with shares of the variance that come from seeds, from none to all.
        trials: comparisons at every point of the grid.
        samples: N, test samples of each.
        noises: shares, of the variance that comes from seeds, which are of seeds and images together.
        differences: true differences, in standard errors, at which power is counted; 0 gives the error of the first kind.
        answers: simulate right and wrong answers as well, of 2,000 test samples.
        seed: of the draws.
        out: the JSON file.
    """
    from rich.progress import track

    from .coverage import SHARES, Case, simulate, simulate_answers, to_markdown, widths

    grid = [Case(S, share, noise) for S in seeds for share in SHARES for noise in noises if share > 0 or noise == 0]
    found = [
        simulate(case, trials, samples, differences, seed) for case in track(grid, "normal scores", transient=True)
    ]
    plan = [(S, spread) for S in seeds for spread in (0.1, 0.5, 2.0)] if answers else []
    right = [
        simulate_answers(S, trials // 4, 2000, spread, seed)
        for S, spread in track(plan, "right and wrong answers", transient=True)
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        json.dumps({"trials": trials, "samples": samples, "scores": found, "answers": right}, indent=1) + "\n"
    )
    print(to_markdown(found, differences), widths(seeds), sep="\n\n")
    for row in right:
        print(f"answers, {row['seeds']} seeds, {row['spread']:g} points between runs: {row['coverage']:.1f} percent")
    print(out)


def _headline(
    out: Path,
    minutes: float = 9.0,
    batch: int | None = None,
    data_root: Path | None = None,
    first: int | None = None,
    bring: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Train the runs behind the published numbers in their order, and set them beside what papers report.

    Args:
        out: folder of all runs, with records.jsonl, table.csv, differences.csv, results.json and headline.png.
        minutes: of this call; a run that is not finished then is stopped with a checkpoint. 0 only writes the tables.
        batch: images in a step, with the learning rate scaled; as published by default.
        data_root: folder of the data sets; the environment variable SPIKEDISTILL_DATA by default.
        first: only so many runs of the list, from its beginning.
        bring: folder into which records, tables and shards are copied that leave the machine: 8 files of 16 MiB, 64 MiB in all.
        dry_run: one epoch of 512 images of noise on a CPU, to try everything but the numbers.
    """
    from .headline import headline
    from .headline_runs import RUNS, Choices

    for run, became in headline(out, minutes, Choices(batch, data_root, dry_run), RUNS[:first], bring).items():
        print(f"{became:12} {run}")
    print(out / "table.csv")


def _kernels(
    timesteps: int = 4,
    model: str = "resnet18",
    batch: int = 512,
    width: float = 1.0,
    device: str = "cuda",
    precision: Literal["float32", "bf16"] = "bf16",
    measure_s: float = 5.0,
    out: Path = Path("runs/bench/kernels.json"),
) -> None:
    """Time and profile a training step.

    Args:
        timesteps: T.
        model: one of `spikedistill list models`.
        batch: images in a step.
        width: factor on every hidden channel count.
        device: cuda or cpu.
        precision: of convolutions and currents.
        measure_s: seconds of steps that are timed before some are profiled.
        out: the JSON file.
    """
    from .kernels import kernels
    from .results import machine

    work = NetworkWorkload(precision, device, model=model, width=width, batch=batch, classes=100, channels_last=True)
    measured = kernels(work, timesteps, measure_s=measure_s)
    about = {"model": model, "timesteps": timesteps, "batch": batch, "precision": precision, "machine": machine(device)}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(about | measured, indent=1) + "\n")
    print(
        f"{model}, T={timesteps}, batch {batch}: {measured['ms']:.2f} ms a step, {measured['images_per_s']:.0f} images/s"
    )
    for kernel in measured["kernels"]:
        print(f"{kernel['ms']:9.3f} ms {100 * kernel['share']:5.1f} %  {kernel['calls']:6.0f} x  {kernel['name']}")
    print(out)


def _split(what: Annotated[Path, tyro.conf.Positional], to: Path, root: Path = Path(), mib: float = 16.0) -> None:
    """Cut a file, or the folder of a run, into shards.

    Args:
        what: the file or folder, below the root.
        to: where the shards are written.
        root: folder that names are relative to.
        mib: the size of a shard, at most.
    """
    from .shards import Whole, write_shards

    for name in write_shards([Whole.of(root, what.as_posix())], to, files=10_000, mib=1e9, each=mib, known=set()):
        print(to / name)


def _join(shards: Annotated[tuple[Path, ...], tyro.conf.Positional], to: Path) -> None:
    """Make of shards what they were cut from; nothing is written where one is missing or damaged.

    Args:
        shards: all shards of one or several files or folders.
        to: the folder that their names are relative to.
    """
    from .shards import join

    for whole in join(shards):
        print(whole.write(to))


def _read(file: Path) -> Results:
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: expected the raw figures of a benchmark, such as step.jsonl")
    return Results(file)


def main(arguments: Sequence[str]) -> int:
    """Run one command; exit code 2 is the user's mistake."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP, end="")
        return 0 if arguments else 2
    command, rest = arguments[0], arguments[1:]
    others: dict[str, Callable[..., None]] = {
        "against": _against,
        "checks": _checks,
        "coverage": _coverage,
        "densities": _densities,
        "exits": _exits,
        "folds": _folds,
        "robust": _robust,
        "controls": _controls,
        "along": _along,
        "ours": _ours,
        "better": _better,
        "useful": _useful,
        "authors": _authors,
        "papers": _papers,
        "exports": _exports,
        "transformers": _transformers,
        "runtimes": _runtimes,
        "headline": _headline,
        "house": _house,
        "join": _join,
        "kernels": _kernels,
        "loading": _loading,
        "near": _near,
        "profile": _profile,
        "recordings": _recordings,
        "sparsity": _sparsity,
        "split": _split,
        "table": _table,
        "plot": _plot,
        "run": _run,
    }
    try:
        if command in SUITES:
            _measure(command, rest)
        elif command in others:
            tyro.cli(others[command], args=rest, prog=f"python -m benchmarks {command}")
        else:
            raise ValueError(f"no command is called {command!r}: choose one of {', '.join((*SUITES, *others))}")
    except (ValueError, FileNotFoundError) as error:
        print(f"python -m benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
