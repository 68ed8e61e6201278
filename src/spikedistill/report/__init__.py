"""A run, a comparison, or what a network did on one sample, as plots and as a self-contained web page."""

from .comparison.page import write_comparison
from .comparison.paper import PAPER_FILES, write_paper_files
from .page import write_report
from .recording import membranes, raster, write_recording

__all__ = [
    "PAPER_FILES",
    "membranes",
    "raster",
    "write_comparison",
    "write_paper_files",
    "write_recording",
    "write_report",
]
