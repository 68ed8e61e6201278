"""The headline command: its list, a run that is stopped and goes on elsewhere, and the tables."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import headline as command
from benchmarks import headline_runs
from benchmarks.__main__ import main
from benchmarks.headline import Clock, headline
from benchmarks.headline_runs import RUNS, Choices, Run, Study, config_of
from benchmarks.headline_stay import bring
from benchmarks.headline_table import differences, table
from benchmarks.headline_teacher import write_half
from benchmarks.shards import MIB, Whole, join, write_shards

from spikedistill import create_model
from spikedistill.evaluation.comparison.records import RunRecord
from spikedistill.evaluation.results import Scores
from spikedistill.models import load_model, save_model
from spikedistill.recipes import departures

ROOT = Path(__file__).parents[2]
DRY = Choices(dry=True)


def test_the_list_is_in_its_order_and_departs_from_the_papers_only_as_it_says(tmp_path):
    configs = [config_of(run, tmp_path, Choices()) for run in RUNS]
    assert len({run.name for run in RUNS}) == len(RUNS)
    taught = {}
    for run, config in zip(RUNS, configs, strict=True):  # teachers come before those they teach
        if run.method == "ann":
            taught[run.study.dataset] = True
        assert config.teacher is None or taught[run.study.dataset]
        assert (config.data.train_samples, config.data.holdout, config.trainer.track_test) == (None, 0.0, True)
    short, precise = "--epochs 100 (protocol: 300)", "--trainer.precision bf16-mixed (protocol: 32-true)"
    expected = {run.study: [short, precise] for run in RUNS} | {
        study: rest
        for study in {run.study for run in RUNS}
        if (rest := {300: [precise], 100: None}[study.epochs]) is not None
    }
    for run, config in zip(RUNS, configs, strict=True):
        found = sorted(departures(config))
        allowed = sorted(expected[run.study])
        if run.study.remark == "float32":
            allowed = [short]
        if run.study.remark == "s2w":
            allowed = [precise]  # its paper trains for 100 epochs
        if run.study.remark == "transformer":
            allowed = ["--epochs 100 (protocol: 400)", precise]
        assert found == allowed, run.name
    methods = [run.method for run in RUNS]
    assert methods[-7:-3] == ["trt", "akl", "mps-unofficial", "mtt"]
    assert {config.model.name for config in configs[-3:]} == {"qkformer"}
    assert methods[:9] == ["ann", "skd", "twce", "twkd", "sce", "tks", "twce-twsd", "esd", "s2w"]
    assert {config.timesteps for config in configs} == {1, 4, 6}
    dry = [config_of(run, tmp_path, DRY) for run in RUNS]
    assert {(config.epochs, config.model.width, config.optimizer.schedule) for config in dry} == {(1, 1.0, "cosine")}
    assert [config.model for config in dry] == [config.model for config in configs]


def test_a_larger_batch_scales_the_learning_rate(tmp_path):
    for run, batch, rate in ((RUNS[1], 128, 0.1), (RUNS[8], 64, 0.1)):
        published, larger = config_of(run, tmp_path, Choices()), config_of(run, tmp_path, Choices(batch=512))
        assert (published.data.batch_size, published.optimizer.lr) == (batch, rate)
        assert (larger.data.batch_size, larger.optimizer.lr) == (512, pytest.approx(rate * 512 / batch))


@pytest.fixture
def small(monkeypatch):
    """The teacher and TWKD: networks an eighth as wide, 12 epochs of 40 images of noise in two steps, T=2."""

    def config(run, out, choices):
        config = config_of(run, out, choices)
        return config.model_copy(
            update={
                "epochs": 12,
                "timesteps": min(2, config.timesteps),
                "model": config.model.model_copy(update={"name": "convnet", "width": 0.125}),
                "data": config.data.model_copy(update={"batch_size": 20, "size": 16}),
            }
        )

    monkeypatch.setattr(command, "config_of", config)
    monkeypatch.setattr(headline_runs, "_DRY_IMAGES", {"train": 40, "test": 20})
    monkeypatch.setattr(command, "LOOK", 0.01)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a process in the background
    yield (RUNS[0], RUNS[3])
    signal.signal(signal.SIGINT, before)


def results(out):
    """The tables, and every run's losses and answers."""
    lines = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    runs = [{key: line[key] for key in ("run", "metrics", "right", "results", "teacher")} for line in lines]
    return [(out / name).read_text() for name in ("table.csv", "differences.csv")], runs


