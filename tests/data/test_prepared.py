"""Recordings that are prepared once: what is in the files, processes that are killed, and what is wrong with recordings."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from quick_runs import quick
from recording_files import AEDAT3_HEADER, aedat2, arrays, atis, packet, write

from spikedistill import evaluate, train
from spikedistill.cli import main
from spikedistill.config import DataConfig
from spikedistill.data import load_dataset, read_recording, verify
from spikedistill.data.prepared import Asked, Clip, Clips, Cut, PreparedManifest, prepare, preparing
from spikedistill.data.recordings import frames_of
from spikedistill.data.sets.event_recordings import GESTURES, cifar10_dvs, dvs_gesture
from spikedistill.errors import UserError
from spikedistill.evaluation.results import read_results
from spikedistill.run_folder import RunFolder

SIDE = 12


def recordings(root: Path, of_each: int = 4) -> Path:
    """Recordings of 12 x 12 pixels in three classes to train on, and half as many to test on."""
    dice = np.random.default_rng(0)
    for split, count in (("train", of_each), ("test", of_each // 2)):
        for name in ("left", "right", "up"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                N = 40 + k
                fields = dice.integers(0, [[SIDE], [SIDE], [2], [9]], (4, N))
                fields[3] = np.cumsum(fields[3]) + 5
                write(folder / f"{k:02d}.bin", atis([tuple(event) for event in fields.T.tolist()]))
    return root


def asked_and_clips(root: Path, T: int = 5) -> tuple[Asked, Clips]:
    entry = Asked("event_folder", T, "number", None, None)
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.bin"))
    names = ("left", "right", "up")
    clips = [Clip(file, names.index(file.split("/")[1])) for file in files]
    cut = Cut(timesteps=T, slicing="number", size=(SIDE, SIDE), sensor=(SIDE, SIDE))
    train_clips, test_clips = (
        tuple(clip for clip in clips if clip.file.startswith(split)) for split in ("train", "test")
    )
    return entry, Clips(root, train_clips, test_clips, names, cut)


SENSOR = {"sensor": f"{SIDE}x{SIDE}"}


@pytest.mark.parametrize("slicing", ["number", "even", "time", "even-time"])
def test_prepared_samples_are_the_frames_of_their_recordings(tmp_path: Path, slicing: str) -> None:
    root = recordings(tmp_path)
    dataset = load_dataset("event_folder", root, timesteps=5, slicing=slicing, options=SENSOR)
    assert (dataset.classes, dataset.size, dataset.kind) == (("left", "right", "up"), (SIDE, SIDE), "events")
    assert (len(dataset.train), len(dataset.test)) == (12, 6)
    assert dataset.train.targets.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    files = sorted((root / "train").rglob("*.bin"))
    expected = torch.stack([frames_of(read_recording(file), 5, slicing, (SIDE, SIDE)) for file in files])
    assert torch.equal(dataset.train.inputs(torch.arange(12)), expected)
    some = dataset.train.subset(torch.tensor([7, 2]))
    assert torch.equal(some.inputs(torch.tensor([1, 0])), expected[[2, 7]])
    assert some.targets.tolist() == [1, 0]


def test_frames_may_be_scaled_normalised_or_of_a_fixed_duration(tmp_path: Path) -> None:
    root = recordings(tmp_path)
    plain = load_dataset("event_folder", root, timesteps=5, options=SENSOR).train.inputs(torch.arange(12))
    half = load_dataset("event_folder", root, timesteps=5, size=6, options=SENSOR)
    assert half.size == (6, 6)
    scaled = half.train.inputs(torch.arange(12))
    # the mean stays: a smaller picture of the same brightness
    assert torch.allclose(scaled.mean((-1, -2)), plain.mean((-1, -2)), atol=0.05)
    largest = load_dataset("event_folder", root, timesteps=5, options=SENSOR | {"normalise": True})
    frames = largest.train.inputs(torch.arange(12))
    assert torch.equal(frames, plain / plain.amax((2, 3, 4), keepdim=True))
    timed = load_dataset("event_folder", root, timesteps=2, slicing="duration", options=SENSOR | {"milliseconds": 0.05})
    first = read_recording(root / "train" / "left" / "00.bin")
    passed = first.time - first.time[0]
    counts = [int((passed < 50).sum()), int(((passed >= 50) & (passed < 100)).sum())]
    assert timed.train.inputs(torch.tensor([0]))[0].sum((1, 2, 3)).tolist() == counts
    long = load_dataset("event_folder", root, timesteps=9, slicing="duration", options=SENSOR | {"milliseconds": 0.03})
    ends = [
        int(recorded.time[-1] - recorded.time[0]) // 30 + 1
        for recorded in map(read_recording, sorted(root.glob("train/*/*.bin")))
    ]
    assert long.train.lengths.tolist() == [min(end, 9) for end in ends]
    assert min(ends) < 9


def test_prepared_samples_need_their_recordings_no_more_and_name_a_file_that_changed(tmp_path: Path) -> None:
    root = recordings(tmp_path)
    frames = load_dataset("event_folder", root, timesteps=5, options=SENSOR).train.inputs(torch.arange(12))
    (root / "train").rename(root / "gone")
    dataset = load_dataset("event_folder", root, timesteps=5, options=SENSOR)
    assert torch.equal(dataset.train.inputs(torch.arange(12)), frames)
    assert verify(dataset) == []
    (file,) = root.glob(".prepared/*/train-*.npy")
    file.write_bytes(file.read_bytes()[:-1])
    broken = load_dataset("event_folder", root, timesteps=5, options=SENSOR)
    with pytest.raises(
        ValueError, match=r"train-00000\.npy: has other than \d+ bytes; remove .* and prepare event_folder again"
    ):
        broken.train.inputs(torch.tensor([0]))


def test_a_manifest_says_what_was_prepared(tmp_path: Path) -> None:
    root = recordings(tmp_path)
    load_dataset("event_folder", root, timesteps=5, options=SENSOR)
    (folder,) = (root / ".prepared").iterdir()
    manifest = PreparedManifest.read(folder)
    assert manifest.shape == (5, 2, SIDE, SIDE)
    assert manifest.source["recordings"] == 18
    (part,) = manifest.parts["train"]
    assert part.events == (40, 41, 42, 43) * 3
    assert np.load(folder / part.name).dtype == np.uint8
    assert sorted(path.name for path in folder.iterdir() if path.name != ".lock") == [
        "manifest.json",
        "test-00000.npy",
        "train-00000.npy",
    ]
    (folder / "manifest.json").write_text('{"schema_version": 2}')
    with pytest.raises(UserError, match=r"has schema 2, expected 1: prepare it again"):
        load_dataset("event_folder", root, timesteps=5, options=SENSOR)


def test_a_network_is_trained_on_them_and_evaluated(tmp_path: Path) -> None:
    data = DataConfig(name="event_folder", root=recordings(tmp_path / "data", 8), batch_size=4, options=SENSOR)
    run = train(quick("event_folder-twsd", out=tmp_path / "run", data=data))
    before = read_results(RunFolder(run)).last
    assert evaluate(run) is not None
    assert read_results(RunFolder(run)).last == before
    page = RunFolder(run).report.read_text()
    assert "the recording must have ended before the first timestep" in page


# Several processes, some of them killed.


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "_MOST_ROWS", 3)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def _prepare(root: Path, data: Path) -> None:
    """In a process of its own."""
    torch.set_num_threads(1)
    prepare(*asked_and_clips(root), data, workers=1)


def test_a_process_killed_at_any_moment_leaves_what_the_next_finishes(tmp_path: Path, small_parts: None) -> None:
    root, dice = recordings(tmp_path / "source", 20), random.Random(0)
    asked, clips = asked_and_clips(root)
    prepare(asked, clips, tmp_path / "whole", workers=1)
    whole = contents(asked.folder(tmp_path / "whole"))
    assert len(whole) == 1 + 20 + 10
    context, unfinished = multiprocessing.get_context("fork"), 0
    for moment in range(20):
        data = tmp_path / f"killed{moment}"
        process = context.Process(target=_prepare, args=(root, data))
        process.start()
        folder, parts = asked.folder(data), moment * 3 // 2
        while process.is_alive() and len(list(folder.glob("*.npy"))) < parts:
            time.sleep(0.0005)
        time.sleep(dice.random() * 0.003)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        unfinished += not (folder / "manifest.json").is_file()
        prepare(asked, clips, data, workers=1)
        assert contents(folder) == whole
    assert unfinished >= 10


def test_any_number_of_processes_prepares_the_same(tmp_path: Path, small_parts: None) -> None:
    root = recordings(tmp_path / "source", 8)
    asked, clips = asked_and_clips(root)
    seen: list[int] = []

    def track(parts: Iterator[object], total: int) -> Iterator[object]:
        for part in parts:
            seen.append(total)
            yield part

    prepare(asked, clips, tmp_path / "one", workers=1)
    prepare(asked, clips, tmp_path / "two", workers=2, track=track)
    assert seen == [12] * 12
    one, two = (contents(asked.folder(tmp_path / name)) for name in ("one", "two"))
    assert one == two


def test_processes_that_begin_together_prepare_once(tmp_path: Path) -> None:
    root = recordings(tmp_path)
    context = multiprocessing.get_context("fork")
    together = [context.Process(target=_load, args=(root,)) for _ in range(3)]
    for process in together:
        process.start()
    for process in together:
        process.join()
    assert [process.exitcode for process in together] == [0, 0, 0]
    assert len(list((root / ".prepared").iterdir())) == 1


def _load(root: Path) -> None:
    torch.set_num_threads(1)
    load_dataset("event_folder", root, timesteps=5, options=SENSOR)


def test_recordings_that_changed_since_are_noticed(tmp_path: Path) -> None:
    root = recordings(tmp_path)
    load_dataset("event_folder", root, timesteps=5, options=SENSOR)
    added = write(root / "train" / "up" / "99.bin", atis([(1, 2, 1, 3)]))
    with pytest.raises(
        UserError, match=r"was prepared from other recordings than those in .*; remove .*, and they are prepared anew"
    ):
        load_dataset("event_folder", root, timesteps=5, options=SENSOR)
    added.unlink()
    load_dataset("event_folder", root, timesteps=5, options=SENSOR)
    (folder,) = (root / ".prepared").iterdir()
    manifest = PreparedManifest.read(folder)
    manifest.model_copy(update={"made_with": manifest.made_with | {"slicing": 1}}).write(folder)
    with pytest.raises(UserError, match="holds frames that an older version has cut by 'number'"):
        load_dataset("event_folder", root, timesteps=5, options=SENSOR)


def test_other_recordings_are_not_mixed_in(tmp_path: Path, small_parts: None) -> None:
    root = recordings(tmp_path / "source")
    asked, clips = asked_and_clips(root)
    write(root / "test" / "up" / "00.bin", b"12345678")
    with pytest.raises(UserError, match=r"00\.bin: byte 5: ends after 3 bytes of a record of 5"):
        prepare(asked, clips, tmp_path, workers=1)
    write(root / "test" / "up" / "00.bin", atis([(1, 2, 1, 3)]))
    with pytest.raises(UserError, match="was begun with other recordings"):
        prepare(asked, clips, tmp_path, workers=1)


# What is wrong with recordings.


def test_bad_recordings_are_named_or_skipped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = recordings(tmp_path)
    write(root / "train" / "left" / "01.bin", b"1234567")
    write(root / "train" / "up" / "02.bin", atis([(40, 2, 1, 3)]))
    write(root / "train" / "up" / "03.bin", atis([(0, 240, 0, 0)]))
    words = ["data", "prepare", "event_folder", "--data.root", str(root), "--timesteps", "5", "--workers", "1"]
    words += ["--data.options.sensor", "12x12"]
    assert main(words) == 2
    assert "left/01.bin: byte 5: ends after 2 bytes of a record of 5: the file is cut" in capsys.readouterr().err
    assert main([*words, "--skip-bad"]) == 0
    out = capsys.readouterr().out
    assert "event_folder: 9 training and 6 test samples of 3 classes, 5 frames of 2 x 12 x 12" in out
    assert "3 recordings could not be read and are left out: " in out
    assert "up/02.bin: 1 of 1 events lie outside the sensor of 12x12" in out
    assert "up/03.bin: holds no events" in out
    dataset = load_dataset("event_folder", root, timesteps=5, options=SENSOR)
    assert dataset.train.targets.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2]


def test_a_class_without_a_good_recording_is_refused(tmp_path: Path) -> None:
    root = recordings(tmp_path)
    for file in (root / "train" / "left").iterdir():
        write(file, b"1")
    with pytest.raises(UserError, match="has no training samples of left that can be read; add some"):
        load_dataset("event_folder", root, options=SENSOR | {"skip_bad": True, "workers": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timesteps": 0}, "values; got T 0"),
        ({"timesteps": 10**9}, "values; got T 1000000000"),
        ({"slicing": "both"}, "slicing is one of number, even, time, even-time, duration; got 'both'"),
        (
            {"slicing": "duration"},
            "need --data.slicing duration and --data.options.milliseconds above 0; got duration and 0",
        ),
        ({"options": {"milliseconds": 3.0}}, "got number and 3"),
        ({"options": {"sensor": "12"}}, "sensor is HEIGHTxWIDTH in pixels, such as 260x346; got '12'"),
        ({"options": {}}, "00.bin does not state the size of its sensor: add --data.options.sensor HEIGHTxWIDTH"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    root = recordings(tmp_path)
    with pytest.raises(UserError) as error:
        load_dataset("event_folder", root, **options)
    assert message in str(error.value)


def test_a_folder_without_test_recordings_sets_some_aside(tmp_path: Path) -> None:
    recordings(tmp_path / "a", 10)
    root = tmp_path / "a" / "train"
    dataset = load_dataset("event_folder", root, options=SENSOR | {"test_share": 0.2})
    assert (len(dataset.train), len(dataset.test)) == (24, 6)


def test_what_is_not_prepared_says_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "cifar10_dvs-sce", "--data.root", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "cifar10_dvs is not prepared for these options, and there is no" in error
    assert "run spikedistill data prepare cifar10_dvs --source FOLDER" in error
    assert main(["data", "prepare", "digits", "--data.root", str(tmp_path)]) == 2
    assert "digits is read as it is, without being prepared; cifar10_dvs," in capsys.readouterr().err
    assert main(["data", "prepare", "cifar10_dvs", "--source", str(tmp_path / "no"), "--data.root", str(tmp_path)]) == 2
    assert "is no folder: give the folder of the archives or recordings" in capsys.readouterr().err
    assert main(["data", "prepare", "event_folder", "--data.root", str(tmp_path), "--data.options.skip-bad=3"]) == 2
    assert "--data.options.skip-bad is '3', expected true or false" in capsys.readouterr().err


def test_samples_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    root, picture = recordings(tmp_path), tmp_path / "new" / "samples.png"
    words = [
        "data",
        "info",
        "event_folder",
        "--data.root",
        str(root),
        "--timesteps",
        "5",
        "--data.options",
        "sensor",
        "12x12",
    ]
    assert main([*words, "--out", str(picture)]) == 0
    assert f"samples of each class: {picture}" in capsys.readouterr().out
    with Image.open(picture) as found:
        assert (found.format, found.n_frames) == ("PNG", 5)
    assert main(["data", "info", "digits", "--out", str(picture)]) == 0
    with Image.open(picture) as found:
        assert getattr(found, "n_frames", 1) == 1
        assert len(found.convert("RGB").getcolors(2**20)) > 5


# The published data sets, in files of their form.


def asked_of(name: str, **own: str) -> Asked:
    return Asked(name, 4, "number", None, (48, 48), own)


def test_cifar10_dvs_has_its_splits(tmp_path: Path) -> None:
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    for label in classes:
        (tmp_path / label).mkdir()
        for k in range(1000):
            (tmp_path / label / f"cifar10_{label}_{k}.aedat").touch()
    names = sorted(f"{label}/cifar10_{label}_{k}.aedat" for label in classes for k in range(1000))
    drawn = torch.randperm(10000, generator=torch.Generator().manual_seed(42)).tolist()
    by_seed = cifar10_dvs(tmp_path, asked_of("cifar10_dvs", split="seed42"))
    assert [clip.file for clip in by_seed.test] == sorted(names[k] for k in drawn[9000:])
    assert len(by_seed.train) == 9000
    dice = torch.Generator().manual_seed(0)
    stratified = cifar10_dvs(tmp_path, asked_of("cifar10_dvs", split="stratified"))
    for label in range(10):
        of_class = [clip.file for clip in stratified.test if clip.target == label]
        places = torch.randperm(1000, generator=dice)[:100].tolist()
        assert of_class == sorted(names[1000 * label + k] for k in places)
    assert not {clip.file for clip in stratified.train} & {clip.file for clip in stratified.test}
    assert stratified.classes == tuple(classes)
    with pytest.raises(UserError, match="split of cifar10_dvs is seed42 or stratified; got 'mine'"):
        cifar10_dvs(tmp_path, asked_of("cifar10_dvs", split="mine"))
    (tmp_path / "dog" / "cifar10_dog_7.aedat").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks 1 of the 10000 recordings, among them dog/cifar10_dog_7\.aedat"
    ):
        cifar10_dvs(tmp_path, asked_of("cifar10_dvs", split="seed42"))


def test_cifar10_dvs_is_turned_as_in_spikingjelly(tmp_path: Path) -> None:
    path = write(tmp_path / "a.aedat", aedat2([(3, 10, 1, 100), (5, 20, 0, 101)]))
    cut = Cut(timesteps=1, slicing="number", size=(128, 128), sensor=(128, 128), camera="DVS128", turn="spikingjelly")
    frames = cut.frames(cut.read(path), Clip("a.aedat", 0))
    # x = 127 - y, y = 127 - x, and the polarity is the other one
    assert frames.nonzero().tolist() == [[0, 0, 124, 117], [0, 1, 122, 107]]


def test_gestures_are_cut_from_their_recordings(tmp_path: Path) -> None:
    for user in ("user01", "user24"):
        events = [(k, 100 - k, k % 2, 1000 * k) for k in range(100)]
        write(tmp_path / f"{user}_led.aedat", AEDAT3_HEADER + packet(events))
        table = "class,startTime_usec,endTime_usec\n1,10000,20000\n11,20000,25000\n"
        (tmp_path / f"{user}_led_labels.csv").write_text(table)
    (tmp_path / "trials_to_train.txt").write_text("user01_led.aedat\n")
    with pytest.raises(FileNotFoundError, match=r"trials_to_test\.txt is missing"):
        dvs_gesture(tmp_path, asked_of("dvs_gesture"))
    (tmp_path / "trials_to_test.txt").write_text("user24_led.aedat\n\n")
    found = dvs_gesture(tmp_path, asked_of("dvs_gesture"))
    assert found.train == (Clip("user01_led.aedat", 0, 10000, 20000), Clip("user01_led.aedat", 10, 20000, 25000))
    assert found.classes == GESTURES
    cut = Cut(timesteps=2, slicing="number", size=(128, 128), sensor=(128, 128))
    frames = cut.frames(cut.read(tmp_path / "user01_led.aedat"), found.train[1])
    assert frames.sum((1, 2, 3)).tolist() == [2, 3]  # the events of 20 to 24 milliseconds
    assert frames[0, 0, 80, 20] == 1
    (tmp_path / "user24_led_labels.csv").write_text("class,startTime_usec,endTime_usec\n12,0,5\n")
    with pytest.raises(UserError, match=r"user24_led_labels\.csv: line 2 holds .*expected class \(1 to 11\)"):
        dvs_gesture(tmp_path, asked_of("dvs_gesture"))
    (tmp_path / "trials_to_test.txt").write_text("user01_led.aedat\n")
    with pytest.raises(UserError, match="has user01 in training and in testing"):
        dvs_gesture(tmp_path, asked_of("dvs_gesture"))


def test_ncaltech101_tests_on_a_tenth_of_each_class(tmp_path: Path) -> None:
    for label in ("airplanes", "wrench"):
        folder = tmp_path / "Caltech101" / label
        folder.mkdir(parents=True)
        for k in range(20):
            write(folder / f"image_{k:04d}.bin", atis([(k, 5, 1, 10), (200, 150, 0, 11)]))
    dataset = load_dataset("ncaltech101", tmp_path, timesteps=2)
    assert (len(dataset.train), len(dataset.test), dataset.size) == (36, 4, (48, 48))
    assert dataset.test.targets.tolist() == [0, 0, 1, 1]
    assert dataset.train.inputs(torch.tensor([0])).shape == (1, 2, 2, 48, 48)


def test_arrays_and_other_formats_may_lie_side_by_side(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("a", "b"):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            write(folder / "1.aedat", aedat2([(1, 2, 1, 3)]))
            arrays(folder / "2.npz", [(3, 4, 0, 5)])
    dataset = load_dataset("event_folder", tmp_path, timesteps=1)
    assert dataset.size == (128, 128)
    assert dataset.train.inputs(torch.tensor([0, 1])).nonzero().tolist() == [[0, 0, 1, 2, 1], [1, 0, 0, 4, 3]]
