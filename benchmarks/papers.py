"""What the papers vary: weights, temperatures, teachers and controls. Each study compares one method with its own variants."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from spikedistill.comparisons import compare
from spikedistill.evaluation.comparison.differences import FEWEST_SEEDS
from spikedistill.training import train

from .better import methods_of
from .detectable import detectable
from .plans import TEACHER_SEED, Plan, step_seconds, teacher_seeds


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


# Settings of TWKD's paper: decay 0.5 and a hard reset that is not detached.
_TWKD = ("--model.lif.decay", "0.5", "--model.lif.v-reset", "0.0", "--model.lif.no-detach-reset")
_ONE_T = ("--timesteps", "4")  # recipes of ESD may have another T than those of its controls
STUDIES = {
    "twsd_teacher": Study(("twkd", *_varied("twkd", "teacher", ("correct", "correct_masked"))), settings=_TWKD),
    "twkd_alpha": Study(("twkd", *_varied("twkd", "alpha", (0, 0.1, 0.5, 1))), settings=_TWKD),
    "twkd_beta": Study(("twkd", *_varied("twkd", "beta", (0, 0.25, 1, 2))), settings=_TWKD),
    "twkd_temperature": Study(("twkd", *_varied("twkd", "temperature", (1, 2, 6))), settings=_TWKD),
    **{
        f"twkd_teacher_width_{width:g}": Study(("skd", "twkd"), ("--model.width", str(width)), _TWKD)
        for width in (0.25, 1, 2)
    },
    # only the teacher learns from wrong labels
    **{
        f"wrong_teacher_{noise}": Study(
            # the last has the weights of TSER: the teacher's as large as the labels'
            (*_varied("tser-unofficial", "gamma", (0, 0.1, 0.3, 1)), "skd", "skd,objective.options.alpha=1"),
            teacher=("--data.label-noise", str(noise / 100)),
        )
        for noise in (0, 20, 40)
    },
    "esd_beta": Study(
        ("esd", *_varied("esd", "beta", (0, 0.1, 1)), *_varied("esd", "teachers", ("all",))), settings=_ONE_T
    ),
    "esd_branches": Study(
        # the factor is the number of heads, as in the recipe: the paper's loss is a sum over them
        (
            "esd",
            "esd,model.branch-count=1,objective.options.factor=2",
            "rate,model.lif.decay=0.2,model.lif.detach-reset",
        ),
        settings=_ONE_T,
    ),
}


def budget(plan: Plan, names: Sequence[str]) -> str:
    """About how many hours of one core the whole will take, by the time of a training step here."""
    cost = {kind: step_seconds(plan.configs([kind])[0]) for kind in ("sce", "esd")}
    methods = [method for name in names for method in STUDIES[name].methods]
    each = sum(cost["esd" if method.startswith("esd") else "sce"] for method in methods)
    return f"about {1.2 * len(plan.seeds) * plan.epochs * plan.samples * each / 3600:.1f} CPU hours"


def run_all(plan: Plan, names: Sequence[str]) -> None:
    """Every comparison, one after another; goes on where it was stopped."""
    for name in names:
        study = STUDIES[name]
        settings = study.settings
        print(f"{name}: {len(study.methods)} methods, {len(plan.seeds)} seeds", flush=True)
        if study.teacher is not None:
            teacher = plan.out / name / "teacher"
            (config,) = plan.configs(["ann"], study.teacher)
            train(config.model_copy(update={"out": teacher, "seed": TEACHER_SEED, "resume": "auto"}))
            settings = (*settings, "--teacher", str(teacher))
        methods = plan.configs(study.methods, settings)
        compare(methods, plan.seeds, plan.out / name, jobs=plan.jobs, teacher_seeds=teacher_seeds(methods))
        print(smallest(plan.out / name, str(methods[0].recipe)), flush=True)


def smallest(folder: Path, baseline: str) -> str:
    """The smallest differences from the baseline that a comparison could have seen, at the first and last timestep."""
    found = methods_of(folder).right
    first = found.pop(baseline)
    others = [*found.values()]
    if len(first) < FEWEST_SEEDS or not others:
        return "fewer than three seeds tell no smallest difference"
    spans = []
    for k, place in ((1, 0), (first.shape[1], -1)):
        each = [100 * detectable(right[:, place], first[:, place]) for right in others]
        spans.append(f"{min(each):.2f} to {max(each):.2f} points at k={k}")
    return f"found in four of five studies from {' and '.join(spans)} on"
