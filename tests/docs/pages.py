"""The documentation as the tests read it: pages, fenced code, tables, links."""

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

_FENCE = re.compile(
    r"^(<!-- test: (?P<peer>\w+) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Fence(NamedTuple):
    """Fenced code: its language, its text, the line it starts on, and the library that it needs beside ours."""

    language: str
    code: str
    line: int
    peer: str | None


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fences(page: Path, language: str) -> list[Fence]:
    text = page.read_text()
    found = [
        Fence(match["language"], match["code"], text[: match.start("code")].count("\n") + 1, match["peer"])
        for match in _FENCE.finditer(text)
    ]
    return [fence for fence in found if fence.language == language]


def put_files(page: Path, folder: Path) -> None:
    """Write what a page tells its reader to save: Python that begins with the name of its file, and an installed package."""
    for fence in fences(page, "python"):
        if name := re.match(r"# (\w+\.py)\n", fence.code):
            (folder / name[1]).write_text(fence.code)
    for fence in fences(page, "text"):
        if "entry-points" not in fence.code:
            continue
        project = tomllib.loads(fence.code)["project"]
        info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        lines = [
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in names.items())
            for group, names in project["entry-points"].items()
        ]
        (info / "entry_points.txt").write_text("".join(lines))


def prose(page: Path) -> str:
    """The page without its fenced code."""
    return _FENCE.sub("", page.read_text())


def table_after(heading: str, text: str) -> list[list[str]]:
    """The cells of the first table below a line, without its header; no rows where another heading comes first."""
    section = re.split(r"^#+ ", text.split(heading, 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    rows = table[0].splitlines()[2:] if table else []
    return [[cell.strip().replace("`", "") for cell in row.strip("|").split(" | ")] for row in rows]
