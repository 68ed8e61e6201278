"""How objectives stand up to attacks: each trained on images and on attacked images, with the controls of S2W's paper.

What every network is measured by: PGD and SA-PGD through five surrogates in turn, each on the images that the ones before have left
and from another starting point, at one timestep and at T. Runs of the first seed are also attacked with half the size, twice the
steps, no bound, random squares and the images of an ANN twin: a row of the table whose first seed fails a check is marked.
"""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from spikedistill.comparisons.side_by_side import fresh_processes
from spikedistill.config import Config
from spikedistill.evaluation.attacked import noise_of
from spikedistill.models import create_model
from spikedistill.recipes import recipe
from spikedistill.robustness import (
    LEVEL,
    VIEWS,
    Attack,
    Bim,
    CarliniWagner,
    Choices,
    Fgsm,
    GaussianNoise,
    Pgd,
    Row,
    View,
    Withstood,
    measure,
    measure_run,
    subject_of,
)
from spikedistill.robustness.checks import worst_case
from spikedistill.run_folder import RunFolder
from spikedistill.training import train
from spikedistill.training.plan import make_plan

from . import study_file
from .pairs import difference, mean_and_spread
from .study_file import StudyFile

CONTROLS = ("label-smoothing", "entropy-regularisation")
METHODS = {"fashion_mnist": ("sce", "s2w", "w2s", "twce", *CONTROLS), "cifar10": ("sce", "s2w", "twce")}
TRAINING: dict[str, dict[str, Any]] = {
    "plain": {},
    "pgd": {"adversarial": "pgd", "adversarial_eps": 8.0, "adversarial_steps": 3},
}
EPS = 8.0
# Of the network, the batch size and the learning rate, where those of the data set are for a longer training.
_SIZES: dict[str, tuple[dict[str, Any], int, float]] = {"cifar10": ({"options": {"width": 0.25}}, 32, 0.05)}
_SHARES = {"plain": 0.15, "pgd": 0.6}  # of images that are still right in the middle of an attack, for the budget alone


class Plan(NamedTuple):
    """What is trained and attacked.

    Attributes:
        root: of the data sets.
        out: folder of the runs.
        dataset: a key of `METHODS`.
        seeds: of every objective; the first is checked.
        samples: images of training.
        epochs: of training.
        tested: images that are attacked.
        steps: of an attack.
        jobs: processes, of one thread each.
    """

    root: Path
    out: Path
    dataset: str
    seeds: tuple[int, ...]
    samples: int
    epochs: int
    tested: int
    steps: int
    jobs: int

    def config(self, method: str, training: str) -> Config:
        """That of an objective, or of the ANN."""
        config = recipe(f"{self.dataset}-{method}")
        model, batch_size, lr = _SIZES.get(self.dataset, ({}, 64, config.optimizer.lr))
        data = {"root": self.root.resolve(), "train_samples": self.samples, "batch_size": batch_size}
        return config.model_copy(
            update={
                "epochs": self.epochs,
                "model": config.model.model_copy(update=model),
                "data": config.data.model_copy(update=data),
                "optimizer": config.optimizer.model_copy(update={"lr": lr}),
                "objective": config.objective.model_copy(update=TRAINING[training]),
            }
        )

    def runs(self) -> Iterator[tuple[str, str, int, Path]]:
        """Training, objective, seed and folder of every run; those of the first seed first."""
        for seed in self.seeds:
            for training in TRAINING:
                for method in METHODS[self.dataset]:
                    yield training, method, seed, self.out / training / f"{self.dataset}-{method}" / f"seed{seed}"

    def twin(self, training: str) -> Path:
        return self.out / training / "twin"

    def choices(self, training: str, seed: int) -> Choices:
        """What a run is attacked with."""
        first = seed == self.seeds[0]
        return Choices(
            attacks=("pgd", "sa-pgd"),
            eps=(EPS,),
            steps=self.steps,
            samples=self.tested,
            checks=first,
            twin=self.twin(training) if first else None,
        )


