"""ImageNet and Tiny-ImageNet: archives of the published form, unpacked, and folders of classes."""

import io
import multiprocessing
import os
import random
import signal
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from spikedistill.cli import main
from spikedistill.data import archives, load_dataset
from spikedistill.errors import UserError
from spikedistill.recipes import recipe, with_protocol

CLASSES = ("n01440764", "n01443537", "n02102040")
# ImageNet numbers its classes in another order than their names
NUMBERS = {2: "n01440764", 3: "n01443537", 1: "n02102040"}
TRUTH = (3, 1, 1, 2)


def jpeg(seed: int, size: tuple[int, int] = (40, 30)) -> bytes:
    levels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(levels).save(content, "JPEG")
    return content.getvalue()


def tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        for name, value in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(value)
            archive.addfile(member, io.BytesIO(value))
    return content.getvalue()


def devkit() -> bytes:
    rows = np.array(
        [(number, wnid, 0) for number, wnid in NUMBERS.items()],
        dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")],
    )
    table = io.BytesIO()
    savemat(table, {"synsets": rows})
    truth = "".join(f"{number}\n" for number in TRUTH).encode()
    root = "ILSVRC2012_devkit_t12/data"
    return tar({f"{root}/meta.mat": table.getvalue(), f"{root}/ILSVRC2012_validation_ground_truth.txt": truth}, "w:gz")


