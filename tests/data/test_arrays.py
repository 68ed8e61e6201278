"""Images and event frames in NumPy's arrays, written here."""

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from spikedistill.cli import main
from spikedistill.data import BrokenSample, TensorSamples, fingerprint, load_dataset, verify
from spikedistill.data.sets import arrays
from spikedistill.evaluation.runs import example_images

DRAW = np.random.default_rng(0)
GREY = DRAW.integers(0, 256, (12, 6, 9), np.uint8)
COLOUR = DRAW.integers(0, 256, (12, 6, 9, 3), np.uint8)
LABELS = np.arange(12) % 3


def save(root: Path, x: np.ndarray, y: np.ndarray = LABELS, **more: np.ndarray) -> Path:
    for split in ("train", "test"):
        np.savez_compressed(root / f"{split}.npz", x=x, y=y, **more)
    return root


def save_npy(root: Path, x: np.ndarray, y: np.ndarray = LABELS) -> Path:
    for split in ("train", "test"):
        np.save(root / f"x_{split}.npy", x)
        np.save(root / f"y_{split}.npy", y)
    return root


def everything(samples) -> torch.Tensor:
    return samples.inputs(torch.arange(len(samples)))


@pytest.mark.parametrize("write", [save, save_npy])
@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (GREY, GREY[:, None]),
        (GREY.astype(np.int64), GREY[:, None]),
        (GREY.astype(">u2"), GREY[:, None]),
        (GREY > 99, (GREY > 99)[:, None] * np.uint8(255)),
        (COLOUR, COLOUR.transpose(0, 3, 1, 2)),
        (np.asfortranarray(COLOUR), COLOUR.transpose(0, 3, 1, 2)),
        (COLOUR.transpose(0, 3, 1, 2), COLOUR.transpose(0, 3, 1, 2)),
        ((COLOUR / 255).astype(">f8"), (COLOUR / 255).astype(np.float32).transpose(0, 3, 1, 2)),
        (GREY[..., None] / np.float16(255), (GREY[:, None] / np.float16(255)).astype(np.float32)),
    ],
)
def test_images_keep_their_values_whatever_their_axes_and_type(tmp_path: Path, write, stored, expected) -> None:
    dataset = load_dataset("arrays", write(tmp_path, stored))
    assert (dataset.kind, dataset.channels, dataset.size) == ("image", expected.shape[1], (6, 9))
    assert np.array_equal(everything(dataset.test).numpy(), expected)
    assert dataset.train.targets.tolist() == LABELS.tolist()
    assert dataset.classes == ("0", "1", "2")
    unit = expected / 255 if expected.dtype == np.uint8 else expected.astype(float)
    assert dataset.mean == pytest.approx(unit.mean((0, 2, 3)), abs=6e-5)
    assert dataset.std == pytest.approx(unit.std((0, 2, 3)), abs=6e-5)
    assert verify(dataset) == []


def test_a_channel_that_never_changes_is_not_divided_by_zero(tmp_path: Path) -> None:
    dataset = load_dataset("arrays", save(tmp_path, np.zeros((12, 6, 9), np.uint8)))
    assert (dataset.mean, dataset.std) == ((0.0,), (1.0,))
    dataset = load_dataset("arrays", save(tmp_path, np.full((12, 6, 9), 0.3)))
    assert (dataset.mean, dataset.std) == ((0.3,), (1.0,))


def test_values_that_are_close_to_each_other_keep_their_digits(tmp_path: Path) -> None:
    dataset = load_dataset("arrays", save(tmp_path, GREY / 255 * 1e-4))
    assert dataset.mean == pytest.approx([(GREY / 255).mean() * 1e-4], rel=0.01)
    assert dataset.std == pytest.approx([(GREY / 255).std() * 1e-4], rel=0.01)


def test_event_frames_have_any_height_and_width(tmp_path: Path) -> None:
    counts = DRAW.poisson(0.5, (12, 5, 2, 16, 24)).astype(np.uint16)
    dataset = load_dataset("arrays", save(tmp_path, counts), timesteps=5)
    assert (dataset.kind, dataset.channels, dataset.size) == ("events", 2, (16, 24))
    assert np.array_equal(everything(dataset.train).numpy(), counts.astype(np.float32))
    with pytest.raises(ValueError, match="holds 5 frames, expected 4; add --timesteps 5 or 1"):
        load_dataset("arrays", tmp_path, timesteps=4)