def budget(plan: Plan) -> str:
    """About how many hours of one core the whole will take, by the time of a step of an attack here.

    It assumes that 15 percent of the images are left in the middle of an attack on a plain network, and 60 percent on one that was
    trained on attacked images.
    """
    torch.set_num_threads(1)
    config = plan.config("sce", "plain")
    made = make_plan(config)
    dataset = made.dataset
    x, target = dataset.test.inputs(torch.arange(50)) / LEVEL, dataset.test.targets[:50]
    network = create_model(**made.spec).eval()
    hours = dict.fromkeys(("training", "attacks"), 0.0)
    cost: dict[tuple[int, str], float] = {}
    for k in (1, config.timesteps):
        for through in VIEWS:
            attack, view, start = Pgd(EPS / LEVEL, steps=3), View(network, k, through), noise_of(x.shape, 0)
            attack(view, x, target, start)
            begun = time.process_time()
            attack(view, x, target, start)
            cost[k, through] = (time.process_time() - begun) / 3 / len(x) / 3600
    step = 1.3 * cost[config.timesteps, "trained"]
    for training, _, seed, _ in plan.runs():
        attacked = TRAINING[training].get("adversarial_steps", 0)
        hours["training"] += plan.epochs * plan.samples * step * (1 + attacked)
        sizes = 4 if seed == plan.seeds[0] else 1  # half the size, and twice the steps
        hours["attacks"] += 2.2 * sizes * plan.tested * plan.steps * _SHARES[training] * sum(cost.values())
    return (
        f"about {sum(hours.values()):.1f} CPU hours: training {hours['training']:.1f}, attacks {hours['attacks']:.1f}"
    )


def study(plan: Plan, file: Path, command: str) -> dict[str, Any]:
    """Train and attack every run, and add what came of it to a file of JSON lines, with which another machine can go on.

    Returns:
        What the file then holds; see `read`.

    Raises:
        ValueError: if the file holds a study with another plan.
    """
    settings = {name: value for name, value in plan._asdict().items() if name not in ("root", "out", "jobs")}
    found = StudyFile(file, settings | {"eps": EPS}, command)
    done = {(run["training"], run["method"], run["seed"]) for run in found.runs}
    left = [run for run in plan.runs() if run[:3] not in done]
    with ProcessPoolExecutor(plan.jobs, mp_context=fresh_processes()) as pool:
        if any(run[2] == plan.seeds[0] for run in left):
            list(pool.map(_train, [_twin(plan, training) for training in TRAINING]))
        for number, ended in enumerate(as_completed(pool.submit(_trained_and_attacked, plan, run) for run in left), 1):
            row = ended.result()
            found.add(row)
            of = f"{row['training']} {row['method']} seed {row['seed']}"
            print(f"{len(done) + number} of {len(done) + len(left)}: {of}", flush=True)
    return read(file)


def read(file: Path) -> dict[str, Any]:
    """`{plan, sessions: [{machine, ...}], runs: [{training, method, seed, seconds, rows, worst, paper}]}`, seed by seed."""
    found = study_file.read(file)
    return found | {"runs": sorted(found["runs"], key=lambda run: run["seed"])}


def _twin(plan: Plan, training: str) -> Config:
    return plan.config("ann", training).model_copy(update={"out": plan.twin(training), "seed": plan.seeds[0]})


def _train(config: Config) -> None:
    torch.set_num_threads(1)
    train(config.model_copy(update={"resume": "auto"}))


def _trained_and_attacked(plan: Plan, run: tuple[str, str, int, Path]) -> dict[str, Any]:
    training, method, seed, path = run
    begun = time.process_time()
    _train(plan.config(method, training).model_copy(update={"out": path, "seed": seed}))
    choices = plan.choices(training, seed)
    measured = measure_run(path, choices, root=plan.root)
    subject, (_, T) = subject_of(path, choices, root=plan.root)
    paper = measure(subject, paper_rows(T), RunFolder(path).attacked)
    seconds = _summed(path / "seconds_under_attack.json", time.process_time() - begun)
    return {
        "training": training,
        "method": method,
        "seed": seed,
        "seconds": seconds,
        "rows": [row for row in measured.results["rows"] if row["remark"] in ("", "clean")],
        "worst": _worst_of(measured.found),
        "paper": {each.row.remark: each.accuracy for each in paper},
    }


def _worst_of(found: Sequence[Withstood]) -> list[dict[str, Any]]:
    """What withstands all attacks that every seed gets; the first seed's checks have more steps."""
    asked = [each for each in found if not each.row.remark]
    sizes = dict.fromkeys((each.row.timesteps, each.row.eps) for each in asked)
    worst = [(k, eps, worst_case(asked, k, eps)) for k, eps in sizes if eps is not None]
    return [
        {"timesteps": k, "eps": eps, "accuracy": 100 * float(right.double().mean())}
        for k, eps, right in worst
        if right is not None
    ]


def _summed(file: Path, seconds: float) -> float:
    total = seconds + (json.loads(file.read_text()) if file.is_file() else 0.0)
    file.write_text(json.dumps(total))
    return total


