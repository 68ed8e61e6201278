"""A few attempts of every kind of trouble, and a harness that notices what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WRONG_READERS = Path(__file__).with_name("wrong_readers.py")


def python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What a process of its own prints: it forks, which one with threads should not."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_nothing_is_lost_or_silently_different_and_nothing_fails(tmp_path):
    result = python("-m", "chaos", "--short", "--jobs", "1", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert " 0 wrong" in result.stdout
    attempts = [json.loads(line) for line in (tmp_path / "tried.jsonl").read_text().splitlines()]
    assert len(attempts) > 150
    assert {attempt["outcome"] for attempt in attempts} == {"survived", "refused", "undetectable"}
    # a second call finds nothing left to do
    again = python("-m", "chaos", "--short", "--out", tmp_path)
    assert again.returncode == 0
    assert len((tmp_path / "tried.jsonl").read_text().splitlines()) == len(attempts)


def test_the_harness_notices_what_is_wrong(tmp_path):
    result = python(WRONG_READERS, tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {
        "what it finds": "different",
        "nothing of it": "survived",
        "names the file": "refused",
        "names nothing": "traceback",
        "dies": "crash",
        "waits": "hang",
        "fails": "traceback",
        "what it finds, without a checksum": "undetectable",
        "is refused": "refused",
        "is executed": "executed",
        "touches what is precious": "lost",
        "takes memory": "crash",
    }
