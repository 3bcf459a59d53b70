"""Files as rows: every format and compression, and what is broken, named with its line and a remedy."""

import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from a2r_train.data.files import rows
from a2r_train.errors import InputError
from a2r_train.paths import paths_in

# What a text file may hold: no half of a surrogate pair.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def found(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in rows(str(path))]


def lines(path: Path) -> list[int]:
    """The lines that the places name."""
    return [int(place.rpartition(":")[2]) for place, _ in rows(str(path))]


def refusal(path: Path, content: bytes) -> str:
    """What is said of a file, without its folder."""
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        found(path)
    says = str(error.value)
    assert says.startswith(str(path))
    assert "\n" not in says
    return says.removeprefix(f"{path.parent}/")


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t"), ("A.CSV", ",")])
def test_a_table_has_quotes_line_breaks_and_empty_cells(name: str, delimiter: str, tmp_path: Path) -> None:
    table = [
        ["problem", "answer", "source"],
        ['Say "a",\tb', "1", ""],
        ["Two\nlines\r\nor\rmore", " 2 ", "x\n"],
        ["3?", "", "y"],
    ]
    with open(tmp_path / name, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(table)
    assert [list(row.values()) for row in found(tmp_path / name)] == [
        [cell or None for cell in cells] for cells in table[1:]
    ]
    assert lines(tmp_path / name) == [2, 3, 8]  # each row where it begins


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system_and_blank_ones_are_none(end: str, tmp_path: Path) -> None:
    text = end.join(["", "a,b", "", "1,2", "", "3,4"])
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert found(tmp_path / "a.csv") == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert lines(tmp_path / "a.csv") == [4, 6]
    (tmp_path / "a.jsonl").write_bytes(end.join(["", '{"a": 1}', " ", '{"a": 2}']).encode())
    assert lines(tmp_path / "a.jsonl") == [2, 4]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n3\n", "a.csv:3: 1 cells; the header has 2"),
        ('a,b\n"1\n2",2\n1,2,3,4\n', "a.csv:4: 4 cells; the header has 2"),
        (
            'a,b\n1,2\n"open,3\n4,5\n',
            "a.csv:3: not valid CSV (unexpected end of data), in the row that begins",
        ),
        ('a,b\n1,2\n"x\ny"z,3\n', "a.csv:3: not valid CSV (',' expected after '\"'), in the row that begins"),
        ("a,b,a\n1,2,3\n", "a.csv:1: columns 1 and 3 are both 'a'; rename one"),
        (",a,b\n0,1,2\n", "a.csv:1: column 1 has no name; name it, or leave it out (pandas: index=False)"),
        ("a, \n0,1\n", "a.csv:1: column 2 has no name; "),
        ("a;b\n1;2\n", "a.csv:1: one column, 'a;b', so the file looks separated by semicolons; save it"),
        ('a;b\n"x;y";2\n', "a.csv:1: one column, 'a;b', so the file looks separated by semicolons; save it"),
        ("a\tb\n1\t2\n", "a.csv:1: one column, 'a\\tb', so the file looks separated by tabs; save it"),
    ],
)
def test_a_broken_table_is_named_with_the_line_of_its_row(text: str, says: str, tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.csv", text.encode()).startswith(says)


def test_a_long_cell_is_one(tmp_path: Path) -> None:
    """The limit of the csv module is 131,072 characters, which a solution may have."""
    (tmp_path / "a.csv").write_text("a,b\n" + "x" * 300_000 + ",1\n")
    assert [len(row["a"]) for row in found(tmp_path / "a.csv")] == [300_000]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_has_no_rows(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert found(tmp_path / name) == []


@pytest.mark.parametrize(("pack", "ending"), [(gzip.compress, ".gz"), (lzma.compress, ".xz"), (bytes, "")])
@pytest.mark.parametrize(
    ("kind", "text"), [(".jsonl", '{"é": "1"}\n{"é": "2"}\n'), (".csv", "é\n1\n2\n"), (".tsv", "é\n1\n2\n")]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_files_are_compressed_or_not_and_may_begin_with_a_byte_order_mark(
    pack: Callable[[bytes], bytes], ending: str, kind: str, text: str, encoding: str, tmp_path: Path
) -> None:
    for name in (f"a{kind}{ending}", f"A{kind}{ending}".upper()):
        (tmp_path / name).write_bytes(pack(text.encode(encoding)))
        assert found(tmp_path / name) == [{"é": "1"}, {"é": "2"}]


@pytest.mark.parametrize(("pack", "kind"), [(gzip.compress, "gz"), (lzma.compress, "xz")])
def test_what_is_not_wholly_compressed_is_refused(
    pack: Callable[[bytes], bytes], kind: str, tmp_path: Path
) -> None:
    lines = b"".join(json.dumps({"a": str(i) * 50}).encode() + b"\n" for i in range(300))
    packed = pack(lines)
    damaged = packed[:-12] + bytes([packed[-12] ^ 255]) + packed[-11:]
    for content in (packed[:-20], packed[: len(packed) // 2], lines, damaged):
        says = refusal(tmp_path / f"a.jsonl.{kind}", content)
        assert says.startswith(f"a.jsonl.{kind}: not a complete {kind} file (")
        assert says.endswith("); fetch or compress it again")


@pytest.mark.parametrize("before", [0, 1, 5000])
@pytest.mark.parametrize(("name", "row"), [("a.csv", "caf\xe9,1\n"), ("a.jsonl", '{"a": "caf\xe9"}\n')])
def test_latin_1_is_refused_at_its_line(name: str, row: str, before: int, tmp_path: Path) -> None:
    """However far the decoder has read ahead of it."""
    head = "a,b\n" if name == "a.csv" else "{}\n"
    content = head + row.replace("\xe9", "e") * before + row + row.replace("\xe9", "e") * 3
    assert refusal(tmp_path / name, content.encode("latin-1")) == (
        f"{name}:{before + 2}: byte 0xe9 is not UTF-8; save the file as UTF-8 "
        "(from Latin-1: iconv -f latin1 -t utf8)"
    )
    packed = gzip.compress(content.encode("latin-1"))
    assert refusal(tmp_path / f"{name}.gz", packed).startswith(f"{name}.gz:{before + 2}: byte 0xe9 is not")


def test_a_character_that_is_cut_at_the_end_is_refused(tmp_path: Path) -> None:
    content = 'a\n1\n"é'.encode()[:-1]
    assert refusal(tmp_path / "a.csv", content).startswith("a.csv:3: byte 0xc3 is not UTF-8")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(("name", "text"), [("a.csv", "problem,answer\n1?,é\n"), ("a.jsonl", '{"a": "1"}\n')])
def test_utf_16_is_one_clear_line(encoding: str, name: str, text: str, tmp_path: Path) -> None:
    says = f"{name}: is UTF-16; save the file as UTF-8 (iconv -f utf16 -t utf8)"
    assert refusal(tmp_path / name, text.encode(encoding)) == says


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (gzip.compress(b'{"a": "1"}\n'), "is gzip; give it the ending .gz"),
        (lzma.compress(b'{"a": "1"}\n'), "is xz; give it the ending .xz"),
        (b"PAR1\x15\x04\x15\0\xff", "is Parquet; give it the ending .parquet"),
        (
            b"ARROW1\0\0\xff\xff\xff\xff",
            "is Arrow; save its rows as JSONL or Parquet",
        ),
        (b"\xff\xff\xff\xff\x10\0\0\0", "is Arrow; save"),
        (b"PK\x03\x04\x14\0\xff", "is a zip archive or a workbook; save"),
        (b"problem,answer\0\n1?,2\n", "holds a zero byte, so it is no text"),
    ],
)
def test_a_binary_file_is_called_what_it_is(content: bytes, says: str, name: str, tmp_path: Path) -> None:
    assert refusal(tmp_path / name, content).startswith(f"{name}: {says}")


def test_a_list_in_json_is_told_how_to_become_lines(tmp_path: Path) -> None:
    for text in ('[{"a": "1"}, {"a": "2"}]', '[\n {"a": "1"}\n]\n'):
        says = refusal(tmp_path / "a.json", text.encode())
        assert says.startswith("a.json:1: ")
        assert says.endswith(" (from a file with one list of objects: jq -c '.[]' OLD > NEW)")


def test_a_second_header_is_refused(tmp_path: Path) -> None:
    """As where two tables were joined by `cat`: it would be one more problem, "problem", whose answer is
    "answer".
    """
    table = "problem,answer\n1?,1\n"
    assert refusal(tmp_path / "a.csv", (table * 2).encode()) == (
        "a.csv:3: the header once more, as where files were joined; remove this line"
    )


def test_a_parquet_file_that_is_broken_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.Table.from_pylist([{"a": str(i)} for i in range(500)])
    parquet.write_table(table, path, compression="snappy")
    good = path.read_bytes()
    for content in (b"", b"PAR1", good[:-30], good[:4] + good[-8:]):
        assert refusal(path, content).startswith("a.parquet: cannot be read as Parquet (")
    latin = pyarrow.Array.from_buffers(
        pyarrow.string(),
        1,
        [None, pyarrow.array([0, 1], pyarrow.int32()).buffers()[1], pyarrow.py_buffer(b"\xe9")],
    )
    parquet.write_table(pyarrow.table({"a": latin}), path)
    assert refusal(path, path.read_bytes()).startswith("a.parquet: cannot be read as Parquet (")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('{"problem": "1+1?", "answer": "2", "answer": "3"}', "answer"),
        ('{"id": "a", "problem": "1+1?", "answer": "2", "id": "a"}', "id"),
        ('{"problem": "1+1?", "answer": "2", "metadata": {"level": 1, "level": 2}}', "level"),
    ],
)
def test_a_key_that_is_there_twice_is_refused_at_its_line(line: str, key: str, tmp_path: Path) -> None:
    says = f"a.jsonl:2: not valid JSON (the key {key!r} is there twice); expected one object per line"
    assert refusal(tmp_path / "a.jsonl", f'{{"problem": "?"}}\n{line}\n'.encode()) == says


def test_two_columns_of_one_name_are_refused_in_parquet(tmp_path: Path) -> None:
    cells = [pyarrow.array(["1?"]), pyarrow.array(["4"]), pyarrow.array(["5"])]
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_arrays(cells, names=["problem", "answer", "answer"]), path)
    says = "a.parquet: header: two columns are called 'answer'; rename or drop one"
    assert refusal(path, path.read_bytes()) == says


