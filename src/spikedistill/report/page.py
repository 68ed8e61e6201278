"""Renders blocks as one self-contained web page, small enough to send by mail."""

import base64
import functools
import gzip
import json
import re
from dataclasses import dataclass

from .blocks import Chooser, Page, Plots

# a "<" in a script may begin a comment or a tag
_NO_MARKUP = str.maketrans("<", ",")
# a module that is one long text: the worker for maps, half a megabyte that no plot of a page needs
_WORKER = re.compile(r"""\.exports=(['"`])(?:(?!\1)[^\\]|\\.){100000,}\1""", re.DOTALL)


@dataclass(frozen=True)
class Packed:
    """A text, compressed: gzip, then base85, as `templates/plots.js` reads it.

    Attributes:
        text: the text in base85, padded to whole groups of five; a comma replaces "<".
        bytes: the number of compressed bytes, without the padding.
    """

    text: str
    bytes: int

    @classmethod
    def of(cls, text: str) -> "Packed":
        content = gzip.compress(text.encode(), 9, mtime=0)  # no date: the same text gives the same bytes
        return cls(base64.b85encode(content, pad=True).decode().translate(_NO_MARKUP), len(content))


def render(page: Page) -> str:
    """The page as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("spikedistill.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    blocks = [block for section in page.sections for block in section.blocks]
    figures = {plot.name: plot.figure for block in blocks if isinstance(block, Plots) for plot in block.plots}
    data = {"figures": figures} | {block.kind: block.data for block in blocks if isinstance(block, Chooser)}
    packed = {"plotly": _plotly()}
    packed |= {name: Packed.of(json.dumps(content, separators=(",", ":"))) for name, content in data.items()}
    return environment.get_template("report.html.j2").render(page=page, packed=packed)


@functools.cache
def _plotly() -> Packed:
    """The library that draws the plots, without its maps: 4.8 MB, packed 1.65."""
    from plotly.offline import get_plotlyjs

    return Packed.of(_WORKER.sub(r".exports=\1\1", get_plotlyjs()))
