"""Files and data sets as rows: JSONL, CSV, TSV, Parquet, also compressed, and data sets of the hub.

A data set on the hub is `owner/name`, `owner/name:split` or `owner/name:config:split`, and a split may be a
slice, `train[100:200]`. `gym.py` draws problems of Reasoning Gym. Every error names the file and the line.
"""

from __future__ import annotations

import ast
import codecs
import csv
import gzip
import io
import json
import lzma
import os
import re
import tokenize
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import IO, Any

from a2r_train.data import gym
from a2r_train.errors import InputError
from a2r_train.paths import FORMATS, paths_in, shards

COMPRESSED = {".gz": gzip.open, ".xz": lzma.open}
DELIMITERS = {".csv": ",", ".tsv": "\t"}
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# How files begin that are no text, what they are, and what to do with them.
AS_ROWS = "save its rows as JSONL or Parquet"
SIGNATURES = {
    b"\x1f\x8b": ("gzip", "give it the ending .gz"),
    b"\xfd7zXZ\0": ("xz", "give it the ending .xz"),
    b"PAR1": ("Parquet", "give it the ending .parquet"),
    b"ARROW1": ("Arrow", AS_ROWS),
    b"\xff\xff\xff\xff": ("Arrow", AS_ROWS),
    b"PK\x03\x04": ("a zip archive or a workbook", AS_ROWS),
    b"BZh": ("bzip2", "unpack it, or compress it with gzip or xz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unpack it, or compress it with gzip or xz"),
}
UNPACKED = 4  # times the size of compressed files
PARQUET_ROWS = 1024  # read at a time
FLOAT_DIGITS = 17  # significant digits that name one float
MAX_CELL_CHARACTERS = 2**27  # of a CSV; the csv module's own limit of 131,072 is below one long solution
_SIDE_BY_SIDE = re.compile(r"""['"]\s*['"]""")


def literal(text: str) -> Any:
    """What a cell of a table holds: JSON, or a list or object as Python writes it; else the text itself.

    A list without commas is a text: so pandas writes arrays of numpy, and Python would join their texts.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if not text.lstrip().startswith(("[", "{", "(")):
        return text
    if _SIDE_BY_SIDE.search(text) and _joins_texts(text.strip()):
        return text
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    return list(found) if isinstance(found, tuple) else found


def _joins_texts(text: str) -> bool:
    """Whether two texts stand side by side without a comma."""
    before = tokenize.ENCODING
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == before == tokenize.STRING:
                return True
            if token.type not in (tokenize.NL, tokenize.NEWLINE):
                before = token.type
    except (tokenize.TokenError, SyntaxError):
        return False  # which ast says as well
    return False


def _exact(text: str) -> float | Decimal:
    """A number of JSON; with more digits than a float holds, a decimal: a gold answer keeps them all."""
    digits = re.sub(r"[eE].*|[-.]", "", text).strip("0")
    return Decimal(text) if len(digits) > FLOAT_DIGITS else float(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError for a key that is there twice, as only the last would count."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return found


@dataclass(frozen=True)
class Slice:
    """A part of a file that is read on its own: bytes of JSONL, row groups of Parquet, or another file as a
    whole.

    `first` is the number of its first line or row. `stop` 0 means to the end.
    """

    file: str
    start: int = 0
    stop: int = 0
    first: int = 1

    def place(self, number: int) -> str:
        """How an error names a line or row of the file."""
        return f"{self._named}{number}"

    @property
    def size(self) -> int:
        """Approximate bytes; 0 for data on the hub."""
        if self.stop and format_of(self.file) != ".parquet":
            return self.stop - self.start
        return os.path.getsize(self.file) if os.path.isfile(self.file) else 0

    @cached_property
    def _named(self) -> str:
        by_row = format_of(self.file) == ".parquet" or not os.path.isfile(self.file)
        return f"{self.file}: row " if by_row else f"{self.file}:"


def rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, row) of one file, data set, or set of shards.

    Raises InputError for one that is missing or broken.
    """
    for part in map(Slice, shards(path)):
        for number, row in rows_of(part):
            yield part.place(number), row


def size_of(value: str) -> int:
    """Approximate unpacked bytes of the files that a recipe names; 0 for data on the hub."""
    files = [file for path in paths_in(value) for file in shards(path) if os.path.isfile(file)]
    packed = (*COMPRESSED, ".parquet")
    return sum(os.path.getsize(file) * (UNPACKED if file.endswith(packed) else 1) for file in files)


