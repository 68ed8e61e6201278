"""The page of published numbers and the file behind it say the same."""

import re

import pytest
from pages import DOCS, table_after

from spikedistill.evaluation import published_numbers

PAGE = DOCS / "methods" / "published.md"
COLUMNS = ["dataset", "network", "method", "T", "k", "accuracy", "protocol", "augmentation", "source", "doubt"]
SHOWN = COLUMNS[1:-1]


def doubts_of(row):
    return row["doubt"].split("; ") if row["doubt"] else []


def doubts(rows):
    """`{doubt: its name on the page}`, in the order of their first occurrence."""
    found = dict.fromkeys(doubt for row in rows for doubt in doubts_of(row))
    return {doubt: f"D{number}" for number, doubt in enumerate(found, 1)}


def lines(head, rows):
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(row) + " |" for row in cells]


def doubts_table(rows):
    """The doubts with their names as the page has them."""
    return lines(["name", "doubt"], [[name, doubt] for doubt, name in doubts(rows).items()])


def table_of(rows, everything):
    """The rows of one data set as the page has them."""
    names = doubts(everything)
    flags = [", ".join(names[doubt] for doubt in doubts_of(row)) for row in rows]
    return lines(
        [*SHOWN, "doubt"], [[*(row[name] for name in SHOWN), flag] for row, flag in zip(rows, flags, strict=True)]
    )


ROWS = published_numbers()
DATASETS = list(dict.fromkeys(row["dataset"] for row in ROWS))


def test_the_file_has_its_columns_and_accuracies_in_percent():
    assert list(ROWS[0]) == [*COLUMNS, "objective"]
    for row in ROWS:
        assert 0 < float(row["accuracy"]) <= 100, row
        assert all(row[name] for name in COLUMNS if name not in ("T", "k", "doubt")), row
        assert not any("|" in cell or cell != cell.strip() for cell in row.values()), row
        assert (row["T"] == "") == (row["k"] == ""), row
        if row["T"]:
            assert int(row["T"]) >= 1, row
            assert float(row["k"]) >= 1, row


def test_no_row_stands_there_twice():
    places = [tuple(row[name] for name in COLUMNS if name not in ("accuracy", "doubt")) for row in ROWS]
    assert sorted({place for place in places if places.count(place) > 1}) == []


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_page_has_every_row_of_a_data_set_and_no_other(dataset):
    expected = table_of([row for row in ROWS if row["dataset"] == dataset], ROWS)
    section = PAGE.read_text().split(f"\n### {dataset}\n", 1)[1].split("\n#", 1)[0]
    assert re.findall(r"^\|.*\|$", section, re.MULTILINE) == expected


def test_the_page_has_the_data_sets_of_the_file_and_no_other():
    assert re.findall(r"^### (.+)$", PAGE.read_text(), re.MULTILINE) == DATASETS


def test_the_page_explains_every_column_and_every_doubt():
    text = PAGE.read_text()
    assert [row[0] for row in table_after("## Columns\n", text)] == [*COLUMNS, "objective"]
    assert "\n".join(doubts_table(ROWS)) in text.split("\n## Doubts\n")[1].split("\n## ")[0]


def test_what_is_known_to_be_doubtful_is_flagged():
    """Rules that no row escapes: the best test epoch, numbers that others quote, numbers without a T."""
    for row in ROWS:
        if "best test epoch" in row["protocol"] or "by others" in row["source"] or "quoting" in row["source"]:
            assert row["doubt"], row
        if row["T"] == "":
            assert "T is not in our source" in row["doubt"], row
        if row["dataset"] == "CIFAR10-DVS":
            assert "split" in row["doubt"] or "protocol" in row["doubt"], row
