"""The tables of the page on the papers' studies are those of the committed studies, and every study is on it."""

import csv
import re

import pytest
from pages import DOCS

TEXT = (DOCS / "papers.md").read_text()
STUDIES = sorted(path for path in (DOCS / "studies").glob("papers_*"))


def cells_of(row):
    columns = [*(f"accuracy_{k}" for k in (1, 2, 3, 4)), "area"]
    cells = [f"{float(row[name]):.2f} ± {float(row[f'{name}_std']):.2f}" for name in columns]
    for name in ("area", "accuracy_4"):
        if row[f"{name}_difference"]:
            difference, low, high = (float(row[f"{name}_{key}"]) for key in ("difference", "low", "high"))
            cells.append(f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]")
        else:
            cells.append("")
    return cells


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_the_table_of_a_study_is_its_leaderboard(study):
    (section,) = [part for part in re.split(r"^## ", TEXT, flags=re.MULTILINE) if study.name in part]
    rows = list(csv.DictReader((study / "leaderboard.csv").read_text().splitlines()))
    shown = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| ")
    ]
    table = [cells[1:] for cells in shown if len(cells) > 7 and "±" in cells[1]]
    taught = any(row.get("teacher_agreement") for row in rows)
    for row, cells in zip(rows, table, strict=True):
        expected = cells_of(row)
        if taught:
            keys = ("teacher_agreement", "teacher_agreement_where_wrong")
            expected += [f"{float(row[key]):.2f}" if row[key] else "–" for key in keys]
        assert cells == expected, row["method"]


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_the_figures_of_a_study_are_shown(study):
    figures = {path.name for path in study.glob("*.svg")}
    assert figures
    assert figures == set(re.findall(rf"studies/{study.name}/(\w+\.svg)", TEXT))