def test_stopped_at_every_call_and_taken_elsewhere_it_ends_with_the_same_table(small, tmp_path, monkeypatch):
    whole, here = tmp_path / "whole", Path("runs")
    assert set(headline(whole, 30, DRY, small).values()) == {"finished"}
    rows = list(csv.DictReader((whole / "table.csv").read_text().splitlines()))
    assert [(row["method"], row["T"], row["k"]) for row in rows] == [
        ("ann", "1", "1"),
        ("twkd", "2", "1"),
        ("twkd", "2", "2"),
    ]
    assert (whole / "headline.png").read_bytes().startswith(b"\x89PNG")

    def epochs():
        metrics = [file for run in small if (file := here / run.name / "metrics.csv").is_file()]
        return sum(len(file.read_text().splitlines()) - 1 for file in metrics)

    def left(clock):  # each stay ends in the middle of a run, once it has gone on by some epochs
        return 1000.0 if epochs() < before + 5 else 0.0

    monkeypatch.setattr(Clock, "left", property(left))
    carried = tmp_path / "carried"
    for stay in range(40):
        (tmp_path / f"stay{stay}").mkdir()
        monkeypatch.chdir(tmp_path / f"stay{stay}")  # another machine, where the folder has the same relative path
        for part in join(carried.glob("*.shard")):
            part.write(here)
        if (carried / "records.jsonl").is_file():
            shutil.copy(carried / "records.jsonl", here)
        before = epochs()
        if set(headline(here, 30, DRY, small).values()) == {"finished"}:
            break
        carried = tmp_path / f"out{stay}"  # all that leaves is what `bring` copies
        bring(small, here, carried, unfinished=True)
    assert stay > 1
    assert results(here) == results(whole)
    assert not (here / small[0].name / "model.safetensors").exists()  # the teacher came as a file of half the size


def test_other_choices_are_refused_before_anything_goes_on(small, tmp_path, monkeypatch, capsys):
    begun = tmp_path / small[0].name / "metrics.csv"
    monkeypatch.setattr(Clock, "left", property(lambda clock: 0.0 if begun.is_file() else 1000.0))
    headline(tmp_path, 30, DRY, small[:1])
    assert main(["headline", "--out", str(tmp_path), "--dry-run", "--first", "1", "--batch", "64"]) == 2
    assert "was begun with other settings" in capsys.readouterr().err


