"""Confidence against accuracy, as trained and after one temperature per k."""

from ....evaluation.calibration import BINS, reliability
from ....evaluation.results import Bin, Score
from ....evaluation.timesteps import timestep_reliability
from ....objectives.submodels import prefix_means
from ... import figures
from ...blocks import Column, Plot, Plots, Row, Section, Table, Text, decimals, percent
from ..reading import Run


def calibration_section(run: Run) -> Section:
    """The table over k, and the reliability diagrams of the first, a middle and the last k if the run has the bins."""
    view, T = run.results.last, run.results.timesteps
    words = "A calibrated network is right in 80 % of the cases in which it is 80 % sure. " + _sureness(
        view.ensemble[-1]
    )
    if view.calibrated:
        words += " A temperature, one per k fitted on held-out samples, divides its scores: the answers stay, the sureness changes."
    raw = view.reliability or _raw_bins(run)
    plots = [_diagram(k, raw[k], _calibrated_bins(run, k)) for k in sorted({1, (T + 1) // 2, T}) if k in raw]
    return Section("calibration", "Calibration", [Text(words), *([Plots(plots)] if plots else []), _table(run)])


def _sureness(entry: Score) -> str:
    gap = 100 * (entry.confidence - entry.accuracy)
    if abs(gap) < 1.0:
        return f"At k = {entry.k} this one is about as sure as it is right."
    return f"At k = {entry.k} this one is {abs(gap):.1f} points {'surer than' if gap > 0 else 'less sure than'} it is right."


def _table(run: Run) -> Table:
    after = {entry.k: entry for entry in run.results.last.calibrated}
    columns = [
        Column("k", "k"),
        percent("confidence", "Confidence"),
        percent("accuracy", "Accuracy"),
        percent("gap", "Too sure by", "points"),
        percent("ece", "ECE", "points"),
        Column("nll", "NLL", "nats", decimals(3)),
    ]
    rows: list[Row] = [
        entry.model_dump() | {"gap": entry.confidence - entry.accuracy} for entry in run.results.last.ensemble
    ]
    if after:
        columns += [
            Column("temperature", "Temperature", write=decimals(3)),
            percent("ece_after", "ECE after", "points"),
            Column("nll_after", "NLL after", "nats", decimals(3)),
        ]
        for row in rows:
            entry = after[row["k"]]
            row |= {"temperature": entry.temperature, "ece_after": entry.ece, "nll_after": entry.nll}
    return Table("calibration", f"Calibration of the first k timesteps together: {run.scored_on}", columns, rows)


def _raw_bins(run: Run) -> dict[int, list[Bin]]:
    if run.logits is None or run.targets is None:
        return {}
    found = timestep_reliability(run.logits, run.targets)
    return {int(k): [Bin.model_validate(entry) for entry in bins] for k, bins in found.items()}


def _calibrated_bins(run: Run, k: int) -> list[Bin]:
    temperatures = {entry.k: entry.temperature for entry in run.results.last.calibrated}
    if run.logits is None or run.targets is None or k not in temperatures:
        return []
    bins = reliability(prefix_means(run.logits.double())[k - 1] / temperatures[k], run.targets)
    return [Bin.model_validate(entry) for entry in bins]


def _diagram(k: int, raw: list[Bin], after: list[Bin]) -> Plot:
    columns = [Column("bin", "Bin", "%"), *_bin_columns("", "")]
    rows = [{"bin": f"{100 * m / BINS:.1f} to {100 * (m + 1) / BINS:.1f}", **_cells(raw[m])} for m in range(len(raw))]
    if after:
        columns += _bin_columns("_after", ", after")
        for row, entry in zip(rows, after, strict=True):
            row |= {f"{name}_after": value for name, value in _cells(entry).items()}
    return Plot(
        name=f"reliability_{k}",
        title=f"Reliability at k = {k}",
        note="On the dotted line confidence is deserved; below it the network is too sure. A larger mark holds more samples.",
        alt=f"Reliability diagram at k = {k}: accuracy against confidence in {len(raw)} bins.",
        figure=figures.reliability(raw, after),
        table=Table(f"reliability_{k}", f"Reliability at k = {k}", columns, rows),
    )


def _bin_columns(suffix: str, when: str) -> list[Column]:
    return [
        Column("count" + suffix, f"Samples{when}"),
        percent("confidence" + suffix, f"Mean confidence{when}"),
        percent("accuracy" + suffix, f"Accuracy{when}"),
    ]


def _cells(entry: Bin) -> Row:
    return entry.model_dump() if entry.count else {"count": 0}
