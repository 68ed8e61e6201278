"""The sections of the page of a comparison: functions that return a section, or None if there are no data for it.

A further section is a file here and a line in `SECTIONS`.
"""

from .accuracy import accuracy_section
from .chosen import chosen_section
from .cost import cost_section
from .differences import differences_section
from .published import published_section
from .regret import regret_section
from .runs import repeat_section, runs_section
from .teacher import teacher_section
from .timesteps import timesteps_section
from .training import training_section

SECTIONS = (
    accuracy_section,
    differences_section,
    regret_section,
    timesteps_section,
    training_section,
    chosen_section,
    teacher_section,
    published_section,
    cost_section,
    runs_section,
    repeat_section,
)

__all__ = ["SECTIONS"]
