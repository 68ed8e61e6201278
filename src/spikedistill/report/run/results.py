"""The schema of `results.json`, and of the rows of `gradients.csv`: what a report reads of them.

Fractions lie in [0, 1]; keys that are not named here are let pass.
"""

import math
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from ...evaluation.exits import Policy

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Timestep = Annotated[int, Field(ge=1)]
Defined = Annotated[float | None, AfterValidator(lambda number: number if math.isfinite(number or 0.0) else None)]


class Score(BaseModel):
    """The figures of one k."""

    k: Timestep
    accuracy: Fraction
    nll: float
    ece: Fraction
    confidence: Fraction
    entropy: float | None = None
    brier: float | None = None


class Calibrated(BaseModel):
    """The figures of one k after one temperature."""

    k: Timestep
    temperature: float
    nll: float
    ece: Fraction


class Accuracy(BaseModel):
    """The accuracy at a k beyond the trained timesteps."""

    k: Timestep
    accuracy: Fraction


class Bin(BaseModel):
    """One bin of a reliability diagram; accuracy and confidence mean nothing where the count is 0."""

    count: int
    accuracy: float | None
    confidence: float | None


class Layer(BaseModel):
    """Mean spikes per neuron at every timestep of one layer."""

    layer: str
    rates: list[float]


class View(BaseModel):
    """One set of weights, seen at every k."""

    ensemble: list[Score]
    single: list[Score]
    calibrated: list[Calibrated] = []
    beyond: list[Accuracy] = []
    reliability: dict[int, list[Bin]] = {}
    firing_rates: list[Layer] = []


class BestTest(BaseModel):
    """The epoch that the test set would choose."""

    epoch: int
    accuracy: Fraction


class Cost(BaseModel):
    """What training took."""

    training_s: float | None = None
    images_per_s: float | None = None
    peak_mib: float | None = None


class Energy(BaseModel):
    """The estimated energy of each timestep, in picojoules per sample, from so many test samples."""

    costs: str
    samples: int
    uncounted_macs: int = 0
    total_pj: list[float]


class Fixed(BaseModel):
    """All samples stop after k timesteps."""

    k: Timestep
    accuracy: Fraction
    energy_pj: float | None


class Exit(BaseModel):
    """Samples stop where a policy's score reaches the threshold; None lets all run to the end."""

    threshold: float | None
    accuracy: Fraction
    mean_exit: float
    leaving: list[Fraction]
    energy_pj: float | None


class Deployment(BaseModel):
    """What the last epoch offers between the quickest answer and the surest."""

    energy: Energy | None
    fixed: list[Fixed]
    policies: dict[Policy, Annotated[list[Exit], Field(min_length=1)]]


class GradientRow(BaseModel):
    """A row of gradients.csv: one rule's gradient of one layer against BPTT's, at T timesteps; None where it is undefined."""

    timesteps: Timestep
    rule: str
    layer: str
    cosine: Defined
    cosine_std: Defined
    ratio: Defined
    ratio_std: Defined
    batches: int


class Results(BaseModel):
    """`results.json`, schema 1."""

    version: Annotated[int, Field(alias="schema", ge=1, le=1)]
    timesteps: Timestep
    recipe: str = "run"
    dataset: str = ""
    classes: list[str] | None = None
    last: View
    selected: View | None = None
    best_test: BestTest | None = None
    cost: Cost = Cost()
    deployment: Deployment | None = None