def imagenet(folder: Path, of_each: int = 4, **others: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    train = {f"{wnid}.tar": tar({f"{wnid}_{k}.JPEG": jpeg(k) for k in range(of_each)}) for wnid in CLASSES}
    val = {f"ILSVRC2012_val_{k:08d}.JPEG": jpeg(100 + k) for k in range(1, len(TRUTH) + 1)}
    (folder / archives.TRAIN).write_bytes(tar(train | others.get("train", {})))
    (folder / archives.VAL).write_bytes(tar(val | others.get("val", {})))
    (folder / archives.DEVKIT).write_bytes(devkit())
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_archives_become_folders_of_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, root = imagenet(tmp_path / "downloads"), tmp_path / "data"
    root.mkdir()
    words = ["data", "prepare", "imagenet", "--data.root", str(root), "--source", str(source)]
    assert main(words) == 0
    assert "imagenet: 12 training and 4 test samples of 3 classes, 3 x 224 x 224" in capsys.readouterr().out
    found = files(root / "imagenet")
    assert found["train/n01443537/n01443537_2.JPEG"] == jpeg(2)
    of_test = {"n01443537": [1], "n02102040": [2, 3], "n01440764": [4]}
    assert sorted(name for name in found if name.startswith("val")) == sorted(
        f"val/{wnid}/ILSVRC2012_val_{k:08d}.JPEG" for wnid, numbers in of_test.items() for k in numbers
    )
    dataset = load_dataset("imagenet", root)
    assert dataset.classes == CLASSES
    assert dataset.test.targets.tolist() == [0, 1, 2, 2]
    assert dataset.augmentations == ("resized-crop", "flip")
    assert dataset.test.inputs(torch.tensor([0])).shape == (1, 3, 224, 224)
    # again, it changes nothing
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*.JPEG")}
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.JPEG")} == times


@pytest.mark.parametrize(
    ("split", "name"),
    [
        ("train", "../n01440764.tar"),
        ("train", "/etc/n01440764.tar"),
        ("train", "readme.txt"),
        ("val", "../../ILSVRC2012_val_00000001.JPEG"),
        ("val", "ILSVRC2012_val_1.JPEG"),
        ("val", "ILSVRC2012_val_00000009.JPEG"),
    ],
)
def test_no_name_of_an_archive_leads_elsewhere(tmp_path: Path, split: str, name: str) -> None:
    source = imagenet(tmp_path / "deep" / "downloads", **{split: {name: b"x"}})
    with pytest.raises(UserError, match=r"ILSVRC2012_img_(train|val)\.tar: holds .*; download it again"):
        archives.unpack_imagenet(source, tmp_path / "deep" / "data", lambda names, total: names)
    outside = [path for path in files(tmp_path) if not path.startswith(("deep/downloads/", "deep/data/imagenet/"))]
    assert outside == []


def test_no_name_inside_the_archive_of_a_class_leads_elsewhere(tmp_path: Path) -> None:
    inner = tar({"../../../n01440764_9.JPEG": b"x"})
    source = imagenet(tmp_path / "downloads", train={"n01440764.tar": inner})
    with pytest.raises(UserError, match=r"img_train\.tar: holds '\.\./\.\./\.\./n01440764_9\.JPEG', which no official"):
        archives.unpack_imagenet(source, tmp_path / "data", lambda names, total: names)


def test_cut_archives_are_named(tmp_path: Path) -> None:
    for name in (archives.TRAIN, archives.VAL, archives.DEVKIT):
        source = imagenet(tmp_path / name)
        content = (source / name).read_bytes()
        (source / name).write_bytes(content[: len(content) // 3])
        with pytest.raises(UserError, match=f"{name}: .*download it again"):
            archives.unpack_imagenet(source, tmp_path / "data", lambda names, total: names)
    (source / archives.VAL).unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks ILSVRC2012_img_val\.tar: download them there"):
        archives.unpack_imagenet(source, tmp_path / "data", lambda names, total: names)


def _unpack(source: Path, root: Path) -> None:
    archives.unpack_imagenet(source, root, lambda names, total: names)


def test_a_process_killed_while_it_unpacks_is_gone_on_with(tmp_path: Path) -> None:
    source, dice = imagenet(tmp_path / "downloads", 40), random.Random(0)
    _unpack(source, tmp_path / "whole")
    whole, killed = files(tmp_path / "whole"), 0
    for k in range(5):
        root = tmp_path / f"killed{k}"
        process = multiprocessing.get_context("fork").Process(target=_unpack, args=(source, root))
        process.start()
        while process.is_alive() and len(list(root.rglob("*.JPEG"))) < 20 * (k + 1):
            time.sleep(0.0005)
        time.sleep(dice.random() * 0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += len([name for name in files(root) if name.endswith("JPEG")]) < len(whole)
        _unpack(source, root)
        assert files(root) == whole
    assert killed >= 3


def test_tiny_imagenet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "downloads"
    source.mkdir()
    with zipfile.ZipFile(source / archives.TINY, "w") as archive:
        for wnid in CLASSES:
            for k in range(3):
                archive.writestr(f"tiny-imagenet-200/train/{wnid}/images/{wnid}_{k}.JPEG", jpeg(k, (64, 64)))
        listed = [f"val_{k}.JPEG\t{CLASSES[k % 3]}\t0\t0\t62\t57" for k in range(6)]
        archive.writestr("tiny-imagenet-200/val/val_annotations.txt", "\n".join(listed) + "\n")
        for k in range(6):
            archive.writestr(f"tiny-imagenet-200/val/images/val_{k}.JPEG", jpeg(k, (64, 64)))
        archive.writestr("tiny-imagenet-200/test/images/test_0.JPEG", jpeg(0, (64, 64)))
    words = ["data", "prepare", "tiny_imagenet", "--data.root", str(tmp_path), "--source", str(source)]
    assert main(words) == 0
    assert "tiny_imagenet: 9 training and 6 test samples of 3 classes, 3 x 64 x 64" in capsys.readouterr().out
    assert load_dataset("tiny_imagenet", tmp_path).test.targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert main(["data", "prepare", "tiny_imagenet", "--data.root", str(tmp_path)]) == 2
    assert "is unpacked from its archives (http" in capsys.readouterr().err


def test_its_recipes_and_protocols_are_those_of_the_papers() -> None:
    config = recipe("imagenet-twkd")
    assert (config.epochs, config.timesteps, config.model.name, config.data.batch_size) == (100, 4, "resnet34", 512)
    followed = with_protocol(config, "twkd")
    assert followed.data.augment == ("resized-crop", "flip")
    assert followed.data.resize == "centre"
    assert followed.model.lif.decay == 0.2
