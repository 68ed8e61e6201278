"""Time and memory over T."""

from collections.abc import Sequence
from pathlib import Path

from .table import Row


def plot(rows: Sequence[Row], to: str, out: Path) -> None:
    """Two panels: time as a multiple of the reference's, with quartiles, and peak memory.

    Args:
        rows: as `rows_of` returns them.
        to: the contender that their ratios were taken to.
        out: an SVG file, or another that matplotlib writes.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"svg.hashsalt": "spikedistill", "svg.fonttype": "none", "font.size": 9}):
        figure, (time, memory) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
        for index, name in enumerate(dict.fromkeys(row["contender"] for row in rows)):
            style = {"label": name, "color": f"C{index % 10}", "marker": "os^D"[index // 10], "markersize": 3.5}
            mine = [row for row in rows if row["contender"] == name]
            timed = [row for row in mine if row[f"per_{to}"] is not None]
            weighed = [row for row in mine if row["peak_mib"] is not None]
            T = [row["timesteps"] for row in timed]
            time.plot(T, [row[f"per_{to}"] for row in timed], **style)
            quartiles = [[row[f"per_{to}_{q}"] for row in timed] for q in ("q1", "q3")]
            time.fill_between(T, *quartiles, color=style["color"], alpha=0.2, linewidth=0)
            memory.plot([row["timesteps"] for row in weighed], [row["peak_mib"] for row in weighed], **style)
        measured = sorted({row["timesteps"] for row in rows})
        time.set(xlabel="timesteps T", xticks=measured, ylabel=f"time, multiples of {to}", ylim=(0, None))
        memory.set(xlabel="timesteps T", xticks=measured, ylabel="peak allocator memory, MiB", ylim=(0, None))
        figure.legend(*time.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        out.parent.mkdir(parents=True, exist_ok=True)
        # no date: the same figures give the same file
        figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)
        plt.close(figure)
