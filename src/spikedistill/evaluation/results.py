"""The schema of `results.json`, which `evaluate` writes, and of the rows of `gradients.csv`; how they are written and read.

Fractions lie in [0, 1]. Further keys are accepted and ignored.
"""

import json
import math
from collections.abc import Mapping
from itertools import chain
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from ..errors import UserError
from ..files import write_atomically
from ..run_folder import RunFolder
from .calibration import BINS
from .exits import Policy

SCHEMA = 1

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Timestep = Annotated[int, Field(ge=1)]
Defined = Annotated[float | None, AfterValidator(lambda number: number if math.isfinite(number or 0.0) else None)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Score(_Part):
    """The scores of one k. Some values are None: in files of earlier versions, and for few or balanced classes."""

    k: Timestep
    accuracy: Fraction
    top5_accuracy: Fraction | None = None
    balanced_accuracy: Fraction | None = None
    nll: FiniteFloat
    ece: Fraction
    confidence: Fraction
    entropy: FiniteFloat | None = None
    brier: FiniteFloat | None = None


class Calibrated(_Part):
    """The scores at one k after temperature scaling."""

    k: Timestep
    temperature: float
    nll: float
    ece: Fraction


class Accuracy(_Part):
    """The accuracy at a k above the T of training."""

    k: Timestep
    accuracy: Fraction


class Bin(_Part):
    """One bin of a reliability diagram; accuracy and confidence are undefined if the count is 0."""

    count: int
    accuracy: float | None
    confidence: float | None


class Layer(_Part):
    """Mean spikes per neuron of one layer at every timestep."""

    layer: str
    rates: Annotated[list[FiniteFloat], Field(min_length=1)]


class Scores(_Part):
    """The scores of one set of weights: the first k timesteps together, timestep k only, and the firing rates."""

    ensemble: list[Score]
    single: list[Score]
    firing_rates: list[Layer] = []


class View(Scores):
    """All results of one set of weights at every k."""

    calibrated: list[Calibrated] = []
    beyond: list[Accuracy] = []
    reliability: dict[int, list[Bin]] = {}

    def scores(self) -> dict[str, Any]:
        """The scores as plain values, as they were written."""
        return self.model_dump(include=set(Scores.model_fields), exclude_unset=True)


class Agreement(_Part):
    """How often a network predicts the same class as its teacher: see `agreement`."""

    accuracy: Fraction | None = None
    agreement: Fraction | None = None
    agreement_where_wrong: Fraction | None = None


class BestTest(_Part):
    """The epoch with the best test accuracy."""

    epoch: int
    accuracy: Fraction


class Cost(_Part):
    """Time, speed and memory of training."""

    training_s: float | None = None
    images_per_s: float | None = None
    peak_mib: float | None = None


class Energy(_Part):
    """The estimated energy of each timestep in picojoules per sample, a mean over test samples."""

    costs: str
    samples: int
    uncounted_macs: int = 0
    total_pj: list[float]


class Fixed(_Part):
    """All samples stop after k timesteps."""

    k: Timestep
    accuracy: Fraction
    energy_pj: float | None


class Exit(_Part):
    """Samples stop when a policy's score reaches the threshold; None means that all run to the end."""

    threshold: float | None
    accuracy: Fraction
    mean_exit: float
    leaving: list[Fraction]
    energy_pj: float | None


class Deployment(_Part):
    """Accuracy, latency and energy of the last epoch, at fixed timesteps and under exit policies."""

    energy: Energy | None
    fixed: list[Fixed]
    policies: dict[Policy, Annotated[list[Exit], Field(min_length=1)]]


class Recalibrated(_Part):
    """Fractions of test samples that are right after k = 1..T timesteps with other batch-norm statistics: see `recalibration`."""

    samples: Annotated[int, Field(ge=1)]
    each_k: list[Fraction]
    mixture: list[Fraction]


class Results(_Part):
    """`results.json`, schema 1."""

    version: Annotated[int, Field(alias="schema", ge=SCHEMA, le=SCHEMA)]
    recipe: str = "run"
    dataset: str = ""
    classes: list[str] | None = None
    samples: Annotated[int, Field(ge=1)] | None = None
    timesteps: Timestep
    selected: View | None = None
    last: View
    deployment: Deployment | None = None
    teacher: Agreement = Agreement()
    recalibrated: Recalibrated | None = None
    best_test: BestTest | None = None
    cost: Cost = Cost()

    def check(self) -> None:
        """Refuse parts that do not belong together.

        Raises:
            UserError: if they do not; the message names what was expected and what was found.
        """
        every_k = list(range(1, self.timesteps + 1))
        for name, view in (("last", self.last), ("selected", self.selected)):
            if view is not None:
                _check_view(name, view, every_k)
        if self.deployment is not None:
            _check_deployment(self.deployment, every_k)
        if (other := self.recalibrated) is not None and {len(other.each_k), len(other.mixture)} != {self.timesteps}:
            raise UserError(f"expected recalibrated accuracies of {self.timesteps} timesteps")


class GradientRow(_Part):
    """A row of gradients.csv: one rule's gradient of one layer against BPTT's at T timesteps; None if it is undefined."""

    timesteps: Timestep
    rule: str
    layer: str
    cosine: Defined
    cosine_std: Defined
    ratio: Defined
    ratio_std: Defined
    batches: int


def write_results(folder: RunFolder, results: Mapping[str, Any]) -> None:
    """Check results against the schema and write `results.json`.

    Args:
        folder: the run's folder.
        results: the dictionary that `evaluate` returns.
    """
    Results.model_validate(results).check()
    write_atomically(folder.results, json.dumps(results, indent=1))


def read_results(folder: RunFolder) -> Results:
    """Read `results.json` of a run.

    Raises:
        FileNotFoundError: if the run has not been evaluated.
        UserError: if the file is damaged, or its parts do not belong together.
    """
    content, path = folder.read(folder.results), folder.results
    again = f"evaluate the run again with `spikedistill evaluate {path.parent}`"
    try:
        results = Results.model_validate_json(content)
    except ValidationError as error:
        raise UserError(f"{path} is broken ({first_fault(error)}): {again}") from None
    try:
        results.check()
    except UserError as error:
        raise UserError(f"{path}: {error}: {again}") from None
    return results


def first_fault(error: ValidationError) -> str:
    """The first fault and its place, in one line."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(step) for step in first["loc"])
    return f"{place + ': ' if place else ''}{first['msg']}"


def _check_view(name: str, view: View, every_k: list[int]) -> None:
    for column, entries in (("ensemble", view.ensemble), ("single", view.single), ("calibrated", view.calibrated)):
        found = [entry.k for entry in entries]
        if found != every_k and not (column == "calibrated" and not found):
            raise UserError(f"expected {name}.{column} at k = {every_k}, got {found}")
    beyond, T = [entry.k for entry in view.beyond], len(every_k)
    if any(k <= T for k in beyond):
        raise UserError(f"expected {name}.beyond at k above {T}, got {beyond}")
    for k, bins in view.reliability.items():
        if len(bins) != BINS:
            raise UserError(f"expected {BINS} bins at k = {k}, got {len(bins)}")
    for layer in view.firing_rates:
        if len(layer.rates) != T:
            raise UserError(f"expected {T} firing rates of layer {layer.layer}, got {len(layer.rates)}")


def _check_deployment(deployment: Deployment, every_k: list[int]) -> None:
    found = [entry.k for entry in deployment.fixed]
    if found != every_k:
        raise UserError(f"expected deployment.fixed at k = {every_k}, got {found}")
    for policy, points in deployment.policies.items():
        for point in points:
            if len(point.leaving) != len(every_k):
                raise UserError(f"expected {len(every_k)} shares that leave under {policy}, got {len(point.leaving)}")
    entries: list[Fixed | Exit] = [*deployment.fixed, *chain.from_iterable(deployment.policies.values())]
    if {entry.energy_pj is None for entry in entries} != {deployment.energy is None}:
        raise UserError("expected an energy at every point of deployment, or at none")
