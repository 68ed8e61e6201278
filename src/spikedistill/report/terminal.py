"""Tables for a terminal of 80 columns: a run over timesteps, a comparison, gradient rules against BPTT."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from ..evaluation.comparison.comparison import Comparison
from ..evaluation.gradients import ALL, furthest_layer
from ..evaluation.intervals import wilson
from ..evaluation.results import Results
from ..recipe_name import RecipeName
from ..robustness import Corruption, Measured
from .blocks import duration, thinned
from .comparison.costs import cost_columns
from .comparison.guards import guard_columns
from .comparison.intervals import with_interval
from .comparison.lost import count_columns
from .figures import short_names

# The fewest classes for which the table of a run has a column for the top-5 accuracy.
MANY_CLASSES = 100
WIDTH = 80
MOST_ROWS = 16  # of a run
MOST_COLUMNS = 4  # numbers of timesteps side by side
LONGEST_NAME = 24  # of a method; a longer one is broken
# The titles of costs: those of the page are too long for 80 columns.
_COSTS = {
    "timesteps": "T",
    "epochs": "epochs",
    "training_s": "training h:mm:ss",
    "teacher_s": "teacher, start h:mm:ss",
    "images_per_s": "images/s",
    "peak_mib": "memory MiB",
    "firing_rate": "firing rate",
}


def results_table(results: Results) -> Table:
    """A run at every number of timesteps, or at some of them if there are many; accuracies have 95 percent intervals (`wilson`)."""
    known = results.samples is not None
    more = _more_accuracies(results)
    titles = ["k", "accuracy %", *(["95 % interval"] if known else []), *more.values()]
    titles += ["NLL", "calibration error %", "confidence %", "step k alone %"]
    count = f"{results.samples} " if known else ""
    title = f"{results.recipe}: {count}test samples, the first k timesteps together"
    both = thinned([*zip(results.last.ensemble, results.last.single, strict=True)], MOST_ROWS)
    table = _table(title, *titles)
    for column in table.columns:  # "86.2 to 100.0" stays in one line, and the titles of other columns wrap
        column.no_wrap = column.header == "95 % interval"
    if len(both) < results.timesteps:
        table.caption = "every k is in results.json"
    for together, alone in both:
        low, high = wilson(together.accuracy, results.samples or 1)
        table.add_row(
            str(together.k),
            f"{100 * together.accuracy:.2f}",
            *([f"{100 * low:.1f} to {100 * high:.1f}"] if known else []),
            *(f"{100 * getattr(together, name):.2f}" for name in more),
            f"{together.nll:.3f}",
            f"{100 * together.ece:.2f}",
            f"{100 * together.confidence:.2f}",
            f"{100 * alone.accuracy:.2f}",
        )
    return table


def _more_accuracies(results: Results) -> dict[str, str]:
    """Further accuracies that are worth a column, with its title: top-5 of many classes, balanced of unbalanced ones."""
    first = results.last.ensemble[0]
    has_many = len(results.classes or ()) >= MANY_CLASSES and first.top5_accuracy is not None
    top5 = {"top5_accuracy": "top-5 %"} if has_many else {}
    return top5 if first.balanced_accuracy is None else top5 | {"balanced_accuracy": "balanced %"}


def training_line(results: Results) -> str:
    """The cost of training, in a line; empty if it is not known."""
    cost = results.cost
    if cost.images_per_s is None or cost.peak_mib is None:
        return ""
    # runs of earlier versions have no training time
    took = "" if cost.training_s is None else f" in {duration(cost.training_s)}"
    # the first steps of a run are not timed: a run of so few steps has speed 0
    speed = f" at {cost.images_per_s:.0f} images/s" if cost.images_per_s else ""
    return f"trained{took}{speed}, peak memory {cost.peak_mib:.0f} MiB"


def leaderboard_table(comparison: Comparison) -> Table:
    """The methods of a comparison at every number of timesteps, or at some if there are many, and their mean."""
    rows, seeds, names = comparison.leaderboard, comparison.seeds, _names(comparison)
    counts = count_columns(rows)
    shown = thinned(range(1, comparison.longest + 1), 2 if counts else MOST_COLUMNS)
    over = f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
    titles = [*(column.title.lower() for column in counts), *(f"k={k}" for k in shown), "mean over k"]
    table = _table(f"{comparison.baseline.dataset}: accuracy in percent, {over}", "method", *titles)
    for row in rows:
        cells = [column.text(row) for column in counts]
        for name in (*(f"accuracy_{k}" for k in shown), "area"):
            spread = f"±{row[f'{name}_std']:.{2 if row[f'{name}_std'] < 10 else 1}f}" if row["seeds"] > 1 else ""
            cells.append(f"{row[name]:.2f}{spread}" if name in row else "-")
        table.add_row(names[row["method"]], *cells)
    return table


def differences_table(comparison: Comparison) -> Table | None:
    """The difference of each method to the first, with its interval and p-value; None if there are no differences."""
    baseline, *others = comparison.leaderboard
    names = _names(comparison)
    if not any("area_difference" in row for row in others):
        return None
    table = _table(
        f"Difference to {names[baseline['method']]} in points, mean over k", "method", "difference [95 %]", "p"
    )
    for row in others:
        found = "area_difference" in row
        difference = with_interval(row, "area_difference", "area") if found else "-"
        table.add_row(names[row["method"]], difference, f"{row['area_p']:.3f}" if "area_p" in row else "-")
    return table


def guards_table(comparison: Comparison) -> Table:
    """The place of each method if it was trained for two times, its worst k, and how far training went."""
    columns, names = guard_columns(comparison.leaderboard), _names(comparison)
    title = "Distance to the best at the worst k, in points, and training loss"
    table = _table(title, "method", *(column.title.lower() for column in columns))
    for row in comparison.leaderboard:
        table.add_row(names[row["method"]], *(column.text(row) for column in columns))
    return table


def costs_table(comparison: Comparison) -> Table:
    """The cost of each method of a comparison."""
    columns, names = cost_columns(comparison.leaderboard), _names(comparison)
    table = _table("What it took, medians over the runs", "method", *(_COSTS[column.key] for column in columns))
    for row in comparison.leaderboard:
        table.add_row(names[row["method"]], *(column.text(row) for column in columns))
    return table


def _names(comparison: Comparison) -> dict[RecipeName, str]:
    """Short names of the methods; the CSV files have the whole ones."""
    return short_names([row["method"] for row in comparison.leaderboard])


def gradient_tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """Rules over timesteps: all parameters together, and the layer that is furthest from BPTT; two tables for each few T.

    Args:
        rows: of `gradient_microscope`.
    """
    every = list(dict.fromkeys(row["timesteps"] for row in rows))
    tables = []
    for start in range(0, len(every), MOST_COLUMNS):
        tables += _gradient_tables(rows, every[start : start + MOST_COLUMNS], every[-1])
    return tables


def recalibration_table(results: Results) -> Table | None:
    """Accuracy at every k as trained and with other batch-norm statistics; None if it was not asked for."""
    other = results.recalibrated
    if other is None:
        return None
    table = _table(
        f"With batch-norm statistics of {other.samples} training samples, %",
        "k",
        "as trained",
        "of these k",
        "of each timestep",
    )
    every_k = zip(results.last.ensemble, other.each_k, other.mixture, strict=True)
    for trained, alone, mixture in thinned([*every_k], MOST_ROWS):
        table.add_row(str(trained.k), *(f"{100 * value:.2f}" for value in (trained.accuracy, alone, mixture)))
    return table


def robustness_tables(measured: Measured) -> list[Table]:
    """Accuracy under each attack at each k, with marks on rows that fail a check; and what the checks said."""
    masked = any((each.no_gradient or 0) >= 0.005 for each in measured.found)
    shares = ("zero gradients, %",) if masked else ()
    table = _table("Accuracy under attack, %", "attack", "eps", "k", "accuracy", *shares, "fell to", "mark")
    doubts: list[tuple[int, list[str]]] = []
    unit = measured.results["unit"]
    for each, checks in zip(measured.found, measured.checks, strict=True):
        row = each.row
        if row.remark and row.remark != "clean":
            continue
        failed = [check.said for check in checks if not check.passed]
        if failed:
            doubts.append((len(doubts) + 1, failed))
        through = zip(row.through, each.fooled_through, strict=False) if row.attack.uses_gradients else ()
        fell = ", ".join(f"{name} {count}" for name, count in through if count)
        mark = f"[{len(doubts)}]" if failed else ""
        name = row.remark or row.attack.name
        eps = "" if row.eps is None else f"{unit * row.eps:g}"
        zero = ("" if each.no_gradient is None else f"{100 * each.no_gradient:.0f}",) if masked else ()
        table.add_row(name, eps, str(row.timesteps), f"{each.accuracy:.1f}", *zero, fell, escape(mark))
    worst_case = measured.results["worst_case"]
    ks = dict.fromkeys(f"k={row['timesteps']}" for row in worst_case)
    worst = _table("Right under every attack with gradients, %", "eps", *ks)
    for eps in dict.fromkeys(row["eps"] for row in worst_case):
        cells = [f"{row['accuracy']:.1f}" for row in worst_case if row["eps"] == eps]
        worst.add_row(f"{unit * eps:g}", *cells)
    tables = [table, worst, *_corruption_tables(measured), *_exit_tables(measured)]
    if doubts:
        why = _table("Marked rows are too optimistic", "mark", "why")
        for number, failed in doubts:
            why.add_row(escape(f"[{number}]"), "; ".join(failed))
        tables.append(why)
    return tables


def _corruption_tables(measured: Measured) -> list[Table]:
    """Accuracy under each corruption over its severities, a table for each k."""
    tables = []
    errors: dict[str, float] = measured.results.get("mean_corruption_error", {})
    for k, error in errors.items():
        found = {
            (each.row.attack.kind, each.row.attack.severity): each.accuracy
            for each in measured.found
            if isinstance(each.row.attack, Corruption) and each.row.timesteps == int(k)
        }
        severities = sorted({severity for _, severity in found})
        title = f"Accuracy under corruptions at k={k}, %; mean error {error:.1f}"
        table = _table(title, "corruption", *(f"severity {severity}" for severity in severities))
        for kind in dict.fromkeys(kind for kind, _ in found):
            table.add_row(kind, *(f"{found[kind, severity]:.1f}" for severity in severities))
        tables.append(table)
    return tables


def _exit_tables(measured: Measured) -> list[Table]:
    """Early exit on clean samples, under an attack on answers, and under one on time."""
    exits = measured.results.get("exits")
    if exits is None:
        return []
    title = f"Early exit at a confidence of {exits['threshold']:g}, eps {measured.results['unit'] * exits['eps']:g}"
    table = _table(title, "attack on", "accuracy, %", "timesteps", "run to the end, %")
    for row in exits["rows"]:
        table.add_row(row["goal"], f"{row['accuracy']:.1f}", f"{row['mean_exit']:.2f}", f"{row['never']:.1f}")
    return [table]


def _gradient_tables(rows: Sequence[dict[str, Any]], over: Sequence[int], longest: int) -> list[Table]:
    titles = ["rule", *(f"T={T}" for T in over)]
    together = _table("All parameters together: cosine to BPTT's gradient (norm ratio)", *titles)
    furthest = _table("The layer furthest from BPTT: its cosine, its name", *titles)
    for rule in dict.fromkeys(row["rule"] for row in rows if row["timesteps"] == longest):
        of_all, of_one = [], []
        for T in over:
            layers = {row["layer"]: row for row in rows if (row["timesteps"], row["rule"]) == (T, rule)}
            if layers:
                joined, least = layers.pop(ALL), furthest_layer(layers.values())
                of_all.append(f"{joined['cosine']:.4f} ({joined['ratio']:.3f})")
                of_one.append(f"{least['cosine']:.4f}\n{least['layer']}")
            else:  # more segments than timesteps
                of_all.append("-")
                of_one.append("-")
        together.add_row(rule, *of_all)
        furthest.add_row(rule, *of_one)
    return [together, furthest]


def _table(title: str, first: str, *others: str) -> Table:
    """Names on the left, numbers on the right; as narrow as its content."""
    look: dict[str, Any] = {"title_justify": "left", "title_style": "bold", "padding": (0, 1, 0, 0), "pad_edge": False}
    table = Table(title=title, box=box.SIMPLE_HEAD, min_width=min(WIDTH, len(title) + 2), **look)
    table.add_column(first, justify="right" if first == "k" else "left", overflow="fold", max_width=LONGEST_NAME)
    for column in others:
        table.add_column(column, justify="right", overflow="fold")
    return table
