"""Data of one's own: other layouts, verdicts and golds of others, files that were mixed up or changed."""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from conftest import a2r, write_rows
from hypothesis import given
from hypothesis import strategies as st

from a2r_train.data.builder import bundle_of
from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.explore import ExploreConfig, load_problems
from a2r_train.data.files import literal
from a2r_train.data.options import letters_judged_as_text
from a2r_train.data.read import Columns, read
from a2r_train.data.rollouts import check_references, load_rollouts, other_explorer
from a2r_train.data.unparsable import unparsable
from a2r_train.errors import InputError
from a2r_train.inference.solve import read_questions
from a2r_train.records import Bundle, Problem, Reference, Rollout, as_row


def near(answer: str, gold: str) -> bool:
    """A verifier of one's own."""
    return abs(int(answer) - int(gold)) <= 1


def rows_of(path: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    """A copy of a file, beside it, whose rows are changed."""
    changed = [change(json.loads(line)) for line in Path(path).read_text().splitlines()]
    return write_rows(Path(path).with_name(f"changed-{Path(path).name}"), changed)


def test_rollouts_of_other_problems_are_refused_by_bundle(
    problems: str, rollouts: str, tmp_path: Path
) -> None:
    """Ids alone would fit: the numbers of lines do for any two files."""
    other = rows_of(
        problems,
        lambda row: {**row, "problem": f"{row['problem']} And 1?", "answer": str(int(row["answer"]) + 1)},
    )
    with pytest.raises(
        InputError, match=r"sample 0 of problem 'p2' is marked correct with '6', but .* has '7'"
    ):
        bundle(BundleConfig(rollouts, str(tmp_path / "out"), other))
    assert not (tmp_path / "out").exists()


def test_rollouts_are_judged_anew_by_a_corrected_gold(
    problems: str, rollouts: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corrected = rows_of(problems, lambda row: {**row, "answer": "99" if row["id"] == "p2" else row["answer"]})
    made = bundle(BundleConfig(rollouts, str(tmp_path / "out"), corrected))
    assert re.search(
        r"sample 0 of problem 'p2' is marked correct with '6', but .* has '99'; such are 1 of \d+ problems",
        caplog.text,
    )
    bundles = read(Bundle, str(made / "train.jsonl"))
    assert {one.n_correct for one in bundles if one.problem_id == "p2"} <= {0}
    assert any(one.n_correct for one in bundles)


def test_a_key_that_came_later_and_is_empty_makes_no_other_run(
    problems: str, rollouts: str, tmp_path: Path
) -> None:
    config = BundleConfig(rollouts, str(tmp_path / "out"), problems)
    folder = bundle(config)
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("verifier: ''\n", ""))
    assert "verifier" not in (folder / "config.yaml").read_text()
    bundle(config)
    with pytest.raises(InputError, match=r"belongs to another run .verifier: None there, 'exact' here"):
        bundle(replace(config, verifier="exact"))


def test_what_comes_with_rollouts_made_elsewhere_is_kept(tmp_path: Path) -> None:
    more = {"verifier": "test_own_data.near", "source": "mine", "completion_tokens": 11, "model": "theirs"}
    rows = [
        {"problem": "Say 100.", "answer": "100", "text": r"\boxed{99}", "problem_id": "q7", **more}
        for _ in range(4)
    ]
    (problem,), found = load_rollouts("", write_rows(tmp_path / "own.jsonl", rows))
    assert problem == Problem("q7", "Say 100.", "100", "test_own_data.near", "mine")
    assert {(r.problem_id, r.verdict, r.completion_tokens, r.model) for r in found} == {
        ("q7", "correct", 11, "theirs")
    }


def test_one_verifier_may_judge_all_rows(problems: str, tmp_path: Path) -> None:
    """As a data set of others has no column for it; in both stages that read problems."""
    own = "test_own_data.near"
    rows = [{"problem_id": "p1", "sample": i, "text": rf"\boxed{{{3 + i}}}"} for i in range(4)]
    path = write_rows(tmp_path / "own.jsonl", rows)
    verdicts = [r.verdict for r in load_rollouts(problems, path, verifier=own)[1]]
    assert verdicts == ["correct", "correct", "incorrect", "incorrect"]
    by_math = write_rows(tmp_path / "math.jsonl", [asdict(r) for r in load_rollouts(problems, path)[1]])
    assert [
        r.verdict for r in load_rollouts(problems, by_math, verifier=own)[1]
    ] == verdicts  # and not those of math
    by_own = write_rows(
        tmp_path / "near.jsonl", [asdict(r) for r in load_rollouts(problems, path, verifier=own)[1]]
    )
    with pytest.raises(
        InputError,
        match=r"marked correct with '4', but .* has '3'; name the problems .*, and their verifier",
    ):
        load_rollouts(problems, by_own)
    folder = bundle(BundleConfig(path, str(tmp_path / "b"), problems, verifier=own))
    (made,) = read(Bundle, str(folder / "train.jsonl"))
    assert (made.verifier, made.n_correct) == (own, 2)
    config = ExploreConfig(problems, "m", str(tmp_path / "x"), verifier=own)
    assert {problem.verifier for problem in load_problems(config)} == {own}


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ({"answer": "999"}, r":2: answer '999', but .*:1 has '1' for the same problem"),
        ({"completion_tokens": 2.5}, r":2: field 'completion_tokens': 2.5; expected a whole number"),
        ({"problem": "Say 2.", "problem_id": "a"}, r":2: problem_id 'a' is used at .*:1 for another problem"),
        ({"text": None}, r":2: column 'text' has no value here"),
        ({"text": ["1", "2"]}, r":2: field 'text': a list; expected text"),
        ({"answer": None}, r":2: column 'answer' has no value here"),
        ({"completion_tokens": "many"}, r":2: field 'completion_tokens': 'many'; expected a whole number"),
    ],
)
def test_rows_made_elsewhere_that_contradict_or_are_empty(
    second: dict[str, Any], says: str, tmp_path: Path
) -> None:
    first = {"problem": "Say 1.", "answer": "1", "text": r"\boxed{1}", "problem_id": "a"}
    with pytest.raises(InputError, match=says):
        load_rollouts("", write_rows(tmp_path / "own.jsonl", [first, {**first, **second}]))