def paper_rows(timesteps: int) -> list[Row]:
    """The columns of S2W's Table 17: one surrogate, one start, 7 steps of 2.55 / 255, and 10 steps of Carlini and Wagner's.

    As in the papers, images that the network mistakes unchanged are attacked and counted too.
    """
    size = EPS / LEVEL
    attacks: dict[str, Attack | CarliniWagner] = {
        "clean": GaussianNoise(eps=0.0),
        "noise": GaussianNoise(eps=size),
        "fgsm": Fgsm(size),
        "pgd": Pgd(size, step=2.55 / LEVEL, steps=7),
        "bim": Bim(size, step=2.55 / LEVEL, steps=7),
        "cw": CarliniWagner(c=0.5, steps=10),
    }
    return [Row(attack, timesteps, remark=name, of_all=True) for name, attack in attacks.items()]


def to_markdown(found: dict[str, Any]) -> str:
    """Worst case by training and objective; then the paper's columns; then what each surrogate added."""
    runs, plan, eps = found["runs"], found["plan"], found["plan"]["eps"]
    T = max(row["timesteps"] for row in runs[0]["rows"])
    ks = (1, T)
    lines = [
        "| training | objective | " + " | ".join(f"clean, k={k}" for k in ks) + " | "
        + " | ".join(f"under attack, k={k} | less {METHODS[plan['dataset']][0]}" for k in ks) + " |",
        "|---|---" + "|--:" * 6 + "|",
    ]  # fmt: skip
    base = METHODS[plan["dataset"]][0]
    for training in TRAINING:
        for method in METHODS[plan["dataset"]]:
            own, its = _of(runs, training, method), _of(runs, training, base)
            cells = [mean_and_spread([clean(run, k) for run in own], 1) for k in ks]
            for k in ks:
                values = [worst(run, k, eps) for run in own]
                mark = "" if _believed(own[0], k, eps) else " \\*"
                less = "" if method == base else difference(values, [worst(run, k, eps) for run in its])
                cells += [mean_and_spread(values, 1) + mark, less]
            lines.append(f"| {training} | {method} | " + " | ".join(cells) + " |")
    names = [*runs[0]["paper"]]
    lines += ["", "| training | objective | " + " | ".join(names) + " |", "|---|---" + "|--:" * len(names) + "|"]
    for training in TRAINING:
        for method in METHODS[plan["dataset"]]:
            own = _of(runs, training, method)
            cells = [mean_and_spread([run["paper"][name] for run in own], 1) for name in names]
            lines.append(f"| {training} | {method} | " + " | ".join(cells) + " |")
    lines += ["", *_by_surrogate(found, ks)]
    return "\n".join(lines)


def _by_surrogate(found: dict[str, Any], ks: Sequence[int]) -> list[str]:
    """Accuracy after each surrogate in turn, a mean over the runs of a training."""
    through, plan = [*VIEWS], found["plan"]
    lines = [
        "| training | attack | k | clean | " + " | ".join([through[0], *(f"+ {name}" for name in through[1:])]) + " |",
        "|---|---|--:" + "|--:" * (1 + len(through)) + "|",
    ]  # fmt: skip
    for training in TRAINING:
        runs = [run for run in found["runs"] if run["training"] == training]
        for name in ("pgd", "sa-pgd"):
            for k in ks:
                left = np.array([_left(run, name, k, plan["eps"], through, plan["tested"]) for run in runs])
                cells = [f"{value:.1f}" for value in left.mean(0)]
                lines.append(f"| {training} | {name} | {k} | " + " | ".join(cells) + " |")
    return lines


def _left(run: dict[str, Any], name: str, k: int, eps: float, through: Sequence[str], tested: int) -> list[float]:
    row = next(row for row in run["rows"] if row["name"] == name and _is(row, k, eps))
    left = [clean(run, k)]
    for each in through:
        left.append(left[-1] - 100 * row["fooled_through"][each] / tested)
    return left


def clean(run: dict[str, Any], k: int) -> float:
    """Accuracy on the images themselves, in percent."""
    found: float = next(row["accuracy"] for row in run["rows"] if row["remark"] == "clean" and row["timesteps"] == k)
    return found


def worst(run: dict[str, Any], k: int, eps: float) -> float:
    """What withstands all attacks of a size, in percent."""
    found: float = next(row["accuracy"] for row in run["worst"] if _is(row, k, eps))
    return found


def _believed(run: dict[str, Any], k: int, eps: float) -> bool:
    rows = [row for row in run["rows"] if not row["remark"] and _is(row, k, eps)]
    return all(check["passed"] for row in rows for check in row["checks"])


def _is(row: dict[str, Any], k: int, eps: float) -> bool:
    return bool(row["timesteps"] == k and row["eps"] is not None and abs(LEVEL * row["eps"] - eps) < 1e-6)


def _of(runs: Sequence[dict[str, Any]], training: str, method: str) -> list[dict[str, Any]]:
    return [run for run in runs if (run["training"], run["method"]) == (training, method)]
