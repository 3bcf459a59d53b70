"""The one door: rows of any file become records, by the names that data sets use, and what does not fit is
named.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from conftest import bundle_row, write_rows
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.read import Columns, read, stream
from a2r_train.data.rollouts import load_rollouts, with_their_problems
from a2r_train.errors import InputError
from a2r_train.inference.solve import read_questions
from a2r_train.records import Bundle, Problem, Rollout, Synthesis, write

TEXTS = st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip)
KINDS = {"json": "jsonl", "table": "csv", "parquet": "parquet"}


def save(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in the format of the ending; what is no text is JSON in a table."""
    if path.suffix == ".jsonl":
        return write_rows(path, rows)
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), path)
        return str(path)
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        table.writeheader()
        table.writerows(
            {name: json.dumps(v) if isinstance(v, list | dict) else v for name, v in row.items()}
            for row in rows
        )
    return str(path)


def synthesis_row(bundle: str, sample: int = 0) -> dict[str, Any]:
    made = {
        "bundle_id": bundle,
        "sample": sample,
        "text": "t",
        "answer": "1",
        "verdict": "correct",
        "seed": 0,
    }
    return made | {"prompt_tokens": 1, "completion_tokens": 2, "finish_reason": "stop", "model": "m"}


anywhere = pytest.mark.parametrize("kind", KINDS.values())


@anywhere
def test_every_kind_of_record_from_every_format(kind: str, tmp_path: Path) -> None:
    """A table has lists and objects as JSON, and numbers as text."""
    problem = Problem("p", "1?", "1", "exact", "set", {"unit": "kg", "tolerance": [1, 2]})
    rollout = Rollout("p", 3, "t", "1", "correct", 5, 7, "stop", "m", 3)
    bundle = bundle_row(problem, ["1", "2"])
    for known, row in (
        (Problem, vars(problem)),
        (Rollout, vars(rollout)),
        (Synthesis, synthesis_row("b")),
        (Bundle, bundle),
    ):
        (expected,) = read(known, save(tmp_path / f"{known.__name__}.jsonl", [row]))
        assert read(known, save(tmp_path / f"{known.__name__}.{kind}", [row])) == [expected]
    assert read(Problem, str(tmp_path / f"Problem.{kind}")) == [problem]


@anywhere
@pytest.mark.parametrize("name", ["problem", "question"])
def test_a_question_is_a_problem_everywhere(kind: str, name: str, tmp_path: Path) -> None:
    rows = [{name: "Say 3.", "answer": "3", "text": r"\boxed{3}"}]
    path = save(tmp_path / f"a.{kind}", rows)
    problem = Problem("0", "Say 3.", "3")
    assert read(Problem, path) == [problem]
    problems, rollouts = load_rollouts("", path)
    assert problems == [problem]
    assert [(r.problem_id, r.verdict) for r in rollouts] == [("0", "correct")]
    assert [question.problem.problem for question in read_questions(path, Columns())] == ["Say 3."]


