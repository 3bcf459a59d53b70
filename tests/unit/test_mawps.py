"""scripts/make_data/mawps.py: repeats are dropped, and the decimal answers are judged by their value."""

from pathlib import Path

import mawps
from conftest import write_rows

from a2r_train.data.read import read
from a2r_train.records import Problem
from a2r_train.verify import check_gold, judge


def test_repeats_are_dropped_and_answers_keep_their_value(tmp_path: Path) -> None:
    texts = (
        "Joan has 70.5 shells , and gives 27 away .",
        "Joan has  70.5 shells, and gives 27 away.",
        "Joan has 705 shells.",
    )
    rows = [
        {"input": text, "target": target, "type": "addsub", "idx": i}
        for i, (text, target) in enumerate(zip(texts, (43.0, 44.0, 2 / 3), strict=True))
    ]
    mawps.main(write_rows(tmp_path / "mawps.jsonl", rows), str(tmp_path / "problems.jsonl"))
    problems = read(Problem, str(tmp_path / "problems.jsonl"))
    assert [(p.id, p.answer, p.source) for p in problems] == [
        ("0", "43", "addsub"),
        ("2", str(2 / 3), "addsub"),
    ]
    check_gold(problems, "problems")
    assert [judge(text, problems[0].answer) for text in (r"\boxed{43}", r"\boxed{44}")] == [
        "correct",
        "incorrect",
    ]
    assert [judge(text, problems[1].answer) for text in (r"\boxed{\frac{2}{3}}", r"\boxed{0.67}")] == [
        "correct",
        "incorrect",
    ]
