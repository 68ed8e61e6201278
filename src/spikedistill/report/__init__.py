"""A run, or what a network did on one sample, as plots and as a self-contained web page."""

from .page import write_report
from .recording import membranes, raster, write_recording

__all__ = ["membranes", "raster", "write_recording", "write_report"]
