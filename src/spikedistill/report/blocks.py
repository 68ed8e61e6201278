"""The parts of a page: sections of blocks. A block holds content; the template of the same `kind` draws it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

Row = dict[str, Any]
T = TypeVar("T")


def decimals(count: int) -> Callable[[float], str]:
    """A function that formats a number with `count` decimals."""
    return lambda value: f"{value:.{count}f}"


def numbered(row: Mapping[str, Any], beginning: str) -> list[int]:
    """All k for which there is a key `<beginning>k`."""
    return sorted(
        int(end) for key in row if key.startswith(beginning) and (end := key.removeprefix(beginning)).isdigit()
    )


def measured(row: Mapping[str, Any], key: str) -> bool:
    """Whether the row has a value at the key; nan does not count."""
    value = row.get(key)
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def thinned(values: Sequence[T], most: int) -> list[T]:
    """At most `most` of the values, spread evenly, including the first and the last."""
    if len(values) <= most:
        return list(values)
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]


def significant(value: float | None, digits: int = 6) -> float | None:
    """A number rounded to the digits that a curve can show; all digits of floats would take most of a page."""
    return None if value is None else float(f"{value:.{digits}g}")


def percent(key: str, title: str, unit: str = "%") -> "Column":
    """A column of fractions, written in percent."""
    return Column(key, title, unit, lambda fraction: f"{100 * fraction:.2f}")


@dataclass(frozen=True)
class Column:
    """One column of a table: the key of its values, its title and unit, the format of a value, and whether values are text."""

    key: str
    title: str
    unit: str = ""
    write: Callable[[Any], str] = str
    words: bool = False

    @property
    def head(self) -> str:
        """Title and unit on one line."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def text(self, row: Row) -> str:
        """The text of the cell."""
        return self.write(row[self.key]) if measured(row, self.key) else "–"

    def value_beyond_text(self, row: Row) -> Any:
        """The exact value of the cell if its text is rounded; else None."""
        value = row.get(self.key)
        return None if value is None or str(value) == self.text(row) else value


@dataclass(frozen=True)
class Table:
    """Figures in rows; the first column names the row. A table with a summary is folded; only the summary shows."""

    kind: ClassVar[str] = "table"
    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    summary: str = ""


@dataclass(frozen=True)
class Plot:
    """A plotly figure as plain data, with a description in words for screen readers and a table of its numbers."""

    name: str
    title: str
    note: str
    alt: str
    figure: dict[str, Any]
    table: Table
    height: int = 320


@dataclass(frozen=True)
class Plots:
    """Plots side by side if the screen is wide enough; at most two if plots are wide, such as those of many methods."""

    kind: ClassVar[str] = "plots"
    plots: Sequence[Plot]
    wide: bool = False


@dataclass(frozen=True)
class Text:
    """One paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Terms:
    """Terms and what they mean, for a reader who does not know the field."""

    kind: ClassVar[str] = "terms"
    terms: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Number:
    """One large number with its label and a short explanation."""

    name: str
    value: float
    text: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Numbers:
    """A few large numbers side by side."""

    kind: ClassVar[str] = "numbers"
    numbers: Sequence[Number]


@dataclass(frozen=True)
class Code:
    """Text for copying, such as a command."""

    kind: ClassVar[str] = "code"
    caption: str
    text: str


@dataclass(frozen=True)
class Prediction:
    """The prediction for a sample after the first k timesteps."""

    k: int
    label: str
    confidence: float
    right: bool


@dataclass(frozen=True)
class Sample:
    """One image with its class and the prediction at every k."""

    index: int
    source: str
    truth: str
    predictions: Sequence[Prediction]


@dataclass(frozen=True)
class Samples:
    """Images side by side."""

    kind: ClassVar[str] = "samples"
    samples: Sequence[Sample]


@dataclass(frozen=True)
class Chooser:
    """Controls to choose a policy and a threshold; the script of the same name fills in the results from `data`."""

    kind: ClassVar[str] = "chooser"
    timesteps: int
    policies: Sequence[str]
    samples: Sequence[Sample]
    unit: str  # of energy; empty if the energy is unknown
    data: dict[str, Any]
    of_run: bool = True  # else a page of logits, without a network to load
    has_lengths: bool = False  # of sequences that differ in length


@dataclass(frozen=True)
class Section:
    """A part of the page under its own heading."""

    id: str
    title: str
    blocks: Sequence[Any]


@dataclass(frozen=True)
class Page:
    """A page: its kind, its title, its subject, its main results in words and numbers, and its sections."""

    kind: str
    title: str
    subject: str
    verdict: str
    numbers: Numbers
    sections: Sequence[Section]
