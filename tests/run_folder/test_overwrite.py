"""`--overwrite` deletes what a run wrote, by name, in a folder that proves to be a run's; nothing else is ever touched."""

import shutil
from pathlib import Path

import pytest
from quick_runs import quick

from spikedistill import train
from spikedistill.cli import main
from spikedistill.recipes import recipe
from spikedistill.run_folder import RunFolder

AGAIN = ["train", "digits-sce", "--epochs", "1", "--timesteps", "1", "--model.width", "0.25"]
AGAIN += [
    "--data.train-samples",
    "120",
    "--trainer.accelerator",
    "cpu",
    "--trainer.no-progress",
    "--overwrite",
    "--out",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return train(quick("digits-sce", out=tmp_path_factory.mktemp("overwrite") / "run"))


@pytest.fixture
def run(finished, tmp_path) -> RunFolder:
    return RunFolder(shutil.copytree(finished, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


def project(folder: Path, **files: str) -> Path:
    """A project of somebody's own."""
    own = {"main.py": "print(1)", "data/x": "1", ".git/HEAD": "ref: refs/heads/main", ".git/objects/aa": "x"}
    for name, text in (own | files).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


PROJECTS = {
    "its own settings": {"config.yaml": "lr: 0.1"},
    "settings with a recipe of their own": {"config.yaml": "recipe: cake\nlr: 0.1"},
    "part of a run's configuration": {"config.yaml": "recipe: digits-sce"},
    "no settings": {},
    "an empty configuration": {"config.yaml": ""},
    "a configuration that is no text": {"config.yaml": "\x00"},
    "a manifest of a web page": {"manifest.json": '{"name": "page", "icons": []}'},
    "names of a run's files": {"results.json": "{}", "metrics.csv": "a,b", "report.html": "mine"},
    "files of a run without its configuration": {"checkpoints/last.ckpt": "x", "model.safetensors": "x"},
}


@pytest.mark.parametrize("name", PROJECTS)
def test_a_folder_that_is_no_run_is_refused_and_nothing_in_it_is_touched(name, tmp_path, monkeypatch, capsys):
    folder = project(tmp_path / "project", **PROJECTS[name])
    before = contents(folder)
    monkeypatch.chdir(folder)
    assert main([*AGAIN, "."]) == 2
    message = capsys.readouterr().err
    assert "is not empty and no run folder, so --overwrite deletes nothing in it: choose another --out" in message
    assert len(message.splitlines()) == 1
    assert contents(folder) == before


def test_what_lies_beside_a_run_stays(run, finished):
    nested = shutil.copytree(finished, run.path / "again")
    project(run.path, **{"notes.md": "precious", "analysis.ipynb": "{}", "checkpoints/best.ckpt": "mine"})
    before = contents(run.path)
    own = {name for name in before if "/" in name or name in ("main.py", "notes.md", "analysis.ipynb")}
    own -= {"checkpoints/last.ckpt", "checkpoints/previous.ckpt"}
    assert main([*AGAIN, str(run.path)]) == 0
    after = contents(run.path)
    assert {name: after[name] for name in own} == {name: before[name] for name in own}
    assert RunFolder(nested).is_complete
    assert RunFolder(run.path).config().timesteps == 1, "it is the later run"
    assert after["model.safetensors"] != before["model.safetensors"]


def test_a_run_of_the_first_version_and_one_that_was_killed_are_overwritten_too(run, tmp_path):
    (run.path / "manifest.json").unlink()
    assert main([*AGAIN, str(run.path)]) == 0
    killed = RunFolder(tmp_path / "killed")
    killed.path.mkdir()
    killed.begin(recipe("digits-sce"))
    (killed.path / ".metrics.csv.0123456789ab.partial").write_text("half")
    assert main([*AGAIN, str(killed.path)]) == 0
    assert not list(killed.path.rglob("*.partial"))


def test_links_are_cut_and_what_they_point_at_stays(run, tmp_path):
    precious = tmp_path / "thesis.txt"
    precious.write_text("precious")
    for name in ("results.json", "report.html"):
        (run.path / name).unlink()
        (run.path / name).symlink_to(precious)
    shared = project(tmp_path / "disk")
    (shared / "last.ckpt").write_text("of another run")
    shutil.rmtree(run.path / "checkpoints")
    (run.path / "checkpoints").symlink_to(shared)
    before = contents(shared)
    assert main([*AGAIN, str(run.path)]) == 0
    assert precious.read_text() == "precious"
    assert {name: content for name, content in contents(shared).items() if name in before} == before


def test_a_folder_by_the_name_of_a_file_stops_everything_before_it_begins(run, capsys):
    run.report.unlink()
    project(run.report)
    before = contents(run.path)
    assert main([*AGAIN, str(run.path)]) == 2
    assert "report.html is a folder, and no run has written it" in capsys.readouterr().err
    assert contents(run.path) == before


def test_without_overwrite_a_folder_with_anything_in_it_is_left_alone(run, tmp_path, capsys):
    for folder in (run.path, project(tmp_path / "project")):
        before = contents(folder)
        assert main([*(word for word in AGAIN if word != "--overwrite"), str(folder)]) == 2
        assert "is not empty: --resume auto goes on with the run in it" in capsys.readouterr().err
        assert contents(folder) == before
