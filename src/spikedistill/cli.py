"""The command line: parse, call, print.

Exit codes: 0 done, 2 the user's mistake (a message of one line), 1 anything else (a traceback, which is a bug of ours).
"""

import argparse
import contextlib
import io
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .stopping import GRACE, stoppable

if TYPE_CHECKING:
    from rich.table import Table

    from .config import Config

# of the validation library, whose errors would otherwise end in a link; read when it is imported
os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")

_TRAIN_HELP = """usage: spikedistill train RECIPE [--key value ...]

Trains one run, scores it at every number of timesteps and writes a report.

  spikedistill train digits-twsd                        seconds, no download
  spikedistill train fashion_mnist-s2w --epochs 3       needs --data.root or SPIKEDISTILL_DATA
  spikedistill train fashion_mnist-s2w --resume auto    goes on where it was stopped
  spikedistill train digits-twsd --help                 every setting of that recipe, with its default
  spikedistill train runs/demo/config.yaml --out again  repeats an earlier run

A recipe is <dataset>-<method>.
  datasets: {datasets}
  methods:  {methods}
--protocol NAME replaces the settings of the data set by a paper's: {protocols}.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="spikedistill",
        description="Train deep spiking neural networks by distillation across time, and deploy them at any number of timesteps.",
        epilog="spikedistill COMMAND --help explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"spikedistill {version('spikedistill')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (run, summary) in _COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False).set_defaults(run=run)
    known, rest = parser.parse_known_args(arguments[:1])
    return _run(known.command, known.run, [*rest, *arguments[1:]])


def _run(command: str, run: Callable[[list[str]], None], arguments: list[str]) -> int:
    """Run a command, and say in one line what ended it."""
    hint = {"compare": "; the same command goes on", "train": "; the same command with --resume auto goes on"}
    try:
        # a comparison waits for its runs, which have the grace themselves
        with stoppable(grace=GRACE + 5 if command == "compare" else GRACE):
            run(arguments)
            sys.stdout.flush()  # where nobody reads any more it is noticed here
    except BrokenPipeError:
        # whoever read the output has enough of it; nothing may be written as Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError, MemoryError) as error:
        print(f"spikedistill {command}: {error or 'there is not enough memory'}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped" + hint.get(command, ""), file=sys.stderr)
        return 1
    except Exception as error:
        from .run_folder import RunDiverged, RunFailed, RunStopped, is_out_of_memory

        if is_out_of_memory(error):
            what = " ".join(str(error).split())[:160]
            print(
                f"spikedistill {command}: not enough memory ({what}): choose less of what it was for", file=sys.stderr
            )
            return 2
        if not isinstance(error, RunDiverged | RunFailed | RunStopped):
            raise
        print(
            f"spikedistill {command}: {error}{hint['train'] if isinstance(error, RunStopped) else ''}", file=sys.stderr
        )
        return 1
    return 0


def _train(arguments: list[str]) -> None:
    from .recipes import PROTOCOLS, list_methods, recipe
    from .recipes.catalogue import DATASETS

    if not arguments or arguments[0] in ("-h", "--help"):
        names = {"datasets": [*DATASETS], "methods": list_methods(), "protocols": [*PROTOCOLS]}
        print(_TRAIN_HELP.format(**{what: ", ".join(of_kind) for what, of_kind in names.items()}))
        if not arguments:
            raise UserError("no recipe was named: say which, such as spikedistill train digits-twsd")
        return
    if arguments[0].startswith("-"):
        raise UserError(
            f"expected a recipe before {arguments[0]}, such as spikedistill train digits-twsd {arguments[0]}"
        )
    named = Path(arguments[0])
    default = from_file(named) if named.suffix in (".yaml", ".yml") else recipe(arguments[0])
    config = parse_config(default, arguments[1:])

    from .objectives import create_objective
    from .recipes import protocol_line
    from .run_folder import RunFolder
    from .training import is_main_process, train

    followed = protocol_line(config) if config.protocol else None
    if is_main_process(config.trainer):
        print(
            f"{config.recipe}: loss = {create_objective(config.objective.name, **config.objective.options)}", flush=True
        )
        if followed:
            print(followed, flush=True)
    folder = train(config)
    if is_main_process(config.trainer):
        _print_results(RunFolder(folder).read_figures(), folder)


def from_file(path: Path) -> "Config":
    """The configuration of an earlier run, to be run anew in a folder of its own.

    Raises:
        FileNotFoundError: where there is no such file.
        UserError: where it is no configuration.
    """
    from .config import Config

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: expected the config.yaml of a run, or a recipe")
    from .run_folder import RunFolder

    folder = RunFolder(path.parent)
    of_run = path.name == folder.config_file.name and folder.manifest() is not None
    config = folder.config() if of_run else Config.from_yaml(path.read_bytes(), origin=str(path))
    return config.model_copy(update={"out": None, "resume": "never", "overwrite": False})


def parse_config(default: "Config", arguments: Sequence[str]) -> "Config":
    """The configuration with `--key value` overrides applied.

    Another `--objective.name` brings its own options, so that they can be set in the same call, `--model.neuron relu` takes
    the settings of spiking neurons with it, and `--protocol` brings a paper's settings, over which all others win.

    Raises:
        UserError: for a value that is refused.
    """
    import tyro

    from .config import Config, ConfigError
    from .recipes import with_objective, with_protocol

    chosen = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chosen.add_argument("--objective.name", dest="name")
    chosen.add_argument("--model.neuron", dest="neuron")
    chosen.add_argument("--data.name", dest="dataset")
    chosen.add_argument("--gradient")
    chosen.add_argument("--protocol")
    options = chosen.parse_known_args(arguments)[0]
    if options.name is not None:
        default = with_objective(default, options.name)
    if options.neuron == "relu":
        default = default.model_copy(update={"model": default.model.as_ann()})
    if options.protocol not in (None, "None"):
        # what a protocol's values depend on
        data = default.data.model_copy(update={"name": options.dataset or default.data.name})
        update = {"data": data, "gradient": options.gradient or default.gradient}
        default = with_protocol(default.model_copy(update=update), options.protocol)
    boxed = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxed):
            return tyro.cli(
                Config,
                default=default,
                args=arguments,
                prog=f"spikedistill train {default.recipe}",
                description=f"Train the recipe {default.recipe}.",
            )
    except SystemExit as stop:
        if stop.code != 2:
            raise
        error: BaseException | None = stop
        while error is not None and not isinstance(error, ConfigError):
            error = error.__context__
        raise error or UserError(_in_one_line(boxed.getvalue())) from None


def _in_one_line(box: str) -> str:
    """What tyro says in a box, below its title: the first paragraph, and the flags that it takes to be meant."""
    parts: list[list[str]] = [[]]
    for row in box.splitlines():
        text = row.strip("╭╮╰╯│─ ")
        if row.startswith("╭"):  # a title in the border
            parts = [[text], []]
        elif text.strip("-"):
            parts[-1].append(text)
        elif text or row.strip("│ "):  # a rule
            parts.append([])
    said, *others = parts[1:] or parts
    meant = [
        text.split()[0] for rows in others for text in rows if "Perhaps you meant:" in rows and text.startswith("--")
    ]
    return " ".join(" ".join(said).split()) + (f"; perhaps you meant {' or '.join(meant)}" if meant else "")


def variant(text: str, settings: Sequence[str]) -> "Config":
    """The configuration of `RECIPE,key=value,flag,...`, which keeps that text as its name."""
    from .recipes import recipe

    name, *changes = text.split(",")
    own = []
    for change in changes:
        if not change:
            raise UserError(f"{text!r} has an empty setting: expected RECIPE,key=value,... without a comma too many")
        key, given, value = change.partition("=")
        own += [f"--{key}", value] if given else [f"--{key}"]
    default = recipe(name)
    config = parse_config(default, [*settings, *own])
    for key in ("seed", "out", "resume", "overwrite"):
        if getattr(config, key) != getattr(default, key):
            raise UserError(
                f"{key} is not for one run of a comparison: it has --seeds and --out, and goes on by itself"
            )
    return config.model_copy(update={"recipe": text})


def _evaluate(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "spikedistill evaluate", description="Score a trained run at every k = 1..T again."
    )
    parser.add_argument("run", type=Path, help="a run folder, such as runs/digits-twsd/seed0")
    parser.add_argument("--data.root", dest="root", type=Path, help="folder of the data sets, where it has moved")
    options = parser.parse_args(arguments)

    from .evaluation import evaluate
    from .report import write_report

    results = evaluate(options.run, root=options.root)
    write_report(options.run)
    _print_results(results, options.run)


def _compare(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "spikedistill compare",
        description="Train recipes with several seeds, skip what is finished, go on with what was stopped, and compare.",
        epilog="Every setting of `spikedistill train` may follow, for all runs: --epochs 5 --timesteps 4 --model.width 0.5",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--recipes",
        nargs="+",
        required=True,
        help="two or more of one data set, the first is the baseline; settings of one recipe alone follow it after commas: "
        "fashion_mnist-rate,segments=2",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="0 1 2 where left out")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the comparison; runs go to <recipe>/seed<k> in it"
    )
    parser.add_argument(
        "--equal-time",
        type=Path,
        metavar="FOLDER",
        help="give every method the training time of the first, with the weights it had in this finished comparison",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="choose the weights of each method first, times 0.5, 1 or 2, by one run each and its accuracy on held-out samples",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="runs to train at a time, 1 where left out: they share the cores, or take one GPU each where there are several",
    )
    parser.add_argument(
        "--retry-diverged", action="store_true", help="train the runs again that diverged; by default they are left"
    )
    options, settings = parser.parse_known_args(arguments)

    from .comparisons import compare
    from .recipes import protocol_line

    configs = [variant(text, settings) for text in options.recipes]
    for config in configs:
        if config.protocol:
            print(f"{config.recipe}: {protocol_line(config)}", flush=True)
    repeat = [argument for argument in arguments if argument != "--retry-diverged"]
    command = shlex.join(["spikedistill", "compare", *repeat])
    rows = compare(
        configs,
        options.seeds,
        options.out,
        equal_time=options.equal_time,
        tune=options.tune,
        jobs=options.jobs,
        retry_diverged=options.retry_diverged,
        command=command,
    )
    _print_leaderboard(rows, options.out)


def _print_leaderboard(rows: list[dict[str, Any]], folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from .report.comparison.differences import why_no_intervals, with_interval
    from .report.comparison.lost import count_columns, planned_seeds, what_was_lost, why_no_differences
    from .report.comparison.page import timesteps

    counts, accuracies = count_columns(rows), [f"accuracy_{k}" for k in range(1, timesteps(rows) + 1)]
    dataset, seeds = rows[0]["method"].partition("-")[0], planned_seeds(rows[0])
    over = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    table = Table(title=f"{dataset}: accuracy in percent, {over}")
    table.add_column("method")
    titles = [column.title.lower() for column in counts] + [f"k={k}" for k in range(1, len(accuracies) + 1)]
    for title in (*titles, "mean over k", "mean over k against the first [95 %], p"):
        table.add_column(title, justify="right")
    for row in rows:
        shown = [column.text(row) for column in counts]
        for name in (*accuracies, "area"):
            spread = f" ± {row[f'{name}_std']:.2f}" if row["seeds"] > 1 else ""
            shown.append(f"{row[name]:.2f}{spread}" if name in row else "-")
        against = "-"
        if "area_difference" in row:
            against = with_interval(row, "area_difference", "area")
            against += f", {row['area_p']:.3f}" if "area_p" in row else ""
        table.add_row(row["method"].partition("-")[2], *shown, against)
    Console().print(table, _costs(rows))
    if reason := why_no_intervals(rows):
        print(reason)
    print(f"leaderboard: {folder / 'leaderboard.csv'}")
    print(f"report: {folder / 'report.html'}")
    if lost := what_was_lost(rows):
        hints = f"The reasons are in {folder / 'runs.csv'}; --retry-diverged trains diverged runs again."
        said = [lost, why_no_differences(rows), hints]
        print(f"spikedistill compare: {' '.join(sentence for sentence in said if sentence)}", file=sys.stderr)


def _costs(rows: list[dict[str, Any]]) -> "Table":
    """What each method took."""
    from rich.table import Table

    from .report.comparison.costs import cost_columns

    table = Table(title="what it took, medians over the runs")
    table.add_column("method")
    columns = cost_columns(rows)
    for column in columns:
        table.add_column(column.head, justify="right")
    for row in rows:
        table.add_row(row["method"].partition("-")[2], *(column.text(row) for column in columns))
    return table


_GRADIENTS_HELP = """\
How far each rule's gradient is from that of backpropagation through time (BPTT), layer by layer, on a trained run.

