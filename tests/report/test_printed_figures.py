"""Figures as papers print them: what is drawn is what the rows say, and nothing of the day or the machine is in the file."""

import math
import re
import zlib
from xml.etree import ElementTree

import pytest

from spikedistill.evaluation import Comparison
from spikedistill.recipe_name import RecipeName
from spikedistill.report import write_paper_files
from spikedistill.report.figures import FORMATS, print_figure

LEADERBOARD = [
    {"method": RecipeName.parse(name), "seeds": 2, "area": 81.5, "area_std": 1.0}
    | {f"accuracy_{k}{end}": v for k in (1, 2) for end, v in (("", 80.0 + k), ("_std", 1))}
    for name in ("tiny-sce", "_$x$")
]
LEADERBOARD[1] |= {"area_difference": 0.0, "area_low": -1.0, "area_high": 1.0, "area_p": 1.0}
TIMESTEPS = [
    {"method": RecipeName.parse(f"tiny-{name}")}
    | {f"{key}_{k}": 10.0 * k for key in ("accuracy", "confidence", "entropy") for k in (1, 2, 3)}
    for name in ("sce", "tser-unofficial,objective.options.alpha=0,objective.options.gamma=0")
]
REGRETS = [
    {"method": RecipeName("tiny", "twkd"), "specialists": RecipeName("tiny", "skd")}
    | {f"regret_{k}{end}": v for k in (1, 2) for end, v in (("", 1.0), ("_low", 0.5), ("_high", 2.0))}
]
CHOSEN = [
    {"method": RecipeName("tiny", "s2w", measure), "role": role, "epoch": epoch, "share_1": 0.25, "share_2": 0.75}
    for measure in ((), ("objective.options.measure=random",))
    for role in ("strongest", "weakest")
    for epoch in (1, 2, 3)
]
FIGURES = {"accuracy": LEADERBOARD, "timesteps": TIMESTEPS, "regret": REGRETS, "chosen": CHOSEN}


def words_of(svg):
    return [
        " ".join("".join(e.itertext()).split())
        for e in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("accuracy", ["test accuracy, %", "k, timesteps", "sce", "_$x$"]),
        ("timesteps", ["accuracy, %", "confidence, %", "entropy, nats", "sce", "tser-unofficial, alpha=0, gamma=0"]),
        ("regret", ["twkd against skd", "points lost to the network"]),
        ("chosen", ["strongest", "weakest", "s2w", "measure=random", "epoch", "timestep 1", "timestep 2"]),
    ],
)
def test_a_figure_names_what_it_shows(name, words):
    assert set(words) <= set(words_of(print_figure(name, FIGURES[name], "svg")))


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("name", FIGURES)
def test_the_same_rows_give_the_same_bytes_and_no_date(name, file_format):
    content = print_figure(name, FIGURES[name], file_format)
    assert content == print_figure(name, FIGURES[name], file_format)
    assert not re.search(rb"CreationDate|dc:date|20\d\d-\d\d-\d\d", content)


def test_a_figure_for_a_paper_holds_vectors_and_letters():
    content = print_figure("accuracy", LEADERBOARD, "pdf")
    assert b"/Subtype /Image" not in content
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
    drawn = b"".join(zlib.decompressobj().decompress(s) for s in streams if s[:1] == b"x")
    # text is shown in pieces between which letters are set closer
    letters = b"".join(re.findall(rb"\((.*?)\)", drawn, re.DOTALL)).replace(b"\0", b"")
    assert b"sce" in letters
    assert b"_$x$" in letters
    assert drawn.count(b" l\n") > 10


@pytest.mark.parametrize("known", ["nobody", "the second"])
def test_what_was_not_evaluated_has_no_panel(known):
    rows = [row | {f"entropy_{k}": math.nan for k in (1, 2, 3)} for row in TIMESTEPS]
    if known == "the second":
        rows[1] = TIMESTEPS[1]
    words = words_of(print_figure("timesteps", rows, "svg"))
    assert ("entropy, nats" in words) == (known == "the second")
    assert "accuracy, %" in words


@pytest.mark.parametrize(
    ("method", "shown"),
    [
        ("tiny-sce,objective.options.alpha=0.5,objective.options.gamma=0.25", "sce, alpha=0.5, gamma=0.25"),
        ("tiny-sce,model.name=a,optimizer.name=b", "sce, model.name=a, optimizer.name=b"),
        ("tiny-sce,model.lif.no-detach-reset", "sce, no-detach-reset"),
        (RecipeName("my-data", "a-b,c", ["model.width=2"]), "a-b,c, width=2"),
    ],
)
def test_a_variant_is_named_by_what_it_changes(method, shown):
    named = method if isinstance(method, RecipeName) else RecipeName.parse(method)
    assert shown in words_of(print_figure("accuracy", [LEADERBOARD[0] | {"method": named}], "svg"))


def test_a_long_name_takes_several_lines_of_the_column():
    against = RecipeName("tiny", "a-very-long-name-" * 3)
    words = words_of(print_figure("regret", [REGRETS[0] | {"method": against, "specialists": against}], "svg"))
    assert max(map(len, words)) <= 42


def test_every_timestep_of_any_method_is_in_the_legend():
    name = RecipeName("tiny", "s2w", ["timesteps=1"])
    shorter = [{k: v for k, v in row.items() if k != "share_2"} | {"method": name} for row in CHOSEN]
    assert {"timestep 1", "timestep 2"} <= set(words_of(print_figure("chosen", [*CHOSEN, *shorter], "svg")))


def test_one_epoch_fills_its_panel():
    one = print_figure("chosen", [row for row in CHOSEN if row["epoch"] == 1], "svg")
    parts = re.findall(rb'<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+) ', one)
    assert any(abs(float(left) - float(right)) > 50 for left, right in parts)


def test_one_seed_has_no_band():
    one = [row | {"accuracy_1_std": 0.0, "accuracy_2_std": 0.0} for row in LEADERBOARD]
    bands = [
        svg.count(b"FillBetweenPolyCollection")
        for svg in (print_figure("accuracy", rows, "svg") for rows in (LEADERBOARD, one))
    ]
    assert bands == [2, 0]


def test_a_folder_has_the_tables_and_figures_of_its_rows_and_no_others(tmp_path):
    def files(tables, figures):
        return {*(f"{name}.tex" for name in tables), *(f"{name}.{end}" for name in figures for end in FORMATS)}

    write_paper_files(tmp_path, Comparison({}, LEADERBOARD, [], TIMESTEPS, REGRETS, CHOSEN, []))
    tables = ["leaderboard", "cost", "timesteps", "regret"]
    assert {path.name for path in tmp_path.iterdir()} == files(tables, FIGURES)
    write_paper_files(tmp_path, Comparison({}, LEADERBOARD, [], TIMESTEPS, [], [], []))
    assert {path.name for path in tmp_path.iterdir()} == files(tables[:3], ("accuracy", "timesteps"))
