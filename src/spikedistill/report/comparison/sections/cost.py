"""What each method took."""

from ...blocks import Column, Section, Table, Text
from ..costs import cost_columns
from ..intervals import METHOD
from ..shown import Shown

_WORDS = (
    "Time and speed include the training steps and the scores after every epoch except the last. The first step of each process is "
    "left out, because it may compile. Runs that were trained at the same time slowed each other down."
)


def cost_section(shown: Shown) -> Section:
    """Training time, speed and memory, and how often neurons fire."""
    rows = shown.leaderboard
    caption = "What each method took: medians over its runs, and its mean firing rate"
    table = Table("cost", caption, [METHOD, Column("seeds", "Seeds"), *cost_columns(rows)], rows)
    return Section("cost", "Cost", [Text(_WORDS), table])
