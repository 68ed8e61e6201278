"""What is kept of a run, against numbers worked out by hand."""

import base64
import json
import pickle
import re
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from spikedistill.evaluation.comparison.record_format import LARGEST_LINE, sealed
from spikedistill.evaluation.comparison.records import LostRun, Records, RunRecord, from_json
from spikedistill.evaluation.results import Agreement
from spikedistill.recipes import recipe
from spikedistill.run_folder import RunFolder


def logits(*answers):
    """Logits `[T, N, 2]` whose timestep t outweighs those before it and is right, class 0, where it says so."""
    lead = torch.tensor([[3.0**t if right else -(3.0**t) for right in row] for t, row in enumerate(answers)])
    return torch.stack([lead, -lead], -1)


SCORES = [{"k": k, "accuracy": 0.5, "nll": 1.0, "ece": 0.25, "confidence": 0.75} for k in (1, 2)]


def write_run(folder, **config):
    run = RunFolder(folder)
    run.path.mkdir(parents=True)
    config = recipe("digits-twkd").model_copy(update={"out": folder, "timesteps": 2, "epochs": 2, **config})
    run.config_file.write_text(config.to_yaml())
    right = torch.zeros(4, dtype=torch.int64)
    saved = {"logits": logits([1, 0, 1, 0], [1, 1, 0, 0]), "targets": right}
    saved |= {"beyond_right": torch.tensor([[1, 1, 1, 0]], dtype=torch.uint8)}
    save_file(
        saved | {"holdout_logits": logits([1, 1, 1, 0], [1, 1, 0, 0]), "holdout_targets": right.clone()}, run.logits
    )
    results = {"schema": 1, "timesteps": 2, "teacher": {"agreement": 0.5}}
    results["last"] = {"single": SCORES, "ensemble": SCORES, "confusion": [[1]]}
    run.results.write_text(json.dumps(results))
    run.cost.write_text(json.dumps({"images_per_s": 3.0}))
    run.metrics.write_text("epoch,loss\n0,1.5\n1,0.5\n")
    run.model.touch()
    run.report.touch()
    return folder


