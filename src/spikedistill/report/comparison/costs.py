"""The columns of the costs of methods: time, speed and memory."""

from collections.abc import Sequence

from ..blocks import Column, Row, decimals, duration, measured


def _whole(value: float) -> str:
    return f"{value:,.0f}"


COLUMNS = [
    Column("timesteps", "T in training"),
    Column("epochs", "Epochs"),
    Column("training_s", "Training time", "h:mm:ss", duration),
    Column("teacher_s", "Training time of the teacher, and of what it starts from", "h:mm:ss", duration),
    Column("images_per_s", "Training speed", "images/s", _whole),
    Column("peak_mib", "Peak memory in training", "MiB", _whole),
    Column("firing_rate", "Firing rate", "spikes per neuron and timestep", decimals(3)),
]


def cost_columns(rows: Sequence[Row]) -> list[Column]:
    """The columns in which some method has a number."""
    return [column for column in COLUMNS if any(measured(row, column.key) for row in rows)]
