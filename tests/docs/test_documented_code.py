"""Every piece of Python in the documentation, run as it stands there, page by page."""

import shutil
from pathlib import Path

import pytest
import torch
from pages import PAGES, ROOT, fences, name_of

from spikedistill import train
from spikedistill.recipes import recipe


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> Path:
    """A small run in place of the one that the pages speak of."""
    config = recipe("digits-twsd")
    changes = {
        "epochs": 2,
        "out": tmp_path_factory.mktemp("documented") / "run",
        "trainer": config.trainer.model_copy(update={"accelerator": "cpu", "progress": False}),
    }
    return train(config.model_copy(update=changes))


# of Lightning 2.6 beside PyTorch 2.13, and its advice on data loaders: the examples are no place to work around them
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*does not have many workers")
@pytest.mark.parametrize("page", [page for page in PAGES if fences(page, "python")], ids=name_of)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, trained_run, tmp_path, monkeypatch, fresh_names):
    shutil.copytree(trained_run, tmp_path / "runs" / "digits-twsd" / "seed0")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    namespace = {"__name__": "__main__", "images": torch.rand(8, 1, 8, 8)}
    for fence in fences(page, "python"):
        if fence.peer is None:
            exec(compile("\n" * fence.line + fence.code, str(page), "exec"), namespace)


def test_code_for_other_libraries_is_the_one_of_the_pages_that_are_tested_with_them():
    """By tests/peers."""
    tested = {fence.peer: fence.code for fence in fences(ROOT / "README.md", "python") if fence.peer}
    assert tested.keys() == {"spikingjelly", "snntorch"}
    for page in PAGES:
        for fence in fences(page, "python"):
            by_page = page.name in ("other_libraries.md", "executorch.md")
            is_tested = fence.peer is None or by_page or fence.code == tested[fence.peer]
            assert is_tested, name_of(page)
