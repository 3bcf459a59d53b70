"""Multiple choice: options of every shape become part of the problem, and the answer becomes their letter."""

from pathlib import Path
from typing import Any

import pytest
from conftest import write_rows

from a2r_train.data.ingest import ingest
from a2r_train.data.options import letter_unasked
from a2r_train.data.part import problems_in
from a2r_train.data.read import Columns, read, stream
from a2r_train.data.rollouts import with_their_problems
from a2r_train.errors import InputError
from a2r_train.prompts import PromptConfig
from a2r_train.records import Problem

SHOWN = "Which?\n\nA. red\nB. green\nC. blue"
LISTED = {"question": "Which?", "options": ["red", "green", "blue"]}


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ({"options": ["red", "green", "blue"]}, "B"),
        ({"choices": ["red", "green", "blue"]}, "(b)"),
        ({"options": ["red", "green", "blue"]}, 1),
        ({"options": ["red", "green", "blue"]}, "1"),
        ({"options": ["red", "green", "blue"]}, "green"),
        ({"options": {"A": "red", "B": "green", "C": "blue"}}, "B."),
        ({"choices": {"label": ["A", "B", "C"], "text": ["red", "green", "blue"]}}, "B"),
        ({"choices": {"label": ["1", "2", "3"], "text": ["red", "green", "blue"]}}, "B"),
        ({"choices": {"label": ["1", "2", "3"], "text": ["red", "green", "blue"]}}, "2"),
        ({"option1": "red", "option2": "green", "option3": "blue"}, 2),
        ({"option0": "red", "option1": "green", "option2": "blue"}, "1"),
        ({"A": "red", "B": "green", "C": "blue"}, "B"),
        ({"option_a": "red", "option_b": "green", "option_c": "blue"}, "green"),
        ({"option1": "red", "option2": "green", "option3": "blue"}, "green"),
        ({"A": "red", "B": "green", "C": "blue", "D": None, "E": ""}, "B"),
        ({"A": "red", "B": "green", "C": "blue", "D": float("nan")}, "B"),
        ({"options": {"A": "red", "B": "green", "C": "blue", "D": None}}, "B"),
        ({"options": ["red", "green", "blue", ""]}, "B"),
        ({"options": '["red", "green", "blue"]'}, "B"),
        ({"options": "red | green | blue"}, "B"),
    ],
)
def test_options_of_every_shape(options: dict[str, Any], answer: object, tmp_path: Any) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"question": "Which?", **options, "answer": answer}])
    (problem,) = read(Problem, path)
    assert (problem.problem, problem.answer, problem.verifier) == (SHOWN, "B", "multiple_choice")


def test_a_verifier_of_the_row_and_a_mapped_column_hold(tmp_path: Any) -> None:
    row = {"question": "Which?", "pick": ["red", "green"], "key": 0, "verifier": "exact"}
    path = write_rows(tmp_path / "a.jsonl", [row])
    columns = Columns.parse({"options": "pick", "answer": "key"})
    (problem,) = read(Problem, path, columns)
    assert (problem.answer, problem.verifier) == ("A", "exact")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (LISTED | {"answer": "yellow"}, "is none of the options A 'red', B 'green', C 'blue'"),
        (LISTED | {"answer": 7}, "is none of the options"),
        (
            {"question": "Which?", "options": [0, 2, 1], "answer": 1},
            "is the text of option C and the index of option B",
        ),
        ({"question": "Which?", "options": ["red"], "answer": "A"}, "expected 2 to 10 options"),
        ({"question": "Which?", "options": ["red", None], "answer": "A"}, "expected 2 to 10 options"),
        ({"question": "Which?", "answer_choices": ["red", "green"], "answer": "A"}, "looks like the options"),
        ({"question": "Which?", "option_a": "red", "answer": "A"}, "looks like the options"),
        (LISTED | {"options": ["red", "green", "red "], "answer": "B"}, "options A and C are both 'red'"),
        (
            {"question": "Which?", "A": "red", "B": "red", "answer": "B"},
            "jsonl:1: options A and B are both",
        ),
        (LISTED | {"options": ["red", "", "blue"], "answer": "A"}, "option B is empty, but option C is not"),
        (LISTED | {"options": {"A": "red", "B": None, "C": "x"}, "answer": "A"}, "option B is empty, but"),
        ({"question": "?", "A": "red", "B": "blue", "C": None, "D": "x", "answer": "A"}, "option C is empty"),
    ],
)
def test_options_that_cannot_be_read_are_one_line(row: dict[str, Any], says: str, tmp_path: Any) -> None:
    with pytest.raises(InputError, match=says):
        read(Problem, write_rows(tmp_path / "a.jsonl", [row]))


