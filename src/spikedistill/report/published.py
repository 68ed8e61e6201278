"""What papers report of the methods of a comparison, beside what came out of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from .blocks import Column, Row, Section, Table, Text, decimals


@dataclass(frozen=True)
class _Disputed(Column):
    """A number with a dagger where it may be off."""

    def text(self, row: Row) -> str:
        return f"{row[self.key]}{' †' if row['doubt'] else ''}"


def published_section(rows: Sequence[Row]) -> Section | None:
    """A table of both; None where nothing is published on the data set.

    Args:
        rows: see `spikedistill.evaluation.published.beside_published`.
    """
    if not rows:
        return None
    shown = [row | {key: row[key] or None for key in ("T", "doubt")} for row in rows]
    words = (
        "Read from papers, not measured: networks, augmentation, schedules and the choice of the reported epoch differ among them "
        "and from the runs here, so a difference says little about a method. A dagger marks a number that may be off; the last "
        "column says why."
    )
    columns = [
        Column("ours", "Method"),
        Column("ours_accuracy", "Here, all timesteps", "%", decimals(2)),
        _Disputed("accuracy", "Published", "%"),
        Column("network", "Its network"),
        Column("T", "Its T"),
        Column("protocol", "Its protocol"),
        Column("augmentation", "Its augmentation"),
        Column("source", "Source"),
        Column("doubt", "Doubt"),
    ]
    table = Table(
        "published", "Published test accuracies on this data set beside those of this comparison", columns, shown
    )
    return Section("published", "What papers report", [Text(words), table])
