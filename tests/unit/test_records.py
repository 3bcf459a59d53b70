"""Reading and writing the four records: shapes of files, mapped columns, and errors that name file, line and
field.
"""

import json
import lzma
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from conftest import bundle_row, write_rows
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from a2r_train.data.read import Columns, read
from a2r_train.errors import InputError
from a2r_train.records import CHECK_VERDICT, Bundle, Problem, Reference, Rollout, Synthesis, as_row, write

ROLLOUT = Rollout("p", 0, "text \\boxed{1}", "1", "correct", 5, 7, "stop", "m", 3)
BUNDLE = Bundle(
    "p/0",
    "p",
    "1?",
    "1",
    "math",
    [Reference("a", "1", "correct", 3), Reference("b", "", "unparsable", 4, "m")],
    1,
    "1",
    "correct",
    "s",
)
SYNTHESIS = Synthesis("p/0", 0, "text", "1", "correct", 5, 7, "stop", "m", 3)


@pytest.mark.parametrize("record", [Problem("p", "1?", "1", "exact", "s"), ROLLOUT, BUNDLE, SYNTHESIS])
def test_every_record_comes_back_from_jsonl_and_parquet(record: Problem, tmp_path: Path) -> None:
    write([record], tmp_path / "a.jsonl")
    parquet.write_table(pyarrow.Table.from_pylist([as_row(record)]), tmp_path / "a.parquet")
    assert read(type(record), str(tmp_path / "a.jsonl")) == [record]
    assert read(type(record), str(tmp_path / "a.parquet")) == [record]


@given(st.lists(st.text().filter(lambda s: s.strip()), min_size=1, max_size=4))
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("texts") / "a.jsonl"
    records = [Problem(str(i), text, text) for i, text in enumerate(texts)]
    write(records, path)
    assert read(Problem, str(path)) == records


def test_gsm8k_rows_are_problems_as_they_are(tmp_path: Path) -> None:
    rows = [
        {"question": "Eggs?", "answer": "She sells 9 * 2.\n#### 1,018"},
        {"question": "More?", "answer": "#### -3"},
    ]
    found = read(Problem, write_rows(tmp_path / "a.jsonl", rows))
    assert [(p.id, p.problem, p.answer) for p in found] == [("0", "Eggs?", "1018"), ("1", "More?", "-3")]


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        *(("$1,234,567.50", "$1234567.50"), ("-12,000 eggs", "-12000 eggs"), ("1,2", "1,2")),
        *(("(3, 4)", "(3, 4)"), ("(100,200)", "(100,200)"), ("1,2345", "1,2345"), ("1,234, 5", "1,234, 5")),
    ],
)
def test_of_a_worked_answer_the_commas_of_thousands_alone_go(tmp_path: Path, gold: str, answer: str) -> None:
    rows = [{"question": "Eggs?", "answer": f"So, 1,000.\n#### {gold}"}]
    assert read(Problem, write_rows(tmp_path / "a.jsonl", rows))[0].answer == answer


def test_columns_map_names_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"task": "1?", "gold": 2}\n\n{"task": "2?", "gold": 3.5}\n')
    found = read(Problem, str(path), Columns({"problem": "task", "answer": "gold"}))
    assert [(p.id, p.problem, p.answer) for p in found] == [("0", "1?", "2"), ("1", "2?", "3.5")]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("1e-7", "0.0000001"),
        ("84.0", "84"),
        ("-0.50", "-0.5"),
        ("1e16", "10000000000000000"),
        ("-2.5e-9", "-0.0000000025"),
        ("5.0", "5"),
        ("0.1", "0.1"),
    ],
)
def test_a_number_is_written_out(number: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"problem": "1?", "answer": {number}}}\n')
    assert [p.answer for p in read(Problem, str(path))] == [text]


def test_columns_of_several_files_hold_where_they_are(tmp_path: Path) -> None:
    rows = [{"task": "1?", "gold": 2}, {"problem": "2?", "answer": 3}, {"question": "3?", "answer": "#### 4"}]
    paths = [write_rows(tmp_path / f"{name}.jsonl", [row]) for name, row in zip("abc", rows, strict=True)]
    columns = Columns({"problem": "task", "answer": "gold", "source": "sets"})
    found = read(Problem, ",".join(paths), columns)
    assert [(p.problem, p.answer) for p in found] == [("1?", "2"), ("2?", "3"), ("3?", "4")]
    with pytest.raises(InputError, match=r"columns: none of the files has a column 'sets'$"):
        columns.check_met()


