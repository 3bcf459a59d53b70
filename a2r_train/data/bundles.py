"""Bundles of a file or of shards as a sequence: in memory if they are few, else memory-mapped and read one by
one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from a2r_train.data.builder import bundle_of, problem_in
from a2r_train.data.files import format_of, rows, size_of
from a2r_train.data.read import Row, read, records_in, stream
from a2r_train.data.rollouts import check_references, wrong_reference
from a2r_train.data.shards import BUNDLE, bundle_cells
from a2r_train.errors import InputError
from a2r_train.paths import paths_in, shards
from a2r_train.records import CORRECT, Bundle, Problem
from a2r_train.verify import bad_golds, check_gold, unreadable_golds
from a2r_train.verify.traits import SHIPPED

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)
LARGE_BYTES = 2**28  # of files; from here on, bundles are not held in memory
CHECKED_AT_ONCE = 20_000  # bundles


class Bundles(Sequence[Bundle]):
    """Bundles in memory (`held`), or rows of a data set on disk with the columns of BUNDLE (`mapped`).

    Errors within a mapped bundle are raised when it is read.
    """

    def __init__(self, path: str, held: Sequence[Bundle] = (), mapped: Dataset | None = None) -> None:
        self.path, self.held, self.mapped = path, held, mapped

    @staticmethod
    def open(path: str, most: int = 0, *, or_problems: bool = False) -> Bundles:
        """The first `most` bundles of a recipe's path; 0 for all. With `or_problems`, a file of problems
        gives bundles without references. Raises InputError as `read` does.
        """
        if or_problems and are_problems(path):
            problems = read(Problem, path)[: most or None]
            return Bundles(path, [bundle_of(problem, [], problem.id) for problem in problems])
        if size_of(path) < LARGE_BYTES:
            return Bundles(path, read(Bundle, path)[: most or None])
        mapped = _mapped(path)
        if not len(mapped):
            raise InputError(f"{path}: no rows; expected at least one bundle")
        return Bundles(path, mapped=mapped).first(most or len(mapped))

    def first(self, count: int) -> Bundles:
        """The first `count` bundles, or all if there are fewer."""
        if self.mapped is None:
            return Bundles(self.path, self.held[:count])
        return Bundles(self.path, mapped=self.mapped.select(range(min(count, len(self)))))

    def __len__(self) -> int:
        return len(self.held) if self.mapped is None else len(self.mapped)

    @overload
    def __getitem__(self, at: int) -> Bundle: ...
    @overload
    def __getitem__(self, at: slice) -> list[Bundle]: ...
    def __getitem__(self, at: int | slice) -> Bundle | list[Bundle]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        if self.mapped is None:
            return self.held[at]
        return bundle_in(self.mapped[at], f"{self.path}: bundle {at + 1}")

    @property
    def listed(self) -> Sequence[Bundle]:
        """The list of bundles if they are in memory, else this object."""
        return self if self.mapped is not None else self.held

    def some(self, most: int) -> list[Bundle]:
        """At most `most` bundles, spread evenly over all of them."""
        return self[:: max(1, -(-len(self) // most))]

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all bundles; not copied if they are mapped."""
        if self.mapped is not None:
            return self.mapped.select_columns([name]).with_format("arrow")[:].column(name)
        return pa.chunked_array([pa.array([getattr(bundle, name) for bundle in self.held])])

    def check(self) -> None:
        """Raise InputError for a gold answer that its verifier cannot parse, a reference marked correct that
        is not the gold, and a repeated id. Equal cases are checked once.
        """
        if self.mapped is None:
            check_gold(self.held, self.path)
            check_references(self.held, self.path)
            return
        if pc.count_distinct(self.column("id")).as_py() < len(self):
            raise InputError(f"{self.path}: two bundles have the same id; ids must be unique")
        self._check_golds()
        self._check_references()

    def _check_golds(self) -> None:
        found = self._distinct_golds()
        bad = []
        for start in range(0, len(found), CHECKED_AT_ONCE):
            some = found.slice(start, CHECKED_AT_ONCE).to_pylist()
            bad += unreadable_golds((one["at_min"] + 1, self._gold(**one)) for one in some)
        if bad := bad and unreadable_golds((row, self[row - 1]) for row, _ in bad):  # now with their texts
            raise bad_golds(bad, self.path)

    def _distinct_golds(self) -> pa.Table:
        """The first place of each different gold. Where tests or an entry in the metadata are what an answer
        has to pass, those differ too.
        """
        verifiers = self.column("verifier")
        in_row = pc.is_in(verifiers, pa.array([name for name in SHIPPED if _is_in_row(name)]))
        keys = {"answer": self.column("answer"), "verifier": verifiers}
        seen = pc.if_else(in_row, self.column("metadata"), pa.scalar(None, pa.string()))
        rows = pa.table({**keys, "seen": seen, "at": pa.array(np.arange(len(self)))})
        found = rows.group_by([*keys, "seen"]).aggregate([("at", "min")]).sort_by("at_min")
        return found.select([*keys, "at_min"])

    def _gold(self, answer: str, verifier: str, at_min: int) -> Problem:
        """What the check of a gold has to see: the whole problem, or only answer and verifier."""
        return problem_in(self[at_min]) if _is_in_row(verifier) else Problem("", "", answer, verifier)

    def _check_references(self) -> None:
        """Check each distinct (answer, gold, verifier) of a correct reference once."""
        for start in range(0, len(self), CHECKED_AT_ONCE):
            table = self._rows(start, start + CHECKED_AT_ONCE)
            references = table.column("references").combine_chunks()
            parents = pc.list_parent_indices(references)
            flat = references.flatten()
            columns = {
                "said": flat.field("answer"),
                "verdict": flat.field("verdict"),
                "answer": table.column("answer").take(parents),
                "verifier": table.column("verifier").take(parents),
                "at": parents,
            }
            rows = pa.table(columns).filter(pc.field("verdict") == CORRECT)
            rows = rows.filter(pc.field("said") != pc.field("answer"))
            keys = ["said", "answer", "verifier"]
            for one in rows.group_by(keys).aggregate([("at", "min")]).to_pylist():
                problem = Problem("", "", one["answer"], one["verifier"])
                if wrong_reference(one["said"], problem):
                    check_references([self[start + one["at_min"]]], self.path)

    def _rows(self, start: int, stop: int) -> pa.Table:
        assert self.mapped is not None
        some = self.mapped.select_columns(["answer", "verifier", "references"]).with_format("arrow")
        return some[start:stop]


