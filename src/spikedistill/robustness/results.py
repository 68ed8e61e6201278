"""The schema of `robustness.json`, which `spikedistill robustness` writes."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class CheckResult(_Part):
    """A check of a row: see `checks.Check`."""

    about: str
    passed: bool
    said: str


class RowResult(_Part):
    """A row of the table: see `measure.Row` and `measure.Withstood`."""

    name: str
    eps: float | None
    timesteps: int
    remark: str
    accuracy: float
    kind: str | None = None
    severity: int | None = None
    no_gradient: float | None = None
    fooled_through: dict[str, int] = {}
    checks: tuple[CheckResult, ...] = ()


class WorstCase(_Part):
    """What withstands every attack with gradients of one size at k timesteps, in percent."""

    timesteps: int
    eps: float
    accuracy: float


class ExitResult(_Part):
    """Early exit: see `exits.UnderAttack`."""

    goal: str
    accuracy: float
    mean_exit: float
    never: float


class Exits(_Part):
    """Early exit at a threshold, attacked with a size."""

    threshold: float
    eps: float
    rows: tuple[ExitResult, ...]


class Robustness(_Part):
    """Everything in `robustness.json`; the mean error under corruptions is in percent, by k. Sizes are said in shares of `unit`."""

    model_config = ConfigDict(frozen=True, extra="allow")
    schema_version: Literal[1]
    samples: int
    unit: int = 255
    rows: tuple[RowResult, ...]
    worst_case: tuple[WorstCase, ...]
    mean_corruption_error: dict[str, float] = {}
    exits: Exits | None = None
