"""Which problem each id stood for when it was explored.

A row without an id has its number as id. If rows are moved, added or removed after exploring, such an id
stands for another problem, and so would its rollouts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from a2r_train.data.spill import key_of
from a2r_train.data.task import folders_of
from a2r_train.errors import InputError
from a2r_train.records import Problem, write_text
from a2r_train.verify.slips import one_text

log = logging.getLogger(__name__)
FILE = "asked.json"


def write_asked(folder: Path, problems: Iterable[Problem]) -> None:
    """Write a key of each problem's text, by id, beside the rollouts."""
    keys = {problem.id: _key(problem.problem) for problem in problems}
    write_text(folder / FILE, json.dumps(keys, ensure_ascii=False) + "\n")


def _key(text: str) -> str:
    return f"{key_of(one_text(text)):016x}"


class Asked:
    """The problems of the folders that some rollouts come from, to compare problems read now with them."""

    def __init__(self, rollouts: str) -> None:
        files = [folder / FILE for folder in folders_of(rollouts)]
        self._known: list[dict[str, str]] = [
            json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()
        ]
        self.rollouts, self.changed = rollouts, list[str]()

    @cached_property
    def _ids(self) -> dict[str, str]:
        return {key: identity for known in self._known for identity, key in known.items()}

    def add(self, identity: str, text: str, path: str) -> None:
        """Compare one problem. Raises InputError if its text belonged to another id."""
        told = {known[identity] for known in self._known if identity in known}
        if not told or (key := _key(text)) in told:
            return
        if key in self._ids:
            raise InputError(
                f"{path}: problem {identity!r} is the one that was {self._ids[key]!r} when "
                f"{self.rollouts} was explored, so rollouts would belong to other problems; restore the "
                "order of the rows (a row without an id has its number), or explore again"
            )
        self.changed.append(identity)

    def warn(self, path: str) -> None:
        """Log how many problems have a text that was not explored."""
        if self.changed:
            log.warning(
                "%s: %d problem(s) have another text than when %s was explored, such as %r; if they are "
                "other problems, explore again",
                path,
                len(self.changed),
                self.rollouts,
                self.changed[0],
            )


def check_same_problems(rollouts: str, problems: Iterable[tuple[str, str]], path: str) -> None:
    """Compare (id, text) of problems with those that were explored. Raises InputError as `Asked.add` does."""
    asked = Asked(rollouts)
    for identity, text in problems:
        asked.add(identity, text, path)
    asked.warn(path)