def _is_in_row(verifier: str) -> bool:
    """Whether a gold is checked with its row; of custom verifiers only the name is."""
    return verifier in SHIPPED and "row" in SHIPPED[verifier].asks


def bundle_in(row: dict[str, Any], place: str) -> Bundle:
    """The bundle that a row of BUNDLE holds. Raises InputError as `read` does."""
    bundle: Bundle = records_in(Bundle, Row(place, row, {}, key=""), 0)[0]
    return bundle


def are_problems(path: str) -> bool:
    """Whether a path of a recipe names problems: its first row has neither references nor a problem's id."""
    _, first = next(rows(paths_in(path)[0]), ("", {}))
    return not {"references", "problem_id"} & first.keys()


def _mapped(path: str) -> Dataset:
    """A data set on Arrow files in the cache, which several processes share; made if it is missing."""
    from datasets import Dataset, Features
    from datasets.exceptions import DatasetGenerationError

    files = [file for one in paths_in(path) for file in shards(one)]
    one_set = len(paths_in(path)) == 1
    if one_set and all(format_of(f) == ".parquet" and _is_ours(f) for f in files):
        return Dataset.from_parquet(files)
    state = [(file, os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in files]
    log.info("%s: converting to an Arrow file in the cache, because it is large", path)
    features, given = Features.from_arrow_schema(BUNDLE), {"path": path, "state": [state]}
    try:
        return Dataset.from_generator(_rows_of, features=features, gen_kwargs=given)
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise


def _is_ours(file: str) -> bool:
    """Whether `a2r bundle` wrote it, with these columns."""
    found = parquet.read_schema(file)
    return bool(found.equals(BUNDLE))


def _rows_of(path: str, state: list[Any]) -> Iterator[dict[str, Any]]:
    """Rows of BUNDLE; `state` tells the cache when the files have changed."""
    del state
    for _, bundle in stream(Bundle, path):
        yield dict(zip(BUNDLE.names, bundle_cells(bundle), strict=True))
