"""The built site needs nothing from elsewhere. Skipped where the packages of the `docs` extra are not installed."""

import importlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pages import ROOT

pytest.importorskip("mkdocstrings")
pytest.importorskip("latex2mathml")

LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "embed": "src",
    "object": "data",
    "link": "href",
}


class Resources(HTMLParser):
    """What a page loads, and the equations in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.equations = 0
        self.feed(page.read_text())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "link" and found.get("rel") in ("canonical", "prev", "next"):
            return
        if tag in LOADED and LOADED[tag] in found:
            self.loaded.append(found[LOADED[tag]])
        self.equations += tag == "math"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return folder


def test_pages_and_styles_load_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        elsewhere = [where for where in Resources(page).loaded if re.match(r"(https?:)?//", where)]
        assert not elsewhere, page
        assert 'class="mermaid"' not in page.read_text(), "the theme would fetch the library that draws it"
    for style in site.rglob("*.css"):
        assert not re.search(r"""url\(["']?(https?:)?//|@import""", style.read_text()), style


def test_equations_are_drawn_without_a_script(site):
    assert Resources(site / "methods" / "twkd.html").equations >= 6
    for page in site.rglob("*.html"):
        assert "arithmatex" not in page.read_text(), page
        assert not re.search(r"<m[ion][^>]*>\\", page.read_text()), "TeX that the converter does not know"


ROOMS = ["adapters", "comparisons", "data", "errors", "evaluation", "models", "neurons", "objectives"]
ROOMS += ["recipes", "report", "through_time", "training"]


@pytest.mark.parametrize("room", ROOMS)
def test_the_reference_describes_every_public_name(site, room):
    module = importlib.import_module(f"spikedistill.{room}")
    reference = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    for name in module.__all__:
        assert re.search(rf'id="{module.__name__}\.(\w+\.)*{name}"', reference), name
