"""How often methods predict the class that their teacher predicts."""

from ...blocks import Column, Section, Table, Text, decimals
from ..intervals import METHOD
from ..shown import Shown


def teacher_section(shown: Shown) -> Section | None:
    """A table of the methods whose teacher was a run; None if there are none."""
    taught = [row for row in shown.leaderboard if row.get("teacher_agreement") is not None]
    if not taught:
        return None
    columns = [
        METHOD,
        Column("teacher_agreement", "Same prediction as the teacher", "%", decimals(2)),
        Column("teacher_agreement_where_wrong", "Same, if the teacher is wrong", "%", decimals(2)),
    ]
    words = "The second number is how often a method repeats a mistake of its teacher."
    caption = "Agreement with the teacher, all timesteps together, means over the seeds"
    return Section("teacher", "Agreement with the teacher", [Text(words), Table("teacher", caption, columns, taught)])
