"""trained_on.json of a trained model: the problems that it and the models it comes from were trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from a2r_train.data.wording import plain, wordings
from a2r_train.errors import InputError
from a2r_train.models import base_of, model_file
from a2r_train.records import write_text

NAME = "trained_on.json"
CHOICE = " validation"


@dataclass(frozen=True)
class Trained:
    """One training of the chain: its stage, its file of bundles, and the hashes of their problems. Problems
    that chose which of its steps is kept have an entry of their own, whose stage ends in CHOICE.
    """

    stage: str
    bundles: str
    problems: frozenset[str]


def problem_hash(problem: str) -> str:
    """A hash of the plain text."""
    return _hash(plain(problem))


def problem_hashes(problem: str) -> set[str]:
    """The hash of the plain text, which older records hold alone, and those of its other wordings."""
    return {problem_hash(problem), *map(_hash, wordings(problem))}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def write_trained_on(
    folder: str | Path,
    base_model: str,
    stage: str,
    bundles: str,
    problems: Iterable[str],
    chosen_on: tuple[str, Iterable[str]] | None = None,
) -> None:
    """Record a training, and what its base model was trained on, because that folder may not be kept.
    `chosen_on` are the file and the problems that chose the step that is kept.
    """
    trained = [*trainings(base_model), Trained(stage, bundles, _hashes(problems))]
    if chosen_on:
        path, held_out = chosen_on
        trained.append(Trained(f"{stage}{CHOICE}", path, _hashes(held_out)))
    rows = [asdict(one) | {"problems": sorted(one.problems)} for one in trained]
    write_text(Path(folder) / NAME, json.dumps({"base_model": base_model, "trainings": rows}) + "\n")


def _hashes(problems: Iterable[str]) -> frozenset[str]:
    return frozenset(chain.from_iterable(map(problem_hashes, problems)))


def trainings(model: str) -> list[Trained]:
    """The trainings that led to a model, the first one first; [] if its folder and its base record none.

    A checkpoint within a training's folder has the record of that folder. Raises InputError for a broken one.
    """
    path = model_file(model, NAME)
    if not path and (beside := Path(model).parent / NAME).is_file() and Path(model).is_dir():
        path = beside
    if not path:
        return trainings(base) if (base := base_of(model)) != model else []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["trainings"]
        return [Trained(str(r["stage"]), str(r["bundles"]), frozenset(r["problems"])) for r in rows]
    except (ValueError, LookupError, TypeError):
        raise InputError(
            f"{path}: not in the form that a training writes; restore it, or remove it"
        ) from None
