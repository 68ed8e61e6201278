"""Accuracy against latency and energy on a device: fixed timesteps, exit policies, and a point to choose."""

import math
from collections.abc import Sequence

from ....data import DATASETS
from ....evaluation.exits import Policy, exit_times
from ....evaluation.results import Deployment, Energy, Exit
from ... import figures
from ...blocks import Chooser, Column, Plot, Plots, Row, Section, Table, Terms, Text, decimals, percent, thinned
from ..reading import Run
from .samples import choose_samples

TERMS = (
    ("Fixed k", "Every sample runs k timesteps."),
    (
        "Exit policy",
        "A sample leaves at the first timestep at which its score reaches the threshold. Probabilities are the softmax of the mean "
        "of its logits so far, where nothing else is said.",
    ),
    ("Confidence", "The largest probability."),
    (
        "Sum confidence",
        "The largest probability of the softmax of the sum of the logits so far, as in SEENN's released code.",
    ),
    ("Entropy", "1 minus the entropy of the probabilities, as a share of the largest that it can be."),
    ("Margin", "The largest probability minus the second largest."),
    ("Stability", "How many of the latest timesteps in a row gave the same answer."),
    ("Pareto front", "The points that no other one beats in both: nothing is as cheap and more often right."),
)
_POINTS = 12  # of each policy, in the tables
UNITS = (("mJ", 1e9), ("µJ", 1e6), ("nJ", 1e3), ("pJ", 1.0))


def deployment_section(run: Run) -> Section | None:
    """Plots of accuracy against latency and against energy, and a point to choose."""
    found = run.results.deployment
    if found is None or run.results.timesteps == 1:
        return None
    unit, scale = _unit(found)
    start = _start(found)
    rows = _rows(found, scale)
    plots = [_plot(run, found, rows, start, "latency", "mean_exit", "mean latency, timesteps")]
    notes = [
        "A device need not run all timesteps: it stops after a fixed k, or lets a sample leave as soon as a policy is sure of it.",
        "All figures are of the test set; for use, a threshold is chosen on other samples, with AnytimeClassifier.calibrate "
        "(docs/tour/deploy.md).",
    ]
    if _needs_whole_recordings(run):
        notes.append(
            "The frames are cut from whole recordings: leaving early saves computation, but the recording must have ended "
            "before the first timestep. Frames of a fixed duration (--data.slicing duration) save its time too."
        )
    if found.energy is not None:
        plots.append(_plot(run, found, rows, start, "energy", "energy", f"estimated energy, {unit} per sample"))
        notes.append(_energy_note(found.energy))
    elif run.is_trained:
        notes.append("The energy is left out: the operations of this network cannot be counted.")
    else:
        notes.append("The energy is left out: logits do not tell what the network computed.")
    blocks = [Text(" ".join(notes)), Plots(plots), _chooser(run, found, start, unit, scale), Terms(TERMS)]
    return Section("deployment", "Deployment: accuracy for time and energy", blocks)


