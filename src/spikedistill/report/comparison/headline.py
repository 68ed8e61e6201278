"""The first screen of a comparison: who leads, by how much, and how sure that is."""

from collections.abc import Sequence

from ...evaluation.comparison.leaderboard import with_numbers
from ..blocks import Number, Numbers, Row
from .intervals import what_is_told, with_interval
from .lost import what_was_lost
from .shown import Shown, seeds_in_words


def compared(shown: Shown) -> str:
    """The methods and the setting of the comparison, in two sentences."""
    comparison = shown.comparison
    return (
        f"{seeds_in_words(comparison.seeds)} for every method, one network for all k up to {comparison.longest}; "
        f"the test set after the last epoch. The baseline is {comparison.baseline}."
    )


def headline(shown: Shown) -> tuple[str, Numbers]:
    """Which method leads, in words, and its mean over k next to that of the baseline."""
    return verdict(shown.leaderboard), _numbers(shown.leaderboard)


def verdict(rows: Sequence[Row]) -> str:
    """Which method leads in the mean over k, how many differ from the baseline by more than chance, which runs have no numbers."""
    baseline = rows[0]
    best = max(with_numbers(rows), key=lambda row: row["area"])
    leader = f"Best in the mean over k is {best['method']} with {best['area']:.2f} %"
    if best is baseline:
        leader = f"No method is better in the mean over k than the baseline, {baseline['method']}, with {baseline['area']:.2f} %"
    elif "area_difference" in best:
        leader += (
            f": {with_interval(best, 'area_difference', 'area', ' points')} from the baseline, {baseline['method']}"
        )
    first = _unsettled(best, rows) or f"{leader}."
    return " ".join(sentence for sentence in (first, what_is_told(rows), what_was_lost(rows)) if sentence)


def _unsettled(best: Row, rows: Sequence[Row]) -> str:
    """Why no method is called the best after two training times, in a sentence; empty if one is, or there is one time only."""
    if not any("place_first" in row for row in rows) or (best.get("place_first"), best.get("place_last")) == (1, 1):
        return ""
    leads = f"{best['method']} leads after all epochs, with {best['area']:.2f} %"
    if "place_first" not in best:
        return f"Which method is best in the mean over k is not known: {leads}, and has no numbers after fewer."
    return f"Which method is best in the mean over k depends on how long it is trained: {leads}, and not after fewer."


def _numbers(rows: Sequence[Row]) -> Numbers:
    best = max(with_numbers(rows), key=lambda row: row["area"])
    shown = {"best": best} if best is not rows[0] else {}
    shown |= {"baseline": rows[0]} if "area" in rows[0] else {}
    return Numbers(
        [
            Number(f"area_{name}", row["area"], f"{row['area']:.2f} %", f"mean over k, {row['method']}", note=name)
            for name, row in shown.items()
        ]
    )