@pytest.mark.parametrize("kind", [pyarrow.float16(), pyarrow.float32(), pyarrow.float64()])
def test_floats_of_parquet_are_the_decimals_that_were_written(kind: pyarrow.DataType, tmp_path: Path) -> None:
    given = [0.1, 2.5, -0.3, None, 7.0, float("inf")]
    cells = pyarrow.array([None if x is None else np.float16(x) for x in given], pyarrow.float16())
    cells = cells if kind == pyarrow.float16() else pyarrow.array(given, kind)
    parquet.write_table(pyarrow.table({"answer": cells, "text": ["t"] * 6}), tmp_path / "a.parquet")
    assert found(tmp_path / "a.parquet") == [{"answer": x, "text": "t"} for x in given]


def test_a_name_with_a_comma_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "a, b.jsonl").write_text("")
    assert paths_in(str(tmp_path / "a, b.jsonl")) == [str(tmp_path / "a, b.jsonl")]
    assert paths_in(" a.jsonl , owner/name:train[1:2],") == ["a.jsonl", "owner/name:train[1:2]"]


@pytest.mark.parametrize("name", ["b.csv", "b.jsonl.gz", "B.CSV.XZ", "b.parquet", "a/b/c", "b"])
def test_a_file_that_is_missing_is_not_sought_on_the_hub(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no such file; expected a \.jsonl, \.json, \.csv, \.tsv, \.parquet"
    ):
        found(tmp_path / name)


@given(st.lists(st.dictionaries(TEXTS, TEXTS, min_size=1), min_size=1))
def test_any_text_comes_back_from_jsonl(
    tmp_path_factory: pytest.TempPathFactory, table: list[dict[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    for ascii_alone in (False, True):
        text = "".join(json.dumps(row, ensure_ascii=ascii_alone) + "\n" for row in table)
        path.write_text(text, encoding="utf-8", newline="")
        assert found(path) == table


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1), st.sampled_from([",", "\t"]))
def test_any_text_comes_back_from_a_table(
    tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str, str]], delimiter: str
) -> None:
    """But an empty one, which a table cannot tell from none."""
    path = tmp_path_factory.mktemp("any") / ("a.csv" if delimiter == "," else "a.tsv")
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *table])
    path.write_bytes(text.getvalue().encode())
    assert found(path) == [{"a": a or None, "b": b or None} for a, b in table]