def test_fewer_frames_hold_the_sums_of_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = DRAW.poisson(0.5, (12, 6, 2, 3, 4)).astype(np.uint8)
    save_npy(tmp_path, counts)
    for name, label in zip("abc", range(3), strict=True):
        (tmp_path / "train" / name).mkdir(parents=True)
        np.savez(tmp_path / "train" / name / "0.npz", frames=counts[label])
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    by_hand = {3: counts[:, ::2] + counts[:, 1::2], 1: counts.sum(1, keepdims=True), 6: counts}
    for limit in (2**30, 10):
        monkeypatch.setattr(arrays, "IN_MEMORY", limit)
        for T, expected in by_hand.items():
            dataset = load_dataset("arrays", tmp_path, timesteps=T)
            assert np.array_equal(everything(dataset.test).numpy(), expected.astype(np.float32))
            frames = load_dataset("event_frames", tmp_path, timesteps=T)
            assert np.array_equal(everything(frames.train).numpy(), expected[:3].astype(np.float32))
            assert frames.options == dataset.options == {"timesteps": T}
    merged = "recordings of 6 event frames of 3x4 (height x width) are merged to 3, each the sum of 2 (--timesteps)"
    assert load_dataset("event_frames", tmp_path, timesteps=3).describe() == [merged]
    assert load_dataset("arrays", tmp_path, timesteps=3).describe() == [f"x_train.npy: {merged}"]


def test_labels_are_numbers_or_names(tmp_path: Path) -> None:
    names = np.array(["dog", "ant", "chat à"])
    assert load_dataset("arrays", save(tmp_path, GREY, LABELS.astype(np.uint8)[:, None])).classes == ("0", "1", "2")
    assert load_dataset("arrays", save(tmp_path, GREY, LABELS > 0)).classes == ("0", "1")
    for labels, given in ((names[LABELS], {}), (np.char.encode(names[LABELS], "utf-8"), {})):
        dataset = load_dataset("arrays", save(tmp_path, GREY, labels, **given))
        assert dataset.classes == ("ant", "chat à", "dog")
        assert dataset.train.targets[:3].tolist() == [2, 0, 1]
    assert load_dataset("arrays", save(tmp_path, GREY, LABELS, classes=names)).classes == tuple(names)
    assert load_dataset("arrays", save(tmp_path, GREY, names[LABELS], classes=names)).train.targets[:3].tolist() == [
        0,
        1,
        2,
    ]


def test_reports_show_images_of_floats_as_bytes(tmp_path: Path) -> None:
    dataset = load_dataset("arrays", save(tmp_path, GREY / 255))
    shown = example_images(dataset, torch.zeros(2, 12, 3))
    assert torch.equal(shown["images"], torch.from_numpy(GREY[:, None]))


def test_a_share_of_each_class_is_set_aside_and_stays_the_same(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", images=np.repeat(GREY, 5, 0), labels=np.repeat(LABELS, 5))
    with pytest.raises(FileNotFoundError, match=r"no test arrays: .* --data.test-share 0.2"):
        load_dataset("arrays", tmp_path)
    dataset, again = (load_dataset("arrays", tmp_path, test_share=0.2) for _ in range(2))
    assert torch.bincount(dataset.test.targets).tolist() == [4, 4, 4]
    assert torch.bincount(dataset.train.targets).tolist() == [16, 16, 16]
    assert fingerprint(dataset) == fingerprint(again)
    assert "12 of the 60 samples are set aside for testing" in dataset.describe()[-1]
    trained = everything(dataset.train) / 255
    assert dataset.mean == pytest.approx([float(trained.mean())], abs=6e-5), "of the training images only"
    assert dataset.std == pytest.approx([float(trained.std(correction=0))], abs=6e-5)


def test_images_of_bytes_are_resized_as_those_of_files(tmp_path: Path) -> None:
    save(tmp_path, COLOUR)
    np.savez(tmp_path / "test.npz", x=COLOUR / 255, y=LABELS)
    with pytest.raises(ValueError, match=r"test\.npz: --data.size is for grey or colour images of whole numbers"):
        load_dataset("arrays", tmp_path, size=(4, 4))
    save(tmp_path, COLOUR)
    dataset = load_dataset("arrays", tmp_path, size=(4, 4))
    expected = np.array(ImageOps.fit(Image.fromarray(COLOUR[3]), (4, 4), Image.Resampling.BICUBIC))
    assert np.array_equal(dataset.train.inputs(torch.tensor([3]))[0].permute(1, 2, 0).numpy(), expected)
    padded = load_dataset("arrays", tmp_path, size=(9, 9), resize="pad")
    assert everything(padded.train).shape == (12, 3, 9, 9)
    levels = [round(255 * value) for value in padded.mean]
    assert padded.train.inputs(torch.tensor([0]))[0, :, 0, 0].tolist() == levels
    assert padded.preprocess.fill == padded.mean
    grey = load_dataset("arrays", save(tmp_path, GREY), size=(3, 5), resize="stretch")
    assert everything(grey.train).shape == (12, 1, 3, 5)


def test_large_arrays_stay_in_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_npy(tmp_path, COLOUR)
    whole = load_dataset("arrays", tmp_path)
    monkeypatch.setattr(arrays, "IN_MEMORY", 100)
    stored = load_dataset("arrays", tmp_path)
    assert not isinstance(stored.train, TensorSamples)
    assert (stored.mean, stored.std) == (whole.mean, whole.std)
    order = torch.tensor([7, 0, 7])
    assert torch.equal(stored.train.inputs(order), whole.train.inputs(order))
    assert torch.equal(everything(stored.train.subset(order)), whole.train.inputs(order))
    assert fingerprint(stored) == fingerprint(load_dataset("arrays", tmp_path))
    COLOUR[:1].tofile(path := tmp_path / "x_train.npy")
    with pytest.raises(BrokenSample, match=r"x_train\.npy: is shorter than when it was opened"):
        stored.train.inputs(order)
    np.save(path, np.asfortranarray(COLOUR))
    with pytest.raises(ValueError, match=r"order of Fortran; save numpy\.ascontiguousarray"):
        load_dataset("arrays", tmp_path)


def header(described: str) -> bytes:
    text = described.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def hostile(shape: str, descr: str = "'|u1'") -> Callable[[Path], None]:
    described = header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}")

    def damage(root: Path) -> None:
        (root / "x_train.npy").write_bytes(described)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("x.npy", described)
            archive.writestr("y.npy", described)
        (root / "train.npz").write_bytes(buffer.getvalue())

    return damage


