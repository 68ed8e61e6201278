"""This code beside that of a commit."""

import pytest
from benchmarks.against import compare_imports


def test_importing_is_timed_beside_a_commit():
    mean, low, high = compare_imports("HEAD", 2)
    assert 0 < low <= mean <= high


def test_a_commit_that_git_does_not_know_is_named():
    with pytest.raises(ValueError, match="git finds no commit 'nowhere'"):
        compare_imports("nowhere", 2)
