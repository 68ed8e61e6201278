"""Whether a method is called better: no worse than a margin at every k, higher in the mean, and with a smaller regret."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.__main__ import main
from benchmarks.better import holm, methods_of, to_markdown, verdicts

from spikedistill.evaluation.comparison.records import RECORDS, LostRun, from_json

SEEDS, T, N = 10, 4, 4000


def answers(accuracies, seed=0):
    """Runs with these accuracies at every k, on the same images, with a spread of 0.1 points between seeds."""
    dice = np.random.default_rng(0)
    difficulty = dice.random(N)  # the same images are hard for all methods
    shares = np.array(accuracies)[None, :] / 100 + np.random.default_rng(seed).normal(
        0, 0.001, (SEEDS, len(accuracies))
    )
    return (difficulty[None, None] < shares[..., None]).astype(float)


def test_holm_by_hand():
    """Sorted 0.01, 0.03, 0.04 become 3 x 0.01, 2 x 0.03 and 0.04, which may not be below 0.06."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_higher_at_every_k_is_better():
    (row,) = verdicts(answers([90, 91, 92, 92]), {"other": answers([88, 90, 91, 92], 1)})
    assert row["better"]
    assert row["mean"]["difference"] == pytest.approx(1.0, abs=0.2)
    assert row["each_k"][0]["low"] < row["each_k"][0]["difference"] < row["each_k"][0]["high"]
    assert row["regret"] == pytest.approx(2.0, abs=0.3)
    assert f"{row['mean']['difference']:+.2f} [" in to_markdown([row], "ours")
    assert "| yes |" in to_markdown([row], "ours")


def test_a_loss_at_one_k_that_exceeds_the_margin_is_not_better():
    (row,) = verdicts(answers([92, 92, 92, 91]), {"other": answers([88, 90, 91, 92], 1)})
    assert row["superior"] < 0.001, "its mean is higher"
    assert row["noninferior"] > 0.95, "and it loses a point at the last k"
    assert not row["better"]


def test_equal_methods_are_not_inferior_and_not_better():
    (row,) = verdicts(answers([90, 91, 92, 92]), {"other": answers([90, 91, 92, 92], 1)})
    assert row["noninferior"] < 0.05
    assert row["superior"] > 0.05
    assert not row["better"]


def test_p_values_count_how_many_methods_there_are():
    ours = answers([90, 91, 92, 92.2])
    others = {name: answers([89.9, 90.9, 91.9, 92.1], seed) for name, seed in (("a", 1), ("b", 2), ("c", 3))}
    alone = [verdicts(ours, {name: other})[0]["p"] for name, other in others.items()]
    together = [row["p"] for row in verdicts(ours, others)]
    assert min(together) == pytest.approx(min(1, 3 * min(alone)))
    assert all(after >= before for before, after in zip(alone, together, strict=True))


STUDY = Path(__file__).parents[2] / "docs" / "studies" / "methods_fashion_mnist"


def with_diverged(folder, **lost):
    """Methods of a study, with each run as two seeds; some seeds of some methods diverged."""
    lines = []
    for line in (STUDY / RECORDS).read_text().splitlines():
        run, record = from_json(line, STUDY)
        method = record.config.recipe.removeprefix("fashion_mnist-")
        if method == "ann" and lost.get("ann"):
            lines.append(LostRun(record.config, "diverged", "the loss is not finite").to_json(run, STUDY))
        if method not in ("twkd", "sce", "w2s", "s2w") or run.startswith("tuning/"):
            continue
        for seed in (record.config.seed, record.config.seed + 3):
            config = record.config.model_copy(update={"seed": seed})
            made = replace(record, config=config)
            if seed in lost.get(method, ()):
                made = LostRun(config, "diverged", "the loss is not finite")
            lines.append(made.to_json(f"{run.rpartition('/')[0]}/seed{seed}", STUDY))
    folder.mkdir()
    (folder / RECORDS).write_text("\n".join(lines) + "\n")
    return folder


def test_seeds_with_which_a_method_diverged_are_left_out_for_all_and_said(tmp_path, capsys):
    whole = methods_of(with_diverged(tmp_path / "whole")).right
    seeds = len(whole["fashion_mnist-sce"])
    every = range(seeds)
    found = methods_of(with_diverged(tmp_path / "some", sce=[1], s2w=every))
    assert found.diverged == {"fashion_mnist-sce": [1], "fashion_mnist-s2w": [*every]}
    assert set(found.right) == {"fashion_mnist-twkd", "fashion_mnist-sce", "fashion_mnist-w2s"}
    for name, right in found.right.items():
        assert np.array_equal(right, np.delete(whole[name], 1, 0))
    alone = methods_of(tmp_path / "some", ("fashion_mnist-twkd", "fashion_mnist-w2s"))
    assert len(alone.right["fashion_mnist-twkd"]) == seeds, "methods that are not asked for take no seed away"
    assert main(["better", str(tmp_path / "some"), "--ours", "fashion_mnist-twkd"]) == 0
    said = capsys.readouterr().out
    assert "fashion_mnist-sce diverged with the seeds 1: these are left out for all" in said
    assert f"fashion_mnist-s2w diverged with the seeds {', '.join(map(str, every))}: that is all of them" in said
    assert "| fashion_mnist-w2s |" in said
    assert "learn from it" not in said
    lost = with_diverged(tmp_path / "lost", ann=[0], twkd=(0, 1, 2), w2s=(3, 4, 5))
    assert main(["better", str(lost), "--ours", "fashion_mnist-sce"]) == 2
    told = capsys.readouterr()
    assert "fashion_mnist-ann/seed0 diverged: methods that learn from it have no runs here" in told.out
    assert "has 0 seeds with which all were trained, expected 3 or more" in told.err
    assert main(["better", str(tmp_path / "some"), "--ours", "fashion_mnist-s2w"]) == 2
    assert "fashion_mnist-s2w diverged with the seeds 0, 1" in capsys.readouterr().err


def test_a_method_that_is_compared_with_itself_alone_is_one_line(capsys):
    folder = STUDY
    assert main(["better", str(folder), "--ours", "fashion_mnist-twkd", "--against", "fashion_mnist-twkd"]) == 2
    assert "has nothing to compare fashion_mnist-twkd with: name other methods than itself" in capsys.readouterr().err
