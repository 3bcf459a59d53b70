"""Rollouts and their problems, read in slices by several processes into a store keyed by problem."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from a2r_train.data.asked import Asked
from a2r_train.data.choices import Choices, note_choice
from a2r_train.data.files import Slice, rows_of, slices
from a2r_train.data.processes import Rate, mapped
from a2r_train.data.read import (
    Columns,
    Row,
    is_untested,
    judged_by,
    lacks_column,
    name_of,
    records_in,
    stream,
    used_twice,
    warn_untested,
)
from a2r_train.data.rollouts import key_beside, of_another, problem_beside, samples_in
from a2r_train.data.spill import (
    PROBLEM,
    PROBLEMS,
    ROLLOUTS,
    Pile,
    columns_of,
    distinct,
    key_of,
    mark,
    metadata_text,
)
from a2r_train.errors import InputError
from a2r_train.paths import paths_in
from a2r_train.records import Problem, Rollout
from a2r_train.verify import check_contradictions
from a2r_train.verify.slips import one_text

SLICE_BYTES = 32 * 2**20
MOST_SLICES = 4096  # of a piece
PILE_CHARACTERS = 64 * 2**20  # of texts, in memory until they are written
PROBLEMS_A_PILE = 20_000
UNNUMBERED = -(2**62)  # rollouts without a number count up from here, within their slice


@dataclass(frozen=True)
class Piece:
    """Slices of one set of rollouts that one process reads into the store's folder; `first` is the number of
    the first slice in the store.
    """

    folder: Path
    number: int
    first: int
    slices: list[Slice]
    own_problems: bool  # whether the rows hold problem and answer themselves
    names: Mapping[str, str]
    key: str
    parts: int
    by_text: bool = False  # how options are named, which is known when all pieces have been read once


@dataclass
class Counts:
    """What was read of a piece: rollouts per slice, the columns seen, the first place that lacks each mapped
    column, how the options of its own problems are answered, and the programs left out, as none of their
    tests can be judged.
    """

    rollouts: list[int] = field(default_factory=list)
    met: list[str] = field(default_factory=list)
    lacking: dict[str, str] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)
    untested: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Store:
    """Problems and rollouts of one set, keyed by problem.

    `before`: the number of rollouts before each slice, which turns numbers within slices into numbers in the
    set.
    """

    folder: Path
    parts: int
    slices: list[Slice]
    before: list[int]

    def files(self, kind: str) -> list[Path]:
        return sorted(self.folder.glob(f"{kind}-*.arrow"))

    @property
    def rollouts(self) -> int:
        return self.before[-1]

    def place(self, piece: int, line: int) -> str:
        return self.slices[piece].place(line)

    def verifiers(self) -> set[str]:
        """All that the problems name."""
        return {name for file in self.files("problems") for name in distinct(file, "verifier")}


def ingest(
    problems: str,
    rollouts: str,
    columns: Columns,
    folder: Path,
    parts: int,
    processes: int,
    verifier: str = "",
) -> Store:
    """Read a whole set into the folder, and keep what an earlier run has read there. `verifier` judges all
    problems; "" means each problem's own.

    Raises InputError as `read` and `check_contradictions` do; two rows with the same id may only be found
    later.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if problems and not (folder / "problems.json").exists():
        _spill_problems(problems, columns, folder, parts, verifier, Asked(rollouts))
    if problems:
        seen = json.loads((folder / "problems.json").read_text(encoding="utf-8"))
        columns.met.update(seen["columns"])
        columns.sources.update(seen["sources"])
    groups = [(path, some) for path in paths_in(rollouts) for some in _grouped(slices(path, SLICE_BYTES))]
    firsts = np.cumsum([0, *(len(some) for _, some in groups)]).tolist()
    pieces = [
        Piece(folder, number, firsts[number], some, not problems, columns.names, columns.key, parts)
        for number, (_, some) in enumerate(groups)
    ]
    counts = _read_all(pieces, processes)
    _check_columns([path for path, _ in groups], counts, columns)
    choices = Choices()
    for one in counts:
        choices.include(Choices(**one.choices))
    choices.check(rollouts)
    warn_untested(rollouts, list(dict.fromkeys(name for one in counts for name in one.untested)))
    if choices.by_text:
        _read_all([replace(piece, by_text=True) for piece in pieces], processes)
    before = np.cumsum([0, *(count for one in counts for count in one.rollouts)]).tolist()
    if not before[-1]:
        none = "; expected at least one rollout"
        raise InputError(f"{rollouts}: no rows{none}")
    store = Store(folder, parts, [part for _, some in groups for part in some], before)
    if not problems:
        _number_problems(store, rollouts, verifier)
    return store


