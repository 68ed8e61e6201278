"""Which timestep was the teacher and which the student, for each method of a comparison that ranks timesteps."""

from collections.abc import Sequence

from ... import figures
from ...blocks import Column, Plot, Plots, Row, Section, Table, Text, decimals
from ..shown import Shown

_ROLES = ("strongest", "weakest")


def chosen_section(shown: Shown) -> Section | None:
    """A histogram for each role, the first and the last epoch of each method side by side; None if no method ranks timesteps."""
    rows = shown.comparison.chosen
    if not rows:
        return None
    words = (
        "Shares of the training batches, means over the seeds. A method that always chooses the last timestep as the strongest "
        "does the same as a fixed order."
    )
    plots = [_plot([row for row in rows if row["role"] == role], role) for role in _ROLES]
    return Section("chosen", "Which timestep was chosen", [Text(words), Plots(plots)])


def _plot(rows: Sequence[Row], role: str) -> Plot:
    T = max(int(key.removeprefix("share_")) for row in rows for key in row if key.startswith("share_"))
    keys = [f"share_{k}" for k in range(1, T + 1)]
    last = {row["method"]: row["epoch"] for row in rows}
    shown = [row for row in rows if row["epoch"] in (1, last[row["method"]])]
    names = figures.short_names(list(dict.fromkeys(row["method"] for row in shown)))
    bars = {(names[row["method"]], row["epoch"]): [row.get(key, 0.0) for key in keys] for row in shown}
    spoken = "; ".join(
        f"{method}, epoch {epoch}: {', '.join(f'{share:.2f}' for share in shares)}"
        for (method, epoch), shares in bars.items()
    )
    columns = [Column("method", "Method"), Column("epoch", "Epoch", write=decimals(0))]
    return Plot(
        name=role,
        title=f"Which timestep was the {role}",
        note="",
        alt=f"Stacked bars, share of batches in which each of {T} timesteps was the {role}. {spoken}.",
        figure=figures.shares({f"{method}, epoch {epoch}": shares for (method, epoch), shares in bars.items()}),
        table=Table(
            role,
            f"Share of batches in which timestep k was the {role}",
            [*columns, *(Column(key, f"k = {k}", write=decimals(4)) for k, key in enumerate(keys, 1))],
            rows,
        ),
        height=240 + 28 * len(bars),
    )