@pytest.mark.parametrize("kind", ["npz", "npy"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (hostile("(1152921504606846976, 28, 28)"), "bytes, expected"),
        (hostile("(-2, -3, 4)"), "bytes, expected"),
        (hostile("(2, 3, 4)", "'|O'"), "Python objects, which are not read"),
        (hostile("__import__('os').getcwd()"), "is no readable"),
        (lambda root: [cut(path) for path in root.iterdir()], "is no readable"),
        (lambda root: [path.write_bytes(b"") for path in root.iterdir()], "is no readable"),
        (lambda root: [path.write_text("x,y") for path in root.iterdir()], "is no readable"),
    ],
)
def test_damaged_and_hostile_files_are_refused_in_a_line(tmp_path: Path, kind, damage, message) -> None:
    write = save if kind == "npz" else save_npy
    write(tmp_path, GREY)
    damage(tmp_path)
    for path in tmp_path.iterdir():
        if path.suffix != f".{kind}":
            path.unlink()
    with pytest.raises(ValueError, match="train") as error:
        load_dataset("arrays", tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_array_that_would_unpack_to_more_than_fits_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "MOST_IN_ARCHIVE", GREY.nbytes - 1)
    with pytest.raises(ValueError, match=r"train\.npz: 'x' \[12, 6, 9\] has .* GiB, .*; save \.npy files instead"):
        load_dataset("arrays", save(tmp_path, GREY))


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    for names in (np.array(["a", "b", "c"], object), np.array([{}, [], ()], object)):
        save(tmp_path, GREY, names[LABELS])
        with pytest.raises(ValueError, match=r"Python objects.* numpy\.array\(names, dtype=str\)"):
            load_dataset("arrays", tmp_path)


