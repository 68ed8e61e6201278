"""What the site needs beside mkdocs: equations as MathML, which browsers draw without a script, and notebooks as pages."""

import json
import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(html: str, **_: Any) -> str:
    """Replace the TeX of equations by MathML."""
    return _EQUATION.sub(_to_mathml, html)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook, with the outputs that it was saved with; the notebook itself stays, to be downloaded."""
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            cells = json.loads(file.content_string)["cells"]
            page = "\n\n".join(part for cell in cells for part in _cell_to_markdown(cell))
            files.append(File.generated(config, file.src_uri.removesuffix("ipynb") + "md", content=page))
    return files


def _to_mathml(equation: re.Match[str]) -> str:
    tag, tex = equation.groups()
    return convert(unescape(tex).strip(), display="block" if tag == "div" else "inline")


def _cell_to_markdown(cell: dict[str, Any]) -> list[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [source]
    return [_fence("python", source), *(_output_to_markdown(output, cell["metadata"]) for output in cell["outputs"])]


def _output_to_markdown(output: dict[str, Any], metadata: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f"![{metadata['alt']}](data:image/png;base64,{data['image/png'].strip()})"
    return _fence("text", "".join(output.get("text") or data["text/plain"]))


def _fence(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"
