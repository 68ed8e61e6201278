"""Draw sentences at random from the documentation, docstrings, comments, messages and help, to be read as a stranger reads them.

    python docs/draw.py --count 60 --seed 1

Whoever has to read one twice rewrites it, and all others of its kind.
"""

import argparse
import ast
import io
import random
import re
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"^(Args|Returns|Raises|Attributes|Reference|References|Note):", re.MULTILINE)
FEWEST_WORDS = 6


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, each in one line."""
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*[-*|:#] ?)|\n(?=\s*\w+: )", text):
        line = " ".join(paragraph.split()).strip("-*|:#> ")
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z`\"*(])", line):
            if len(sentence.split()) >= FEWEST_WORDS and not sentence.startswith(("|", "::")):
                yield sentence


def of_page(page: Path) -> Iterator[str]:
    """The prose of a page, without code, tables and equations."""
    text = FENCE.sub("\n", page.read_text())
    yield from sentences("\n".join(line for line in text.splitlines() if not line.lstrip().startswith("|")))


def of_module(module: Path) -> Iterator[str]:
    """The docstrings, comments and messages of a module."""
    source = module.read_text()
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings.add(node.value)
            yield from sentences(SECTION.sub("\n", textwrap.dedent(node.value.value)))
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            for argument in node.exc.args:
                yield from sentences(message(argument))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    for token in tokens:
        if token.type == tokenize.COMMENT and "noqa" not in token.string and "type:" not in token.string:
            yield from sentences(token.string.lstrip("# "))


def message(node: ast.AST) -> str:
    """The text of a string, with what is formatted into it as it stands in the code."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = (
            part.value if isinstance(part, ast.Constant) else f"<{ast.unparse(part.value)}>" for part in node.values
        )
        return "".join(map(str, parts))
    return ""


def everything() -> list[tuple[str, str]]:
    """Every sentence, and the file that holds it."""
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]
    modules = sorted((ROOT / "src").rglob("*.py"))
    found = [(page, sentence) for page in pages for sentence in of_page(page)]
    found += [(module, sentence) for module in modules for sentence in of_module(module)]
    return [(str(file.relative_to(ROOT)), sentence) for file, sentence in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60, help="sentences to draw; default 60")
    parser.add_argument("--seed", type=int, default=0, help="of the draw; default 0")
    parser.add_argument(
        "--within", default="", help="only files whose path begins so, such as docs or src/spikedistill/data"
    )
    options = parser.parse_args()
    known = [pair for pair in everything() if pair[0].startswith(options.within)]
    for file, sentence in random.Random(options.seed).sample(known, min(options.count, len(known))):
        print(f"{file}\n    {sentence}")


if __name__ == "__main__":
    main()