@pytest.mark.parametrize(("columns", "hint"), [(None, ""), (Columns(), r" \(map names with `columns:`\)")])
def test_columns_are_named_where_the_user_has_that_key(
    columns: Columns | None, hint: str, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"problem": "1?", "x": "1"}])
    with pytest.raises(InputError, match=rf"no column 'answer'; the columns are problem, x{hint}$"):
        read(Problem, path, columns)
    path = write_rows(tmp_path / "b.jsonl", [{"problem": "1?", "gold": "1"}])
    remedy = 'set columns: {"answer": "gold"}' if columns else "rename it to 'answer'"
    with pytest.raises(InputError, match=rf"\(is it 'gold'\? then {remedy}\)$"):
        read(Problem, path, columns)


def test_a_mapped_column_that_a_file_has_is_in_all_its_rows(tmp_path: Path) -> None:
    rows = [{"task": "1?", "gold": 2, "answer": 5}, {"task": "2?", "answer": 3}]
    with pytest.raises(InputError, match=r"a\.jsonl:2: no column 'gold', which earlier rows have"):
        read(Problem, write_rows(tmp_path / "a.jsonl", rows), Columns({"problem": "task", "answer": "gold"}))
    rows = [{"task": "1?", "gold": None, "answer": 5}]  # what a model said, say
    with pytest.raises(InputError, match=r"a\.jsonl:1: column 'gold' has no value here"):
        read(Problem, write_rows(tmp_path / "a.jsonl", rows), Columns({"problem": "task", "answer": "gold"}))


def test_a_rollout_made_elsewhere_waits_for_our_verdict(tmp_path: Path) -> None:
    (found,) = read(Rollout, write_rows(tmp_path / "a.jsonl", [{"problem_id": 4, "text": "t"}]))
    assert (found.problem_id, found.verdict, found.sample) == ("4", CHECK_VERDICT, 0)


@pytest.mark.parametrize(
    ("lines", "place", "says"),
    [
        (
            ['{"problem": "1?", "answer": "1"}', "{broken", '{"problem": "1?", "answer": "1"}'],
            ":2",
            "not valid JSON",
        ),
        (['{"problem": "1?", "answer": "1"}', "[1]"], ":2", "expected an object"),
        (['{"problem": "1?"}'], ":1", "no column 'answer'"),
        (['{"problem": "1?", "answer": null}'], ":1", "column 'answer' has no value here"),
        (['{"problem": " ", "answer": "1"}'], ":1", "'problem' is empty"),
        (['{"problem": "1?", "answer": ["1"]}'], ":1", "expected text"),
        (['{"problem": "1?", "answer": true}'], ":1", "expected text"),
        (['{"id": "a", "problem": "1?", "answer": "1"}'] * 2, ":2", "ids must be unique"),
        (['{"question": "1?", "answer": "so\\n#### "}'], ":1", "'answer' is empty"),
        (['{"problem": "1?", "answer": ' + "9" * 5000 + "}"], ":1", "not valid JSON"),
        (['{"problem": "1?", "answer": ' + "[" * 100_000], ":1", "not valid JSON"),
        ([], "", "no rows"),
    ],
)
def test_errors_name_file_line_and_field(lines: list[str], place: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError) as error:
        read(Problem, str(path))
    assert f"{path}{place}" in str(error.value)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"), [("sample", "a"), ("sample", "1.5"), ("completion_tokens", 1.5), ("seed", True)]
)
def test_a_number_must_be_one(field: str, value: object, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{**asdict(ROLLOUT), field: value}])
    with pytest.raises(InputError, match=f"1: field '{field}'.*expected a whole number"):
        read(Rollout, path)


