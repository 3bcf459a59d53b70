"""Files and data sets as rows: JSONL, CSV, TSV, Parquet, also compressed, and data sets of the hub.

A data set on the hub is `owner/name`, `owner/name:split` or `owner/name:config:split`, and a split may be a
slice, `train[100:200]`. `gym.py` draws problems of Reasoning Gym. Every error names the file and the line.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import lzma
import os
import re
import zlib
from collections.abc import Iterator
from typing import IO, Any

from a2r_train.data import gym
from a2r_train.errors import InputError

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
COMPRESSED = {".gz": gzip.open, ".xz": lzma.open}
DELIMITERS = {".csv": ",", ".tsv": "\t"}
UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MAX_CELL_CHARACTERS = 2**27  # of a CSV; the csv module's own limit of 131,072 is below one long solution


def paths_in(value: str) -> list[str]:
    """The files and data sets that a recipe names, comma-separated; a file whose name has a comma is one."""
    if os.path.exists(value) or value.startswith(gym.PREFIX):
        return [value]
    return [path for part in value.split(",") if (path := part.strip())]


def rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, row) of one file or data set. Raises InputError for one that is missing or broken."""
    kind = format_of(path)
    if gym.is_gym(path):
        yield from gym.rows(path)
        return
    if os.path.isdir(path):
        raise InputError(f"{path}: is a folder; name a file in it, such as {path.rstrip('/')}/train.jsonl")
    if not os.path.isfile(path):
        if kind or path.count("/") != 1 or path.lower().endswith(tuple(COMPRESSED)):
            raise InputError(
                f"{path}: no such file; expected a {', '.join(FORMATS)} file, or a data set of the hub"
            )
        yield from _hub_rows(path)
    elif kind == ".parquet":
        yield from _parquet_rows(path)
    elif kind in DELIMITERS:
        yield from _table_rows(path, DELIMITERS[kind])
    else:
        yield from _jsonl_rows(path)


def format_of(path: str) -> str:
    """The ending that tells the format, without that of a compression; "" for any other."""
    path = path.lower()
    for ending in COMPRESSED:
        path = path.removesuffix(ending)
    ending = os.path.splitext(path)[1]
    return ending if ending in FORMATS else ""


def _parquet_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(path).to_pylist()
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise InputError(f"{path}: cannot be read as Parquet ({reason})") from None
    for number, row in enumerate(table, 1):
        yield f"{path}: row {number}", row


def _table_rows(path: str, delimiter: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a CSV or TSV with a header, each at the line where it begins; an empty cell is None."""
    names: list[str] = []
    for line, cells in _cells(path, delimiter):
        place = f"{path}:{line}"
        if not names:
            names = _header(cells, place)
        elif len(cells) != len(names):
            raise InputError(f"{place}: {len(cells)} cells; the header has {len(names)}")
        else:
            yield place, {name: cell or None for name, cell in zip(names, cells, strict=True)}


def _cells(path: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each row that is not blank. A row of several lines is where it begins, and so is its
    error: an open quote is found at the end of the file.
    """
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    line = 1
    reader = csv.reader(_lines(path), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}:{line}: not valid CSV ({error}), in the row that begins here") from None


def _header(names: list[str], place: str) -> list[str]:
    """Raises InputError for a column without a name of its own."""
    for number, name in enumerate(names, 1):
        if not name.strip():
            raise InputError(
                f"{place}: column {number} has no name; name it, or leave it out (pandas: index=False)"
            )
        if names.index(name) + 1 != number:
            raise InputError(
                f"{place}: columns {names.index(name) + 1} and {number} are both {name!r}; name them apart"
            )
    return names


def _jsonl_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(_lines(path), 1):
        place = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # also endless digits and endless nesting
            reason = getattr(error, "msg", str(error))
            raise InputError(f"{place}: not valid JSON ({reason}); expected one object a line") from None
        if not isinstance(row, dict):
            raise InputError(f"{place}: a JSON {type(row).__name__}; expected an object")
        yield place, row


def _opened(path: str, mode: str = "rt", **how: str) -> IO[Any]:
    """A file, decompressed."""
    opener: Any = COMPRESSED.get(os.path.splitext(path)[1].lower(), open)
    try:
        opened: IO[Any] = opener(path, mode, **how)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return opened


def _lines(path: str) -> Iterator[str]:
    """The lines of a text file with their ends, without a byte order mark."""
    try:
        with _opened(path, encoding="utf-8-sig", newline="") as file:
            for number, line in enumerate(file, 1):
                if number == 1 and "\0" in line:  # as every other byte of ASCII in UTF-16
                    raise _utf16(path)
                yield line
    except UnicodeDecodeError:
        raise _undecodable(path) from None
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        kind = os.path.splitext(path)[1].removeprefix(".")
        raise InputError(
            f"{path}: not a whole {kind} file ({str(error).rstrip('.')}); fetch or compress it again"
        ) from None


def _undecodable(path: str) -> InputError:
    """The error of a file that is not UTF-8. It names the line, which a decoder that reads ahead does not."""
    with _opened(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1 and (line.startswith(UTF_16_MARKS) or b"\0" in line):
                return _utf16(path)
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return InputError(
                    f"{path}:{number}: byte 0x{line[error.start]:02x} is not UTF-8; save the file as UTF-8 "
                    "(from Latin-1: iconv -f latin1 -t utf8)"
                )
    return InputError(f"{path}: changed while it was read; run it again")


def _utf16(path: str) -> InputError:
    return InputError(f"{path}: is UTF-16; save the file as UTF-8 (iconv -f utf16 -t utf8)")


def _hub_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from datasets import load_dataset

    name, *parts = re.split(r":(?![^\[]*\])", path)  # not at the colon of a slice
    split = parts.pop() if parts else "train"
    try:
        dataset = load_dataset(name, *parts, split=split)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a file, and the hub says: {str(error).splitlines()[0]}") from None
    for number, row in enumerate(dataset, 1):
        yield f"{path}: row {number}", dict(row)
