"""How a network stands up to changed samples: adversarial attacks, noise and corruptions."""

from .attacks import ATTACKS, Apgd, ApgdDlr, Attack, Bim, Fgsm, Look, Pgd, SaPgd, Square
from .corruptions import Corruption
from .distance import CarliniWagner
from .event_changes import EVENT_ATTACKS, EventSearch, RandomEvents, SparseEvents
from .exits import attack_exits
from .measure import Row, Subject, Withstood, measure
from .noise import GaussianNoise, RandomCorner
from .runs import LEVEL, Choices, Measured, measure_run, subject_of
from .views import VIEWS, View

__all__ = [
    "ATTACKS",
    "EVENT_ATTACKS",
    "LEVEL",
    "VIEWS",
    "Apgd",
    "ApgdDlr",
    "Attack",
    "Bim",
    "CarliniWagner",
    "Choices",
    "Corruption",
    "EventSearch",
    "Fgsm",
    "GaussianNoise",
    "Look",
    "Measured",
    "Pgd",
    "RandomCorner",
    "RandomEvents",
    "Row",
    "SaPgd",
    "SparseEvents",
    "Square",
    "Subject",
    "View",
    "Withstood",
    "attack_exits",
    "measure",
    "measure_run",
    "subject_of",
]