def _needs_whole_recordings(run: Run) -> bool:
    data = run.config.get("data") or {}
    entry = DATASETS.registered().get(data.get("name", ""))
    return entry is not None and "slicing" in entry.options and data.get("slicing") != "duration"


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, accuracy) that are more accurate than every cheaper one, by cost."""
    front: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((cost, accuracy))
    return front


def _unit(found: Deployment) -> tuple[str, float]:
    """The unit in which the largest energy is one or more, and how many picojoules it is."""
    if found.energy is None:
        return "", 1.0
    largest = max(entry.energy_pj or 0.0 for entry in found.fixed)
    return next((unit for unit in UNITS if largest >= unit[1]), UNITS[-1])


def _start(found: Deployment) -> tuple[str, int]:
    """The initial position of the slider: the quickest point that loses at most half a percentage point against all timesteps."""
    policy, points = next(iter(found.policies.items()))
    least = found.fixed[-1].accuracy - 0.005
    return policy, next((i for i, point in enumerate(points) if point.accuracy >= least), len(points) - 1)


def _threshold(point: Exit) -> str:
    """A threshold as Python code."""
    value = math.inf if point.threshold is None else point.threshold
    return repr(int(value) if value.is_integer() else value)


def _rows(found: Deployment, scale: float) -> list[Row]:
    """The numbers of every point; `curve` names its policy."""
    rows: list[Row] = [
        {"curve": "fixed k", "point": f"k = {entry.k}", "mean_exit": float(entry.k), "entry": entry}
        for entry in found.fixed
    ] + [
        {"curve": policy, "point": f"{policy} {_threshold(point)}", "mean_exit": point.mean_exit, "entry": point}
        for policy, points in found.policies.items()
        for point in points
    ]
    for row in rows:
        entry = row.pop("entry")
        row["accuracy"] = entry.accuracy
        row["energy"] = None if entry.energy_pj is None else entry.energy_pj / scale
    return rows


def _plot(
    run: Run, found: Deployment, rows: list[Row], start: tuple[str, int], name: str, cost: str, x_title: str
) -> Plot:
    front = pareto_front([(row[cost], row["accuracy"]) for row in rows])

    def of(curve: str) -> list[tuple[float, float]]:
        return [(row[cost], 100 * row["accuracy"]) for row in rows if row["curve"] == curve]

    least = figures.UNKNOWN_NOISE
    if run.samples is not None:
        least = figures.noise([entry.accuracy for entry in found.fixed], run.samples)
    curves = ["fixed k", *found.policies]
    some = {point for curve in curves for point in thinned([r["point"] for r in rows if r["curve"] == curve], _POINTS)}
    policy, index = start
    quantity, _, measure = x_title.partition(", ")
    (low, worst), (high, best) = front[0], front[-1]
    ends = f"from {100 * worst:.2f} % at {low:.4g} to {100 * best:.2f} % at {high:.4g} {measure}"
    columns = [
        Column("point", "Point"),
        Column(cost, x_title, write=decimals(3)),
        percent("accuracy", "Accuracy"),
        Column("front", "Pareto front"),
    ]
    title = f"Accuracy against {quantity}"
    return Plot(
        name=f"deployment_{name}",
        title=title,
        note=f"The Pareto front goes {ends}.",
        alt=f"Plot of test accuracy against {x_title}, of fixed timesteps and of exit policies. The Pareto front goes {ends}.",
        figure=figures.tradeoff(
            of("fixed k"),
            {policy: of(policy) for policy in found.policies},
            [(x, 100 * accuracy) for x, accuracy in front],
            of(policy)[index],
            x_title,
            least,
        ),
        height=420,
        table=Table(
            f"deployment_{name}",
            f"{title}: {_POINTS} points of each policy and the Pareto front; all are in what evaluate returns",
            columns,
            [
                row | {"front": "yes" if (row[cost], row["accuracy"]) in front else None}
                for row in rows
                if row["point"] in some or (row[cost], row["accuracy"]) in front
            ],
        ),
    )


def _chooser(run: Run, found: Deployment, start: tuple[str, int], unit: str, scale: float) -> Chooser:
    samples, _ = choose_samples(run)
    shown = [sample.index for sample in samples]

    def exits(policy: Policy, point: Exit) -> list[int]:
        """The exit times of the samples that are shown."""
        if run.logits is None or not shown:
            return []
        threshold = math.inf if point.threshold is None else point.threshold
        lengths = None if run.lengths is None else run.lengths[shown]
        return exit_times(run.logits[:, shown], policy, threshold, lengths).tolist()

    points = {
        policy: [
            point.model_dump() | {"threshold": _threshold(point), "exits": exits(policy, point)} for point in of_policy
        ]
        for policy, of_policy in found.policies.items()
    }
    data = {"policies": points, "start": {"policy": start[0], "index": start[1]}, "unit": unit, "scale": scale}
    return Chooser(run.results.timesteps, list(points), samples, unit, data, run.is_trained, run.lengths is not None)


def _energy_note(energy: Energy) -> str:
    note = (
        f"The energy is an estimate, no measurement: operations of {energy.samples} test samples, counted by timestep, times a "
        f"table of costs ({energy.costs}), with neurons and memory; samples that stay are taken for as active as all."
    )
    return note + (
        " Some products outside of convolutions and linear layers are in no figure." if energy.uncounted_macs else ""
    )
