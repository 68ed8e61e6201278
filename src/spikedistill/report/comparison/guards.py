"""The columns that guard against wrong conclusions: the place, the worst k, and how far training went."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..blocks import Column, Row, decimals, measured


@dataclass(frozen=True)
class _Place(Column):
    """A range of places, or one place."""

    def text(self, row: Row) -> str:
        if not measured(row, self.key):
            return "–"
        first, last = row["place_first"], row["place_last"]
        return str(first) if first == last else f"{first} to {last}"


_COLUMNS = [
    _Place("place_first", "Place"),
    Column("area_teacher_std", "Deviation over teachers", "points", decimals(2)),
    Column("largest_regret", "Largest regret", "points", decimals(2)),
    Column("train_loss", "Training loss", "nats", decimals(3)),
]
TERMS = {
    "place_first": (
        "Place",
        "By the mean over k, both after all epochs and after a quarter of them. Where the two differ, it is a range.",
    ),
    "area_teacher_std": (
        "Deviation over teachers",
        "The standard deviation of the mean over k between teachers. Accuracies are means over these teachers, and intervals "
        "do not hold for others.",
    ),
    "largest_regret": ("Largest regret", "The largest distance, over all k, to the method that is best at that k."),
    "train_loss": (
        "Training loss",
        "The cross-entropy of all timesteps together on the batches of the last epoch. Where it is still high, longer training may "
        "change which method is best.",
    ),
}


def guard_columns(rows: Sequence[Row]) -> list[Column]:
    """The columns in which some method has a number."""
    return [column for column in _COLUMNS if any(measured(row, column.key) for row in rows)]
