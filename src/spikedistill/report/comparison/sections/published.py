"""Accuracies that papers report for the methods of a comparison, next to those of the comparison."""

from ...blocks import Column, Section, Table, Terms, Text, decimals
from ..shown import Shown


def published_section(shown: Shown) -> Section | None:
    """A table of both, and known doubts about a published number; None if nothing is published on the data set."""
    rows = shown.comparison.published
    if not rows:
        return None
    doubts = [row["doubt"].split("; ") if row["doubt"] else [] for row in rows]
    marks = {doubt: f"†{number}" for number, doubt in enumerate(dict.fromkeys(sum(doubts, [])), 1)}
    table_rows = [
        row | {"T": row["T"] or None, "doubts": " ".join(marks[doubt] for doubt in own) or None}
        for row, own in zip(rows, doubts, strict=True)
    ]
    words = (
        "These numbers are read from papers, not measured. Networks, augmentation, schedules and the choice of the reported epoch "
        "differ among papers and from the runs here, so a difference says little about a method."
    )
    columns = [
        Column("ours", "Method"),
        Column("ours_accuracy", "Here", "%", decimals(2)),
        Column("ours_k", "at k"),
        Column("accuracy", "Published", "%"),
        Column("doubts", "Disputed", words=True),
        Column("network", "Its network", words=True),
        Column("T", "Its T"),
        Column("protocol", "Its protocol", words=True),
        Column("augmentation", "Its augmentation", words=True),
        Column("source", "Source", words=True),
    ]
    table = Table(
        "published", "Published test accuracies on this data set, next to those of this comparison", columns, table_rows
    )
    return Section(
        "published", "What papers report", [Text(words), table, Terms([(m, doubt) for doubt, m in marks.items()])]
    )
