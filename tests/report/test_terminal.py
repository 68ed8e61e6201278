"""Tables for a terminal say what the files of a run and of a comparison hold."""

import json
import re
from io import StringIO

import pytest
from conftest import CONFIG, write_run
from rich.console import Console

from spikedistill.config import Config
from spikedistill.evaluation import Comparison
from spikedistill.evaluation.comparison.records import LostRun, RunRecord
from spikedistill.evaluation.gradients import ALL
from spikedistill.evaluation.intervals import wilson
from spikedistill.evaluation.results import read_results
from spikedistill.recipe_name import RecipeName
from spikedistill.report.terminal import (
    costs_table,
    differences_table,
    gradient_tables,
    leaderboard_table,
    results_table,
    training_line,
)
from spikedistill.run_folder import RunFolder


def lines_of(*tables, width=80):
    """What a terminal of that width shows."""
    file = StringIO()
    Console(file=file, width=width).print(*tables)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def printed(table):
    """The title of a table, its head and its rows of cells, which have two spaces or more between them."""
    title, _, head, _, *rows = lines_of(table, width=250)
    return title, *[re.split(r"  +", head.strip())], [re.split(r"  +", row.strip()) for row in rows if row]


def rewritten(folder, **changes):
    file = folder / "results.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return read_results(RunFolder(folder))


def test_a_run_has_a_row_for_every_k(make_run, results):
    folder = make_run()
    title, head, rows = printed(results_table(rewritten(folder, samples=120)))
    assert title == "tiny-twsd: 120 test samples, the first k timesteps together"
    assert head[:3] == ["k", "accuracy %", "95 % interval"]
    last = json.loads((folder / "results.json").read_text())["last"]
    for k, (row, together, alone) in enumerate(zip(rows, last["ensemble"], last["single"], strict=True), 1):
        low, high = wilson(together["accuracy"], 120)
        assert row[:2] == [str(k), f"{100 * together['accuracy']:.2f}"]
        assert row[2] == f"{100 * low:.1f} to {100 * high:.1f}"
        assert row[-4] == f"{together['nll']:.3f}"
        assert row[-1] == f"{100 * alone['accuracy']:.2f}"
    title, head, _ = printed(results_table(read_results(RunFolder(make_run()))))
    assert title.startswith("tiny-twsd: test samples,")
    assert "95 % interval" not in head, "the number of samples is not known"


@pytest.mark.parametrize("more", [{}, {"top5_accuracy": 1.0, "balanced_accuracy": 1.0}])
def test_a_perfect_run_has_its_interval_in_one_line(make_run, more):
    folder = make_run()
    last = json.loads((folder / "results.json").read_text())["last"]
    for entry in last["ensemble"]:
        entry |= {"accuracy": 1.0, "confidence": 1.0} | more
    named = [str(number) for number in range(100)]
    lines = lines_of(results_table(rewritten(folder, last=last, samples=24, classes=named)))
    assert sum("86.2 to 100.0" in line for line in lines) == len(last["ensemble"])  # wilson(1, 24)
    assert max(map(len, lines)) <= 80


def test_many_classes_have_a_top_5_column_and_unbalanced_ones_a_balanced_one(make_run):
    folder = make_run()
    last = json.loads((folder / "results.json").read_text())["last"]
    for entry in last["ensemble"]:
        entry |= {"top5_accuracy": 0.75, "balanced_accuracy": 0.5}
    named = [str(number) for number in range(100)]
    _, head, rows = printed(results_table(rewritten(folder, last=last, classes=named)))
    assert head[2:4] == ["top-5 %", "balanced %"]
    assert all(row[2:4] == ["75.00", "50.00"] for row in rows)
    assert max(map(len, lines_of(results_table(rewritten(folder, last=last, samples=120))))) <= 80
    _, head, rows = printed(results_table(rewritten(folder, last=last, classes=named[:99], samples=None)))
    assert head[2:4] == ["balanced %", "NLL"]


def test_a_run_of_many_timesteps_has_some_of_them(make_run):
    folder = make_run(T=40, N=30)
    lines = lines_of(results_table(rewritten(folder, samples=10_000)))
    assert "every k is in results.json" in " ".join(lines)
    numbers = [int(line.split()[0]) for line in lines if line and line.split()[0].isdigit()]
    assert (len(numbers), numbers[0], numbers[-1]) == (16, 1, 40)


@pytest.mark.parametrize(
    ("cost", "line"),
    [
        (
            {"training_s": 3723.0, "images_per_s": 1234.5, "peak_mib": 321.25},
            "trained in 1:02:03 at 1234 images/s, peak memory 321 MiB",
        ),
        ({"images_per_s": 1234.5, "peak_mib": 321.25}, "trained at 1234 images/s, peak memory 321 MiB"),
        ({"training_s": 2.0, "images_per_s": 0.0, "peak_mib": 321.25}, "trained in 0:00:02, peak memory 321 MiB"),
        ({"training_s": 3723.0}, ""),
        ({}, ""),
    ],
)
def test_what_training_took_is_a_line_where_it_is_known(make_run, cost, line):
    assert training_line(rewritten(make_run(), cost=cost)) == line


