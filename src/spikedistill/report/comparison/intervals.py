"""Numbers with their intervals, and which methods differ from the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..blocks import Column, Row, measured
from .lost import why_no_differences

METHOD = Column("method", "Method")
NBSP = "\N{NO-BREAK SPACE}"  # a number and its uncertainty stay on one line on a phone
_NO_INTERVALS = (
    "There are no intervals: two methods need 3 seeds in common. Fewer seeds do not show how much accuracy changes from one "
    "training to the next."
)


def with_interval(row: Row, key: str, ends: str, unit: str = "") -> str:
    """A number with its unit, and its interval if it has one."""
    interval = f" [{row[f'{ends}_low']:+.2f},{NBSP}{row[f'{ends}_high']:+.2f}]" if measured(row, f"{ends}_low") else ""
    return f"{row[key]:+.2f}{unit}{interval}"


@dataclass(frozen=True)
class Interval(Column):
    """A column of numbers in points with their intervals, whose ends are at `<ends>_low` and `<ends>_high`."""

    ends: str = ""

    def text(self, row: Row) -> str:
        return with_interval(row, self.key, self.ends) if measured(row, self.key) else "–"


def why_no_intervals(rows: Sequence[Row]) -> str:
    """Why no difference has an interval, in a sentence; empty if some have one, or if there are no differences."""
    compared = [row for row in rows[1:] if "area_difference" in row]
    return _NO_INTERVALS if compared and not any("area_p" in row for row in compared) else ""


def what_is_told(rows: Sequence[Row]) -> str:
    """How many methods differ from the baseline, the first row, by more than chance, in a sentence."""
    if reason := why_no_differences(rows) or why_no_intervals(rows):
        return reason
    known = [row["area_p"] < 0.05 for row in rows[1:] if "area_p" in row]
    if len(rows) == 2:
        return f"The difference is {'larger than' if known[0] else 'within'} what chance explains."
    differ = "1 differs" if sum(known) == 1 else f"{sum(known) or 'none'} differ"
    return f"Of the {len(known)} other methods {differ} from the baseline by more than chance."
