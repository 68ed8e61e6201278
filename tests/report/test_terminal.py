"""Tables for a terminal say what the files of a run and of a comparison hold."""

import json
from io import StringIO

import pytest
from conftest import CONFIG, write_run
from rich.console import Console

from spikedistill.config import Config
from spikedistill.evaluation import Comparison
from spikedistill.evaluation.comparison.records import LostRun, RunRecord
from spikedistill.evaluation.results import read_results
from spikedistill.recipe_name import RecipeName
from spikedistill.report.terminal import costs_table, leaderboard_table, results_table, training_line
from spikedistill.run_folder import RunFolder


def printed(table):
    """The title of a table, its head and its rows of cells."""
    file = StringIO()
    Console(file=file, width=250).print(table)
    lines = file.getvalue().splitlines()
    rows = [
        [cell.strip() for cell in line.strip("│┃ ").replace("┃", "│").split("│")] for line in lines if line[0] in "│┃"
    ]
    return lines[0].strip(), rows[0], rows[1:]


def rewritten(folder, **changes):
    file = folder / "results.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return read_results(RunFolder(folder))


def test_a_run_has_a_row_for_every_k(make_run, results):
    folder = make_run()
    title, head, rows = printed(results_table(rewritten(folder, samples=120)))
    assert title == "tiny-twsd: 120 test samples at every number of timesteps k"
    assert head[:2] == ["k", "accuracy %"]
    last = json.loads((folder / "results.json").read_text())["last"]
    for k, (row, together, alone) in enumerate(zip(rows, last["ensemble"], last["single"], strict=True), 1):
        assert row[:3] == [str(k), f"{100 * together['accuracy']:.2f}", f"{together['nll']:.4f}"]
        assert row[5] == f"{100 * alone['accuracy']:.2f}"
    assert printed(results_table(read_results(RunFolder(make_run()))))[0].startswith("tiny-twsd: test samples at")


def test_many_classes_have_a_top_5_column_and_unbalanced_ones_a_balanced_one(make_run):
    folder = make_run()
    last = json.loads((folder / "results.json").read_text())["last"]
    for entry in last["ensemble"]:
        entry |= {"top5_accuracy": 0.75, "balanced_accuracy": 0.5}
    named = [str(number) for number in range(100)]
    _, head, rows = printed(results_table(rewritten(folder, last=last, classes=named)))
    assert head[6:] == ["top-5 %", "balanced %"]
    assert all(row[6:] == ["75.00", "50.00"] for row in rows)
    _, head, rows = printed(results_table(rewritten(folder, last=last, classes=named[:99])))
    assert head[6:] == ["balanced %"]


@pytest.mark.parametrize(
    ("cost", "line"),
    [
        (
            {"training_s": 3723.0, "images_per_s": 1234.5, "peak_mib": 321.25},
            "trained in 1:02:03 at 1234 images/s, peak memory 321 MiB",
        ),
        ({"images_per_s": 1234.5, "peak_mib": 321.25}, "trained at 1234 images/s, peak memory 321 MiB"),
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
    assert title == "my-data,2: accuracy in percent, mean ± standard deviation over 2 seeds"
    assert head[:6] == ["method", "finished", "diverged", "k=1", "k=2", "mean over k"]
    assert [row[:3] for row in rows] == [["sce", "2", "0"], ["a-b,c,epochs=5", "1", "1"]]
    first, second = comparison.leaderboard
    assert rows[0][3] == f"{first['accuracy_1']:.2f} ± {first['accuracy_1_std']:.2f}"
    assert rows[1][5:] == [f"{second['area']:.2f}", f"{second['area_difference']:+.2f}"]
    assert [row[0] for row in printed(costs_table(comparison))[2]] == ["sce", "a-b,c,epochs=5"]
    assert all(run.config.recipe.changes == name.changes for name in runs for run in runs[name]), "read from its file"
