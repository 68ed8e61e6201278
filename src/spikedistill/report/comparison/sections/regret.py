"""The accuracy that one network for every k loses against networks that were trained for exactly that k."""

from ... import figures
from ...blocks import Column, Plot, Plots, Section, Table, Text, decimals, numbered
from ..intervals import Interval
from ..shown import Shown


def regret_section(shown: Shown) -> Section | None:
    """A plot and a table of the loss of accuracy at each k; None if there are no specialists."""
    rows = shown.comparison.regrets
    if not rows:
        return None
    short = figures.short_name
    named = [{"pair": f"{short(row['method'])} against {short(row['specialists'])}", **row} for row in rows]
    K = sorted({k for row in rows for k in numbered(row, "regret_")})
    curves = {
        row["pair"]: {
            k: (row[f"regret_{k}"], row.get(f"regret_{k}_low"), row.get(f"regret_{k}_high"))
            for k in K
            if f"regret_{k}" in row
        }
        for row in named
    }
    words = (
        "One network, trained at the largest T and stopped after k timesteps, is compared with specialists: networks trained at "
        "exactly T = k. Above 0 the specialist is better at that k; below 0 the one network is better."
    )
    pair = Column("pair", "Network and specialists")
    ends = [
        Column(f"regret_{k}{end}", f"k = {k}{title}", write=decimals(4))
        for k in K
        for end, title in (("", ""), ("_low", ", low"), ("_high", ", high"))
    ]
    plot = Plot(
        name="regret",
        title="Accuracy lost to specialists",
        note="Points of accuracy, from 3 seeds on with 95 % intervals for new seeds and new images.",
        alt="Points lost at each k. "
        + "; ".join(
            f"{name}: {', '.join(f'{regret:+.2f} at k = {k}' for k, (regret, _, _) in curve.items())}"
            for name, curve in curves.items()
        ),
        figure=figures.regrets(curves),
        table=Table("regret", "Accuracy lost and the ends of its interval, points", [pair, *ends], named),
        height=340 + 12 * len(rows),
    )
    table = Table(
        "specialists",
        "Points lost to the network that was trained at T = k",
        [pair, *(Interval(f"regret_{k}", f"k = {k}", "points [95 %]", ends=f"regret_{k}") for k in K)],
        named,
    )
    return Section("regret", "One network against specialists", [Text(words), Plots([plot]), table])