def test_rows_made_elsewhere_may_say_the_same_in_other_ways(tmp_path: Path) -> None:
    first = {
        "problem": "Say 5.",
        "answer": "5",
        "text": r"\boxed{5}",
        "completion_tokens": 3.0,
        "source": ["a", "b"],
    }
    path = write_rows(tmp_path / "own.jsonl", [first, {**first, "answer": "5.0", "model": {"name": "m"}}])
    (problem,), found = load_rollouts("", path)
    assert (problem.answer, problem.source) == ("5", "")
    assert [(r.completion_tokens, r.model) for r in found] == [(3, ""), (3, "")]


def test_verdicts_of_others_are_refused_or_judged_anew(problems: str, tmp_path: Path) -> None:
    rows = [
        {"problem_id": "p1", "sample": i, "text": r"\boxed{3}", "verdict": verdict}
        for i, verdict in enumerate(("correct", "wrong"))
    ]
    with pytest.raises(
        InputError,
        match=r":2: field 'verdict': 'wrong'; expected correct, incorrect, unparsable, timeout, unverified",
    ):
        load_rollouts(problems, write_rows(tmp_path / "own.jsonl", rows))
    said = [("correct", "3"), ("correct", "4"), ("incorrect", "3"), ("incorrect", "4"), ("unparsable", "3")]
    rows = [
        {**rows[0], "sample": i, "verdict": verdict, "text": rf"\boxed{{{n}}}"}
        for i, (verdict, n) in enumerate(said)
    ]
    _, found = load_rollouts(problems, write_rows(tmp_path / "own.jsonl", rows))
    judged = [("3", "correct"), ("4", "incorrect")]
    assert [(r.answer, r.verdict) for r in found] == [*judged, *judged, ("3", "correct")]


def test_a_gold_that_was_mended_after_exploring_counts(problems: str, tmp_path: Path) -> None:
    """The rollouts were judged by another gold then: whatever they say, the text decides."""
    texts = {r"\boxed{3}": "correct", r"\boxed{4}": "incorrect", r"\boxed{4} \boxed{3}": "incorrect"}
    rows = [
        {"problem_id": "p1", "sample": i, "text": text, "answer": text[-2], "verdict": "incorrect"}
        for i, text in enumerate(texts)
    ]
    _, found = load_rollouts(problems, write_rows(tmp_path / "own.jsonl", rows))
    assert [r.verdict for r in found] == list(texts.values())


def test_a_file_without_rollouts_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"own\.jsonl: no rows; expected at least one rollout"):
        load_rollouts("", write_rows(tmp_path / "own.jsonl", []))


def test_bundles_without_references_are_refused(bundles: str) -> None:
    with pytest.raises(InputError, match=r"changed-.*:1: no references; expected at least one"):
        read(Bundle, rows_of(bundles, lambda row: {**row, "references": []}))


