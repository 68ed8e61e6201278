"""The sections of a report: functions of a run that return a section, or None if the run has no data for it.

A further section is a file here and a line in `SECTIONS`; a further kind of content is a dataclass in `blocks` and the
macro of its name in the template.
"""

from .accuracy import accuracy_section
from .calibration import calibration_section
from .configuration import configuration_section, cost_section
from .confusion import confusion_section
from .deployment import deployment_section
from .firing import firing_section
from .gradients import gradients_section
from .robustness import robustness_section
from .samples import samples_section
from .training import training_section

SECTIONS = (
    accuracy_section,
    training_section,
    calibration_section,
    firing_section,
    confusion_section,
    samples_section,
    deployment_section,
    gradients_section,
    robustness_section,
    cost_section,
    configuration_section,
)

__all__ = ["SECTIONS"]