@anywhere
@pytest.mark.parametrize("name", ["texts", "completions", "generations", "responses"])
def test_a_list_of_texts_is_so_many_rollouts(kind: str, name: str, tmp_path: Path) -> None:
    said = [[r"\boxed{3}", r"\boxed{4}"], [r"\boxed{3}"]]
    rows = [{"problem_id": "p", name: texts, "completion_tokens": 50, "model": "m"} for texts in said]
    found = read(Rollout, save(tmp_path / f"a.{kind}", rows))
    assert [(r.problem_id, r.sample, r.text, r.model) for r in found] == [
        ("p", i, text, "m") for i, text in enumerate([*said[0], *said[1]])
    ]
    assert {r.completion_tokens for r in found} == {0}  # 50 are those of all texts of a row
    own = [{"question": "Say 3.", "answer": "3", name: texts} for texts in said]
    (problem,), judged = load_rollouts("", save(tmp_path / f"own.{kind}", own))
    assert [(r.problem_id, r.sample, r.verdict) for r in judged] == [
        (problem.id, 0, "correct"), (problem.id, 1, "incorrect"), (problem.id, 2, "correct"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["completion", "generation", "response"])
def test_other_names_of_a_text(name: str, tmp_path: Path) -> None:
    assert [
        r.text for r in read(Rollout, write_rows(tmp_path / "a.jsonl", [{"problem_id": 1, name: "t"}]))
    ] == ["t"]
    path = write_rows(tmp_path / "b.jsonl", [{"problem_id": 1, name: ["t"]}])
    with pytest.raises(InputError, match=f"b.jsonl:1: field '{name}': a list; expected text"):
        read(Rollout, path)


@pytest.mark.parametrize("given", [{"unit": "kg"}, '{"unit": "kg"}', "  {} ", {}, None, float("nan")])
def test_metadata_is_an_object_or_its_json(given: Any, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"problem": "1?", "answer": "1", "metadata": given}])
    expected = {"unit": "kg"} if "kg" in str(given) else {}
    assert [p.metadata for p in read(Problem, path)] == [expected]


@pytest.mark.parametrize("given", ["kg", "[1]", [1], 3, "{", "[" * 100_000])
def test_metadata_that_is_no_object_is_refused(given: Any, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"problem": "1?", "answer": "1", "metadata": given}])
    with pytest.raises(
        InputError, match=r"a\.jsonl:1: field 'metadata': .*; expected an object, or its JSON$"
    ):
        read(Problem, path)


def test_metadata_of_parquet_is_as_json_has_it(tmp_path: Path) -> None:
    """Dates, decimal numbers and bytes: JSONL of the same table has texts and numbers."""
    noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
    given = {
        "day": noon.date(),
        "at": [{"time": noon}],
        "score": Decimal("1.50"),
        "n": Decimal(7),
        "b": b"kg",
    }
    path = str(tmp_path / "a.parquet")
    text = r"\boxed{1}"
    row = {"problem": "1?", "answer": "1", "text": text, "metadata": given}
    parquet.write_table(pyarrow.Table.from_pylist([row, row | {"text": f"So {text}"}]), path)
    seen = {
        "day": "2024-01-01", "at": [{"time": "2024-01-01T12:00:00+00:00"}], "score": 1.5, "n": 7, "b": "kg",
    }  # fmt: skip
    assert [one.metadata for one in read(Problem, path)] == [seen, seen]
    folder = bundle(BundleConfig(path, str(tmp_path / "out"), k=2))
    assert [one.metadata for one in read(Bundle, str(folder / "train.jsonl"))] == [seen]


@pytest.mark.parametrize(("given", "kind"), [(timedelta(1), "timedelta"), (b"\xff", "bytes that are not")])
def test_metadata_that_json_does_not_have_is_one_line(given: Any, kind: str, tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    row = {"problem": "1?", "answer": "1", "metadata": {"a": [given]}}
    parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    with pytest.raises(InputError, match=rf"a\.parquet: row 1: field 'metadata': .*{kind}"):
        read(Problem, path)


def test_programs_that_are_left_out_change_no_number(tmp_path: Path) -> None:
    """Explore and bundle read problems in different ways, and must name them alike."""

    def row(i: int) -> dict[str, Any]:
        test = f"assert f{i}(1) == {i}" if i != 1 else "assert f1(1)"  # no value that the result must have
        return {"text": f"Write f{i}.", "code": f"def f{i}(x):\n    return {i}", "test_list": [test]}

    path = write_rows(tmp_path / "a.jsonl", map(row, range(4)))
    assert [one.id for one in read(Problem, path)] == ["0", "2", "3"]
    assert [one for _, one in stream(Problem, path)] == read(Problem, path)


@pytest.mark.parametrize("given", ["t", "[1", {"a": "t"}, "[" * 100_000])
def test_a_list_that_is_none_is_refused(given: Any, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"problem_id": "1", "texts": given}])
    with pytest.raises(InputError, match=r"a\.jsonl:1: field 'texts': .*; expected a list, or its JSON$"):
        read(Rollout, path)


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_a_text_of_a_list_that_is_missing_is_refused(nothing: Any, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"problem_id": "1", "texts": ["So 5.", nothing]}])
    with pytest.raises(InputError, match=r"a\.jsonl:1: field 'texts': null; expected text$"):
        read(Rollout, path)