def slices(path: str, size: int) -> Iterator[Slice]:
    """The shards of one set, cut into slices of about `size` bytes where their format allows."""
    for file in shards(path):
        if not os.path.isfile(file) or gym.is_gym(file):
            yield Slice(file)
        elif format_of(file) == ".parquet":
            yield from _row_groups(file, size)
        elif format_of(file) in DELIMITERS or _is_compressed(file):
            yield Slice(file)
        else:
            yield from _byte_ranges(file, size)


def rows_of(part: Slice) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line or row number, row) of a slice. Raises InputError as `rows` does."""
    path, kind = part.file, format_of(part.file)
    if gym.is_gym(path):
        yield from enumerate((row for _, row in gym.rows(path)), 1)
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
        yield from _parquet_rows(part)
    elif kind in DELIMITERS:
        yield from _table_rows(path, DELIMITERS[kind])
    else:
        yield from _jsonl_rows(part)


def _is_compressed(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in COMPRESSED


def _byte_ranges(path: str, size: int) -> Iterator[Slice]:
    """Ranges that end with a line."""
    start = stop = 0
    first = line = 1
    try:
        with open(path, "rb") as file:
            while block := file.read(size):
                block += file.readline()
                stop, line = stop + len(block), line + block.count(b"\n")
                yield Slice(path, start, stop, first)
                start, first = stop, line
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _row_groups(path: str, size: int) -> Iterator[Slice]:
    start, held, first, rows_before = 0, 0, 1, 1
    metadata = _parquet_file(path).metadata
    for group in range(metadata.num_row_groups):
        held += metadata.row_group(group).total_byte_size
        rows_before += metadata.row_group(group).num_rows
        if held >= size or group + 1 == metadata.num_row_groups:
            yield Slice(path, start, group + 1, first)
            start, held, first = group + 1, 0, rows_before


def format_of(path: str) -> str:
    """The ending that tells the format, without the ending of a compression; "" for any other."""
    path = path.lower()
    for ending in COMPRESSED:
        path = path.removesuffix(ending)
    ending = os.path.splitext(path)[1]
    return ending if ending in FORMATS else ""


def _parquet_file(path: str) -> Any:
    from pyarrow import ArrowException, parquet

    try:
        return parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise _no_parquet(path, error) from None


def _check_unique(names: Sequence[str], path: str) -> None:
    """Raise InputError for two columns with one name: a row would hold only the last of them."""
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: header: two columns are called {name!r}; rename or drop one")


def _no_parquet(path: str, error: Exception) -> InputError:
    reason = next(iter(str(error).splitlines()), "")
    return InputError(f"{path}: cannot be read as Parquet ({reason})")


def _parquet_rows(part: Slice) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows in batches, so that a long file is never in memory as a whole."""
    from pyarrow import ArrowException

    file = _parquet_file(part.file)
    _check_unique(file.schema_arrow.names, part.file)
    narrow = _narrow_columns(file.schema_arrow)
    groups = list(range(part.start, part.stop or file.metadata.num_row_groups))
    batches, number = file.iter_batches(PARQUET_ROWS, row_groups=groups), part.first
    while True:
        try:
            batch = next(batches, None)
            found = [] if batch is None else batch.to_pylist()
        except (ArrowException, OSError, UnicodeDecodeError) as error:
            raise _no_parquet(part.file, error) from None
        if batch is None:
            return
        yield from enumerate((_widened(row, narrow) for row in found), number)
        number += len(found)


def _narrow_columns(schema: Any) -> dict[str, Any]:
    """The columns of an Arrow schema that hold floats of 16 or 32 bits, with a function that makes one."""
    import numpy as np
    import pyarrow as pa

    kinds = {pa.float16(): np.float16, pa.float32(): np.float32}
    return {column.name: kinds[column.type] for column in schema if column.type in kinds}


def _widened(row: dict[str, Any], narrow: Mapping[str, Any]) -> dict[str, Any]:
    """The row with the shortest decimals that name its narrow floats: 0.1 is 0.10000000149011612 as a wide
    one, and no answer equals that.
    """
    wide = {name: row[name] for name in narrow if isinstance(row[name], float)}
    return row | {name: float(str(narrow[name](value))) for name, value in wide.items()}