def test_half_a_character_is_shown_as_a_question_mark(tmp_path: Path) -> None:
    """JSON may hold one half of a surrogate pair, as where a text was cut; no tokenizer takes it."""
    (tmp_path / "a.jsonl").write_text(r'{"problem": "1 \ud83d \ud83d\ude00?", "answer": "1"}')
    assert [p.problem for p in read(Problem, str(tmp_path / "a.jsonl"))] == ["1 ? \U0001f600?"]


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"a\.parquet: cannot be read as Parquet"):
        read(Problem, str(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n_correct": 2}, "n_correct is 2, but 1 of the references are correct"),
        ({"references": [{"text": "1", "verdict": "correct", "tokens": -1}]}, "expected 0 or more"),
    ],
)
def test_a_bundle_agrees_with_itself(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    row = bundle_row(Problem("a", "1?", "1"), ["1", "2"])
    assert read(Bundle, write_rows(tmp_path / "good.jsonl", [row]))
    with pytest.raises(InputError, match=says):
        read(Bundle, write_rows(tmp_path / "bad.jsonl", [{**row, **changes}]))


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("a", "a reference is 'a'; expected an object with text, answer, verdict, tokens"),
        ({"answer": "1"}, "a reference without text"),
        ({"text": "a", "tokens": "many"}, "tokens: 'many'; expected a whole number"),
        ({"text": ["a"]}, "text: a list; expected text"),
        ({"text": "a", "verdict": "wrong"}, "verdict: 'wrong'; expected correct"),
        ({"text": "a", "token": 3}, "unknown key 'token'; did you mean 'tokens'"),
    ],
)
def test_references_are_checked_inside(reference: object, says: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{**asdict(BUNDLE), "references": [reference]}])
    with pytest.raises(InputError, match=f"1: field 'references': .*{says}"):
        read(Bundle, path)


def test_two_models_may_share_samples_and_one_may_not(tmp_path: Path) -> None:
    row = asdict(ROLLOUT)
    assert len(read(Rollout, write_rows(tmp_path / "a.jsonl", [row, {**row, "model": "n"}]))) == 2
    with pytest.raises(InputError, match="ids must be unique"):
        read(Rollout, write_rows(tmp_path / "b.jsonl", [row, row]))


@pytest.mark.parametrize(
    ("name", "says"),
    [("missing.jsonl", "no such"), ("missing.parquet", "no such"), (".", "is a folder; name")],
)
def test_a_missing_file_is_named(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        read(Problem, str(tmp_path / name))


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write([ROLLOUT], path)

    def broken() -> object:
        yield ROLLOUT
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(broken(), path)  # type: ignore[arg-type]
    assert [json.loads(line)["text"] for line in path.read_text().splitlines()] == [ROLLOUT.text]
    assert list(tmp_path.iterdir()) == [path]


def test_several_sets_of_problems_in_one(tmp_path: Path) -> None:
    rows = [{"problem": "1?", "answer": 1}, {"problem": "2?", "answer": 2, "source": "olympiad"}]
    first, second = (write_rows(tmp_path / name, rows) for name in ("first.jsonl", "second.v2.jsonl"))
    found = read(Problem, f"{first}, {second}")
    assert [p.id for p in found] == ["first/0", "first/1", "second/0", "second/1"]
    assert [p.source for p in found] == ["first", "olympiad", "second", "olympiad"]
    with pytest.raises(InputError, match="a second set named 'first'"):
        read(Problem, f"{first},{first}")
    with pytest.raises(InputError, match=r"no_such\.jsonl: no such file"):
        read(Problem, f"{first},no_such.jsonl")
    alone = write_rows(tmp_path / "a, b.jsonl", rows)
    assert [p.id for p in read(Problem, alone)] == ["0", "1"]


def test_a_compressed_file_is_read_as_it_is(tmp_path: Path) -> None:
    write([ROLLOUT], tmp_path / "a.jsonl")
    packed = lzma.compress((tmp_path / "a.jsonl").read_bytes())
    path = tmp_path / "a.jsonl.xz"
    path.write_bytes(packed)
    assert read(Rollout, str(path)) == [ROLLOUT]
    path.write_bytes(lzma.compress(b'{"problem": "1?", "answer": "1"}\n{broken'))
    with pytest.raises(InputError, match=r"a\.jsonl\.xz:2: not valid JSON"):
        read(Problem, str(path))
    middle = len(packed) // 2
    damaged = (
        packed[:-20],
        b"",
        b"{}",
        packed[:middle] + bytes([packed[middle] ^ 255]) + packed[middle + 1 :],
    )
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.jsonl\.xz: not a complete xz file"):
            read(Rollout, str(path))
    with pytest.raises(InputError, match="no such file"):
        read(Rollout, str(tmp_path / "b.jsonl.xz"))


@pytest.mark.parametrize(
    ("split", "ids"),
    [(":train", ["0", "1", "2"]), (":train[1:3]", ["1", "2"]), (":default:train[:1]", ["0"])],
)
def test_a_data_set_of_the_hub_and_a_slice_of_it(
    split: str, ids: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasets` takes a folder of that name for the repository."""
    write(
        [Problem(str(i), f"What is {i}?", str(i)) for i in range(3)],
        tmp_path / "owner" / "name" / "train.jsonl",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    assert [p.id for p in read(Problem, f"owner/name{split}")] == ids