@anywhere
@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_no_answer_is_named_and_no_source_is_none(kind: str, nothing: Any, tmp_path: Path) -> None:
    rows = [{"problem": "1?", "answer": "1", "source": "s"}, {"problem": "2?", "answer": "2", "source": None}]
    columns = Columns({"source": "source"})
    assert [p.source for p in read(Problem, save(tmp_path / f"a.{kind}", rows), columns)] == ["s", ""]
    if kind != "jsonl":
        nothing = None
    rows = [{"problem": "1?", "answer": "1"}, {"problem": "2?", "answer": nothing}]
    path = save(tmp_path / f"b.{kind}", rows)
    says = f"{3 if kind == 'csv' else 2}: column 'answer' has no value here; every row needs one"
    with pytest.raises(InputError, match=says):
        read(Problem, path)
    with pytest.raises(InputError, match=says):
        load_rollouts("", save(tmp_path / f"c.{kind}", [{**row, "text": "t"} for row in rows]))


@anywhere
def test_questions_of_a_file_may_have_fewer_options_than_others(kind: str, tmp_path: Path) -> None:
    rows = [
        {"question": "Which?", "option_a": "x", "option_b": "y", "option_c": "z", "answer": "C"},
        {"question": "And?", "option_a": "x", "option_b": "y", "option_c": None, "answer": "y"},
        {"question": "How many?", "option_a": None, "option_b": None, "option_c": None, "answer": "7"},
    ]
    found = read(Problem, save(tmp_path / f"a.{kind}", rows))
    assert [(p.problem.partition("\n")[0], p.answer, p.verifier) for p in found] == [
        ("Which?", "C", "multiple_choice"), ("And?", "B", "multiple_choice"), ("How many?", "7", "math"),
    ]  # fmt: skip


def test_bytes_are_text_where_they_are_utf_8(tmp_path: Path) -> None:
    path = save(tmp_path / "a.parquet", [{"problem": "é?".encode(), "answer": b"1"}])
    assert read(Problem, path) == [Problem("0", "é?", "1")]
    path = save(tmp_path / "b.parquet", [{"problem_id": b"p", "texts": [b"a", "é".encode()]}])
    assert [r.text for r in read(Rollout, path)] == ["a", "é"]
    path = save(tmp_path / "c.parquet", [{"problem": b"\xe9?", "answer": b"1"}])
    with pytest.raises(InputError, match=r"c\.parquet: row 1: field 'problem': bytes that are not UTF-8"):
        read(Problem, path)


@pytest.mark.parametrize(
    ("given", "number"),
    [("3", 3), (" 3 ", 3), ("3.0", 3), (3.0, 3), ("-3", -3), (None, 0), (float("nan"), 0)],
)
def test_a_whole_number_as_tables_have_it(given: Any, number: int, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"problem_id": "p", "text": "t", "seed": given}])
    assert [r.seed for r in read(Rollout, path)] == [number]


@pytest.mark.parametrize(
    "given", ["", "three", "3.5", "²", "1_000", "9" * 5000, 3.5, True, [3], float("inf")]
)
def test_what_is_no_whole_number_is_refused(given: Any, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"problem_id": "p", "text": "t", "seed": given}])
    with pytest.raises(InputError, match=r"a\.jsonl:1: field 'seed': .*; expected a whole number"):
        read(Rollout, path)