cosine      of the angle between the two: 1 is the same direction, 0 is unrelated, below 0 points the other way
norm ratio  how long the rule's gradient is for each unit of BPTT's: under SGD, 2 acts like twice the learning rate

Compared are sltt, rate with m segments (one is RateBP, T are SLTT), and BPTT with the other surrogates; dsr is not. BPTT has the
surrogate that the run was trained with. The loss is the cross-entropy of the mean output on training images, with batch
statistics as in training. Nothing is trained: the network stays as it is.
"""


def _gradients(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "spikedistill gradients",
        description=_GRADIENTS_HELP,
        epilog="The numbers of every layer go to gradients.csv in the run folder, and to its report.html.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="a run folder, such as runs/digits-twsd/seed0")
    parser.add_argument(
        "--timesteps", nargs="+", type=int, metavar="T", help="2 4 8 where left out; event data have their own T alone"
    )
    parser.add_argument(
        "--segments",
        nargs="+",
        type=int,
        metavar="m",
        default=[1, 2, 4, 8],
        help="1 2 4 8 where left out; at each T those above it are skipped",
    )
    parser.add_argument("--batches", type=int, default=4, help="batches to average over, 4 where left out")
    parser.add_argument(
        "--batch-size", type=int, default=128, help="images in each, 128 where left out; fewer take less memory"
    )
    parser.add_argument("--data.root", dest="root", type=Path, help="folder of the data sets, where it has moved")
    options = parser.parse_args(arguments)

    from functools import partial

    from rich.progress import track

    from .evaluation import gradient_microscope
    from .report import write_report

    rows = gradient_microscope(
        options.run,
        timesteps=options.timesteps,
        segments=options.segments,
        batches=options.batches,
        batch_size=options.batch_size,
        root=options.root,
        track=partial(track, description="comparing gradients"),
    )
    _print_gradients(rows)
    print(f"every layer: {options.run / 'gradients.csv'}")
    print(f"report: {write_report(options.run)}")


def _print_gradients(rows: list[dict[str, Any]]) -> None:
    """Two tables, rules over timesteps: all parameters together, and the layer that is furthest from BPTT."""
    from rich.console import Console
    from rich.table import Table

    from .evaluation.gradients import ALL, furthest_layer

    timesteps = list(dict.fromkeys(row["timesteps"] for row in rows))
    rules = list(dict.fromkeys(row["rule"] for row in rows if row["timesteps"] == timesteps[-1]))
    together = Table(title="All parameters together: cosine to BPTT's gradient (norm ratio)")
    furthest = Table(title="The layer furthest from BPTT: its cosine (its name)")
    for table in (together, furthest):
        table.add_column("rule")
        for T in timesteps:
            table.add_column(f"T={T}", justify="right")
    for rule in rules:
        cells: list[tuple[str, str]] = []
        for T in timesteps:
            layers = {row["layer"]: row for row in rows if (row["timesteps"], row["rule"]) == (T, rule)}
            if not layers:  # more segments than timesteps
                cells.append(("-", "-"))
                continue
            joined, least = layers.pop(ALL), furthest_layer(layers.values())
            cells.append(
                (f"{joined['cosine']:.4f} ({joined['ratio']:.3f})", f"{least['cosine']:.4f} ({least['layer']})")
            )
        together.add_row(rule, *(cell for cell, _ in cells))
        furthest.add_row(rule, *(cell for _, cell in cells))
    Console().print(together, furthest)


def _report(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("spikedistill report", description="Write report.html of an evaluated run anew.")
    parser.add_argument("run", type=Path, help="a run folder, such as runs/digits-twsd/seed0")
    options = parser.parse_args(arguments)

    from .report import write_report

    print(write_report(options.run))


def _list(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("spikedistill list", description="Name what there is to choose from.")
    parser.add_argument(
        "what", nargs="?", choices=["recipes", "models", "objectives", "data"], help="all where left out"
    )
    options = parser.parse_args(arguments)

    from .data import list_datasets
    from .models import list_models
    from .objectives import describe_objective, list_objectives
    from .recipes import list_recipes

    def summaries() -> list[str]:
        names = list_objectives()
        width = max(len(name) for name in names)
        return [f"{name:{width}}  {describe_objective(name).splitlines()[0]}" for name in names]

    lists: dict[str, Callable[[], list[str]]] = {
        "recipes": list_recipes,
        "models": list_models,
        "objectives": summaries,
        "data": list_datasets,
    }
    if options.what:
        print("\n".join(lists[options.what]()))
        return
    for what, names in lists.items():
        print(f"{what}:", *names(), sep="\n  ")


_MOST_FAULTS = 20  # that are shown of a data set


def _data(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "spikedistill data", description="Say what a data set consists of and where its files belong, and check them."
    )
    parser.add_argument("name", nargs="?", help="a data set; default all of them")
    parser.add_argument("--verify", action="store_true", help="read every sample and name every broken file")
    parser.add_argument(
        "--data.root", dest="root", type=Path, help="folder of the data sets; default SPIKEDISTILL_DATA"
    )
    parser.add_argument("--data.size", dest="size", type=int, help="side of the images of image_folder; default 32")
    parser.add_argument("--timesteps", type=int, help="frames per recording of event data; default as in training")
    parser.add_argument("--data.slicing", dest="slicing", help="number, even or time: how nmnist fills its frames")
    options = vars(parser.parse_args(arguments))

    from .data import expected_files, list_datasets, load_dataset, verify, what_loading_checks

    name, to_verify = options.pop("name"), options.pop("verify")
    if name is None:
        if to_verify:
            raise UserError("--verify reads one data set: say which, such as spikedistill data image_folder --verify")
        for known in list_datasets():
            print(f"{known}: {expected_files(known)}")
        return
    dataset = load_dataset(name, **options)
    samples = len(dataset.train) + len(dataset.test)
    print(
        f"{name}: {len(dataset.train)} training and {len(dataset.test)} test samples of {len(dataset.classes)} classes, "
        f"{dataset.channels} x {dataset.size[0]} x {dataset.size[1]}"
    )
    if not to_verify:
        print(f"checked: {what_loading_checks(name)}")
        return

    from functools import partial

    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    faults = verify(
        dataset,
        track=partial(track, description="reading samples", console=console, disable=not console.is_terminal),
    )
    for fault in faults[:_MOST_FAULTS]:
        print(fault, file=sys.stderr)
    if len(faults) > _MOST_FAULTS:
        print(f"and {len(faults) - _MOST_FAULTS} more", file=sys.stderr)
    if faults:
        raise UserError(f"{len(faults)} of {samples} samples are broken: replace or remove them")
    print(f"verified: all {samples} samples were read, none is broken")


def _print_results(results: dict[str, Any], folder: Path) -> None:
    """The table over timesteps."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{results['recipe']}: {results['samples']} test samples at every number of timesteps k")
    table.add_column("k", justify="right")
    for column in ("accuracy %", "NLL", "calibration error %", "confidence %", "accuracy of step k alone %"):
        table.add_column(column, justify="right")
    last = results["last"]
    for together, alone in zip(last["ensemble"], last["single"], strict=True):
        table.add_row(
            str(together["k"]),
            f"{100 * together['accuracy']:.2f}",
            f"{together['nll']:.4f}",
            f"{100 * together['ece']:.2f}",
            f"{100 * together['confidence']:.2f}",
            f"{100 * alone['accuracy']:.2f}",
        )
    Console().print(table)
    cost = results["cost"]
    if cost.keys() >= {"images_per_s", "peak_mib"}:
        from .report.blocks import duration

        # runs of earlier versions have no time
        took = f" in {duration(cost['training_s'])}" if "training_s" in cost else ""
        speed = f" at {cost['images_per_s']:.0f} images/s" if "images_per_s" in cost else ""
        memory = f", peak memory {cost['peak_mib']:.0f} MiB" if "peak_mib" in cost else ""
        print(f"trained{took}{speed}{memory}")
    print(f"report: {folder / 'report.html'}")


_COMMANDS: dict[str, tuple[Callable[[list[str]], None], str]] = {
    "train": (_train, "train, evaluate and report one run"),
    "evaluate": (_evaluate, "score a trained run at every number of timesteps"),
    "compare": (_compare, "train several recipes and seeds and compare them at every number of timesteps"),
    "gradients": (_gradients, "compare a run's gradient rules with backpropagation through time, layer by layer"),
    "report": (_report, "write the report of an evaluated run anew"),
    "list": (_list, "name the recipes, models, objectives and data sets"),
    "data": (_data, "say where a data set's files belong, and check them"),
}
