"""The input of the page of a comparison."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...evaluation.comparison.comparison import Comparison
from ...evaluation.comparison.leaderboard import with_numbers
from .. import figures
from ..blocks import Row


@dataclass(frozen=True)
class Shown:
    """A comparison, and the place of its page.

    Attributes:
        comparison: what is shown.
        folder: folder of the comparison; it holds the page, and the runs in `<method>/seed<k>`.
        command: the command that repeats the comparison; None if it was not started from the command line.
    """

    comparison: Comparison
    folder: Path
    command: str | None = None

    @property
    def noise(self) -> float:
        """The fewest points of accuracy that an axis spans: three times the widest interval of a method's accuracy."""
        rows, longest = self.comparison.leaderboard, self.comparison.longest
        accuracies = [row[f"accuracy_{k}"] / 100 for row in with_numbers(rows) for k in (1, longest)]
        return figures.noise(accuracies, self.comparison.samples)

    @property
    def leaderboard(self) -> list[Row]:
        """Its rows, with None for what was not measured."""
        return _without_nan(self.comparison.leaderboard)

    @property
    def timesteps(self) -> list[Row]:
        """The rows of every single timestep, with None for what was not evaluated."""
        return _without_nan(self.comparison.timesteps)


def seeds_in_words(count: int) -> str:
    """So many seeds."""
    return "one seed" if count == 1 else f"{count} seeds"


def _without_nan(rows: Sequence[Row]) -> list[Row]:
    return [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
        for row in rows
    ]
