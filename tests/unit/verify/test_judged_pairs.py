"""Answers and golds judged by hand, each the way a mathematician would: no wrong one may be paid, and few
right ones refused.

`judged_by_hand.jsonl` was judged before any program saw it; `judged_by_us.jsonl` has further members of the
same kinds, and `judged_kinds.jsonl` has kinds that were found to fail.
"""

import json
from pathlib import Path

import pytest

from a2r_train.records import CORRECT
from a2r_train.verify.compare import compare_all

FOLDER = Path(__file__).parent
MAY_BE_REFUSED = {"judged_by_hand": 6, "judged_by_us": 0, "judged_kinds": 0}


def rows_of(name: str) -> list[dict[str, str]]:
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("name", MAY_BE_REFUSED)
def test_no_wrong_answer_is_paid_and_right_ones_are_not_refused(name: str) -> None:
    rows = rows_of(name)
    verdicts = compare_all([(row["answer"], row["gold"], "math") for row in rows])
    judged = list(zip(rows, verdicts, strict=True))
    paid = [row for row, verdict in judged if verdict == CORRECT and row["right"] != CORRECT]
    refused = [row for row, verdict in judged if verdict != CORRECT and row["right"] == CORRECT]
    assert paid == []
    assert len(refused) <= MAY_BE_REFUSED[name], refused


@pytest.mark.parametrize("name", MAY_BE_REFUSED)
def test_either_side_may_be_the_gold_one(name: str) -> None:
    rows = rows_of(name)
    there = compare_all([(row["answer"], row["gold"], "math") for row in rows])
    back = compare_all([(row["gold"], row["answer"], "math") for row in rows])
    differ = [row for row, a, b in zip(rows, there, back, strict=True) if (a == CORRECT) != (b == CORRECT)]
    assert differ == []


@pytest.mark.parametrize("name", MAY_BE_REFUSED)
def test_each_right_gold_is_itself(name: str) -> None:
    golds = [row["gold"] for row in rows_of(name) if row["gold"] not in ("3=4", "4=5")]
    verdicts = compare_all([(gold, gold, "math") for gold in golds])
    assert [gold for gold, verdict in zip(golds, verdicts, strict=True) if verdict != CORRECT] == []


def test_the_two_tables_are_different() -> None:
    tables = [{(row["answer"], row["gold"]) for row in rows_of(name)} for name in MAY_BE_REFUSED]
    assert tables[0] & tables[1] == set()
    assert len(tables[1]) >= 150
