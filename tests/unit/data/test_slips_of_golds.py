"""Golds that no sensible answer equals are refused, and what only may be a slip is one warning."""

from pathlib import Path
from typing import Any

import pytest
from conftest import write_rows

from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.explore import ExploreConfig, load_problems
from a2r_train.errors import InputError
from a2r_train.records import Problem
from a2r_train.verify import unreadable_golds

ESCAPED = ["\frac{1}{7}", "2\times 3", "\text{a}", "\boxed{3}", "5\rho", "5\nu", "\alpha", "1\x0bec{a}"]
NOTHING = ["None", "TODO", "tbd", "Unknown", "missing", "see solution", "#REF!", "#DIV/0!", "#NAME?", "#NUM!"]
STRUCTURES = ["{'value': 84}", '{"value": 84}', "['a', 'b']", '["84"]']
WRONGLY_DECODED = ["âˆ’1", "Â½", "5Â°"]
HTML = ["<b>84</b>", "&frac12;", "84&nbsp;", "x<sup>2</sup>", "&#189;"]
SUMS = [{"id": f"p{i}", "problem": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(9)]


def refused(gold: str, verifier: str, problem: str = "What?") -> bool:
    return bool(unreadable_golds([(1, Problem("p", problem, gold, verifier))]))


@pytest.mark.parametrize("verifier", ["math", "math_last_number", "exact"])
@pytest.mark.parametrize("gold", [*ESCAPED, *NOTHING, *STRUCTURES, *WRONGLY_DECODED, *HTML])
def test_a_slip_is_no_gold(gold: str, verifier: str) -> None:
    assert refused(gold, verifier)


@pytest.mark.parametrize(
    "gold", ["5", "x", "{1, 2}", "[1, 2]", "a<b", "Paris", "São Tomé", "none", "12:30", "a\nb", "R&D"]
)
def test_other_texts_are_golds(gold: str) -> None:
    assert not refused(gold, "exact")


@pytest.mark.parametrize(
    ("gold", "problem"),
    [
        ("Unknown", "Is it true, false or unknown?"),
        ("['a']", "What is ['b', 'a'][1:]?"),
        ("<b>x</b>", "Write x in <b>bold</b>."),
    ],
)
def test_what_the_problem_shows_is_meant(
    gold: str, problem: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not refused(gold, "exact", problem)
    row = {"problem": problem, "answer": gold, "verifier": "exact"}
    load_problems(ExploreConfig(write_rows(tmp_path / "p.jsonl", [row]), "m", "out"))
    assert "p.jsonl: 1 gold(s) such as None, a list or a tag" in caplog.text


def _bundle(folder: Path, rows: list[dict[str, Any]], **keys: Any) -> Path:
    texts = [
        {**row, "generations": [rf"So \boxed{{{row['answer']}}}, by way {n}" for n in range(4)]}
        for row in rows
    ]
    path = write_rows(folder / "r.jsonl", [{k: v for k, v in row.items() if k != "id"} for row in texts])
    return bundle(BundleConfig(path, str(folder / "out"), **keys))


def test_an_escaped_macro_is_told_how_to_write_and_may_be_left_out(tmp_path: Path) -> None:
    rows = [*SUMS, {"problem": "A seventh?", "answer": "\frac{1}{7}"}]
    with pytest.raises(InputError, match=r"control characters, so write `\\\\frac`, with two"):
        _bundle(tmp_path, rows)
    _bundle(tmp_path, rows, leave_out_bad_golds=True)
    assert "rac{1}{7}" in (tmp_path / "out" / "dropped.jsonl").read_text()


def test_texts_with_such_macros_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    more = [{"problem": f"What is \frac{{{i}}}{{7}} of 7?", "answer": str(i)} for i in range(1, 4)]
    _bundle(tmp_path, [*SUMS, *more])
    assert "r.jsonl: 3 problem(s) whose text holds control characters" in caplog.text