def test_a_record_holds_what_is_compared(tmp_path):
    record = RunRecord.of(write_run(tmp_path / "a" / "seed0"))
    assert record.right.tolist() == [[1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert record.heldout_area == (75 + 50) / 2
    assert record.results.model_dump(exclude_unset=True) == {"ensemble": SCORES, "single": SCORES}
    assert record.metrics[1] == {"epoch": "1", "loss": "0.5"}
    assert (record.cost, record.teacher) == ({"images_per_s": 3.0}, Agreement(agreement=0.5))


def test_a_record_is_the_same_in_another_place(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    data = recipe("digits-twkd").data.model_copy(update={"root": Path("/data")})
    run = write_run(here / "digits-twkd" / "seed0", data=data, teacher=here / "digits-ann" / "seed0")
    line = RunRecord.of(run).to_json("digits-twkd/seed0", here)
    assert str(tmp_path) not in line
    assert "/data" not in line
    name, moved = from_json(line, there)
    assert name == "digits-twkd/seed0"
    assert moved.config.teacher == there / "digits-ann" / "seed0"
    assert np.array_equal(moved.right, RunRecord.of(run).right)
    assert moved.to_json(name, there) == line
    for number, teacher in enumerate((Path("/weights/ann.safetensors"), Path("runs/ann/seed0"))):
        elsewhere = RunRecord.of(write_run(tmp_path / f"b{number}", teacher=teacher))
        assert from_json(elsewhere.to_json("b", here), there)[1].config.teacher == teacher


def test_what_an_earlier_comparison_in_the_folder_has_written_stays(tmp_path):
    Records(tmp_path).keep([write_run(tmp_path / "digits-sce" / "seed0")])
    Records(tmp_path).keep([write_run(tmp_path / "digits-twkd" / "seed0")])
    assert [json.loads(line)["run"] for line in (tmp_path / "records.jsonl").read_text().splitlines()] == [
        "digits-sce/seed0",
        "digits-twkd/seed0",
    ]


def test_folders_that_are_there_come_before_what_is_remembered_of_them(tmp_path):
    run = write_run(tmp_path / "digits-twkd" / "seed0")
    Records(tmp_path).keep([run, tmp_path / "unfinished"])
    written = (tmp_path / "records.jsonl").stat().st_mtime_ns
    Records(tmp_path).keep([run])
    assert (tmp_path / "records.jsonl").stat().st_mtime_ns == written, "nothing new is nothing to write"
    RunFolder(run).cost.write_text(json.dumps({"images_per_s": 9.0}))
    assert Records(tmp_path).find(run).cost == {"images_per_s": 9.0}
    RunFolder(run).report.unlink()
    assert Records(tmp_path).find(run).cost == {"images_per_s": 3.0}
    assert Records(tmp_path).find(tmp_path / "digits-sce" / "seed0") is None


def test_a_run_that_diverged_is_remembered_without_its_folder(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    run = RunFolder(write_run(here / "digits-twkd" / "seed0", teacher=here / "digits-ann" / "seed0"))
    run.report.unlink()
    run.diverged.write_text(json.dumps({"step": 3, "epoch": 1, "message": "the loss is nan"}))
    records = Records(here)
    records.keep([run.path])
    lost = records.find(run.path)
    assert (lost.status, lost.reason, lost.config.timesteps) == ("diverged", "the loss is nan", 2)
    there.mkdir()
    (there / "records.jsonl").write_bytes(records.file.read_bytes())
    moved = Records(there).find(there / "digits-twkd" / "seed0")
    assert moved == LostRun(moved.config, "diverged", "the loss is nan")
    assert moved.config.teacher == there / "digits-ann" / "seed0"
    assert Records(tmp_path / "other").find_in(Records(there), tmp_path / "other" / "digits-twkd" / "seed0").reason
    # begun again, it has neither diverged nor ended
    run.diverged.unlink()
    assert Records(here).find(run.path) is None
    # and what it ends with counts
    run.report.touch()
    Records(here).keep([run.path])
    assert isinstance(Records(here).find(run.path), RunRecord)
    assert '"diverged"' not in records.file.read_text()


def test_what_is_damaged_in_a_run_is_named(tmp_path):
    run = RunFolder(write_run(tmp_path / "digits-twkd" / "seed0"))
    good = run.logits.read_bytes(), run.results.read_text(), run.metrics.read_text()
    results = json.loads(good[1])

    def refused(match, error=ValueError):
        with pytest.raises(error, match=match):
            RunRecord.of(run.path)
        for file, content in zip((run.logits, run.results, run.metrics), good, strict=True):
            file.write_bytes(content if isinstance(content, bytes) else content.encode())

    run.logits.write_bytes(good[0][:-20])
    refused(r"logits\.safetensors is damaged .*: spikedistill evaluate .*seed0 writes it anew")
    save_file({"logits": logits([1, 0, 1, 0])}, run.logits)
    refused(r"logits\.safetensors holds no tensor 'targets': spikedistill evaluate")
    run.logits.unlink()
    refused(r"seed0 holds no logits\.safetensors: spikedistill evaluate", FileNotFoundError)
    saved = {"logits": logits([1, 0, 1, 0], [1, 1, 0, 0]), "targets": torch.zeros(4, dtype=torch.int64)}
    for wrong in ({"logits": saved["logits"] * torch.nan}, {"logits": saved["logits"][0]}, {"targets": torch.zeros(3)}):
        save_file(saved | wrong, run.logits)
        refused(r"logits\.safetensors is damaged: expected finite logits \[T, N, C\] and targets \[N\]")
    save_file(saved | {"holdout_logits": saved["logits"].clone()}, run.logits)
    refused(r"expected finite holdout_logits \[T, N, C\] and holdout_targets \[N\]")
    run.results.write_text(json.dumps(results | {"last": {"ensemble": []}}))
    refused(
        r"results\.json is broken \(last\.single: Field required\): evaluate the run again with `spikedistill evaluate .*seed0`"
    )
    run.results.write_text(json.dumps(results | {"last": {"ensemble": SCORES, "single": 3}}))
    refused(r"results\.json is broken \(last\.single: Input should be a valid array\)")
    run.results.write_text(json.dumps(results | {"last": {"ensemble": SCORES, "single": SCORES[:1]}}))
    refused(r"results\.json: expected last\.single at k = \[1, 2\], got \[1\]: evaluate the run again")
    of_one = {"timesteps": 1, "last": {"ensemble": SCORES[:1], "single": SCORES[:1]}}
    run.results.write_text(json.dumps(results | of_one))
    refused(r"seed0: its results do not belong together: it has scores of the timesteps \[1\], expected 1 to 2")
    run.metrics.write_text("epoch,loss\n0,1.5\n")
    refused("it has metrics of 1 epochs, expected 2")
    run.metrics.write_text("epoch,loss\n0,1.5\n1\n")
    refused(r"metrics\.1\.loss: Input should be a valid string")
    run.metrics.unlink()
    refused("it has metrics of 0 epochs, expected 2")
    run.cost.write_text('{"a": 1}')
    refused(r"cost\.json is damaged: expected numbers named images_per_s, peak_mib, training_s; got \{'a': 1\}")
    run.cost.write_text('{"images_per_s": "fast"}')
    refused(r"cost\.json is damaged: expected numbers named")
    run.cost.write_text('{"images_per_s": NaN}')
    refused(
        r"cost\.json is damaged: expected numbers named images_per_s, peak_mib, training_s; got \{'images_per_s': nan\}"
    )


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """A line of records.jsonl."""
    folder = tmp_path_factory.mktemp("comparison")
    Records(folder).keep([write_run(folder / "digits-twkd" / "seed0")])
    return (folder / "records.jsonl").read_bytes().removesuffix(b"\n")


def changed(line, **parts):
    """The line with other parts, without a checksum, as version 0.1.0 wrote it."""
    row = json.loads(line) | parts
    del row["sha256"]
    return json.dumps(row).encode()


def with_answers(line, shape, raw):
    return changed(line, right={"shape": shape, "bits": base64.b64encode(zlib.compress(raw, 9)).decode()})


DAMAGE = {
    "not JSON": (lambda line: line[:-40], "EOF while parsing"),
    "half of it": (lambda line: line[: len(line) // 2], "EOF while parsing"),
    "not UTF-8": (lambda line: line.replace(b"digits", b"\xff\xfe", 1), "checksum"),
    "not UTF-8, unsealed": (lambda line: changed(line).replace(b"digits", b"\xff\xfe", 1), "invalid unicode"),
    "a list": (lambda line: b"[]", "Input should be an object"),
    "nothing": (lambda line: b"", "EOF while parsing"),
    "other numbers": (
        lambda line: line.replace(b'"images_per_s":3.0', b'"images_per_s":9.0'),
        "its checksum does not fit",
    ),
    "another checksum": (lambda line: line[:-3] + bytes([line[-3] ^ 1]) + line[-2:], "its checksum does not fit"),
    "a checksum of another name": (lambda line: line.replace(b'"sha256"', b'"sha257"'), "sha257: Extra inputs"),
    "deep": (lambda line: b'{"run":' + b"[" * 100_000, "recursion limit"),
    "long": (lambda line: b" " * (LARGEST_LINE + 1) + line, f"longer than {LARGEST_LINE} bytes"),
    "no scores": (lambda line: changed(line, results={"ensemble": []}), "results.single: Field required"),
    "scores that are text": (
        lambda line: changed(line, results={"ensemble": SCORES, "single": [SCORES[0] | {"accuracy": "0.9"}]}),
        "results.single.0.accuracy",
    ),
    "infinite cost": (lambda line: changed(line, cost={"peak_mib": 1e999}), "cost.peak_mib"),
    "settings of nobody": (lambda line: changed(line, config={"recipe": "digits-sce", "epochs": -1}), "epochs: "),
    "an epoch too few": (lambda line: changed(line, metrics=[{"epoch": "1"}]), "metrics of 1 epochs, expected 2"),
    "a shape of 10^18": (lambda line: with_answers(line, [10**9, 10**9], b"\0"), "expected at most 268435456 in all"),
    "a negative shape": (lambda line: with_answers(line, [-3, 4], b"\0\0"), "right.shape.0"),
    "a flat shape": (lambda line: with_answers(line, [12], b"\0\0"), "right.shape"),
    "more answers than there are": (
        lambda line: with_answers(line, [3, 400], b"\0\0"),
        "not those of 3 timesteps and 400",
    ),
    "fewer answers than there are": (
        lambda line: with_answers(line, [3, 4], b"\0" * 9),
        "not those of 3 timesteps and 4",
    ),
    "answers of fewer timesteps": (
        lambda line: with_answers(line, [1, 4], b"\0"),
        "its predictions are of 1 timesteps",
    ),
    "bits that are no base64": (lambda line: changed(line, right={"shape": [3, 4], "bits": "?"}), "base64"),
    "bits that are no ASCII": (
        lambda line: changed(line, right={"shape": [3, 4], "bits": "é"}),
        "predictions are damaged",
    ),
    "bits that are no zlib": (
        lambda line: changed(line, right={"shape": [3, 4], "bits": "AAAA"}),
        "predictions are damaged",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_line_is_named_with_its_number(kind, line, tmp_path):
    damage, said = DAMAGE[kind]
    file = tmp_path / "records.jsonl"
    file.write_bytes(line + b"\n" + damage(line) + b"\n")
    with pytest.raises(ValueError, match=re.escape(f"{file}, line 2, is no record of a run (")) as error:
        Records(tmp_path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_answers_that_would_fill_the_memory_are_not_unpacked(line, tmp_path):
    bomb = with_answers(line, [3, 4], b"\0" * 2**28)  # 260 kB that unpack to 256 MiB
    assert len(bomb) < 400_000
    (tmp_path / "records.jsonl").write_bytes(bomb)
    del bomb
    tracemalloc.start()
    with pytest.raises(ValueError, match="not those of 3 timesteps and 4 samples"):
        Records(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()


class WritesAFile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_no_object_is_made_of_what_a_file_holds(line, tmp_path):
    payload = pickle.dumps(WritesAFile(tmp_path / "written"))
    bits = base64.b64encode(payload).decode()
    for content in (payload, with_answers(line, [3, 4], payload), changed(line, right={"shape": [3, 4], "bits": bits})):
        (tmp_path / "records.jsonl").write_bytes(content)
        with pytest.raises(ValueError, match="line 1, is no record of a run"):
            Records(tmp_path)
    assert not (tmp_path / "written").exists()


def test_a_line_of_version_0_1_0_has_no_checksum_and_loads(line, tmp_path):
    (run, record), (same, old) = (from_json(text, tmp_path) for text in (line, changed(line)))
    assert run == same == "digits-twkd/seed0"
    assert np.array_equal(record.right, old.right)
    assert (record.config, record.cost, record.metrics) == (old.config, old.cost, old.metrics)


def test_a_run_may_be_there_twice_but_not_with_other_numbers(line, tmp_path):
    """Files that were put together have the network that teaches in both."""
    file = tmp_path / "records.jsonl"
    file.write_bytes(line + b"\n" + line)
    assert Records(tmp_path).runs() == ["digits-twkd/seed0"]
    file.write_bytes(line + b"\n" + changed(line, cost={"peak_mib": 1.0}))
    with pytest.raises(ValueError, match=r"line 2, .*another line has other numbers for digits-twkd/seed0"):
        Records(tmp_path)


@given(data=st.data())
def test_any_bit_that_is_flipped_in_a_line_is_found(data, line):
    at = data.draw(st.integers(0, 8 * len(line) - 1))
    damaged = bytearray(line)
    damaged[at // 8] ^= 1 << at % 8
    with pytest.raises(ValueError):  # noqa: PT011
        from_json(bytes(damaged), Path("comparison"))


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_any_value_in_place_of_a_part_is_refused_or_is_that_part(value, line):
    """With a fitting checksum, so that what reads the parts is what refuses."""
    row = json.loads(line)
    del row["sha256"]
    for name in row:
        text = sealed(json.dumps(row | {name: value}))
        try:
            from_json(text, Path("comparison"))
        except ValueError:
            continue
        assert name in ("run", "heldout_area", "teacher_inside") or value in ({}, [])
