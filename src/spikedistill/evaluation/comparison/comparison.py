"""A comparison as one value: its runs and all tables made from them."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...recipe_name import RecipeName
from .epochs import every_epoch
from .guards import add_guards, places
from .leaderboard import (
    Methods,
    Rows,
    chosen_timesteps,
    every_run,
    every_timestep,
    finished,
    leaderboard,
    regrets,
    right_answers,
    with_numbers,
)
from .published import beside_published
from .records import LostRun, RunRecord
from .teachers import Crossed, every_teacher, teacher_spread


@dataclass(frozen=True)
class Comparison:
    """Several methods side by side. Tables are lists of rows, dictionaries by column; `method` is a `RecipeName` in each.

    Attributes:
        methods: the runs of each method, one per seed, in the same order of seeds for all. The first method is the baseline.
        leaderboard: one row per method; see `leaderboard.leaderboard` and `guards.add_guards`. If the methods were also trained for
            another time, `place_first` and `place_last`, the places that hold for both.
        runs: one row per run, in the order of `methods`; see `leaderboard.every_run`.
        timesteps: scores of every single timestep, one row per method; see `leaderboard.every_timestep`.
        regrets: the loss of accuracy against specialists; see `leaderboard.regrets`.
        chosen: which timesteps methods ranked highest and lowest; see `leaderboard.chosen_timesteps`.
        published: the accuracies that papers report; see `published.beside_published`.
        teachers: each taught method with each teacher, if there are several; see `teachers.every_teacher`.
    """

    methods: Methods
    leaderboard: Rows
    runs: Rows
    timesteps: Rows
    regrets: Rows
    chosen: Rows
    published: Rows
    teachers: Rows = field(default_factory=list)

    @classmethod
    def of(
        cls,
        runs: Mapping[str, Sequence[RunRecord | LostRun]] | Methods,
        *,
        shorter: "Comparison | None" = None,
        crossed: Crossed | None = None,
    ) -> "Comparison":
        """Compare runs.

        Args:
            runs: the runs by the name of their method, one per seed, in the same order of seeds for all. At least one is finished.
                The first method is the baseline.
            shorter: the same methods after a shorter training.
            crossed: the runs of taught methods by teacher, if there are several teachers.

        Raises:
            UserError: if the methods do not have the same number of seeds or test samples, or some were not evaluated at the
                largest T of any of them.
        """
        methods = {_named(name, of_one): of_one for name, of_one in runs.items()}
        right = right_answers(methods)
        rows = leaderboard(methods, right)
        teachers = every_teacher(crossed or {})
        add_guards(methods, rows)
        for row in rows:
            if (deviation := teacher_spread(teachers).get(row["method"])) is not None:
                row["area_teacher_std"] = deviation
        if shorter is not None:
            held = places(
                [{row["method"]: row["area"] for row in with_numbers(of)} for of in (rows, shorter.leaderboard)]
            )
            for row in rows:
                if row["method"] in held:
                    row["place_first"], row["place_last"] = held[row["method"]]
        return cls(
            methods=methods,
            leaderboard=rows,
            runs=every_run(methods, right),
            timesteps=every_timestep(methods),
            regrets=regrets(methods, right),
            chosen=chosen_timesteps(methods),
            published=beside_published(finished(methods), with_numbers(rows)),
            teachers=teachers,
        )

    @property
    def baseline(self) -> RecipeName:
        """The baseline: the method that all others are compared with."""
        return next(iter(self.methods))

    @property
    def seeds(self) -> int:
        """How many runs each method has, finished or not."""
        return len(self.methods[self.baseline])

    @property
    def longest(self) -> int:
        """The largest k at which all methods are compared."""
        return max(run.config.timesteps for records in finished(self.methods).values() for run in records)

    @functools.cached_property
    def epochs(self) -> Rows:
        """One row for each epoch of each method; see `epochs.every_epoch`."""
        return every_epoch(self.methods)

    @property
    def samples(self) -> int:
        """How many test samples all runs were scored on."""
        return next(run.right.shape[1] for records in finished(self.methods).values() for run in records)

    @property
    def tables(self) -> dict[str, Rows]:
        """The tables by the name of their CSV file; regret.csv, chosen.csv and teachers.csv may have no rows."""
        return {
            "leaderboard.csv": self.leaderboard,
            "runs.csv": self.runs,
            "timesteps.csv": self.timesteps,
            "regret.csv": self.regrets,
            "chosen.csv": self.chosen,
            "teachers.csv": self.teachers,
        }


def _named(name: str, runs: Sequence[RunRecord | LostRun]) -> RecipeName:
    """The name with its parts."""
    return name if isinstance(name, RecipeName) else RecipeName.parse(name, runs[0].config.data.name)
