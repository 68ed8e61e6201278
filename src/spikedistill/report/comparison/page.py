"""A comparison of several methods as one web page: who is better, by how much, and how sure that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ...evaluation.comparison.comparison import Comparison
from ...evaluation.comparison.leaderboard import with_numbers
from ...files import write_atomically
from ...run_folder import RunFolder
from .. import figures
from ..blocks import (
    Code,
    Column,
    Number,
    Numbers,
    Page,
    Plot,
    Plots,
    Row,
    Section,
    Table,
    Terms,
    Text,
    decimals,
    measured,
    numbered,
)
from ..page import render
from .chosen import chosen_section
from .costs import cost_columns
from .differences import METHOD, NBSP, differences, what_is_told, with_interval
from .lost import count_columns, planned_seeds, what_was_lost
from .published import published_section
from .regret import regret_section
from .timesteps import timesteps_section

_COST_WORDS = (
    "Time and speed are those of the training steps and of the scores after every epoch but the last, without the first step of "
    "each process, which may compile. Runs that were trained side by side have slowed each other down."
)


def write_comparison(folder: Path, comparison: Comparison, *, command: str | None = None) -> Path:
    """Write `report.html` into the folder of a comparison, readable offline; the same input gives the same bytes.

    Args:
        folder: of the comparison. The page links to the reports of its runs, `<method>/seed<k>/report.html`, that are there.
        comparison: what is shown.
        command: what repeats the comparison, where it was started from the command line.

    Returns:
        The path of the page.
    """
    path = folder / "report.html"
    write_atomically(path, render(page_of_comparison(comparison, folder, command)))
    return path


def page_of_comparison(comparison: Comparison, folder: Path, command: str | None = None) -> Page:
    """The comparison as a page for its folder."""
    board, baseline = [_without_nan(row) for row in comparison.leaderboard], comparison.baseline
    accuracy = [_words(board), _leaderboard(board), Plots([_curves(with_numbers(board))])]
    sections: list[Section | None] = [
        Section("accuracy", "Accuracy over timesteps", accuracy),
        Section("differences", "Differences to the baseline", differences(board, timesteps(board))),
        regret_section(comparison.regrets),
        timesteps_section([_without_nan(row) for row in comparison.timesteps]),
        chosen_section(comparison.chosen),
        _teaching(board),
        published_section(comparison.published),
        Section("cost", "Cost", [Text(_COST_WORDS), _cost(board)]),
        Section("runs", "Every run", [_runs(folder, comparison)]),
    ]
    if command:
        caption = (
            "Command to repeat the comparison; runs that are finished in its folder are kept, another --out trains anew"
        )
        sections.append(Section("repeat", "Repeat", [Code(caption, command)]))
    return Page(
        kind="comparison",
        title=f"{baseline.dataset}: {len(board)} methods",
        subject=f"{_seeds(comparison.seeds)} for every method, one network for all k up to {timesteps(board)}; "
        f"the test set after the last epoch. The baseline is {baseline}.",
        verdict=verdict(board),
        numbers=_numbers(board),
        sections=[section for section in sections if section is not None],
    )


def timesteps(rows: Sequence[Row]) -> int:
    """The largest k of a leaderboard."""
    return numbered(with_numbers(rows)[0], "accuracy_")[-1]


def verdict(rows: Sequence[Row]) -> str:
    """Which method leads over all k, how many can be told from the baseline, and how many runs have no numbers."""
    baseline = rows[0]
    best = max(with_numbers(rows), key=lambda row: row["area"])
    leader = f"Best over all k is {best['method']} with {best['area']:.2f} %"
    if best is baseline:
        leader = (
            f"No method is better over all k than the baseline, {baseline['method']}, with {baseline['area']:.2f} %"
        )
    elif "area_difference" in best:
        leader += (
            f": {with_interval(best, 'area_difference', 'area', ' points')} from the baseline, {baseline['method']}"
        )
    second = what_is_told(rows)
    return " ".join(sentence for sentence in (f"{leader}.", second, what_was_lost(rows)) if sentence)


@dataclass(frozen=True)
class _Spread(Column):
    """A mean with its standard deviation over seeds, where there are several."""

    def text(self, row: Row) -> str:
        spread = f" ±{NBSP}{row[f'{self.key}_std']:.2f}" if row["seeds"] > 1 else ""
        return f"{row[self.key]:.2f}{spread}" if measured(row, self.key) else "–"


def _words(rows: Sequence[Row]) -> Terms:
    terms = [
        ("k", "The number of timesteps the one trained network has run when it answers."),
        ("Mean over k", "The mean of the accuracies at every k: how good the network is wherever it is stopped."),
    ]
    if any(row["seeds"] > 1 for row in rows):
        terms.append(("±", "Standard deviation over the seeds."))
    else:
        terms.append(("One seed", "How much accuracy changes from one training to the next is not known."))
    if lost := what_was_lost(rows):
        words = f"{lost} Figures of a method are over its finished runs; the reasons are below, under Every run."
        terms.append(("Runs without numbers", words))
    return Terms(terms)


def _leaderboard(rows: Sequence[Row]) -> Table:
    columns: list[Column] = [_Spread(f"accuracy_{k}", f"k = {k}", "%") for k in range(1, timesteps(rows) + 1)]
    over = f"over {_seeds(planned_seeds(rows[0]))}"
    caption = f"Leaderboard: test accuracy after the last epoch, {over}; the baseline first"
    columns = [METHOD, *count_columns(rows), *columns, _Spread("area", "Mean over k", "%")]
    return Table("leaderboard", caption, columns, rows)


def _curves(rows: Sequence[Row]) -> Plot:
    K = range(1, timesteps(rows) + 1)
    curves = {row["method"]: [(row[f"accuracy_{k}"], row[f"accuracy_{k}_std"]) for k in K] for row in rows}
    keys = [key for k in K for key in (f"accuracy_{k}", f"accuracy_{k}_std")] + ["area", "area_std"]
    titles = [text for k in K for text in (f"k = {k}", f"its deviation, k = {k}")] + ["mean over k", "its deviation"]
    columns = [Column(key, title, write=decimals(4)) for key, title in zip(keys, titles, strict=True)]
    several = any(row["seeds"] > 1 for row in rows)
    return Plot(
        name="accuracy",
        title="Test accuracy at every k",
        note=("Bars are standard deviations over seeds. " if several else "")
        + "Methods stand side by side at each k; a click on a name hides it, two leave it alone.",
        alt="Line plot of test accuracy over k for every method. "
        + "; ".join(f"{name}: {', '.join(f'{mean:.1f}' for mean, _ in curve)} %" for name, curve in curves.items()),
        figure=figures.methods(curves),
        table=Table("accuracy", "Test accuracy at every k and its standard deviation, %", [METHOD, *columns], rows),
        height=380 + 12 * len(rows),
    )


def _cost(rows: Sequence[Row]) -> Table:
    caption = "What each method took: medians over its runs, and its mean firing rate"
    return Table("cost", caption, [METHOD, Column("seeds", "Seeds"), *cost_columns(rows)], rows)


def _teaching(rows: Sequence[Row]) -> Section | None:
    taught = [row for row in rows if row.get("teacher_agreement") is not None]
    if not taught:
        return None
    columns = [
        METHOD,
        Column("teacher_agreement", "Answers as the teacher", "%", decimals(2)),
        Column("teacher_agreement_where_wrong", "Where the teacher is wrong", "%", decimals(2)),
    ]
    words = "The second figure is how often a method repeats a mistake of its teacher."
    caption = "Agreement with the run that taught, all timesteps together, means over the seeds"
    return Section("teacher", "Agreement with the teacher", [Text(words), Table("teacher", caption, columns, taught)])


def _runs(folder: Path, comparison: Comparison) -> Table:
    last = comparison.longest
    some_lost = any("reason" in row for row in comparison.runs)
    shown = []
    for row in comparison.runs:
        path = Path(row["method"]) / f"seed{row['seed']}"
        report = RunFolder(path).report
        figures_of_row = {key: row.get(key) for key in (f"accuracy_{last}", "area", "status", "reason")}
        link = report.as_posix() if (folder / report).is_file() else None
        shown.append({"run": path.as_posix(), "seed": row["seed"], "report": link, **figures_of_row})
    columns = [
        Column("run", "Run"),
        Column("seed", "Seed"),
        Column(f"accuracy_{last}", f"k = {last}", "%", decimals(2)),
        Column("area", "Mean over k", "%", decimals(2)),
        *([Column("status", "Status"), Column("reason", "Reason", words=True)] if some_lost else []),
        Column("report", "Its own report", write=_link),
    ]
    return Table("runs", "Every run, with a link to its own report", columns, shown)


def _link(path: str) -> str:
    from markupsafe import Markup

    # after "./" a colon in the name is no scheme
    return Markup('<a href="./{}">report</a>').format(quote(path))


def _numbers(rows: Sequence[Row]) -> Numbers:
    best = max(with_numbers(rows), key=lambda row: row["area"])
    shown = {"best": best} if best is not rows[0] else {}
    shown |= {"baseline": rows[0]} if "area" in rows[0] else {}
    return Numbers(
        [
            Number(f"area_{name}", row["area"], f"{row['area']:.2f} %", f"mean over k, {row['method']}", note=name)
            for name, row in shown.items()
        ]
    )


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def _without_nan(row: Row) -> Row:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
