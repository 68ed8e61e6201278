"""What came out of the list beside what papers report: a table, differences, a figure, and everything in one JSON file."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from spikedistill.evaluation.comparison.differences import paired_difference
from spikedistill.evaluation.comparison.published import published_numbers
from spikedistill.evaluation.comparison.records import RunRecord
from spikedistill.files import write_atomically, write_rows
from spikedistill.recipes import protocol_line

from .headline_runs import Study
from .results import commit, machine, versions

# Runs of a study that have numbers, by method and in the order of the list.
Studies = Mapping[Study, Mapping[str, Sequence[RunRecord]]]
_NETWORKS = {"resnet18": "ResNet-18", "resnet19": "ResNet-19", "ms_resnet18": "MS-ResNet-18"}
_LESS = "twkd"  # differences are those of this method to each of the others
REMARK = (
    "last: accuracy on the test set after the last epoch, in percent, trained on all training images, mean and standard deviation "
    "over seeds. best_on_test: that of the epoch with the highest accuracy on the test set after T timesteps, as the papers' code "
    "chooses it; it is optimistic, because the test set chose it. published: from papers, whose epoch was chosen so."
)


def table(studies: Studies) -> list[dict[str, Any]]:
    """Rows `{study, method, network, T, epochs, batch, learning_rate, precision, k, seeds, last, last_std, best_on_test,
    best_epochs, published, published_protocol, published_source, published_doubt}`, for every k = 1..T.

    Accuracies are in percent. `published` is empty where no paper reports that method on that network at that T and k; where
    several numbers are reported, all stand there.
    """
    rows = []
    for study, methods in studies.items():
        for method, records in methods.items():
            config = records[0].config
            best = [_best_epoch(record) for record in records]
            for k in range(1, config.timesteps + 1):
                last = [100 * float(record.right[k - 1].mean()) for record in records]
                row: dict[str, Any] = {
                    "study": study.name,
                    "method": method,
                    "network": config.model.name,
                    "T": config.timesteps,
                    "epochs": config.epochs,
                    "batch": config.data.batch_size,
                    "learning_rate": config.optimizer.lr,
                    "precision": config.trainer.precision,
                    "k": k,
                    "seeds": len(records),
                    "last": round(mean(last), 4),
                    "last_std": round(stdev(last), 4) if len(last) > 1 else None,
                    "best_on_test": round(mean(100 * float(epoch[f"test_accuracy_{k}"]) for epoch in best), 4),
                    "best_epochs": " ".join(epoch["epoch"] for epoch in best),
                }
                rows.append(row | _published(study, method, config.model.name, config.timesteps, k))
    return rows


def _best_epoch(record: RunRecord) -> dict[str, str]:
    """The row of the epoch that is the best on the test set after T timesteps, of equals the first."""
    T = record.config.timesteps
    return max(record.metrics, key=lambda row: float(row[f"test_accuracy_{T}"]))


def _published(study: Study, method: str, network: str, T: int, k: int) -> dict[str, str]:
    """What papers report of exactly this, several numbers joined."""
    found = [
        row
        for row in published_numbers(study.dataset, method)
        if row["network"] == _NETWORKS.get(network) and row["T"] == str(T) and row["k"] == str(k)
    ]
    names = {"published": "accuracy", "published_protocol": "protocol", "published_source": "source"}
    return {
        ours: " / ".join(row[theirs] for row in found)
        for ours, theirs in (names | {"published_doubt": "doubt"}).items()
    }


def differences(studies: Studies) -> list[dict[str, Any]]:
    """Rows `{study, ours, theirs, k, seeds, difference}` in points, from three seeds on with the ends of `paired_difference`.

    TWKD less each other method of its study, and bf16 less the float32 control, over the seeds that both have, after k = 1..T
    timesteps and on the mean over k.
    """
    rows = []
    for name, (ours, theirs), (first, second) in _pairs(studies):
        of_seed = {record.config.seed: record for record in second}
        both = [(record, of_seed[record.config.seed]) for record in first if record.config.seed in of_seed]
        if not both:
            continue
        T = both[0][0].config.timesteps
        picks: dict[str, Any] = {str(k): k - 1 for k in range(1, T + 1)} | {"mean over k": slice(T)}
        for k, pick in picks.items():
            scores = [
                np.stack([np.atleast_2d(record.right[pick]).astype(np.float64).mean(0) for record in side])
                for side in zip(*both, strict=True)
            ]
            found = {key: round(100 * value, 4) for key, value in paired_difference(*scores).items() if key != "p"}
            rows.append({"study": name, "ours": ours, "theirs": theirs, "k": k, "seeds": len(both), **found})
    return rows


def _pairs(
    studies: Studies,
) -> Iterator[tuple[str, tuple[str, str], tuple[Sequence[RunRecord], Sequence[RunRecord]]]]:
    """What is compared: the study, both names, both runs."""
    for study, methods in studies.items():
        for method in methods:
            if method != _LESS and _LESS in methods:
                yield study.name, (_LESS, method), (methods[_LESS], methods[method])
    for study, methods in studies.items():
        for other, theirs in studies.items():
            if study.precision != "32-true" and other == replace(study, precision="32-true", remark=other.remark):
                for method in methods.keys() & theirs.keys():
                    yield other.name, (f"{method}, bf16", f"{method}, float32"), (methods[method], theirs[method])


def write_tables(out: Path, studies: Studies, outcomes: Mapping[str, str], remarks: Mapping[str, Any]) -> None:
    """Write table.csv, differences.csv, results.json and headline.png.

    Args:
        out: the folder.
        studies: the finished runs.
        outcomes: what became of every run of the list, in words.
        remarks: what else belongs into results.json.
    """
    rows, between = table(studies), differences(studies)
    write_rows(out / "table.csv", rows)
    write_rows(out / "differences.csv", between)
    of_runs = {
        f"{study.name}/{record.config.recipe}/seed{record.config.seed}": _about(record)
        for study, methods in studies.items()
        for records in methods.values()
        for record in records
    }
    found = {
        "remark": REMARK,
        **remarks,
        "machine": machine("cuda" if torch.cuda.is_available() else "cpu"),
        "versions": versions(),
        **commit(),
        "outcomes": dict(outcomes),
        "runs": of_runs,
        "table": rows,
        "differences": between,
    }
    write_atomically(out / "results.json", json.dumps(found, indent=1) + "\n")
    if rows:
        draw(studies, rows, out / "headline.png")


def _about(record: RunRecord) -> dict[str, Any]:
    """A run's cost, and where it departs from its paper."""
    followed = protocol_line(record.config) if record.config.protocol else None
    return {**record.cost, "protocol": followed}