def _grouped(found: Iterable[Slice]) -> Iterator[list[Slice]]:
    """Slices in groups of about SLICE_BYTES, because the chunks of an exploration are small files."""
    some: list[Slice] = []
    for one in found:
        some.append(one)
        if sum(part.size for part in some) >= SLICE_BYTES or len(some) >= MOST_SLICES:
            yield some
            some = []
    if some:
        yield some


def _read_all(pieces: Sequence[Piece], processes: int) -> list[Counts]:
    counts = [_counted(piece) for piece in pieces]
    left = [number for number, one in enumerate(counts) if one is None]
    sizes = [sum(part.size for part in piece.slices) / 1e6 for piece in pieces]
    rate = Rate("bundle: reading rollouts", sum(sizes), "MB", sum(sizes) - sum(sizes[n] for n in left))
    for at, found in mapped(spill_piece, [pieces[number] for number in left], processes):
        counts[left[at]] = found
        rate.add(sizes[left[at]])
    return [one for one in counts if one is not None]


def _counted(piece: Piece) -> Counts | None:
    """What an earlier run has read of a piece."""
    path = _marker(piece)
    return Counts(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _marker(piece: Piece) -> Path:
    return piece.folder / f"piece-{piece.number:06d}{'-by-text' if piece.by_text else ''}.json"


def _check_columns(paths: Sequence[str], counts: Sequence[Counts], columns: Columns) -> None:
    """Raise InputError if a slice lacks a mapped column that an earlier one of its set has."""
    here: dict[str, set[str]] = {}
    for path, one in zip(paths, counts, strict=True):
        met = here.setdefault(path, set())
        for name, place in one.lacking.items():
            if name in met:
                raise lacks_column(place, name)
        met.update(one.met)
        columns.met.update(one.met)


def spill_piece(piece: Piece) -> Counts:
    """Read one piece into the store, and mark it as done. Raises InputError as `read` does."""
    columns = Columns(piece.names, key=piece.key, by_text=piece.by_text)
    spilled = _Spilled(piece)
    here: set[str] = set()
    rollouts = []
    for number, part in enumerate(piece.slices, piece.first):
        spilled.begin(number)
        for line, values in rows_of(part):
            spilled.add(columns.row(part.place(line), values, here), line)
        rollouts.append(spilled.number)
    spilled.flush()
    counts = Counts(
        rollouts, sorted(columns.met), columns.lacking, asdict(spilled.choices), list(spilled.untested)
    )
    mark(_marker(piece), asdict(counts))
    return counts


class _Spilled:
    """What was read of a piece but not yet written; `number` counts the rollouts of the current slice."""

    def __init__(self, piece: Piece) -> None:
        self.piece, self.slice, self.number, self.files = piece, piece.first, 0, 0
        self.problems, self.rollouts = Pile(PROBLEMS), Pile(ROLLOUTS)
        self.seen: set[tuple[str, str, str | None]] = set()
        self.choices, self.untested = Choices(), dict[str, None]()

    def begin(self, slice_number: int) -> None:
        self.slice, self.number = slice_number, 0

    def add(self, row: Row, line: int) -> None:
        if self.piece.own_problems and is_untested(row):
            self.untested[name_of(row)] = None
            return
        if self.piece.own_problems:
            key, beside = self._problem(row, line), None
            found = samples_in(row, "", UNNUMBERED + self.number)
        else:
            found, key = records_in(Rollout, row, UNNUMBERED + self.number), 0
            beside = key_beside(row)
        for rollout in found:
            where = (key or key_of(rollout.problem_id), self.number, self.slice, line)
            self.rollouts.add((*where, *_rollout_cells(rollout), beside), len(rollout.text))
            self.number += 1
        if self.rollouts.characters + self.problems.characters > PILE_CHARACTERS:
            self.flush()

    def _problem(self, row: Row, line: int) -> int:
        """The key of the row's problem, which is kept unless an equal one is already there."""
        problem = problem_beside(row, "")
        note_choice(self.choices, row, problem)
        key, own = key_of(problem.problem), problem.id or None
        if (like := (problem.problem, problem.answer, own)) not in self.seen:
            self.seen.add(like)
            where = (key, self.number, self.slice, line)
            self.problems.add(where + _problem_cells(problem, own), len(problem.problem))
        return key

    def flush(self) -> None:
        name = f"{self.piece.number:06d}-{self.files:04d}.arrow"
        self.rollouts.write(self.piece.folder / f"rollouts-{name}", self.piece.parts)
        if self.piece.own_problems:
            self.problems.write(self.piece.folder / f"problems-{name}", self.piece.parts)
        self.files += 1
        self.seen.clear()


def _rollout_cells(rollout: Rollout) -> tuple[object, ...]:
    numbered = rollout.sample if rollout.sample > UNNUMBERED // 2 else None
    return (
        rollout.problem_id, numbered, rollout.text, rollout.answer, rollout.verdict, rollout.prompt_tokens,
        rollout.completion_tokens, rollout.finish_reason, rollout.model, rollout.seed,
    )  # fmt: skip


def _problem_cells(problem: Problem, identity: str | None) -> tuple[object, ...]:
    return (
        identity, problem.problem, problem.answer, problem.verifier, problem.source,
        metadata_text(problem.metadata),
    )  # fmt: skip


def _spill_problems(
    path: str, columns: Columns, folder: Path, parts: int, verifier: str, asked: Asked
) -> None:
    """Read the problem files in order. Raises InputError for a repeated id, for a repeated problem with
    another gold, and for one that had another id when it was `asked`.
    """
    keys: list[np.ndarray] = []
    texts: list[int] = []
    found = enumerate(stream(Problem, path, columns))
    for number, first in enumerate(found):
        pile, some = Pile(PROBLEMS), []
        for at, (_, problem) in chain([first], islice(found, PROBLEMS_A_PILE - 1)):
            some.append(key_of(problem.id))
            texts.append(_text_key(problem.problem))
            asked.add(problem.id, problem.problem, path)
            pile.add((some[-1], at, -1, 0, *_problem_cells(problem, problem.id)), len(problem.problem))
        pile.write(folder / f"problems-{number:06d}.arrow", parts)
        keys.append(np.array(some, dtype=np.uint64))
    asked.warn(path)
    several = _repeated(np.concatenate(keys))
    if len(several):
        raise _second_use(path, columns, set(several.tolist()))
    if len(same := _repeated(np.array(texts, dtype=np.uint64))):
        _check_same(path, columns, set(same.tolist()), verifier)
    seen = {"columns": sorted(columns.met), "sources": sorted(columns.sources)}
    mark(folder / "problems.json", seen)


def _repeated(keys: np.ndarray) -> np.ndarray:
    values, counts = np.unique(keys, return_counts=True)
    return values[counts > 1]


def _second_use(path: str, columns: Columns, keys: set[int]) -> InputError:
    places: dict[str, str] = {}
    for place, problem in stream(Problem, path, columns):
        if key_of(problem.id) in keys:
            if problem.id in places:
                return used_twice(place, problem.id, places[problem.id])
            places[problem.id] = place
    raise RuntimeError(f"{path}: two ids share a hash, among {sorted(places)[:4]}")


def _text_key(problem: str) -> int:
    return key_of(one_text(problem))


def _check_same(path: str, columns: Columns, keys: set[int], verifier: str) -> None:
    """Read the repeated problems again. Raises InputError as `check_contradictions` does."""
    found = enumerate((problem for _, problem in stream(Problem, path, columns)), 1)
    same = [(row, problem) for row, problem in found if _text_key(problem.problem) in keys]
    judged = judged_by(verifier, [problem for _, problem in same])
    check_contradictions(((row, problem) for (row, _), problem in zip(same, judged, strict=True)), path)


def _number_problems(store: Store, path: str, verifier: str) -> None:
    """Number the problems that come with their rollouts, by their first rows. Raises InputError for an id
    that two of them share, and as `check_contradictions` does.
    """
    if (store.folder / "numbered.json").exists():
        return
    keys, numbers, lines = _rows_of_problems(store)
    order = np.lexsort((numbers, keys))
    first = order[np.r_[True, np.diff(keys[order].astype(np.uint64)) != 0]]
    by_number = first[np.argsort(numbers[first], kind="stable")]
    ordinals = np.empty(len(keys), dtype=np.int64)
    ordinals[by_number] = np.arange(len(by_number))
    ids = _column_of_problems(store, "id").take(pa.array(by_number)).to_pylist()
    hashes = np.array(
        [key_of(str(at) if own is None else own) for at, own in enumerate(ids)], dtype=np.uint64
    )
    for repeated in _repeated(hashes)[:1]:
        one, other = np.flatnonzero(hashes == repeated)[:2]
        places = [store.place(*map(int, lines[by_number[at]])) for at in (one, other)]
        raise of_another(places[1], ids[other] or str(other), places[0])
    _check_own(store, path, verifier, by_number, [int(line) for _, line in lines[by_number]])
    np.save(store.folder / "keys.npy", keys[first])
    np.save(store.folder / "ordinals.npy", ordinals[first])
    mark(store.folder / "numbered.json", len(first))


def _check_own(store: Store, path: str, verifier: str, first: np.ndarray, lines: Sequence[int]) -> None:
    """Compare the problems in the rollouts' rows, of which `first` are the places among all rows of the
    store. Raises InputError as `check_contradictions` does.
    """
    keys = np.concatenate([_text_keys(file) for file in store.files("problems")])[first]
    same = np.flatnonzero(np.isin(keys, _repeated(keys)))
    if not len(same):
        return
    cells = [_column_of_problems(store, name).take(pa.array(first[same])).to_pylist() for name, _ in PROBLEM]
    found = [
        Problem(str(at) if own is None else own, *more)
        for at, own, *more in zip(same.tolist(), *cells[:-1], strict=True)
    ]
    check_contradictions(zip([lines[at] for at in same], judged_by(verifier, found), strict=True), path)


def _text_keys(file: Path) -> np.ndarray:
    """The keys of the problems in a file of the store, which are the same but for spaces and case."""
    with pa.OSFile(str(file), "rb") as source:
        opened = pa.ipc.open_file(source)
        batches = (opened.get_batch(at).column("problem") for at in range(opened.num_record_batches))
        return np.array([_text_key(text.as_py()) for column in batches for text in column], dtype=np.uint64)


def _rows_of_problems(store: Store) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all problem rows in the store: keys, the numbers of their rollouts, and (slice, line)."""
    found = [columns_of(file, ("key", "number", "slice", "line")) for file in store.files("problems")]
    keys, numbers, pieces, lines = (np.concatenate(column) for column in zip(*found, strict=True))
    return keys, numbers + np.asarray(store.before)[pieces], np.stack([pieces, lines], axis=1)


def _column_of_problems(store: Store, name: str) -> pa.ChunkedArray:
    def columns() -> Iterator[pa.ChunkedArray]:
        for file in store.files("problems"):
            with pa.OSFile(str(file), "rb") as source:
                yield pa.ipc.open_file(source).read_all().column(name)

    return pa.chunked_array([chunk for column in columns() for chunk in column.chunks], type=pa.string())


def parts_of(size: int, part_bytes: int, most: int) -> int:
    """The number of parts for an input of `size` bytes."""
    return max(1, min(most, -(-size // part_bytes)))
