"""Every study that has its records beside it: the tables of the docs are what they give, without any run."""

import csv

import pytest
from pages import DOCS

from spikedistill.evaluation import Comparison
from spikedistill.evaluation.comparison.records import Records

STUDIES = sorted(path.parent for path in (DOCS / "studies").glob("*/records.jsonl"))


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_the_tables_of_a_study_are_those_of_its_records(study):
    names = [name for name in ("leaderboard.csv", "runs.csv", "regret.csv") if (study / name).is_file()]
    tables = {name: list(csv.DictReader((study / name).read_text().splitlines())) for name in names}
    records = Records(study)
    runs = {}
    for row in tables["runs.csv"]:
        runs.setdefault(row["method"], []).append(records.find(study / row["method"] / f"seed{row['seed']}"))
    assert list(runs) == [row["method"] for row in tables["leaderboard.csv"]]
    found = Comparison.of(runs).tables
    for name in names:
        for row, written in zip(found[name], tables[name], strict=True):
            assert set(row) == {key for key, value in written.items() if value or key in row}
            for key, value in row.items():
                if isinstance(value, float):  # processors differ in the last digits
                    assert value == pytest.approx(float(written[key]), rel=1e-9, abs=1e-12, nan_ok=True), key
                else:
                    assert str(value) == written[key], key