def indexed(indices: list[int]) -> list[dict[str, Any]]:
    return [{**LISTED, "question": f"Which, {i}?", "answer": index} for i, index in enumerate(indices)]


def test_indices_that_never_are_0_may_count_from_1(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "from_1.jsonl", indexed([1, 2] * 6))
    with pytest.raises(InputError, match="12 answers are indices of options, and none of them is 0"):
        read(Problem, path)
    with pytest.raises(InputError, match="none of them is 0"):
        list(stream(Problem, path))


def test_indices_from_0_are_said_to_be_read_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for indices in ([2, 0, *[1] * 8], [2, 1]):
        problems = read(Problem, write_rows(tmp_path / "rows.jsonl", indexed(indices)))
        assert [problem.answer for problem in problems] == ["ABC"[index] for index in indices]
        assert "answers are indices from 0; 2 is option C" in caplog.text
        caplog.clear()


def test_numbered_options_are_no_indices(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    row = {"option1": "red", "option2": "green", "option3": "blue"}
    rows = [{**row, "question": f"Which, {i}?", "answer": i % 3 + 1} for i in range(9)]
    assert [p.answer for p in read(Problem, write_rows(tmp_path / "rows.jsonl", rows))] == list("ABC" * 3)
    assert "indices" not in caplog.text


AMBIGUOUS = {"question": "1 + 1?", "options": ["2", "3", "1", "4"]}
NUMBERS = [AMBIGUOUS | {"question": f"{i} + 1?", "answer": answer} for i, answer in enumerate("1234")]


def door(kind: str, rows: list[dict[str, Any]], tmp_path: Path) -> list[str]:
    """The letters that a set's answers are read as, by each way in which problems come."""
    path = tmp_path / "a.jsonl"
    if kind in ("read", "stream"):
        write_rows(path, rows)
        found = read(Problem, str(path)) if kind == "read" else [one for _, one in stream(Problem, str(path))]
        return [problem.answer for problem in found]
    write_rows(path, [{**row, "generations": [r"\boxed{A}"] * 2} for row in rows])
    if kind == "rollouts":
        return [problem.answer for problem in with_their_problems(str(path), Columns())[0]]
    store = ingest("", str(path), Columns(), tmp_path / "store", 1, 1)
    return [problem.answer for _, problem in problems_in(store, 0, "")]


@pytest.mark.parametrize("kind", ["read", "stream", "rollouts", "store"])
@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            NUMBERS,
            r"jsonl:1: answer 1 is the text of option C and the index of option B, and no other row",
        ),
        ([row | {"answer": int(row["answer"])} for row in NUMBERS], "and no other row tells which is meant"),
        (NUMBERS[3:], r"answer 4 is the text of option D and may be an index that counts from 1, and no"),
        ([*NUMBERS, LISTED | {"answer": 0}], "and no other row tells"),
        (
            [LISTED | {"answer": "green"}, LISTED | {"question": "What?", "answer": "2"}],
            ":2: answer 2 is only the index of option C, but at .*:1 answer 'green' is the text of option B",
        ),
    ],
)
def test_answers_that_are_texts_or_indices_are_refused(
    kind: str, rows: list[dict[str, Any]], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        door(kind, rows, tmp_path)


@pytest.mark.parametrize("kind", ["read", "stream", "rollouts", "store"])
def test_one_text_that_is_no_index_tells_that_all_are_texts(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    rows = [*NUMBERS, {"question": "9 + 9?", "options": ["17", "18"], "answer": "18"}]
    assert door(kind, rows, tmp_path) == ["C", "A", "B", "D", "B"]
    assert "answers are texts of options; '1' is option C" in caplog.text


BLOOD = [
    {"question": f"Which group, {i}?", "options": options, "answer": answer}
    for i, (options, answer) in enumerate(
        [(["O", "A", "B", "AB"], "A"), (["AB", "O", "A", "B"], "B"), (["A", "B", "O", "AB"], "B")]
    )
]
VITAMIN = {"question": "Which vitamin?", "options": ["D", "C", "B12"]}


@pytest.mark.parametrize("kind", ["read", "stream", "rollouts", "store"])
@pytest.mark.parametrize(
    ("more", "letters"),
    [
        ([LISTED | {"answer": "green"}], "BDBB"),
        ([VITAMIN | {"answer": "B12"}, LISTED | {"answer": "red"}], "BDBCA"),
        ([LISTED | {"answer": "(b)"}], "ABBB"),
        ([LISTED | {"answer": "B"}, VITAMIN | {"answer": "C"}], "ABBBC"),
    ],
)
def test_the_other_rows_tell_whether_a_letter_is_a_text(
    kind: str, more: list[dict[str, Any]], letters: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert "".join(door(kind, [*BLOOD, *more], tmp_path)) == letters
    said = "answers are texts of options; 'A' is option B"
    assert caplog.text.count(said) == (letters[0] == "B")


@pytest.mark.parametrize("kind", ["read", "stream", "rollouts", "store"])
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ([], r"jsonl:1: answer A is the letter of option A and the text of option B, and no other row tells"),
        ([LISTED | {"answer": 0}], "and no other row tells; give letters, each as .A."),
        ([LISTED | {"answer": "red"}, VITAMIN | {"answer": "B"}], "other rows give letters as well as texts"),
    ],
)
def test_letters_that_may_be_texts_are_refused(
    kind: str, more: list[dict[str, Any]], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        door(kind, [*BLOOD, *more], tmp_path)
    (tmp_path / "again").mkdir()
    letters = [row | {"answer": f"({answer})"} for row, answer in zip(BLOOD, "BDB", strict=True)]
    assert "".join(door(kind, letters, tmp_path / "again")) == "BDB"


@pytest.mark.parametrize("kind", ["read", "stream", "rollouts", "store"])
def test_indices_and_fewer_options_are_said_once(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    rows = [*indexed([1, 2, 0]), {"question": "Two?", "options": ["a", "b", ""], "answer": 0}]
    door(kind, rows, tmp_path)
    assert caplog.text.count("answers are indices from 0; 1 is option B") == 1
    assert caplog.text.count("1 of 4 rows have fewer than 3 options") == 1


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (PromptConfig(), "its explorer_template does not ask for a letter"),
        (
            PromptConfig(explorer_template="{problem} Which option?"),
            "its synthesizer_template does not ask for",
        ),
        (PromptConfig(system="Give the letter."), ""),
        (PromptConfig(answer_pattern="Answer: (.*)"), ""),
    ],
)
def test_a_prompt_that_asks_for_no_letter_is_told(prompt: PromptConfig, said: str) -> None:
    problems = [Problem("a", SHOWN, "B", "multiple_choice")]
    found = letter_unasked(problems, prompt, "explorer_template", "synthesizer_template")
    assert found.startswith(said)
    assert bool(found) == bool(said)
    assert not letter_unasked([Problem("a", "1?", "1")], PromptConfig(), "explorer_template")