@pytest.mark.parametrize(
    ("row", "columns", "says"),
    [
        (
            {"question": "1?", "gold": "1"},
            {},
            r":1: no column 'answer'; the columns are gold, question \(is it 'gold'\? then set columns: ",
        ),
        (
            {"ask": "1?", "answer": "1"},
            {"probem": "ask"},
            "columns: unknown key 'probem'; did you mean 'problem'",
        ),
    ],
)
def test_a_layout_that_is_not_mapped_is_named(
    row: dict[str, str], columns: dict[str, str], says: str, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "own.jsonl", [row])
    with pytest.raises(InputError, match=says):
        read(Problem, path, Columns.parse(json.dumps(columns)))


def test_gsm8k_may_be_mapped_to_what_it_is(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "own.jsonl", [{"question": "6 * 7?", "answer": "Six times seven.\n#### 42"}])
    assert (
        read(Problem, path, Columns({"problem": "question"}))
        == read(Problem, path)
        == [Problem("0", "6 * 7?", "42")]
    )
    path = write_rows(
        tmp_path / "pair.jsonl", [{"question": "Where?", "answer": "(1,2)"}]
    )  # not GSM8K's: no thousands
    assert (
        read(Problem, path, Columns({"problem": "question"}))
        == read(Problem, path)
        == [Problem("0", "Where?", "(1,2)")]
    )


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        (r"Add: $\boxed{\frac{1}{2}}$, and not \boxed{\text{1,5}}.", r"\text{1,5}"),
        ("Add.\n#### 1,234\n", "1234"),
        ("def f(x):\n    #### as it is\n    return x", "def f(x):\n    #### as it is\n    return x"),
        ("7", "7"),
    ],
)
def test_a_column_of_solutions_gives_their_final_answers(solution: str, gold: str, tmp_path: Path) -> None:
    row = {"problem": "1?", "solution": solution, "proof": solution}
    path = write_rows(tmp_path / "own.jsonl", [row])
    assert read(Problem, path, Columns({"answer": "solution"}))[0].answer == gold
    assert read(Problem, path, Columns({"answer": "proof"}))[0].answer == solution


