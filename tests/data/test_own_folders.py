"""Folders as people have them: images of any size and shape, one folder for all, and the usual mistakes."""

import hashlib
import re
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from spikedistill.cli import main
from spikedistill.data import Preprocess, fingerprint, load_dataset, split_holdout, verify
from spikedistill.data.images import read_image
from spikedistill.data.split import test_places as places_to_test
from spikedistill.models import read_model

RED = (255, 0, 0)


def write(path: Path, width: int = 8, height: int = 8, color: tuple[int, ...] | int = RED) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB" if isinstance(color, tuple) else "L", (width, height), color).save(path)


def classes(root: Path, count: int = 10, suffix: str = ".png") -> Path:
    for name in ("ant", "cat"):
        for k in range(count):
            write(root / name / f"{k:02}{suffix}")
    return root


def splits(root: Path) -> Path:
    classes(root / "train", 2)
    classes(root / "test", 1)
    return root


def picture(path: Path) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


# Sizes


def test_an_image_is_cropped_padded_or_stretched_to_any_height_and_width(tmp_path: Path) -> None:
    image = Image.fromarray(picture(path := tmp_path / "a.png"))
    for size in ((16, 24), (24, 16), (40, 10)):
        height, width = size
        expected = {
            "crop": ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC),
            "pad": ImageOps.pad(image, (width, height), Image.Resampling.BICUBIC, color=(124, 116, 104)),
            "stretch": image.resize((width, height), Image.Resampling.BICUBIC),
        }
        for resize, pixels in expected.items():
            found = read_image(path, size, resize=resize).permute(1, 2, 0).numpy()
            assert np.array_equal(found, np.array(pixels)), (size, resize)


def test_a_line_of_pixels_can_be_padded(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 1000, 1)
    found = read_image(tmp_path / "a.png", (8, 8), resize="pad")
    assert found[:, :, 0].T.unique(dim=0).tolist() == [[124, 116, 104], [255, 0, 0]]


def test_grey_and_colour_are_mixed_as_asked_for(tmp_path: Path) -> None:
    write(splits(tmp_path) / "train" / "ant" / "grey.png", color=77)
    colour, grey = (load_dataset("image_folder", tmp_path, channels=channels, size=4) for channels in (3, 1))
    last = torch.tensor([2])
    assert colour.train.inputs(last).unique().tolist() == [77]
    assert grey.train.inputs(last).shape == (1, 1, 4, 4)
    assert grey.train.inputs(last).unique().tolist() == [77]
    assert grey.train.inputs(torch.tensor([0])).unique().tolist() == [76]  # of red: 0.299 * 255
    assert (grey.channels, len(grey.mean), len(grey.std)) == (1, 1, 1)
    assert "in colour (1 are grey)" in colour.describe()[0]
    assert "in grey" in grey.describe()[0]


def test_it_says_what_happens_to_which_sizes(tmp_path: Path) -> None:
    splits(tmp_path)
    said = load_dataset("image_folder", tmp_path, size=8).describe()
    assert said == ["images of 8x8 (height x width) are taken as they are, in colour"]
    write(tmp_path / "train" / "ant" / "wide.JPG", 640, 480)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 200)).save(tmp_path / "train" / "ant" / "upright.jpg", exif=exif)
    for resize, how in (
        ("crop", "scaled and cropped at the centre to 16x24"),
        ("pad", "scaled to fit into 16x24, where the mean colour fills the rest"),
        ("stretch", "stretched to 16x24"),
    ):
        dataset = load_dataset("image_folder", tmp_path, size=(16, 24), resize=resize)
        assert dataset.size == (16, 24)
        assert dataset.describe() == [f"images of 8x8 to 480x640 (height x width) are {how}, in colour"]
    assert dataset.preprocess.written() == {"kind": "image", "channels": 3, "size": [16, 24], "resize": "stretch"}
    (tmp_path / "train" / "ant" / "wide.JPG").unlink()
    assert "8x8 to 300x200 (height" in load_dataset("image_folder", tmp_path).describe()[0]


