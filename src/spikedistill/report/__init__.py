"""Plots and self-contained web pages of runs, comparisons, and recordings of a network on one sample."""

from .comparison.page import write_comparison
from .comparison.paper import PAPER_FILES, write_paper_files
from .recording import membranes, raster, write_recording
from .run.logits import may_be_logits, write_logits_report
from .run.page import write_report

__all__ = [
    "PAPER_FILES",
    "may_be_logits",
    "membranes",
    "raster",
    "write_comparison",
    "write_logits_report",
    "write_paper_files",
    "write_recording",
    "write_report",
]