@pytest.mark.parametrize("own", [True, False])
def test_solutions_with_several_boxes_are_counted(
    own: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    r"""The last box may be that of a check, or only the second part of the answer."""
    several = [r"\boxed{1}, so \boxed{2}", r"\boxed{x=1} and \boxed{y=2}", "\\boxed{1}, \\boxed{2}\n#### 3"]
    solutions = [r"\boxed{2}", *several, r"\boxed{3} and \boxed{ 3 }"]
    rows = [{"problem": f"{i}?", "solution": one, "text": r"\boxed{2}"} for i, one in enumerate(solutions)]
    path, columns = write_rows(tmp_path / "own.jsonl", rows), Columns({"answer": "solution"})
    if own:
        bundle(BundleConfig(path, str(tmp_path / "out"), k=1, columns='{"answer": "solution"}'))
    else:
        assert [one.answer for one in read(Problem, path, columns)] == ["2", "2", "y=2", "3", "3"]
    (says,) = [r.message for r in caplog.records if "several different boxes" in r.message]
    assert "2 solutions hold several different boxes" in says
    assert f"as at {path}:2 (1, 2); the last one is the gold" in says


def test_columns_of_a_recipe_may_be_a_mapping(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_rows(
        tmp_path / "own.jsonl",
        [{"ask": rf"Say {i}.", "gold": str(i), "said": rf"\boxed{{{i}}}"} for i in range(9)],
    )
    recipe = tmp_path / "bundle.yaml"
    recipe.write_text(
        f"rollouts: {path}\noutput_dir: {tmp_path}/b\nk: 1\ncolumns: "
        "{problem: ask, answer: gold, text: said}\n"
    )
    assert a2r("bundle", "--config", str(recipe)) == 0, capsys.readouterr().err
    assert len(read(Bundle, str(tmp_path / "b" / "train.jsonl"))) == 9


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"test_share": 1.5}, r"test_share is 1.5; expected 0 or more, and less than 1"),
        ({"k": 9}, "lower k, or explore with more samples"),
        ({"test_share": 0.4}, "change decontamination, or use other problems"),
    ],
)
def test_the_mend_is_that_of_the_reason(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    words = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    rows = [
        {"problem": f"{words}{i}", "answer": str(i), "text": rf"\boxed{{{i}}} {n}"}
        for i in range(12)
        for n in range(4)
    ]
    config = BundleConfig(write_rows(tmp_path / "own.jsonl", rows), str(tmp_path / "b"))
    with pytest.raises(InputError, match=says):
        bundle(replace(config, **changes))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"text": "1?"}], r":1: no column 'problem'; the columns are text \(is it 'text'\? then set "),
        (
            [{"problem": "1?"}, {"problem": "2?", "references": ["2"]}],
            "q.jsonl:2: has references, unlike earlier rows; expected them in all rows, or in none",
        ),
        (
            [{"problem": "1?"}, {"problem": "2?", "id": "0"}],
            r"q.jsonl:2: id '0' was already used at .*q.jsonl:1; ids must be unique \(a row without",
        ),
        ([{"problem": "1?", "references": [{"answer": "2"}]}], "q.jsonl:1: .*a reference without text"),
        ([], "no rows; expected at least one problem"),
        ([{"problem": " "}], ":1: field 'problem' is empty; every problem needs one"),
        ([{"problem": "1?", "references": ["2", None]}], ":1: field 'references': null; expected text"),
        (
            [{"problem": "1?", "verifier": "maths"}],
            "q.jsonl:1: verifier 'maths': expected math, math_last_number, exact, multiple_choice",
        ),
        ([{"problem": "1?", "verifier": "nowhere.check"}], "verifier 'nowhere.check': ModuleNotFoundError"),
    ],
)
def test_a_file_of_questions_that_cannot_be_read(
    rows: list[dict[str, Any]], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        read_questions(write_rows(tmp_path / "q.jsonl", rows), Columns())


def test_questions_may_be_bundles_or_programs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A bundle's references are objects, and a program is shown as in training: with its signature."""
    bundle = bundle_of(Problem("p", "2+3?", "5"), [Reference("so 5", "5", "correct", 1)], "p/0")
    (question,) = read_questions(write_rows(tmp_path / "b.jsonl", [as_row(bundle)]), Columns())
    assert (question.problem, question.references) == (Problem("p/0", "2+3?", ""), ["so 5"])
    program = {"text": "Add.", "code": "def add(a, b): return a + b", "test_list": ["assert add(1, 2) == 3"]}
    (question,) = read_questions(write_rows(tmp_path / "p.jsonl", [program]), Columns())
    assert (question.problem.problem, question.problem.verifier) == (
        "Add.\n\nThe function is `add(a, b)`.",
        "python_tests",
    )
    assert not caplog.text
    escaped = {"problem": "2?", "references": ["so \boxed{2}"]}
    read_questions(write_rows(tmp_path / "e.jsonl", [escaped]), Columns())
    assert "1 problem(s) whose text holds control characters where a macro was meant" in caplog.text


def test_texts_whose_backslashes_were_read_as_escapes_are_told_apart() -> None:
    lost = unparsable([Rollout("p", at, "so \boxed{7}", verdict="unparsable") for at in range(3)])
    assert "write `\\\\boxed` with two of them" in str(lost)


def test_thoughts_that_never_end_were_cut() -> None:
    """Rollouts made elsewhere have no finish_reason."""
    texts = [f"<think>{at} maybe" for at in range(3)] + ["<think>7</think> done"]
    lost = unparsable([Rollout("p", at, text, verdict="unparsable") for at, text in enumerate(texts)])
    assert (lost.count, lost.cut) == (4, 3)
    assert "raise max_completion_tokens" in str(lost)


def test_a_right_reference_has_the_answer_of_its_bundle() -> None:
    """As where the answers of a problem file were changed, and the bundles kept."""
    references = [Reference("1", "5.0", "correct", 1), Reference("2", "7", "incorrect", 1)]
    good = bundle_of(Problem("a", "2+3?", "5"), references, "a")
    own = replace(good, answer="9", verifier="fnmatch:fnmatch")  # what its gold means is its own affair
    check_references([good, own], "b.jsonl")
    with pytest.raises(InputError, match=r"^b\.jsonl: bundle 'a' has a reference marked correct with '5\.0'"):
        check_references([good, replace(good, answer="6")], "b.jsonl")


@pytest.mark.parametrize(
    "cell",
    ["['3', '4', '5']", '["3", "4", "5"]', "('3', '4', '5')", "3|4|5", "3; 4; 5", "{'A': 3, 'B': 4, 'C': 5}"],
)
def test_options_in_a_cell_of_a_table(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["question", "options", "answer"], ["2 + 2?", cell, "B"]])
    (problem,) = read(Problem, str(path))
    assert problem == Problem("0", "2 + 2?\n\nA. 3\nB. 4\nC. 5", "B", "multiple_choice")


