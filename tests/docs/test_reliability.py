"""The table of what was tried has every kind of trouble, and nothing in the columns of what must not happen."""

import re

from chaos.attempts import RIGHT, WRONG
from chaos.kinds import all_kinds
from chaos.table import COLUMNS
from pages import DOCS, table_after

PAGE = (DOCS / "reliability.md").read_text()
TRIED = re.search(r"<!-- chaos -->\n(.*)<!-- /chaos -->", PAGE, re.DOTALL)[1]


def test_every_kind_was_tried_as_often_as_it_should_and_nothing_went_wrong():
    header = TRIED[TRIED.index("|") :].splitlines()[0]
    assert tuple(cell.strip() for cell in header.strip("| ").split("|")) == ("trouble", *COLUMNS)
    rows = {name: dict(zip(COLUMNS, map(int, figures), strict=True)) for name, *figures in table_after("cores:", TRIED)}
    tried = {name: row["tried"] for name, row in rows.items()}
    planned = {kind.name: kind.tries for kind in all_kinds()}
    assert tried.pop("all") == sum(planned.values())
    assert tried == planned
    for name, row in rows.items():
        assert [row[outcome] for outcome in WRONG] == [0] * len(WRONG), name
        assert sum(row[outcome] for outcome in RIGHT) == row["tried"], name


def test_the_promised_numbers_of_attempts_are_in_the_plan():
    kinds = all_kinds()
    assert sum(kind.tries for kind in kinds if kind.name.startswith("killed")) == 200
    assert {kind.tries for kind in kinds if kind.name.startswith("damaged")} == {200}


def test_the_table_says_what_was_tried_and_where():
    assert re.match(r"`make chaos`, commit `[0-9a-f]{7,}` of `src/`, .+ cores:", TRIED)


def test_every_outcome_is_explained():
    assert [outcome for outcome, _ in table_after("After each one", PAGE)] == [*RIGHT, *WRONG]
