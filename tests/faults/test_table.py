"""The table itself: no row without a test, no test without a row, and a page that is up to date."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest
from table import FAULTS, Fault, Outcome, Row, content_of, sections

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"


def names_of_tests() -> list[str]:
    """Names of all tests of faults."""
    trees = (ast.parse(file.read_text("utf-8")) for file in HERE.glob("test_*.py") if file.name != Path(__file__).name)
    functions = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return sorted(node.name.removeprefix("test_") for node in functions if node.name.startswith("test_"))


def test_each_row_has_one_test_and_each_test_a_row() -> None:
    assert names_of_tests() == sorted(fault.test for rows in sections().values() for fault in rows)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_is_said_is_one_sentence_a_line_that_says_where_and_what_to_do(fault: Fault) -> None:
    for line in fault.said.splitlines() if fault.status != 0 else ():
        sentence, *advice = re.split(r"; |: (?=[a-z])", line, maxsplit=1)
        assert sentence
        assert advice or line.startswith("2 done")


def test_the_page_is_up_to_date() -> None:
    assert (DOCS / "faults.md").read_text("utf-8") == runpy.run_path(str(DOCS / "faults.py"))["page"]()


class TestTheCheck:
    """What happens otherwise than the table says, fails."""

    @pytest.fixture
    def row(self, tmp_path: Path) -> Row:
        (tmp_path / "mine.txt").write_text("precious")
        return Row(Fault("a", "a", "SOURCE: gone; …", 1, "nothing"), tmp_path)

    def outcome(self, row: Row, said: str = "a.tif: gone; sorry", status: int = 1) -> Outcome:
        before = content_of(row.folder)
        return Outcome(status, said, "", before, row.folder / "b.zarr", {"SOURCE": "a.tif"})

    def test_as_it_says(self, row: Row) -> None:
        row.is_shown_by(self.outcome(row))

    @pytest.mark.parametrize("said", ["", "b.tif: gone; sorry", "a.tif: gone; sorry\nTraceback", "a.tif: gone;"])
    def test_other_words(self, row: Row, said: str) -> None:
        with pytest.raises(AssertionError):
            row.is_shown_by(self.outcome(row, said))

    def test_another_status(self, row: Row) -> None:
        with pytest.raises(AssertionError):
            row.is_shown_by(self.outcome(row, status=0))

    @pytest.mark.parametrize("name", ["mine.txt", "b.zarr", "b.zarr.partial"])
    def test_another_file(self, row: Row, name: str) -> None:
        outcome = self.outcome(row)
        (row.folder / name).write_text("")
        with pytest.raises(AssertionError):
            row.is_shown_by(outcome)