def test_several_files_of_problems_keep_equal_ids_apart(tmp_path: Path) -> None:
    rows = [{"id": "1", "problem": "1?", "answer": "1"}]
    paths = ",".join(save(tmp_path / name, rows) for name in ("a.csv", "b.jsonl", "c.parquet"))
    assert [p.id for p in read(Problem, paths)] == ["a/1", "b/1", "c/1"]
    twice = write_rows(tmp_path / "d.jsonl", rows * 2)
    with pytest.raises(InputError, match=r"d\.jsonl:2: id '1' was already used at .*d\.jsonl:1"):
        read(Problem, f"{paths},{twice}")


def test_several_files_of_bundles_and_syntheses_keep_equal_ids_apart(tmp_path: Path) -> None:
    for name in "ab":
        write_rows(tmp_path / f"{name}.jsonl", [bundle_row(Problem("p", "1?", "1"), ["1"], "p/0")])
        write_rows(tmp_path / f"{name}.made.jsonl", [synthesis_row("p/0")])
    bundles = read(Bundle, f"{tmp_path}/a.jsonl,{tmp_path}/b.jsonl")
    assert [(b.id, b.problem_id) for b in bundles] == [("a/p/0", "a/p"), ("b/p/0", "b/p")]
    made = read(Synthesis, f"{tmp_path}/a.made.jsonl,{tmp_path}/b.made.jsonl")
    assert [s.bundle_id for s in made] == [b.id for b in bundles]


def test_several_files_of_rollouts_are_of_the_same_problems(tmp_path: Path) -> None:
    rows = [{"problem_id": "p", "text": str(i)} for i in range(2)]
    first, second = save(tmp_path / "a.csv", rows), save(tmp_path / "b.jsonl", rows)
    found = read(Rollout, f"{first}, {second}")
    assert [(r.problem_id, r.sample, r.text) for r in found] == [
        ("p", 0, "0"), ("p", 1, "1"), ("p", 2, "0"), ("p", 3, "1"),
    ]  # fmt: skip
    numbered = [{**row, "sample": i} for i, row in enumerate(rows)]
    first, second = save(tmp_path / "c.csv", numbered), save(tmp_path / "d.jsonl", numbered)
    with pytest.raises(InputError, match=r"d\.jsonl:1: id \('p', '', 0\) was already used at .*c\.csv:2"):
        read(Rollout, f"{first},{second}")


def test_several_files_of_rollouts_made_elsewhere(tmp_path: Path) -> None:
    rows = [{"question": "Say 3.", "answer": "3", "text": r"\boxed{3}"}]
    other = [{"problem": "Say 4.", "answer": "4", "texts": [r"\boxed{4}", r"\boxed{3}"]}, *rows]
    first, second = save(tmp_path / "a.csv", rows), save(tmp_path / "b.jsonl", other)
    problems, found = load_rollouts("", f"{first},{second}")
    assert [(p.id, p.problem) for p in problems] == [("0", "Say 3."), ("1", "Say 4.")]
    assert [(r.problem_id, r.verdict) for r in found] == [
        ("0", "correct"), ("1", "correct"), ("1", "incorrect"), ("0", "correct"),
    ]  # fmt: skip
    clashing = [
        save(tmp_path / f"{name}.jsonl", [{**row, "problem_id": "x"}])
        for name, row in (("c", rows[0]), ("d", other[0]))
    ]
    with pytest.raises(InputError, match=r"d\.jsonl:1: problem_id 'x' is used at .*c\.jsonl:1 for another"):
        load_rollouts("", ",".join(clashing))