WRONG: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "a table": ({"x": GREY[:, 0]}, "tables and one-dimensional signals are not supported"),
    "one axis too many": ({"x": np.zeros((12, 1, 1, 2, 6, 9), np.uint8)}, "expected [N, H, W]"),
    "no sample": ({"x": GREY[:0], "y": LABELS[:0]}, "each axis at least one"),
    "channels on either axis": ({"x": COLOUR[:, :3]}, "channels may be on the second or the last axis"),
    "both axes short": ({"x": GREY[:, :3, :, None].repeat(2, 3)}, "give images a height and width above 4"),
    "three polarities": ({"x": np.zeros((12, 4, 3, 6, 9), np.uint8)}, "two polarities on the third axis"),
    "complex numbers": ({"x": GREY * 1j}, "complex128, expected numbers"),
    "floats up to 255": ({"x": GREY.astype(np.float32)}, "expected [0, 1]; divide by 255"),
    "normalised": ({"x": GREY / 128 - 1.0}, "expected [0, 1]; scale them"),
    "16 bits": ({"x": GREY.astype(np.uint16) * 257}, "divide by 65535"),
    "negative": ({"x": GREY.astype(np.int16) - 1}, "whole numbers from -1 to"),
    "black and white as whole numbers": ({"x": (GREY > 99).astype(np.uint8)}, "save black and white images as bool"),
    "NaN": ({"x": np.where(GREY > 200, np.nan, GREY / 255)}, "NaN or infinity"),
    "negative counts": ({"x": np.full((12, 2, 2, 6, 9), -1)}, "expected counts of events"),
    "fewer labels": ({"y": LABELS[:5]}, "the labels have shape [5] for 12 samples"),
    "one-hot labels": ({"y": np.eye(3)[LABELS]}, "y.argmax(1)"),
    "labels of floats": ({"y": LABELS * 1.0}, "y.astype(int)"),
    "labels from 1": ({"y": LABELS + 1}, "no training sample has the class 0 of 0, 1, 2, 3"),
    "a label of -1": ({"y": LABELS - 1}, "the labels are -1 to 1, expected 0 to C-1"),
    "a huge label": ({"y": LABELS * 10**9}, "number the classes from 0 on"),
    "more labels than names": ({"classes": np.array(["a", "b"])}, "expected 0 to 1"),
    "the same name twice": ({"classes": np.array(["a", "b", "a"])}, "two classes have the same name: a, a, b"),
    "names that are numbers": ({"classes": np.arange(3)}, "expected text [C]"),
    "names of two arrays": ({"labels": LABELS}, "holds y and labels, expected one array 'y' or 'labels'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arrays_are_refused_with_what_to_do(tmp_path: Path, case: str) -> None:
    changed, message = WRONG[case]
    save(tmp_path, **({"x": GREY, "y": LABELS} | changed))
    with pytest.raises(ValueError, match=r"train\.npz: ") as error:
        load_dataset("arrays", tmp_path)
    assert message in str(error.value)


def test_test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save(tmp_path, GREY, np.array(["a", "b", "c"])[LABELS])
    np.savez(tmp_path / "test.npz", x=GREY[:, :5], y=np.array(["a"] * 12))
    with pytest.raises(ValueError, match=r"'x' is images of 5x9 .* that of train\.npz is images of 6x9"):
        load_dataset("arrays", tmp_path)
    np.savez(tmp_path / "test.npz", x=GREY, y=np.array(["d"] * 12))
    with pytest.raises(ValueError, match="the label 'd' is not among the classes a, b, c"):
        load_dataset("arrays", tmp_path)
    with pytest.raises(ValueError, match=r"holds the test samples already; leave --data\.test-share out"):
        load_dataset("arrays", tmp_path, test_share=0.5)
    save_npy(tmp_path, GREY)
    with pytest.raises(ValueError, match=r"train\.npz: is next to x_train\.npy, y_train\.npy; keep one"):
        load_dataset("arrays", tmp_path)


def test_both_splits_number_the_classes_alike(tmp_path: Path) -> None:
    save(tmp_path, GREY, classes=np.array(["a", "b", "c"]))
    np.savez(tmp_path / "test.npz", x=GREY, y=LABELS, classes=np.array(["c", "b", "a"]))
    with pytest.raises(
        ValueError, match=r"test\.npz: the classes are c, b, a, those of the training arrays are a, b, c"
    ):
        load_dataset("arrays", tmp_path)
    save(tmp_path, GREY, np.array(["z", "y", "x"])[LABELS])
    np.savez(tmp_path / "test.npz", x=GREY, y=LABELS)
    with pytest.raises(
        ValueError, match=r"test\.npz: the labels are numbers, and those of the training arrays are names"
    ):
        load_dataset("arrays", tmp_path)


def test_the_splits_may_have_their_channels_on_different_axes(tmp_path: Path) -> None:
    save(tmp_path, COLOUR)
    np.savez(tmp_path / "test.npz", x=COLOUR.transpose(0, 3, 1, 2), y=LABELS)
    dataset = load_dataset("arrays", tmp_path)
    assert torch.equal(everything(dataset.test), everything(dataset.train))


def test_a_size_is_only_for_images_of_bytes(tmp_path: Path) -> None:
    for x in (GREY / 255, np.zeros((12, 5, 6, 9), np.uint8), np.zeros((12, 3, 2, 6, 9))):
        save(tmp_path, x)
        with pytest.raises(ValueError, match="resize them before, or leave it out"):
            load_dataset("arrays", tmp_path, size=8)


def test_the_command_says_what_happens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, COLOUR)
    assert main(["data", "arrays", "--data.root", str(tmp_path), "--data.size", "8", "12", "--verify"]) == 0
    first, each, happens, verified = capsys.readouterr().out.splitlines()
    assert first == "arrays: 12 training and 12 test samples of 3 classes, 3 x 8 x 12"
    assert each == "training samples of each class: 4"
    assert (
        "images of 6x9 (height x width) in 3 channels (the last axis) are scaled and cropped at the centre to 8x12"
        in happens
    )
    assert verified == "verified: all 24 samples were read, none is broken"
    (tmp_path / "empty").mkdir()
    assert main(["data", "arrays", "--data.root", str(tmp_path / "empty")]) == 2
    said, complaint = capsys.readouterr()
    assert "train.npz" in said
    assert complaint.count("\n") == 1