def test_a_comparison_has_a_row_for_every_method_under_the_name_of_its_data_set(tmp_path):
    """Also where names hold the signs that they are put together with."""
    names = [RecipeName("my-data,2", method, changes) for method, changes in (("sce", []), ("a-b,c", ["epochs=5"]))]
    runs = {}
    for place, name in enumerate(names):
        for seed in (0, 1):
            settings = CONFIG | {"recipe": name, "seed": seed, "timesteps": 2, "data": {"name": "digits"}}
            config = Config(**settings | {"objective": {"name": "sce"}})
            path = write_run(
                tmp_path / f"{place}-{seed}", T=2, N=60, config=config.written(), first_seed=10 * place + seed
            )
            runs.setdefault(name, []).append(RunRecord.of(path))
    lost = LostRun(runs[names[1]][1].config, "diverged", "nan")
    comparison = Comparison.of(runs | {names[1]: [runs[names[1]][0], lost]})
    title, head, rows = printed(leaderboard_table(comparison))
    assert title == "my-data,2: accuracy in percent, mean ± standard deviation of 2 seeds"
    assert head == ["method", "finished", "diverged", "k=1", "k=2", "mean over k"]
    assert [row[:3] for row in rows] == [["sce", "2", "0"], ["a-b,c, epochs=5", "1", "1"]]
    first, second = comparison.leaderboard
    assert rows[0][3] == f"{first['accuracy_1']:.2f}±{first['accuracy_1_std']:.2f}"
    assert rows[1][5] == f"{second['area']:.2f}"
    title, head, rows = printed(differences_table(comparison))
    assert (title, head) == ("Difference to sce in points, mean over k", ["method", "difference [95 %]", "p"])
    assert rows == [["a-b,c, epochs=5", f"{second['area_difference']:+.2f}", "-"]]
    assert [row[0] for row in printed(costs_table(comparison))[2]] == ["sce", "a-b,c, epochs=5"]
    assert all(run.config.recipe.changes == name.changes for name in runs for run in runs[name]), "read from its file"


def test_tables_of_a_comparison_fit_80_columns(tmp_path):
    """With long names, many timesteps and a run that diverged; the numbers stay whole."""
    methods = {}
    for place, changes in enumerate(([], ["objective.options.temperature=3.5", "model.lif.surrogate=rectangular"])):
        name = RecipeName("fashion_mnist", "a-long-name-of-a-method-unofficial", changes)
        for seed in (0, 1, 2):
            settings = CONFIG | {"recipe": name, "seed": seed, "timesteps": 10, "data": {"name": "fashion_mnist"}}
            config = Config(**settings | {"objective": {"name": "sce"}})
            path = write_run(
                tmp_path / f"{place}-{seed}", T=10, N=60, config=config.written(), first_seed=9 * place + seed
            )
            methods.setdefault(name, []).append(RunRecord.of(path))
    whole = Comparison.of(methods)
    first, second = methods
    diverged = [LostRun(methods[first][0].config, "diverged", "nan"), *methods[first][1:]]
    for comparison in (whole, Comparison.of({second: methods[second], first: diverged})):
        tables = leaderboard_table(comparison), differences_table(comparison), costs_table(comparison)
        lines = lines_of(*tables)
        assert max(map(len, lines)) <= 80
        for row in comparison.leaderboard:
            assert any(f"{row['area']:.2f}±{row['area_std']:.2f}" in line for line in lines)
    ks = re.findall(r"k=\d+", " ".join(lines_of(leaderboard_table(whole))))
    assert ks == ["k=1", "k=4", "k=7", "k=10"]


def test_gradient_tables_fit_80_columns():
    rows = [
        {"timesteps": T, "rule": rule, "layer": layer, "cosine": 0.9876, "ratio": 1.012}
        for T in (2, 4, 8, 16, 32, 64)
        for rule in ("sltt", "bptt with rectangular")
        for layer in (ALL, "stages.3.blocks.1.conv2")
    ]
    tables = gradient_tables(rows)
    assert len(tables) == 4, "all together and the furthest layer, of T = 2 to 16 and of 32 and 64"
    lines = lines_of(*tables)
    assert max(map(len, lines)) <= 80
    assert sum("0.9876 (1.012)" in line for line in lines) == 4
    assert [re.findall(r"T=\d+", line) for line in lines if "T=" in line][::2] == [
        ["T=2", "T=4", "T=8", "T=16"],
        ["T=32", "T=64"],
    ]
