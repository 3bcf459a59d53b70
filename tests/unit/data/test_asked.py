"""Rollouts whose ids stand for other problems by now, as where rows without ids were moved."""

from pathlib import Path
from typing import Any

import pytest
from conftest import write_rows

from a2r_train.data.asked import write_asked
from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.rollouts import load_rollouts
from a2r_train.errors import InputError
from a2r_train.records import Problem

ROWS = [{"problem": f"What is {n} + 1?", "answer": str(n % 3 + 1)} for n in range(12)]


@pytest.fixture
def explored(tmp_path: Path) -> str:
    """Rollouts of the rows, whose ids are their numbers, in the folder that explore wrote."""
    folder = tmp_path / "explored"
    problems = [Problem(str(at), row["problem"], row["answer"]) for at, row in enumerate(ROWS)]
    texts = [(p, at, f"{at}: \\boxed{{{p.answer if at % 2 else 7}}}") for p in problems for at in range(4)]
    rows = [{"problem_id": p.id, "sample": at, "text": text} for p, at, text in texts]
    folder.mkdir()
    write_asked(folder, problems)
    return write_rows(folder / "rollouts.jsonl", rows)


def read_by_all(rows: list[dict[str, Any]], rollouts: str, tmp_path: Path) -> list[str]:
    """What bundle and the other readers of rollouts say about a problem file; "" where they take it."""
    problems = write_rows(tmp_path / "problems.jsonl", rows)
    config = BundleConfig(rollouts, str(tmp_path / "out"), problems, decontamination="none", k=2)
    said = []
    for read in (lambda: load_rollouts(problems, rollouts), lambda: bundle(config)):
        try:
            read()
            said.append("")
        except InputError as error:
            said.append(str(error))
    return said


def test_moved_rows_are_refused(explored: str, tmp_path: Path) -> None:
    """Golds alone do not tell: those of the two rows are the same."""
    moved = [*ROWS[:4], ROWS[7], *ROWS[5:7], ROWS[4], *ROWS[8:]]
    for said in read_by_all(moved, explored, tmp_path):
        assert "problems.jsonl: problem '4' is the one that was '7' when" in said
        assert "restore the order of the rows" in said


def test_a_row_added_in_the_middle_is_refused(explored: str, tmp_path: Path) -> None:
    added = [*ROWS[:9], {"problem": "What is new?", "answer": "1"}, *ROWS[9:]]
    for said in read_by_all(added, explored, tmp_path):
        assert "problem '10' is the one that was '9' when" in said


def test_what_is_the_same_or_corrected_is_read(
    explored: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spaced = [{**row, "problem": f" {row['problem'].upper()}"} for row in ROWS]
    assert read_by_all(spaced, explored, tmp_path) == ["", ""]
    assert "another text" not in caplog.text
    edited = [{**ROWS[0], "problem": "What is 0 plus 1?"}, *ROWS[1:]]
    (tmp_path / "out").rename(tmp_path / "first")
    assert read_by_all(edited, explored, tmp_path) == ["", ""]
    assert caplog.text.count("1 problem(s) have another text than when") == 2
