"""Links within the documentation lead somewhere."""

import importlib
import re

import pytest
import yaml
from pages import DOCS, PAGES, ROOT, name_of, prose


class MkdocsLoader(yaml.SafeLoader):
    """Reads mkdocs.yml without building the Python objects in it."""


MkdocsLoader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def anchors(text):
    """Ids that headings get: lower case, punctuation dropped, spaces to hyphens."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def resolve(name):
    """The object of a dotted name; a submodule goes before a function of the same name."""
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for part in parts[split:]:
            found = getattr(found, part)
        return found
    raise LookupError(name)


def nav_pages(entry):
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in nav_pages(part)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_files_and_headings_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        notebook = file.with_suffix(".ipynb")  # becomes a page of the site
        assert file.is_file() or notebook.is_file(), target
        assert not anchor or anchor in anchors(file.read_text()), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_of_the_reference_exist(page):
    text = page.read_text()
    for name in re.findall(r"\]\[(spikedistill[\w.]*)\]", text) + re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE):
        assert resolve(name) is not None


def test_every_page_is_in_the_navigation_and_exists():
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(), MkdocsLoader)
    in_nav = nav_pages(settings["nav"])
    notebooks = {str(path.relative_to(DOCS).with_suffix(".md")) for path in DOCS.rglob("*.ipynb")}
    assert len(in_nav) == len(set(in_nav))
    assert set(in_nav) == {str(page.relative_to(DOCS)) for page in PAGES if page.is_relative_to(DOCS)} | notebooks
