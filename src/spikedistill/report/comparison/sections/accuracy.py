"""Accuracy of every method at every k: the leaderboard."""

from collections.abc import Sequence
from dataclasses import dataclass

from ....evaluation.comparison.leaderboard import with_numbers
from ... import figures
from ...blocks import Column, Plot, Plots, Row, Section, Table, Terms, decimals, measured
from ..guards import TERMS, guard_columns
from ..intervals import METHOD, NBSP
from ..lost import count_columns, what_was_lost
from ..shown import Shown, seeds_in_words


def accuracy_section(shown: Shown) -> Section:
    """The leaderboard, the curves, and a glossary."""
    rows, comparison = shown.leaderboard, shown.comparison
    table = _leaderboard(rows, comparison.longest, comparison.seeds)
    curves = Plots([_curves(with_numbers(rows), comparison.longest, shown.noise)])
    return Section("accuracy", "Accuracy over timesteps", [_words(rows), table, curves])


@dataclass(frozen=True)
class _Spread(Column):
    """A mean with its standard deviation over seeds, if there are several."""

    def text(self, row: Row) -> str:
        spread = f" ±{NBSP}{row[f'{self.key}_std']:.2f}" if row["seeds"] > 1 else ""
        return f"{row[self.key]:.2f}{spread}" if measured(row, self.key) else "–"


def _words(rows: Sequence[Row]) -> Terms:
    terms = [
        ("k", "The number of timesteps that the network has run. One trained network serves every k."),
        ("Mean over k", "The mean of the accuracies at every k: how good the network is at any number of timesteps."),
    ]
    if any(row["seeds"] > 1 for row in rows):
        terms.append(("±", "Standard deviation over the seeds."))
    else:
        terms.append(
            ("One seed", "With one seed it is unknown how much accuracy changes from one training to the next.")
        )
    terms += [TERMS[column.key] for column in guard_columns(rows)]
    if lost := what_was_lost(rows):
        words = (
            f"{lost} The numbers of a method are those of its finished runs. The reasons are below, under Every run."
        )
        terms.append(("Runs without numbers", words))
    return Terms(terms)


def _leaderboard(rows: Sequence[Row], K: int, seeds: int) -> Table:
    columns: list[Column] = [_Spread(f"accuracy_{k}", f"k = {k}", "%") for k in range(1, K + 1)]
    over = f"over {seeds_in_words(seeds)}"
    caption = f"Leaderboard: test accuracy after the last epoch, {over}; the baseline first"
    columns = [METHOD, *count_columns(rows), *columns, _Spread("area", "Mean over k", "%"), *guard_columns(rows)]
    return Table("leaderboard", caption, columns, rows)


def _curves(rows: Sequence[Row], longest: int, noise: float) -> Plot:
    K = range(1, longest + 1)
    names = figures.short_names([row["method"] for row in rows])
    curves = {names[row["method"]]: [(row[f"accuracy_{k}"], row[f"accuracy_{k}_std"]) for k in K] for row in rows}
    keys = [key for k in K for key in (f"accuracy_{k}", f"accuracy_{k}_std")] + ["area", "area_std"]
    titles = [text for k in K for text in (f"k = {k}", f"its deviation, k = {k}")] + ["mean over k", "its deviation"]
    columns = [Column(key, title, write=decimals(4)) for key, title in zip(keys, titles, strict=True)]
    several = any(row["seeds"] > 1 for row in rows)
    return Plot(
        name="accuracy",
        title="Test accuracy at every k",
        note=("Bars are standard deviations over seeds. " if several else "")
        + "Methods are drawn side by side at each k. A click on a name hides it; a double click shows only that one.",
        alt="Line plot of test accuracy over k for every method. "
        + "; ".join(f"{name}: {', '.join(f'{mean:.1f}' for mean, _ in curve)} %" for name, curve in curves.items()),
        figure=figures.methods(curves, least=noise),
        table=Table("accuracy", "Test accuracy at every k and its standard deviation, %", [METHOD, *columns], rows),
        height=380 + 12 * len(rows),
    )
