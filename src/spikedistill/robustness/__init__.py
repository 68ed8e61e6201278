"""How a network stands up to changed samples: adversarial attacks, noise and corruptions."""

from .attacks import ATTACKS, Apgd, Attack, Bim, Fgsm, Look, Pgd, SaPgd, Square
from .distance import CarliniWagner

__all__ = [
    "ATTACKS",
    "Apgd",
    "Attack",
    "Bim",
    "CarliniWagner",
    "Fgsm",
    "Look",
    "Pgd",
    "SaPgd",
    "Square",
]
