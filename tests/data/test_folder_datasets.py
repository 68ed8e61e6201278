"""Image folders and event frames, written here file by file."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikedistill.data import load_dataset


def write_image(path: Path, size: tuple[int, int] = (8, 8), color: tuple[int, ...] | int = (255, 0, 0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB" if isinstance(color, tuple) else "L", size, color).save(path)


def image_folder(root: Path) -> Path:
    for split, number in (("train", 2), ("test", 1)):
        for name, color in (("cat", (255, 0, 0)), ("ant", (0, 0, 255))):
            for k in range(number):
                write_image(root / split / name / f"{k}.png", color=color)
    return root


def write_frames(path: Path, frames: np.ndarray, name: str = "frames") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, allow_pickle=True, **{name: frames})


def npy_bytes(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def event_folder(root: Path) -> Path:
    for split in ("train", "test"):
        for label, name in enumerate(("left", "right")):
            write_frames(root / split / name / "a.npz", np.full((3, 2, 4, 6), label, np.uint8))
    return root


def test_classes_are_the_folders_in_order_of_their_names(tmp_path: Path) -> None:
    dataset = load_dataset("image_folder", image_folder(tmp_path), size=8)
    assert dataset.classes == ("ant", "cat")
    assert dataset.train.targets.tolist() == [0, 0, 1, 1]
    assert dataset.test.targets.tolist() == [0, 1]
    images = dataset.train.inputs(torch.tensor([3, 0]))
    assert images.dtype == torch.uint8
    assert images[0].flatten(1).unique(dim=1).flatten().tolist() == [255, 0, 0]
    assert images[1].flatten(1).unique(dim=1).flatten().tolist() == [0, 0, 255]


def test_an_image_is_scaled_by_its_shorter_side_and_cropped_at_its_centre(tmp_path: Path) -> None:
    # 12 wide, 4 high: black, white and black squares of 4x4; a square crop shows the white one
    picture = np.zeros((4, 12), np.uint8)
    picture[:, 4:8] = 255
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / split / "a" / "b.png")
    dataset = load_dataset("image_folder", tmp_path, size=4)
    assert torch.equal(dataset.train.inputs(torch.tensor([0])), torch.full((1, 3, 4, 4), 255, dtype=torch.uint8))
    assert load_dataset("image_folder", tmp_path, size=2).train.inputs(torch.tensor([0])).shape == (1, 3, 2, 2)


def test_grey_palette_and_transparent_images_become_colour(tmp_path: Path) -> None:
    image_folder(tmp_path)
    write_image(tmp_path / "train" / "ant" / "grey.JPG", color=77)
    Image.new("P", (9, 9)).save(tmp_path / "train" / "ant" / "palette.png")
    Image.new("RGBA", (9, 9), (1, 2, 3, 4)).save(tmp_path / "train" / "ant" / "transparent.png")
    dataset = load_dataset("image_folder", tmp_path)
    assert dataset.train.inputs(torch.arange(len(dataset.train))).shape == (7, 3, 32, 32)


def test_val_serves_where_test_is_missing_and_other_files_are_left_out(tmp_path: Path) -> None:
    (image_folder(tmp_path) / "test").rename(tmp_path / "val")
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "notes.txt").write_text("hello")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("hello")
    (tmp_path / "train" / "cat" / ".hidden.png").write_text("hello")
    dataset = load_dataset("image_folder", tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (4, 2)


def test_a_subset_keeps_its_own_order_and_reads_the_same_files(tmp_path: Path) -> None:
    train = load_dataset("image_folder", image_folder(tmp_path)).train
    part = train.subset(torch.tensor([2, 1]))
    assert (len(part), part.targets.tolist()) == (2, [1, 0])
    assert torch.equal(part.inputs(torch.tensor([0, 1])), train.inputs(torch.tensor([2, 1])))


def test_samples_in_files_travel_to_worker_processes(tmp_path: Path) -> None:
    train = load_dataset("event_frames", event_folder(tmp_path)).train
    copy = pickle.loads(pickle.dumps(train))
    assert torch.equal(copy.inputs(torch.tensor([1])), train.inputs(torch.tensor([1])))


def test_event_frames_keep_their_counts(tmp_path: Path) -> None:
    dataset = load_dataset("event_frames", event_folder(tmp_path), timesteps=3)
    assert (dataset.kind, dataset.channels, dataset.size) == ("events", 2, (4, 6))
    assert (dataset.mean, dataset.std) == ((0.0, 0.0), (1.0, 1.0))
    frames = dataset.train.inputs(torch.tensor([1, 0, 1]))
    assert (frames.shape, frames.dtype) == ((3, 3, 2, 4, 6), torch.float32)
    assert frames.mean((1, 2, 3, 4)).tolist() == [1.0, 0.0, 1.0]


def remove(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).unlink()


def write(path: str, content: bytes) -> Callable[[Path], None]:
    def run(root: Path) -> None:
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_bytes(content)

    return run


def truncate(path: str) -> Callable[[Path], None]:
    return lambda root: write(path, (root / path).read_bytes()[:45])(root)


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (
            lambda root: (root / "test").rename(root / "tests"),
            FileNotFoundError,
            "/test is missing: expected one folder per class",
        ),
        (lambda root: (root / "train").rename(root / "training"), FileNotFoundError, "/train is missing"),
        (lambda root: (root / "train" / "dog").mkdir(), ValueError, "/train/dog: no *.jpg or *.jpeg or"),
        (
            write("train/dog/a.txt", b""),
            ValueError,
            "file among its 1 entries; put the class's samples there or remove",
        ),
        (
            lambda root: write_image(root / "test" / "dog" / "a.png"),
            ValueError,
            "/test/dog: class 'dog' is not among the 2",
        ),
    ],
    ids=["no test", "no train", "empty class", "class without images", "unknown class"],
)
def test_a_wrong_folder_is_named_when_it_is_loaded(
    tmp_path: Path, damage: Callable[[Path], None], kind: type[Exception], message: str
) -> None:
    damage(image_folder(tmp_path))
    with pytest.raises(kind) as error:
        load_dataset("image_folder", tmp_path)
    assert message in str(error.value)


def test_a_folder_without_classes_is_named(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match="/train holds no folders: expected one per class"):
        load_dataset("image_folder", tmp_path)


def test_a_size_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1; got 0"):
        load_dataset("image_folder", image_folder(tmp_path), size=0)


@pytest.mark.parametrize(
    "damage",
    [
        write("train/ant/0.png", b"no image"),
        write("train/ant/0.png", b""),
        truncate("train/ant/0.png"),
        write("train/ant/0.png", b"\x89PNG\r\n\x1a\n" + bytes(40)),
        remove("train/ant/0.png"),
    ],
    ids=["text", "empty", "truncated", "broken png", "removed since"],
)
def test_an_unreadable_image_is_named_when_it_is_used(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    dataset = load_dataset("image_folder", image_folder(tmp_path))
    damage(tmp_path)
    with pytest.raises(ValueError, match=r"train/ant/0\.png: is no readable image \(.*\); replace or remove it"):
        dataset.train.inputs(torch.tensor([2, 0]))


def test_a_truncated_jpeg_is_named(tmp_path: Path) -> None:
    path = image_folder(tmp_path) / "train" / "ant" / "1.jpg"
    write_image(path, size=(64, 64))
    path.write_bytes(path.read_bytes()[:500])
    dataset = load_dataset("image_folder", tmp_path)
    with pytest.raises(ValueError, match=r"1\.jpg: is no readable image"):
        dataset.train.inputs(torch.arange(len(dataset.train)))


GOOD = np.zeros((3, 2, 4, 6), np.float32)
CASES: list[tuple[Callable[[Path], object], str]] = [
    (
        lambda path: write_frames(path, GOOD[:2]),
        "shape [2, 2, 4, 6], other files have [3, 2, 4, 6]; give all files one shape",
    ),
    (lambda path: write_frames(path, GOOD[:, :1]), "shape [3, 1, 4, 6], expected [T, 2, H, W]"),
    (lambda path: write_frames(path, GOOD[0]), "shape [2, 4, 6], expected [T, 2, H, W]"),
    (lambda path: write_frames(path, GOOD[:0]), "shape [0, 2, 4, 6], expected [T, 2, H, W]"),
    (lambda path: write_frames(path, GOOD, "x"), "holds no array 'frames' but x"),
    (lambda path: write_frames(path, GOOD * np.nan), "(float32) holds values that are no finite numbers"),
    (lambda path: write_frames(path, GOOD.astype("U3")), "(<U3) holds values that are no finite numbers"),
    (lambda path: write_frames(path, GOOD.astype(object)), "(object) holds values that are no finite numbers"),
    (lambda path: path.write_bytes(path.read_bytes()[:-30]), "is no readable .npz file"),
    (lambda path: path.write_bytes(b"PK"), "is no readable .npz file"),
    (lambda path: path.write_bytes(b""), "is no readable .npz file"),
    (lambda path: path.write_bytes(npy_bytes(GOOD)), "is no readable .npz file (File is not a zip file)"),
    (lambda path: path.unlink(), "is no readable .npz file"),
]


@pytest.mark.parametrize(("damage", "message"), CASES, ids=[str(k) for k in range(len(CASES))])
def test_wrong_event_frames_are_named_when_they_are_used(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    dataset = load_dataset("event_frames", event_folder(tmp_path))
    damage(tmp_path / "train" / "right" / "a.npz")
    with pytest.raises(ValueError, match=r"train/right/a\.npz: ") as error:
        dataset.train.inputs(torch.tensor([0, 1]))
    assert message in str(error.value)


def test_other_timesteps_than_the_files_have_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"left/a\.npz: holds 3 frames, expected 4; add --timesteps 3 or 1, because"):
        load_dataset("event_frames", event_folder(tmp_path), timesteps=4)