def test_fingerprints_of_earlier_runs_hold_and_options_change_them(tmp_path: Path) -> None:
    splits(tmp_path)
    plain = fingerprint(load_dataset("image_folder", tmp_path))
    assert dict(load_dataset("image_folder", tmp_path).options) == {"size": 32}
    assert plain == fingerprint(load_dataset("image_folder", tmp_path, size=(32, 32), resize="crop", channels=3))
    for options in ({"size": (32, 16)}, {"resize": "pad"}, {"channels": 1}):
        assert fingerprint(load_dataset("image_folder", tmp_path, **options)) != plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 8)}, "at least 1; got (0, 8)"),
        ({"size": (8, 8, 3)}, "or height and width"),
        ({"size": (8, 8.0)}, "size is a whole number"),
        ({"size": "8"}, "size is a whole number"),
        ({"resize": "fit"}, "resize is 'fit', expected one of crop, pad, stretch"),
        ({"channels": 4}, "channels is 4, expected 3 for colour or 1 for grey"),
        ({"test_share": 0.2}, "/test: holds the test samples already; leave --data.test-share out"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        load_dataset("image_folder", splits(tmp_path), **options)


# One folder for all


@pytest.mark.parametrize("below", ["", "train"])
def test_a_share_of_each_class_is_for_testing(tmp_path: Path, below: str) -> None:
    classes(tmp_path / below)
    for k in range(30):
        write(tmp_path / below / "cat" / f"more{k}.png")
    dataset = load_dataset("image_folder", tmp_path, test_share=0.2)
    assert torch.bincount(dataset.train.targets).tolist() == [8, 32]
    assert torch.bincount(dataset.test.targets).tolist() == [2, 8]
    assert not {*dataset.train.paths} & {*dataset.test.paths}
    # those with the lowest SHA-256 of "class/file"
    ants = sorted((f"ant/{k:02}.png" for k in range(10)), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert {f"ant/{path.name}" for path in dataset.test.paths if path.parent.name == "ant"} == {*ants[:2]}
    assert fingerprint(dataset) == fingerprint(load_dataset("image_folder", tmp_path, test_share=0.2))
    assert "10 of the 50 samples" in dataset.describe()[1]
    # another image changes which one other is tested on, at most
    before = {*dataset.test.paths}
    write(tmp_path / below / "cat" / "new.png")
    after = {*load_dataset("image_folder", tmp_path, test_share=0.2).test.paths}
    assert len(before - after) <= 1
    split_holdout(dataset.train.targets, 0.25)  # which comes off the rest


def test_the_share_is_rounded_and_leaves_something_on_both_sides() -> None:
    names = [f"{k}" for k in range(12)]
    targets = torch.tensor([0] * 2 + [1] * 10)
    for share, expected in ((0.01, [1, 1]), (0.26, [1, 3]), (0.99, [1, 9])):
        chosen = places_to_test(targets, names, share, ("a", "b"))
        assert torch.bincount(targets[chosen]).tolist() == expected
    for share in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match="above 0 and below 1"):
            places_to_test(targets, names, share, ("a", "b"))
    with pytest.raises(ValueError, match="class 'a' has 1 sample, expected 2 or more"):
        places_to_test(targets[1:], names[1:], 0.5, ("a", "b"))


def test_event_frames_have_a_share_too(tmp_path: Path) -> None:
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        for k in range(5):
            np.savez(tmp_path / name / f"{k}.npz", frames=np.ones((3, 2, 16, 24), np.uint8))
    dataset = load_dataset("event_frames", tmp_path, test_share=0.2)
    assert (len(dataset.train), len(dataset.test), dataset.size) == (8, 2, (16, 24))
    assert dataset.describe()[0] == "recordings of 3 event frames of 16x24 (height x width) are taken as they are"


# What is in folders


def test_odd_names_links_and_what_systems_leave_behind(tmp_path: Path) -> None:
    root = classes(tmp_path / "my bilder é 日本", 2, ".JPEG")
    for junk in (
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "._00.JPEG",
        ".ipynb_checkpoints/x.png",
        "__MACOSX/ant/0.png",
    ):
        for folder in (root, root / "ant"):
            (folder / junk).parent.mkdir(parents=True, exist_ok=True)
            (folder / junk).write_bytes(b"x")
    (root / "ant" / "link.png").symlink_to(root / "ant" / "00.JPEG")
    (root / "linked").symlink_to(root / "cat")
    dataset = load_dataset("image_folder", root, test_share=0.5)
    assert dataset.classes == ("ant", "cat", "linked")
    assert len(dataset.train) + len(dataset.test) == 3 + 2 + 2
    assert verify(dataset) == []
    assert len(dataset.describe()) == 2


def test_accents_are_the_same_however_they_are_written(tmp_path: Path) -> None:
    for split, form in (("train", "NFD"), ("test", "NFC")):
        write(tmp_path / split / unicodedata.normalize(form, "café") / "a.png")
    assert load_dataset("image_folder", tmp_path).classes == ("café",)


def test_files_that_are_not_read_are_named(tmp_path: Path) -> None:
    splits(tmp_path)
    for name in ("notes.txt", "IMG_1.HEIC", "x.json"):
        (tmp_path / "train" / "ant" / name).write_bytes(b"x")
    (tmp_path / "train" / "dog").mkdir()
    write(tmp_path / "train" / "dog" / "a.png")
    _, untested, left_out = load_dataset("image_folder", tmp_path).describe()
    assert untested == "no test samples of 1 class (dog)"
    assert left_out.endswith("3 files (IMG_1.HEIC, notes.txt, x.json): convert images of other formats to JPEG or PNG")


def move(old: str, new: str) -> Callable[[Path], object]:
    def run(root: Path) -> None:
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(root / old, root / new)

    return run


def only_classes(root: Path) -> None:
    shutil.move(root / "train" / "ant", root / "ant")
    shutil.move(root / "train" / "cat", root / "cat")
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "test")


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "classes without train": (
        only_classes,
        "the 2 folders (ant, cat) may be your classes: --data.test-share 0.2 sets a fifth of each class aside",
    ),
    "no test folder": (lambda root: shutil.rmtree(root / "test"), "make it, or leave it out: --data.test-share 0.2"),
    "another case": (move("train", "Train"), "rename ROOT/Train to train"),
    "training": (move("train", "Training"), "rename ROOT/Training to train"),
    "one level too high": (
        lambda root: [move("train", "flowers/train")(root), move("test", "flowers/test")(root)],
        "point --data.root at ROOT/flowers, which holds the folders",
    ),
    "one level too high, without train": (
        lambda root: [only_classes(root), move("ant", "flowers/ant")(root), move("cat", "flowers/cat")(root)],
        "point --data.root at ROOT/flowers, which holds the folders",
    ),
    "one level too deep": (
        lambda root: [move("train/ant", "train/x")(root), move("train/x", "train/ant/2024")(root)],
        "move the files of ROOT/train/ant/2024 and of other such folders up into ROOT/train/ant",
    ),
    "no class folders": (
        lambda root: [
            move("train/ant/00.png", "00.png")(root),
            shutil.rmtree(root / "train"),
            shutil.rmtree(root / "test"),
        ],
        "ROOT holds 1 files: sort them into a folder per class",
    ),
    "loose training files": (
        lambda root: [move("train/ant/00.png", "train/00.png")(root), *map(shutil.rmtree, (root / "train").glob("*t"))],
        "ROOT/train holds 1 files but no folders: expected one per class",
    ),
    "only HEIC": (
        lambda root: [path.rename(path.with_suffix(".heic")) for path in (root / "train" / "ant").iterdir()],
        "convert files such as 00.heic to JPEG or PNG",
    ),
    "an empty class": (
        lambda root: (root / "train" / "dog").mkdir(),
        "put the class's samples there or remove the folder",
    ),
    "a class only in test": (lambda root: write(root / "test" / "dog" / "a.png"), "give both folders the same classes"),
    "a class in another case": (move("test/cat", "test/Cat"), "class 'Cat' is not among the 2 classes"),
    "another case, said how to mend": (move("test/cat", "test/Cat"), "rename it to 'cat'"),
    "nothing": (
        lambda root: [shutil.rmtree(root / "train"), shutil.rmtree(root / "test")],
        "make it, or point --data.root or $SPIKEDISTILL_DATA elsewhere",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_usual_mistakes_are_said_with_what_to_do(
    tmp_path: Path, mistake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = MISTAKES[mistake]
    make(splits(tmp_path / "data"))
    assert main(["data", "image_folder", "--data.root", str(tmp_path / "data")]) == 2
    said, complaint = capsys.readouterr()
    assert message in complaint.replace(str(tmp_path / "data"), "ROOT")
    assert complaint.count("\n") == 1
    if "is missing" in complaint:  # then an example of what is expected is shown
        assert said.splitlines()[1] == "ROOT/"


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    splits(tmp_path)
    try:
        (tmp_path / "train" / "caf\udce9").mkdir()
    except OSError:
        pytest.skip("this file system takes text only")
    with pytest.raises(ValueError, match="is no text in UTF-8; rename the folder"):
        load_dataset("image_folder", tmp_path)


def test_the_command_counts_samples_and_hints_at_unbalanced_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes(tmp_path, 4)
    for k in range(16):
        write(tmp_path / "cat" / f"more{k}.png", 20, 10)
    given = ["--data.test-share", "0.25", "--data.size", "16", "24", "--data.resize", "pad", "--data.channels", "1"]
    assert main(["data", "image_folder", "--data.root", str(tmp_path), *given]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "image_folder: 18 training and 6 test samples of 2 classes, 1 x 16 x 24"
    assert lines[1] == (
        "training samples of a class: 3 (ant) to 15 (cat), unbalanced: --objective.class-weights balanced gives every class the "
        "same weight"
    )
    assert lines[2].startswith("images of 8x8 to 10x20 (height x width) are scaled to fit into 16x24")
    assert lines[3].startswith(f"6 of the 24 samples in {tmp_path} are set aside for testing (--data.test-share 0.25)")


def test_training_says_what_happens_to_images_and_keeps_it_in_the_model_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes(tmp_path / "data", 5)
    given = "--data.test-share 0.2 --data.size 12 20 --data.resize pad --epochs 1 --timesteps 2 --model.width 0.1"
    words = ["image_folder-sce", "--data.root", str(tmp_path / "data"), "--out", str(tmp_path / "run"), *given.split()]
    assert main(["train", *words]) == 0
    said = capsys.readouterr().out.splitlines()
    first = said.index(
        "images of 8x8 (height x width) are scaled to fit into 12x20, where the mean colour fills the rest, in colour"
    )
    assert said[first + 1].startswith("2 of the 10 samples")
    assert first < next(place for place, line in enumerate(said) if line.startswith("epoch 1"))
    kept = read_model(tmp_path / "run" / "model.safetensors").input
    dataset = load_dataset("image_folder", tmp_path / "data", size=(12, 20), resize="pad", test_share=0.2)
    assert Preprocess.from_written(kept) == dataset.preprocess