def test_without_its_data_a_run_is_named_and_nothing_else_lost(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kernels.json").write_text('{"ms": 22.3}')
    became = headline(tmp_path / "out", 1, Choices(root=tmp_path), RUNS[:2])
    first, second = became.values()
    assert first.startswith("failed: ")
    assert "is missing" in first
    assert "its teacher" in second
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (found["outcomes"], found["kernels"]) == (became, {"ms": 22.3})


def test_the_teacher_in_half_precision_is_the_rounded_one(tmp_path):
    torch.manual_seed(0)
    spec = {"name": "convnet", "num_classes": 10, "width": 0.25, "neuron": "relu"}
    network = create_model(**spec)
    save_model(network, spec, tmp_path / "model.safetensors", classes=[str(k) for k in range(10)])
    write_half(tmp_path / "model.safetensors", tmp_path / "half.safetensors")
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (tmp_path / "model.safetensors").stat().st_size
    found, before = load_model(tmp_path / "half.safetensors").module.state_dict(), network.module.state_dict()
    for name, tensor in found.items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(
            tensor, before[name].half().float() if tensor.ndim > 1 and "weight" in name else before[name]
        )


def record(config, right, epochs):
    metrics = [
        {"epoch": str(number), "test_accuracy_1": str(first), "test_accuracy_2": str(last)}
        for number, (first, last) in enumerate(epochs, 1)
    ]
    return RunRecord(config, Scores(ensemble=[], single=[]), {}, metrics, np.array(right, bool))


def test_a_table_and_differences_worked_by_hand(tmp_path):
    study = Study("cifar100", "twkd", 2, 100, "resnet18")
    runs = {
        method: [config_of(Run(study, method, seed), tmp_path, Choices()) for seed in range(3)]
        for method in ("twce", "twkd")
    }
    answers = {  # [k, N] of each seed
        "twce": [[[0, 1, 0, 0], [1, 1, 0, 0]], [[1, 0, 0, 0], [0, 1, 1, 0]], [[0, 0, 0, 1], [1, 0, 0, 1]]],
        "twkd": [[[1, 1, 0, 0], [1, 1, 1, 0]], [[1, 0, 1, 0], [0, 1, 1, 1]], [[0, 1, 0, 1], [1, 1, 1, 1]]],
    }
    epochs = [(0.1, 0.3), (0.2, 0.9), (0.3, 0.9), (0.4, 0.5)]
    found = {
        study: {
            method: [record(config, right, epochs) for config, right in zip(configs, answers[method], strict=True)]
            for method, configs in runs.items()
        }
    }
    rows = table(found)
    assert [(row["method"], row["k"], row["last"]) for row in rows] == [
        *(("twce", 1, 25.0), ("twce", 2, 50.0), ("twkd", 1, 50.0), ("twkd", 2, 83.3333)),
    ]
    # the first epoch that is the best at k = T decides for every k
    assert [(row["best_on_test"], row["best_epochs"]) for row in rows[2:]] == [(20.0, "2 2 2"), (90.0, "2 2 2")]
    assert [row["published"] for row in rows] == ["", "", "", "77.32"]  # of TWKD with T=2, after both
    assert "best test epoch" in rows[3]["published_doubt"]
    between = {row["k"]: row for row in differences(found)}
    assert [between[k]["difference"] for k in ("1", "2", "mean over k")] == [25.0, 33.3333, 29.1667]
    assert all(row["ours"] == "twkd" and row["seeds"] == 3 for row in between.values())
    assert between["2"]["low"] < 33.3 < between["2"]["high"]
    one_seed = {study: {method: runs[:1] for method, runs in found[study].items()}}
    assert "low" not in differences(one_seed)[0]


def test_bf16_is_held_against_the_float32_control(tmp_path):
    studies = {
        run.study for run in RUNS if run.method == "twkd" and run.study.epochs == 100 and run.study.model == "resnet18"
    }
    found = {}
    for study in sorted((s for s in studies if s.dataset == "cifar100"), key=lambda s: s.precision):
        right = np.ones((4, 4)) if study.precision == "32-true" else np.eye(4)
        config = config_of(Run(study, "twkd"), tmp_path, Choices())
        metrics = [(0.1, 0.2)]
        found[study] = {"twkd": [record(config, right, metrics)]}
    rows = differences(found)
    assert len(rows) == 5
    assert {(row["ours"], row["theirs"], row["difference"]) for row in rows} == {
        ("twkd, bf16", "twkd, float32", 25.0 - 100)
    }


def test_what_is_brought_keeps_within_the_limits_and_goes_on(tmp_path):
    out = tmp_path / "out"
    (out / "teachers").mkdir(parents=True)
    (out / "teachers" / "cifar100.safetensors").write_bytes(os.urandom(MIB))
    (out / "records.jsonl").touch()
    (out / "table.csv").write_text("k\n")
    calls = [bring(RUNS, out, tmp_path / str(call), unfinished=False, files=4, mib=10, each=0.4) for call in range(3)]
    shards = [[name for name in names if name.endswith(".shard")] for names in calls]
    assert [len(names) for names in shards] == [2, 1, 0]  # three of 0.34 MiB, two files being the records and the table
    assert all(len(names) <= 4 for names in calls)
    (teacher,) = join(tmp_path / str(call) / name for call, names in enumerate(shards) for name in names)
    assert teacher == Whole.of(out, "teachers/cifar100.safetensors")


def test_the_script_takes_what_was_carried_and_writes_the_tables(tmp_path):
    data = tmp_path / "packed"
    (data / "cifar100").mkdir(parents=True)
    (data / "cifar100" / "part").write_text("pixels")
    (data / "unpack.py").write_text(
        "import pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[2]) / 'cifar-100-python'\n"
        "folder.mkdir()\n"
        "(folder / 'train').write_text((pathlib.Path(__file__).parent / sys.argv[1] / 'part').read_text())\n"
    )
    with tarfile.open(data / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(data / "cifar100", "cifar-10-batches-py")
    (tmp_path / "teachers").mkdir()
    (tmp_path / "teachers" / "cifar100.safetensors").write_bytes(b"weights")
    for name, to in (("packed", "data1"), ("teachers/cifar100.safetensors", "runs")):
        write_shards([Whole.of(tmp_path, name)], tmp_path / ".carry" / to, files=9, mib=99, each=16, known=set())
    (tmp_path / ".carry" / "runs" / "records.jsonl").touch()
    places = {"CARRIED": ".carry", "HEADLINE": "out", "SPIKEDISTILL_DATA": "data", "BRING": "brought"}
    environment = os.environ | {name: str(tmp_path / place) for name, place in places.items()}
    environment |= {"PYTHON": sys.executable, "TESTS_S": "0", "PROFILE_S": "0"}
    script = [str(ROOT / "benchmarks" / "headline.sh"), "0", "--first", "2"]
    ended = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "data" / "cifar-100-python" / "train").read_text() == "pixels"
    assert (tmp_path / "data" / "cifar-10-batches-py" / "part").read_text() == "pixels"
    assert (tmp_path / "out" / "teachers" / "cifar100.safetensors").read_bytes() == b"weights"
    assert ended.stdout.count("left ") == 2
    brought = {file.name for file in (tmp_path / "brought").iterdir()}
    assert {"records.jsonl", "results.json", "table.csv"} <= brought
    assert not any(name.endswith(".shard") for name in brought)  # the teacher's came from there


def test_kernels_of_a_step(tmp_path, capsys):
    sizes = ["--device", "cpu", "--precision", "float32", "--model", "convnet", "--width", "0.125", "--batch", "4"]
    assert main(["kernels", *sizes, "--measure-s", "0", "--out", str(tmp_path / "kernels.json")]) == 0
    found = json.loads((tmp_path / "kernels.json").read_text())
    assert found["images_per_s"] == pytest.approx(4000 / found["ms"], rel=1e-3, abs=0.05)  # written with one decimal
    assert {"aten::mkldnn_convolution", "aten::convolution_backward"} & {entry["name"] for entry in found["kernels"]}
    assert 0.5 < sum(entry["share"] for entry in found["kernels"]) <= 1.001
    if not torch.cuda.is_available():
        assert main(["kernels", "--out", str(tmp_path / "other.json")]) == 2
        assert "needs a GPU" in capsys.readouterr().err