@pytest.mark.parametrize(
    ("row", "columns", "says"),
    [
        ({"prompt": "1?", "answer": "1"}, {}, "no column 'problem'; .*is it 'prompt'"),
        ({"Problem": "1?", "answer": "1"}, {}, "no column 'problem'; .*is it 'Problem'"),
        ({"PROBLEMS": "1?", "answer": "1"}, {}, "no column 'problem'; .*is it 'PROBLEMS'"),
        (
            {"problem": "1?", "gold": "1"},
            {},
            """no column 'answer'; .*then set columns: {"answer": "gold"}""",
        ),
        ({"problem": "1?", "answerKey": "1"}, {}, "no column 'answer'; .*is it 'answerKey'"),
        ({"ask": "1?", "answer": "1"}, {"problem": "aks"}, "no column 'aks'; the columns are answer, ask"),
        ({"prompt": "1?", "answer": "1"}, {"problem": "promt"}, "no column 'promt'; .*is it 'prompt'"),
        ({"x": "1?", "answer": "1"}, {}, r"no column 'problem'; the columns are answer, x \(map names with"),
    ],
)
def test_a_missing_column_is_named_with_the_one_that_may_be_meant(
    row: dict[str, str], columns: dict[str, str], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"a\.jsonl:1: {says}"):
        read(Problem, write_rows(tmp_path / "a.jsonl", [row]), Columns.parse(columns))