def _table_rows(path: str, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a CSV or TSV with a header, each at the line where it begins; an empty cell is None."""
    names: list[str] = []
    for line, cells in _cells(path, delimiter):
        place = f"{path}:{line}"
        if not names:
            names = _header(cells, place)
        elif cells == names:
            raise InputError(f"{place}: the header once more, as where files were joined; remove this line")
        elif len(cells) != len(names):
            raise InputError(f"{place}: {len(cells)} cells; the header has {len(names)}")
        else:
            yield line, {name: cell or None for name, cell in zip(names, cells, strict=True)}


def header_of(place: str) -> str:
    """Where the names of a row's columns stand: in the header of a table, else in the row itself."""
    path = re.sub(r":( row )?\d+$", "", place)
    return f"{path}: header" if format_of(path) in (*DELIMITERS, ".parquet") else place


def _cells(path: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each row that is not blank. A row over several lines is named by its first line, also
    in errors: an unclosed quote is only found at the end of the file.
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
    """Raises InputError for a column without a unique name, and if all names are in one cell."""
    for mark, called in OTHER_SEPARATORS.items() if len(names) == 1 else ():
        if mark in names[0]:
            raise InputError(
                f"{place}: one column, {names[0][:80]!r}, so the file looks separated by {called}; save it "
                "with commas as .csv, or with tabs as .tsv "
                f"(pandas: read_csv(old, sep={mark!r}).to_csv(new, index=False))"
            )
    for number, name in enumerate(names, 1):
        if not name.strip():
            raise InputError(
                f"{place}: column {number} has no name; name it, or leave it out (pandas: index=False)"
            )
        if names.index(name) + 1 != number:
            raise InputError(
                f"{place}: columns {names.index(name) + 1} and {number} are both {name!r}; rename one"
            )
    return names


def _jsonl_rows(part: Slice) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_lines_of(part), part.first):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_float=_exact, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:  # also endless digits and endless nesting
            reason = getattr(error, "msg", str(error))
            says = f"not valid JSON ({reason}); expected one object per line"
            raise InputError(f"{part.place(number)}: {says}{_of_a_list(line)}") from None
        if not isinstance(row, dict):
            says = f"a JSON {type(row).__name__}; expected an object"
            raise InputError(f"{part.place(number)}: {says}{_of_a_list(line)}")
        yield number, row


def _of_a_list(line: str) -> str:
    return " (from a file with one list of objects: jq -c '.[]' OLD > NEW)" if line[:1] == "[" else ""


def _lines_of(part: Slice) -> Iterator[str]:
    """The lines of a slice, read from its bytes alone if it is one of several."""
    if not part.stop:
        yield from _lines(part.file)
        return
    with _opened(part.file, "rb") as file:
        file.seek(part.start)
        data = file.read(part.stop - part.start)
    if part.start == 0 and b"\0" in data.partition(b"\n")[0]:  # as every other byte of ASCII in UTF-16
        raise _no_text(part.file)
    try:
        yield from io.StringIO(data.decode("utf-8-sig" if part.start == 0 else "utf-8"), newline="")
    except UnicodeDecodeError:
        raise _undecodable(part.file) from None


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
                    raise _no_text(path)
                yield line
    except UnicodeDecodeError:
        raise _undecodable(path) from None
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        kind = os.path.splitext(path)[1].removeprefix(".")
        raise InputError(
            f"{path}: not a complete {kind} file ({str(error).rstrip('.')}); fetch or compress it again"
        ) from None


def _undecodable(path: str) -> InputError:
    """The error for a file that is not UTF-8. It names the line, which a decoder that reads ahead cannot."""
    with _opened(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1 and (line.startswith((*UTF_16_MARKS, *SIGNATURES)) or b"\0" in line):
                return _no_text(path)
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return InputError(
                    f"{path}:{number}: byte 0x{line[error.start]:02x} is not UTF-8; save the file as UTF-8 "
                    "(from Latin-1: iconv -f latin1 -t utf8)"
                )
    return InputError(f"{path}: changed while it was being read; run the command again")


def _no_text(path: str) -> InputError:
    """The error for a file that holds bytes which no text in UTF-8 has."""
    with _opened(path, "rb") as file:
        head = file.read(64)
    for begin, (kind, remedy) in SIGNATURES.items():
        if head.startswith(begin):
            return InputError(f"{path}: is {kind}; {remedy}")
    if head.startswith(UTF_16_MARKS) or 3 * head.count(b"\0") > len(head):
        return InputError(f"{path}: is UTF-16; save the file as UTF-8 (iconv -f utf16 -t utf8)")
    return InputError(f"{path}: holds a zero byte, so it is no text; {AS_ROWS}")


def _hub_rows(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    from datasets import load_dataset

    name, *parts = re.split(r":(?![^\[]*\])", path)  # not at the colon of a slice
    split = parts.pop() if parts else "train"
    try:
        dataset = load_dataset(name, *parts, split=split)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a file, and the hub says: {str(error).splitlines()[0]}") from None
    narrow = _narrow_columns(dataset.features.arrow_schema)
    for number, row in enumerate(dataset, 1):
        yield number, _widened(dict(row), narrow)
