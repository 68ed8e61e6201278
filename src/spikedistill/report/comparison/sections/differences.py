"""Differences of methods to the baseline, and how sure they are."""

from collections.abc import Sequence
from dataclasses import dataclass

from ... import figures
from ...blocks import Column, Plot, Plots, Row, Section, Table, Terms, Text, measured
from ..intervals import METHOD, NBSP, Interval, why_no_intervals
from ..lost import why_no_differences
from ..shown import Shown


def differences_section(shown: Shown) -> Section:
    """A plot, a table and a glossary, or the reason why there are none."""
    return Section("differences", "Differences to the baseline", _blocks(shown))


def _blocks(shown: Shown) -> list[Plots | Table | Terms | Text]:
    rows, K = shown.leaderboard, shown.comparison.longest
    if reason := why_no_differences(rows):
        return [Text(reason)]
    what = {"area": "mean over k", f"accuracy_{K}": f"k = {K}"}
    blocks: list[Plots | Table | Terms | Text] = [Plots([_plot(rows, what, shown.noise / 3)]), *_tables(rows, what)]
    return [Text(reason), *blocks] if (reason := why_no_intervals(rows)) else blocks


def _plot(rows: Sequence[Row], what: dict[str, str], noise: float) -> Plot:
    others = [row for row in rows[1:] if "area_difference" in row]
    ends = {"low": "low", "high": "high", "test_set_low": "low, these images", "test_set_high": "high, these images"}
    names = figures.short_names([row["method"] for row in rows])
    found = {
        title: {
            names[row["method"]]: (row[f"{key}_difference"], row.get(f"{key}_low"), row.get(f"{key}_high"))
            for row in others
        }
        for key, title in what.items()
    }
    columns = [
        Column(f"{key}_{part}", f"{title}: {name}", write=lambda v: f"{v:+.4f}")
        for key, title in what.items()
        for part, name in ({"difference": "difference"} | ends).items()
    ]
    spoken = ", ".join(f"{row['method']} {row['area_difference']:+.2f}" for row in others)
    return Plot(
        name="differences",
        title=f"Difference to {names[rows[0]['method']]}",
        note="Points of accuracy with 95 % intervals; an interval that contains 0 means that the data do not show a difference.",
        alt=f"Differences to the baseline in points of accuracy, mean over k: {spoken}.",
        figure=figures.differences(found, noise),
        table=Table("differences", "Differences and the ends of their intervals, points", [METHOD, *columns], others),
        height=130 + 56 * len(others),
    )


def _tables(rows: Sequence[Row], what: dict[str, str]) -> list[Table | Terms]:
    caption = f"Differences to {rows[0]['method']}"
    difference = "Paired: over the seeds that both methods have, on the same test samples."
    if why_no_intervals(rows):
        columns = [
            Column(f"{key}_difference", f"Difference, {title}", "points", _signed) for key, title in what.items()
        ]
        return [Table("against", caption, [METHOD, *columns], rows[1:]), Terms([("Difference", difference)])]
    columns = []
    for key, title in what.items():
        columns.append(Interval(f"{key}_difference", f"Difference, {title}", "points [95 %]", ends=key))
        columns.append(Column(f"{key}_p", f"p, {title}", write="{:.3f}".format))
        columns.append(_Ends(f"{key}_test_set_low", f"On these images, {title}", "[95 %]", ends=f"{key}_test_set"))
    words = [
        (
            "Difference",
            f"{difference} The interval is for new seeds and new images: what the difference would be if both methods were "
            "trained again and tested on other images of the same kind. Seeds and images are crossed random effects.",
        ),
        (
            "p",
            "The probability of a difference this large if the methods were equal, corrected for the number of methods (Holm).",
        ),
        (
            "On these images",
            "The interval for new seeds on this test set only. It does not hold for other images.",
        ),
    ]
    return [Table("against", caption, [METHOD, *columns], rows[1:]), Terms(words)]


@dataclass(frozen=True)
class _Ends(Column):
    """The two ends of an interval."""

    ends: str = ""

    def text(self, row: Row) -> str:
        if not measured(row, self.key):
            return "–"
        return f"[{row[f'{self.ends}_low']:+.2f},{NBSP}{row[f'{self.ends}_high']:+.2f}]"


def _signed(value: float) -> str:
    return f"{value:+.2f}"
