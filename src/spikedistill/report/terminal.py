"""Tables for a terminal: a run over timesteps, a comparison, gradient rules against BPTT."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from ..evaluation.comparison.comparison import Comparison
from ..evaluation.gradients import ALL, furthest_layer
from ..evaluation.results import Results
from .blocks import duration
from .comparison.costs import cost_columns
from .comparison.intervals import with_interval
from .comparison.lost import count_columns

# From so many classes on the table of a run has a column for the top-5 accuracy.
MANY_CLASSES = 100


def results_table(results: Results) -> Table:
    """A run at every number of timesteps."""
    titles = ["k", "accuracy %", "NLL", "calibration error %", "confidence %", "accuracy of step k alone %"]
    more = _more_accuracies(results)
    titles += more.values()
    count = "" if results.samples is None else f"{results.samples} "
    table = _table(f"{results.recipe}: {count}test samples at every number of timesteps k", *titles)
    for together, alone in zip(results.last.ensemble, results.last.single, strict=True):
        table.add_row(
            str(together.k),
            f"{100 * together.accuracy:.2f}",
            f"{together.nll:.4f}",
            f"{100 * together.ece:.2f}",
            f"{100 * together.confidence:.2f}",
            f"{100 * alone.accuracy:.2f}",
            *(f"{100 * getattr(together, name):.2f}" for name in more),
        )
    return table


def _more_accuracies(results: Results) -> dict[str, str]:
    """Further accuracies that are worth a column, with its title: top-5 of many classes, balanced of unbalanced ones."""
    first = results.last.ensemble[0]
    has_many = len(results.classes or ()) >= MANY_CLASSES and first.top5_accuracy is not None
    top5 = {"top5_accuracy": "top-5 %"} if has_many else {}
    return top5 if first.balanced_accuracy is None else top5 | {"balanced_accuracy": "balanced %"}


def training_line(results: Results) -> str:
    """What training took, in a line; empty where that is not known."""
    cost = results.cost
    if cost.images_per_s is None or cost.peak_mib is None:
        return ""
    # runs of earlier versions have no time
    took = "" if cost.training_s is None else f" in {duration(cost.training_s)}"
    return f"trained{took} at {cost.images_per_s:.0f} images/s, peak memory {cost.peak_mib:.0f} MiB"


def leaderboard_table(comparison: Comparison) -> Table:
    """The methods of a comparison at every number of timesteps, and their differences to the first."""
    rows, seeds = comparison.leaderboard, comparison.seeds
    counts, accuracies = count_columns(rows), [f"accuracy_{k}" for k in range(1, comparison.longest + 1)]
    over = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    titles = [column.title.lower() for column in counts] + [f"k={k}" for k in range(1, len(accuracies) + 1)]
    titles += ["mean over k", "mean over k against the first [95 %], p"]
    table = _table(f"{comparison.baseline.dataset}: accuracy in percent, {over}", "method", *titles)
    for row in rows:
        shown = [column.text(row) for column in counts]
        for name in (*accuracies, "area"):
            spread = f" ± {row[f'{name}_std']:.2f}" if row["seeds"] > 1 else ""
            shown.append(f"{row[name]:.2f}{spread}" if name in row else "-")
        against = "-"
        if "area_difference" in row:
            against = with_interval(row, "area_difference", "area")
            against += f", {row['area_p']:.3f}" if "area_p" in row else ""
        table.add_row(row["method"].variant, *shown, against)
    return table


def costs_table(comparison: Comparison) -> Table:
    """What each method of a comparison took."""
    columns = cost_columns(comparison.leaderboard)
    table = _table("what it took, medians over the runs", "method", *(column.head for column in columns))
    for row in comparison.leaderboard:
        table.add_row(row["method"].variant, *(column.text(row) for column in columns))
    return table


def gradient_tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """Two tables, rules over timesteps: all parameters together, and the layer that is furthest from BPTT.

    Args:
        rows: of `gradient_microscope`.
    """
    over = list(dict.fromkeys(row["timesteps"] for row in rows))
    titles = ["rule", *(f"T={T}" for T in over)]
    together = _table("All parameters together: cosine to BPTT's gradient (norm ratio)", *titles)
    furthest = _table("The layer furthest from BPTT: its cosine (its name)", *titles)
    for rule in dict.fromkeys(row["rule"] for row in rows if row["timesteps"] == over[-1]):
        of_all, of_one = [], []
        for T in over:
            layers = {row["layer"]: row for row in rows if (row["timesteps"], row["rule"]) == (T, rule)}
            if layers:
                joined, least = layers.pop(ALL), furthest_layer(layers.values())
                of_all.append(f"{joined['cosine']:.4f} ({joined['ratio']:.3f})")
                of_one.append(f"{least['cosine']:.4f} ({least['layer']})")
            else:  # more segments than timesteps
                of_all.append("-")
                of_one.append("-")
        together.add_row(rule, *of_all)
        furthest.add_row(rule, *of_one)
    return [together, furthest]


def _table(title: str, first: str, *others: str) -> Table:
    """Names on the left, numbers on the right."""
    table = Table(title=title)
    table.add_column(first, justify="right" if first == "k" else "left")
    for column in others:
        table.add_column(column, justify="right")
    return table
