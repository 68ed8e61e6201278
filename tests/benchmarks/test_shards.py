"""Shards: small enough to carry, exact, and refused where one is missing, damaged or would write elsewhere."""

import json
import re

import pytest
from benchmarks.__main__ import main
from benchmarks.shards import MIB, Whole, join, write_shards


@pytest.fixture
def folder(tmp_path):
    """A run that was stopped, with 0.6 MiB in its last checkpoint."""
    run = tmp_path / "from" / "study" / "seed0"
    (run / "checkpoints").mkdir(parents=True)
    for number, name in enumerate(("last.ckpt", "previous.ckpt", "next.ckpt")):
        (run / "checkpoints" / name).write_bytes(bytes(range(256)) * 2400 + bytes([number]))
    (run / "config.yaml").write_text("seed: 0\n")
    (run / "empty").touch()
    (run / ".lock").touch()
    (run / ".metrics.csv.0123.partial").write_text("half")
    return run


def split(folder, to, mib=0.25):
    return [to / name for name in write_shards([whole_of(folder)], to, files=100, mib=64, each=mib, known=set())]


def whole_of(folder):
    return Whole.of(folder.parents[1], "study/seed0")


def test_a_run_comes_back_to_the_last_byte_and_no_shard_is_too_large(folder, tmp_path):
    shards = split(folder, tmp_path / "shards")
    assert len(shards) == 4  # of 0.25 MiB less the line
    assert all(shard.stat().st_size <= 0.25 * MIB for shard in shards)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", shard.name) for shard in shards)
    (whole,) = join(reversed(shards))
    back = whole.write(tmp_path / "to")
    found = {file.relative_to(back).as_posix(): file.read_bytes() for file in back.rglob("*") if file.is_file()}
    kept = ("checkpoints/last.ckpt", "config.yaml", "empty")  # what a run goes on from
    assert found == {name: (folder / name).read_bytes() for name in kept}


def test_the_checkpoint_before_the_last_comes_along_where_a_kill_left_only_that(folder):
    (folder / "checkpoints" / "last.ckpt").unlink()
    assert "checkpoints/previous.ckpt" in whole_of(folder).files


def test_several_wholes_are_joined_at_once_by_the_command(folder, tmp_path, capsys):
    (tmp_path / "from" / "teacher").write_bytes(b"weights")
    for name in ("study/seed0", "teacher"):
        asked = ["split", name, "--root", str(tmp_path / "from"), "--mib", "0.25", "--to", str(tmp_path / "shards")]
        assert main(asked) == 0
    shards = sorted(map(str, (tmp_path / "shards").iterdir()))
    assert main(["join", *shards, "--to", str(tmp_path / "to")]) == 0
    assert (tmp_path / "to" / "teacher").read_bytes() == b"weights"
    assert (tmp_path / "to" / "study" / "seed0" / "config.yaml").read_text() == "seed: 0\n"
    capsys.readouterr()
    assert main(["join", *shards[1:], "--to", str(tmp_path / "other")]) == 2
    assert "study/seed0: shard 1 of 4 is missing: bring all of them" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()  # nothing is written where not all is there


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content[:40],
        lambda content: b"",
        lambda content: b"[]\n" + content,
        lambda content: b"{}\n" + content,
    ],
)
def test_what_is_damaged_is_refused_by_name(folder, tmp_path, damage):
    shards = split(folder, tmp_path / "shards")
    shards[1].write_bytes(damage(shards[1].read_bytes()))
    with pytest.raises(ValueError, match=re.escape(str(shards[1]))):
        join(shards)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", ""])
def test_a_shard_cannot_write_outside_of_the_folder(folder, tmp_path, name):
    (shard,) = split(folder, tmp_path / "shards", mib=16)
    line, _, content = shard.read_bytes().partition(b"\n")
    for changed in ({"whole": name}, {"files": [[name or "../x", len(content)]]}):
        shard.write_bytes(json.dumps(json.loads(line) | changed).encode() + b"\n" + content)
        with pytest.raises(ValueError, match="is refused"):
            join([shard])


def test_what_fits_is_written_first_and_the_rest_at_the_next_call(folder, tmp_path):
    known, calls = set[str](), []
    while written := write_shards(
        [whole_of(folder)], tmp_path / str(len(calls)), files=3, mib=0.55, each=0.25, known=known
    ):
        known |= set(written)
        calls.append(written)
    assert [len(written) for written in calls] == [2, 2]  # 0.55 MiB hold two of 0.25
    (whole,) = join(tmp_path / str(call) / name for call, names in enumerate(calls) for name in names)
    assert whole == whole_of(folder)