def test_a_missing_column_of_a_table_is_missing_in_its_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("gold,problem\n5,2+3?\n")
    with pytest.raises(
        InputError, match=r"a\.csv: header: no column 'answer'; the columns are gold, problem"
    ):
        read(Problem, str(tmp_path / "a.csv"), Columns())
    parquet.write_table(pyarrow.table({"gold": ["5"], "problem": ["2+3?"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet: header: no column 'answer'"):
        read(Problem, str(tmp_path / "a.parquet"), Columns())


def test_rollouts_without_their_problems_want_the_problem_file(tmp_path: Path) -> None:
    """As those of `a2r explore`; but only where the recipe has such a key."""
    path = write_rows(tmp_path / "a.jsonl", [{"problem_id": "p", "text": "t"}])
    says = r"1: no column 'problem'; the columns are problem_id, text"
    with pytest.raises(InputError, match=rf"{says} .*; or name the problem file with `problems:`$"):
        load_rollouts("", path, Columns())
    with pytest.raises(InputError, match=rf"{says} \(is it 'text'\? then rename it to 'problem'\)$"):
        load_rollouts("", path)


def test_a_text_that_is_missing_is_named_with_its_like(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"problem": "1?", "answer": "1", "output": "t"}])
    with pytest.raises(InputError, match=r"1: no column 'text'; .*is it 'output'"):
        load_rollouts("", path)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ('{"probem": "ask"}', "columns: unknown key 'probem'; did you mean 'problem'"),
        ("problem=ask", r"columns 'problem=ask': expected column names, such as \{problem: prompt\}"),
        ('["problem"]', "expected column names"),
        ('{"problem": 3}', "expected column names"),
    ],
)
def test_columns_that_cannot_be_are_refused(columns: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Columns.parse(columns)


def test_a_mapped_column_that_no_file_has_is_named_with_its_like(tmp_path: Path) -> None:
    columns = Columns.parse({"source": "sets"})
    read(Problem, write_rows(tmp_path / "a.jsonl", [{"problem": "1?", "answer": "1", "set": "s"}]), columns)
    with pytest.raises(InputError, match="none of the files has a column 'sets'; did you mean 'set'"):
        columns.check_met()


def test_a_mapped_column_goes_before_the_own_name(tmp_path: Path) -> None:
    rows = [{"problem": "a template", "question": "1?", "answer": "a model's", "gold": "1"}]
    path = write_rows(tmp_path / "a.jsonl", rows)
    assert read(Problem, path, Columns({"problem": "question", "answer": "gold"})) == [
        Problem("0", "1?", "1")
    ]


def test_dates_and_times_of_parquet_are_as_one_writes_them(tmp_path: Path) -> None:
    """pandas keeps a date as its midnight, and a time of day has seconds that no answer names."""
    midnight = datetime(2020, 1, 2, tzinfo=UTC)
    golds = [midnight, midnight + timedelta(hours=3), midnight.date(), midnight.replace(hour=17).time()]
    found = []
    for gold in golds:
        (problem,) = read(Problem, save(tmp_path / "a.parquet", [{"problem": "When?", "answer": gold}]))
        found.append(problem.answer)
    assert found == ["2020-01-02", "2020-01-02 03:00:00+00:00", "2020-01-02", "17:00"]


def test_questions_may_come_with_references_in_any_format(tmp_path: Path) -> None:
    for kind in KINDS.values():
        path = save(tmp_path / f"a.{kind}", [{"question": "1?", "references": ["a", "b"], "id": "x"}])
        (question,) = read_questions(path, Columns())
        assert (question.problem.id, question.references) == ("x", ["a", "b"])


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1))
def test_any_problem_comes_back(
    tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    problems = [Problem(str(i), problem, answer) for i, (problem, answer) in enumerate(texts)]
    write(problems, folder / "a.jsonl")
    assert read(Problem, str(folder / "a.jsonl")) == problems
    assert read(Problem, save(folder / "a.csv", [vars(problem) for problem in problems])) == problems


@pytest.mark.parametrize(
    "columns", ['{"problem": "ask"}', "{problem: ask}", "{'problem': ask}", "problem: ask"]
)
def test_columns_are_named_as_in_a_recipe_or_in_json(columns: str) -> None:
    assert Columns.parse(columns) == Columns.parse({"problem": "ask"})


CHAT = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": r"so \boxed{1}"}]


@pytest.mark.parametrize("written", [json.dumps(CHAT), repr(CHAT), CHAT, json.dumps(CHAT[1])])
@pytest.mark.parametrize("field", ["problem", "text"])
def test_a_chat_is_no_text(written: Any, field: str, tmp_path: Path) -> None:
    """As tables and templates have it. A model would read brackets and roles."""
    row = {"problem": "1?", "answer": "1", "text": r"\boxed{1}", field: written}
    path = write_rows(tmp_path / "a.jsonl", [row])
    with pytest.raises(InputError, match=f"a.jsonl:1: field '{field}' holds chat messages; expected text"):
        with_their_problems(path, Columns())


def test_a_chat_in_a_list_of_texts_is_no_text(tmp_path: Path) -> None:
    row = {"problem": "1?", "answer": "1", "completions": [CHAT[1:], CHAT[1:]]}
    with pytest.raises(InputError, match="field 'completions' holds chat messages; expected text"):
        with_their_problems(write_rows(tmp_path / "a.jsonl", [row]), Columns())


@pytest.mark.parametrize(
    "text", ["[{1, 2}, {3}]", "[3]", '["role"]', "[{x}] is a set", '[{"a": 1}]', '{"role": 1}']
)
def test_other_brackets_are_text(text: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"problem": text, "answer": "1"}])
    assert [problem.problem for problem in read(Problem, path)] == [text]


@pytest.mark.parametrize("own", [True, False])
def test_a_number_of_tokens_is_not_negative(own: bool, tmp_path: Path) -> None:
    """-1 stands for an unknown one in some logs; costs and votes of equal tokens would count it."""
    row = {"problem": "1?", "answer": "1", "text": r"\boxed{1}", "problem_id": "0", "completion_tokens": -1}
    path = write_rows(tmp_path / "a.jsonl", [row])
    with pytest.raises(InputError, match="field 'completion_tokens': -1; expected 0 or more"):
        with_their_problems(path, Columns()) if own else read(Rollout, path)


def test_a_chat_that_a_model_wrote_is_its_text(tmp_path: Path) -> None:
    """One such rollout of an exploration must not end the stage that reads them."""
    row = {"problem_id": "0", "sample": 0, "text": json.dumps(CHAT), "verdict": "incorrect"}
    assert [one.text for one in read(Rollout, write_rows(tmp_path / "a.jsonl", [row]))] == [row["text"]]
