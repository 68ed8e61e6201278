"""What the papers vary: weights, temperatures, teachers and controls. Each study compares one method with its own variants."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from spikedistill.comparisons import compare
from spikedistill.config import Config
from spikedistill.recipes.settings import variant
from spikedistill.run_folder import RunFolder
from spikedistill.training import train
from spikedistill.training.estimate import trial
from spikedistill.training.plan import plan_without_teacher


class Study(NamedTuple):
    """One comparison.

    Attributes:
        methods: the first is the baseline; settings follow behind commas.
        teacher: settings of the ANN that teaches; None if the comparison trains its own, or needs none.
        settings: of all methods.
    """

    methods: tuple[str, ...]
    teacher: tuple[str, ...] | None = None
    settings: tuple[str, ...] = ()


def _varied(method: str, option: str, values: Sequence[object]) -> tuple[str, ...]:
    return tuple(f"{method},objective.options.{option}={value}" for value in values)


# Settings of TWKD's paper: decay 0.5, and the reset is not detached.
_TWKD = ("--model.lif.decay", "0.5", "--model.lif.no-detach-reset")
STUDIES = {
    "twsd_teacher": Study(("twkd", *_varied("twkd", "teacher", ("correct", "correct_masked"))), settings=_TWKD),
    "twkd_alpha": Study(("twkd", *_varied("twkd", "alpha", (0, 0.1, 0.5, 1))), settings=_TWKD),
    "twkd_beta": Study(("twkd", *_varied("twkd", "beta", (0, 0.25, 1, 2))), settings=_TWKD),
    "twkd_temperature": Study(("twkd", *_varied("twkd", "temperature", (1, 2, 6))), settings=_TWKD),
    "twkd_narrow_teacher": Study(("skd", "twkd"), ("--model.width", "0.25"), _TWKD),
    "twkd_wide_teacher": Study(("skd", "twkd"), ("--model.width", "2"), _TWKD),
    **{
        f"wrong_teacher_{noise}": Study(
            ("skd", *_varied("tser-unofficial", "gamma", (0, 0.1, 0.3, 1))),
            ("--data.label-noise", str(noise / 100)),
        )
        for noise in (0, 20, 40)
    },
    "esd_beta": Study(("esd", *_varied("esd", "beta", (0, 0.1, 1)), *_varied("esd", "teachers", ("all",)))),
    "esd_branches": Study(
        # the factor is the number of heads, as in the recipe: the paper's loss is a sum over them
        ("esd", "esd,model.branch-count=1,objective.options.factor=2", "rate"),
    ),
}


class Plan(NamedTuple):
    """How all are trained.

    Attributes:
        root: of the data sets.
        out: folder of the comparisons.
        names: keys of `STUDIES`.
        dataset: what is trained on.
        seeds: of every method.
        samples: images of training.
        epochs: of training.
        jobs: processes.
    """

    root: Path
    out: Path
    names: tuple[str, ...]
    dataset: str
    seeds: tuple[int, ...]
    samples: int
    epochs: int
    jobs: int

    def configs(self, methods: Sequence[str], settings: Sequence[str]) -> list[Config]:
        common = ("--data.root", str(self.root.resolve()), "--data.train-samples", str(self.samples))
        words = (*common, "--epochs", str(self.epochs), *settings)
        return [variant(f"{self.dataset}-{method}", words) for method in methods]


def budget(plan: Plan) -> str:
    """About how many hours of one core the whole will take, by the time of a training step here."""
    torch.set_num_threads(1)
    hours = 0.0
    cost: dict[str, float] = {}
    for name in plan.names:
        study = STUDIES[name]
        for method in study.methods:
            kind = "esd" if method.startswith("esd") else "sce"
            if kind not in cost:
                made = plan_without_teacher(plan.configs([kind], ())[0])
                size = made.config.data.batch_size
                with trial(made) as step:
                    step(size)
                    begun = time.process_time()
                    for _ in range(5):
                        step(size)
                    cost[kind] = (time.process_time() - begun) / 5 / size
            hours += 1.2 * len(plan.seeds) * plan.epochs * plan.samples * cost[kind] / 3600
    return f"about {hours:.1f} CPU hours"


def run_all(plan: Plan) -> None:
    """Every comparison, one after another; goes on where it was stopped."""
    for name in plan.names:
        study = STUDIES[name]
        settings = study.settings
        print(f"{name}: {len(study.methods)} methods, {len(plan.seeds)} seeds", flush=True)
        if study.teacher is not None:
            teacher = plan.out / name / "teacher"
            if not RunFolder(teacher).is_complete:
                (config,) = plan.configs(["ann"], study.teacher)
                train(config.model_copy(update={"out": teacher, "seed": plan.seeds[0], "resume": "auto"}))
            settings = (*settings, "--teacher", str(teacher))
        compare(plan.configs(study.methods, settings), plan.seeds, plan.out / name, jobs=plan.jobs)
