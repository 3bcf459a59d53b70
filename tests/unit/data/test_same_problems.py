"""Problems that are the same: repeated, contradictory, of another row, or in training and in the test set."""

from pathlib import Path
from typing import Any

import pytest
from conftest import write_rows

from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.decontaminate import Evaluation
from a2r_train.data.options import options_of, with_options
from a2r_train.data.read import Columns, read
from a2r_train.data.rollouts import load_rollouts
from a2r_train.data.wording import bare
from a2r_train.errors import InputError
from a2r_train.records import Bundle, Problem

SUMS = [{"problem": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(9)]
TEXTS = [f"So \\boxed{{2}}, by way {n}" for n in range(4)]
Rows = list[dict[str, Any]]


def own(folder: Path, more: Rows) -> BundleConfig:
    rows = [{**row, "generations": [rf"\boxed{{{row['answer']}}} {n}" for n in range(4)]} for row in SUMS]
    path = write_rows(folder / "r.jsonl", [*rows, *({**row, "generations": TEXTS} for row in more)])
    return BundleConfig(path, str(folder / "out"))


def test_rollouts_with_their_problems_may_not_contradict(tmp_path: Path) -> None:
    config = own(tmp_path, [{"problem": "What is  1 + 1?", "answer": "99"}])
    with pytest.raises(InputError, match="row 2, problem '1', and row 10, problem '9', have the same text"):
        bundle(config)


@pytest.mark.parametrize("text", ["What is 1 + 1? ", "what is 1 + 1?"])
def test_rollouts_with_repeated_problems_are_counted(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle(own(tmp_path, [{"problem": text, "answer": "2"}]))
    said = "r.jsonl: 1 problems repeat the text of an earlier one, as row 10 that of row 2"
    assert [said in one.message for one in caplog.records if "repeat the text" in one.message] == [True]


def beside(folder: Path, **more: Any) -> tuple[str, str]:
    problems = write_rows(folder / "p.jsonl", [{"id": f"q{i}", **row} for i, row in enumerate(SUMS)])
    rows = [
        {"problem_id": f"q{i}", "text": rf"\boxed{{{i + 1}}} {n}", "problem": f"what  is {i} + 1?"}
        for i in range(9)
        for n in range(4)
    ]
    rows[5] |= more
    return problems, write_rows(folder / "r.jsonl", rows)


def test_a_row_with_another_problem_than_its_id_is_named(tmp_path: Path) -> None:
    problems, rollouts = beside(tmp_path, problem="A completely other question")
    says = r"r\.jsonl:6: the row's problem is not the text of problem 'q1'"
    with pytest.raises(InputError, match=says):
        bundle(BundleConfig(rollouts, str(tmp_path / "out"), problems))
    with pytest.raises(InputError, match=says):
        load_rollouts(problems, rollouts)


def test_a_row_with_its_problem_or_none_is_read(tmp_path: Path) -> None:
    problems, rollouts = beside(tmp_path, problem=None)
    made = bundle(BundleConfig(rollouts, str(tmp_path / "out"), problems))
    assert {one.n_correct for one in read(Bundle, str(made / "train.jsonl"))} == {4}
    assert len(load_rollouts(problems, rollouts)[1]) == 36


def test_a_row_may_name_a_problem_without_its_options(tmp_path: Path) -> None:
    row = {"id": "a", "problem": "Which?", "options": ["red", "green"], "answer": "A"}
    problems = write_rows(tmp_path / "p.jsonl", [row])
    rollouts = write_rows(tmp_path / "r.jsonl", [{"problem_id": "a", "problem": "Which?", "text": "A"}])
    assert len(load_rollouts(problems, rollouts)[1]) == 1


def choice(identity: str, question: str, *options: str) -> Problem:
    text = with_options(question, dict(zip("ABCD", options, strict=False)))
    return Problem(identity, text, "A", "multiple_choice")


@pytest.mark.parametrize("method", ["ngram", "template"])
def test_the_order_of_options_makes_no_other_problem(method: Any) -> None:
    known = Evaluation([choice("e", "Which animal?", "cat", "dog", "cow")], method)
    assert known.met(choice("t", "Which animal?", "cow", "cat", "dog")) == "e"
    assert not known.met(choice("t", "Which animal?", "cow", "cat", "hen"))
    assert not known.met(choice("t", "Which plant?", "cow", "cat", "dog"))


def test_a_question_that_says_enough_is_known_without_its_options() -> None:
    question = "Which animal in this old house has nine lives?"
    known = Evaluation([choice("e", question, "cat", "dog")], "ngram")
    assert known.met(choice("t", question, "a cat", "a hen")) == "e"
    assert known.met(Problem("t", question, "cat")) == "e"
    general = "Which one of the following statements here is true?"
    assert not Evaluation([choice("e", general, "x", "y")], "ngram").met(choice("t", general, "z", "y"))


@pytest.mark.parametrize("text", ["Q: What is 2-3?", "question: what is 2-3", "Problem 12. What is 2-3 ?"])
def test_a_lead_and_punctuation_make_no_other_problem(text: str) -> None:
    assert bare(text) == bare("What is 2-3?")
    for other in ("What is 2+3?", "What is 2-3!", "What is -2-3?", "What is 2-(3)?", "What is 2 or 3?"):
        assert bare(text) != bare(other)


def test_decontamination_against_nothing_is_refused(tmp_path: Path) -> None:
    config = own(tmp_path, [])
    config.decontaminate_against, config.decontamination = config.rollouts, "none"
    with pytest.raises(InputError, match="but decontamination is none; set it to ngram"):
        bundle(config)


def test_options_lose_the_letters_that_they_carry(tmp_path: Path) -> None:
    row = {"problem": "Which?", "options": ["A)21", "B)21.5", "(C) 3"], "answer": "B)21.5"}
    (made,) = read(Problem, write_rows(tmp_path / "p.jsonl", [row]), Columns())
    assert (made.problem, made.answer) == ("Which?\n\nA. 21\nB. 21.5\nC. 3", "B")
    kept = options_of({"options": ["A. Lincoln", "C. Darwin"]}, "", "x")
    assert list(kept.values()) == ["A. Lincoln", "C. Darwin"]


def test_options_with_letters_in_another_order_are_refused() -> None:
    with pytest.raises(InputError, match=r"^x: .*option A begins with another letter, 'B\)21'"):
        options_of({"options": ["B)21", "A)21.5"]}, "", "x")