@pytest.mark.parametrize("written", [str, json.dumps])
def test_rollouts_in_a_cell_of_a_table(written: Callable[[Any], str], tmp_path: Path) -> None:
    texts = [rf"It's \boxed{{{i}}}." for i in (4, 5)]
    path = tmp_path / "p.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["question", "answer", "generations"], ["2 + 2?", "4", written(texts)]])
    _, found = load_rollouts("", str(path))
    assert [(one.text, one.verdict) for one in found] == [*zip(texts, ("correct", "incorrect"), strict=True)]


@pytest.mark.parametrize("cell", ["['a' 'b']", """['a' "it's b"\n 'c']""", "[['a'], ['b' 'c']]"])
def test_an_array_of_numpy_in_a_cell_is_no_list_of_one_text(cell: str, tmp_path: Path) -> None:
    """pandas writes it without commas, and Python would join its texts."""
    path = tmp_path / "p.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["question", "answer", "generations"], ["2 + 2?", "4", cell]])
    with pytest.raises(InputError, match=r"p.csv:2: field 'generations': .*; expected a list, or its JSON"):
        load_rollouts("", str(path))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=4))
def test_any_list_of_texts_that_python_writes_comes_back(texts: list[str]) -> None:
    assert literal(str(texts)) == texts


@pytest.mark.parametrize("problems", [True, False])
def test_a_list_of_texts_that_is_mapped_counts_beside_a_text(problems: bool, tmp_path: Path) -> None:
    own = {"problem_id": "q"} if problems else {"problem": "Say 3.", "answer": "3"}
    row = {**own, "response": "a worked solution", "generations": [r"\boxed{3}", r"\boxed{4}"]}
    path = write_rows(tmp_path / "r.jsonl", [row])
    known = [{"id": "q", "problem": "Say 3.", "answer": "3"}]
    named = write_rows(tmp_path / "p.jsonl", known) if problems else ""
    found = load_rollouts(named, path, Columns({"texts": "generations"}))[1]
    assert [r.text for r in found] == row["generations"]
    found = load_rollouts(named, path, Columns({"text": "response"}))[1]
    assert [r.text for r in found] == ["a worked solution"]
    with pytest.raises(InputError, match=r"r.jsonl:1: 'response' holds a text and 'generations' a list of"):
        load_rollouts(named, path)


@pytest.mark.parametrize(
    "number", ["3.14159265358979323846", "12345678901234567890.5", "-0.10", "1e-7", "42.0"]
)
def test_a_number_of_json_keeps_its_value_as_a_gold(number: str, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"problem": "?", "answer": {number}}}')
    (problem,) = read(Problem, str(path))
    assert Decimal(problem.answer) == Decimal(number)


@pytest.mark.parametrize(
    ("golds", "verifier", "told"),
    [
        ("ABCDEABC", "math", True),
        ("abcd" * 3, "exact", True),
        ("ABCDEABC", "multiple_choice", False),
        ("ABCDABX" * 2, "math", False),
        ("AAAAAAAAA", "math", False),
        ("ABC", "math", False),
        ("12345678", "math", False),
    ],
)
def test_letters_that_a_verifier_of_texts_judges_are_told(
    golds: str, verifier: str, told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"problem": f"Which, {i}?", "answer": gold} for i, gold in enumerate(golds)]
    path = write_rows(tmp_path / "p.jsonl", rows)
    problems = load_problems(ExploreConfig(path, "m", "out", verifier=verifier))
    assert bool(letters_judged_as_text(problems)) == told
    assert ("set verifier: multiple_choice" in caplog.text) == told


def test_letters_of_options_that_are_there_need_no_column() -> None:
    problems = [Problem(str(i), "Which?\n\nA. x\nB. y", "AB"[i % 2]) for i in range(8)]
    says = letters_judged_as_text(problems)
    assert "they are options of their problems, so set verifier: multiple_choice" in says
    assert "column" not in says


def test_an_explorer_that_wrote_no_reference_is_told() -> None:
    references = [Reference("1", "5", "correct", 1, model=model) for model in ("runs/one", "owner/two")]
    made = bundle_of(Problem("a", "2+3?", "5"), references, "a")
    says = "the references were written by owner/two, runs/one, and none by the explorer other"
    assert other_explorer("other", [made]) == says
    alone = bundle_of(Problem("a", "2+3?", "5"), references[:1], "a")
    assert "written by runs/one, but costs are counted for the explorer other" in other_explorer(
        "other", [alone]
    )
    for known in ("", "owner/two", "runs/one/", "./runs/one", str(Path("runs/one").absolute())):
        assert not other_explorer(known, [made]), known
    unnamed = bundle_of(Problem("a", "2+3?", "5"), [replace(references[0], model="")], "a")
    assert not other_explorer("other", [unnamed])