def draw(studies: Studies, rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """One panel a study, accuracy over k: after the last epoch, dotted at the best one on the test set, published as rings."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = [study.name for study in studies if any(row["study"] == study.name and row["T"] > 1 for row in rows)]
    if not names:
        return
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    with plt.rc_context({"font.size": 8}):
        figure, axes = plt.subplots(
            lines, columns, figsize=(4 * columns, 3.2 * lines), squeeze=False, layout="constrained"
        )
        for axis in axes.flat[len(names) :]:
            axis.set_visible(False)
        for axis, name in zip(axes.flat, names, strict=False):
            mine = [row for row in rows if row["study"] == name]
            for index, method in enumerate(dict.fromkeys(row["method"] for row in mine)):
                of_method, color = [row for row in mine if row["method"] == method], f"C{index % 10}"
                ks = [row["k"] for row in of_method]
                spread = [row["last_std"] or 0 for row in of_method]
                axis.errorbar(ks, [row["last"] for row in of_method], spread, color=color, marker=".", label=method)
                axis.plot(ks, [row["best_on_test"] for row in of_method], color=color, linestyle=":")
                said = [
                    (row["k"], float(value)) for row in of_method for value in row["published"].split(" / ") if value
                ]
                axis.scatter(*zip(*said, strict=True), facecolors="none", edgecolors=color) if said else None
            axis.set(title=name, xlabel="k", ylabel="accuracy, %", xticks=sorted({row["k"] for row in mine}))
            axis.legend(frameon=False)
        figure.suptitle(
            "after the last epoch; dotted: best epoch on the test set, as papers choose it; rings: published"
        )
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=120)
        plt.close(figure)
    write_atomically(file, drawn.getvalue())
