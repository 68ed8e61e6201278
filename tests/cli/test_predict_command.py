"""`spikedistill predict`: files and folders, early exit, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from quick_runs import quick

from spikedistill import load, train
from spikedistill.cli import main
from spikedistill.data import load_dataset
from spikedistill.evaluation import AnytimeClassifier


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(train(quick("digits-sce", out=tmp_path_factory.mktemp("runs") / "run", epochs=12)))


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    images = load_dataset("digits").test.inputs(torch.arange(5))
    paths = [tmp_path / "photos" / name for name in ("b.png", "a.PNG", "more/c.bmp", "more/d.jpg", "e.tiff")]
    for path, image in zip(paths, images, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(path, format=None if path.suffix != ".PNG" else "PNG")
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    return paths


def lines(captured: str) -> list[list[str]]:
    return [line.split("\t") for line in captured.splitlines()]


def test_files_and_folders(run: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]):
    folder = photos[0].parent
    assert main(["predict", str(run), str(folder), "--batch-size", "2"]) == 0
    found = lines(capsys.readouterr().out)
    assert [row[0] for row in found] == [str(path) for path in sorted(photos)]
    expected = load(run).predict(sorted(photos))
    assert [row[1] for row in found] == list(expected.classes)
    assert [row[2] for row in found] == [f"{100 * sure:.1f}" for sure in expected.confidence.tolist()]
    assert {row[3] for row in found} == {"3"}
    assert load(run).predict(folder).classes == expected.classes
    assert main(["predict", str(run), str(photos[0]), "--timesteps", "1"]) == 0
    assert lines(capsys.readouterr().out)[0][3] == "1"


def test_early_exit_by_the_files_own_threshold(run: Path, photos: list[Path], tmp_path: Path, capsys):
    file = tmp_path / "classifier.safetensors"
    classifier = AnytimeClassifier(load(run), "confidence", 0.6, 3)
    classifier.save(file)
    assert main(["predict", str(file), *map(str, photos), "--early"]) == 0
    found = lines(capsys.readouterr().out)
    out = classifier(classifier.model.preprocess(photos))
    assert [int(row[3]) for row in found] == out.exit_times.tolist()
    assert [row[1] for row in found] == [classifier.model.classes[c] for c in out.predictions.tolist()]


def test_what_is_refused(run: Path, tmp_path: Path, capsys):
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "frames.npz", frames=np.zeros((3, 2, 8, 8)))
    for words, said in (
        ([str(tmp_path / "none.png")], "none.png"),
        ([str(tmp_path / "empty")], "holds no file that ends in .jpg"),
        ([str(tmp_path / "frames.npz")], "frames.npz"),
        ([str(tmp_path / "empty"), "--early"], "holds no file"),
    ):
        assert main(["predict", str(run), *words]) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "x.png").write_bytes(b"")
    assert main(["predict", str(run), str(tmp_path / "x.png"), "--early"]) == 2
    assert "does not say when samples stop" in capsys.readouterr().err
