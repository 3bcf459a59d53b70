"""Bundles kept without any text: which of the kept rollouts each one holds, and the golds.

Such a file ends in `.kept.json`. The texts of its references are those of the rollouts. The texts of the
problems are read from their data set, but only when they are needed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from a2r_train.data.builder import bundle_of, reference_of
from a2r_train.data.read import Columns, read
from a2r_train.errors import InputError
from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.records import Bundle, Problem, Rollout, write, write_text
from a2r_train.verify import programs

ENDING = ".kept.json"
DIGEST = "sha256:"
NO_TEXT = "(the text of this problem is not kept)"
Drawn = tuple[str, str, list[int]]  # the id of a bundle, that of its problem, and samples of its rollouts


@dataclass(frozen=True)
class KeptBundles:
    """What a `.kept.json` holds; the paths of golds and rollouts are relative to it.

    problems: the set that the ids refer to. golds: rows of problem_id, answer and verifier. For programs the
    set is always read, because it holds their tests.
    """

    problems: str
    golds: str
    rollouts: str
    bundles: list[Drawn]


def is_kept(path: str) -> bool:
    return path.endswith(ENDING)


def read_kept(path: str) -> KeptBundles:
    """Raises InputError for any other file."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        return KeptBundles(
            **{**found, "bundles": [(a, b, list(samples)) for a, b, samples in found["bundles"]]}
        )
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected kept bundles") from None
    except (ValueError, TypeError, LookupError) as error:
        raise InputError(f"{path}: not a file of kept bundles ({str(error).splitlines()[0]})") from None


def write_kept(kept: KeptBundles, path: Path) -> None:
    """Writes one bundle per line."""
    head = {key: value for key, value in asdict(kept).items() if key != "bundles"}
    bundles = ",\n".join(json.dumps(bundle, ensure_ascii=False) for bundle in kept.bundles)
    write_text(path, f'{json.dumps(head, ensure_ascii=False)[:-1]}, "bundles": [\n{bundles}\n]}}\n')


def read_golds(path: str) -> dict[str, Problem]:
    """Problems without their texts, by id."""
    golds: dict[str, Problem] = {}
    for row in Columns().rows(path):
        identity, verifier = row.required_text("problem_id"), row.text("verifier") or "math"
        golds[identity] = Problem(
            identity, NO_TEXT, row.required_text("answer"), verifier, row.text("source") or ""
        )
    return golds


def write_golds(problems: Iterable[Problem], path: Path) -> None:
    """Write ids and answers, and the source if there is one; for programs, which are texts, a digest."""
    rows = (
        {"problem_id": p.id, "answer": kept_answer(p), "verifier": p.verifier, "source": p.source}
        for p in problems
    )
    write_text(
        path,
        "".join(json.dumps({k: v for k, v in row.items() if v}, ensure_ascii=False) + "\n" for row in rows),
    )


def kept_answer(problem: Problem) -> str:
    """What is kept of a gold answer: for a program, its digest."""
    if problem.verifier != programs.NAME or problem.answer.startswith(DIGEST):
        return problem.answer
    return DIGEST + hashlib.sha256(problem.answer.encode()).hexdigest()[:16]


def draw(bundles: Sequence[Bundle], rollouts: Iterable[Rollout]) -> list[Drawn]:
    """Where the references of bundles are among the rollouts. Rollouts can have the same text but different
    tokens, so one that equals the reference in every field is preferred.

    Raises InputError for a reference that is not among them.
    """
    same_text: defaultdict[tuple[str, str], list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        same_text[rollout.problem_id, rollout.text].append(rollout)
    drawn: list[Drawn] = []
    for bundle in bundles:
        used: list[int] = []
        for at, reference in enumerate(bundle.references, 1):
            there = same_text[bundle.problem_id, reference.text]
            if not (free := [rollout for rollout in there if rollout.sample not in used]):
                raise InputError(
                    f"bundle {bundle.id}: reference {at} is not among the rollouts of its problem"
                )
            whole = [rollout for rollout in free if reference_of(rollout) == reference]
            used.append((whole or free)[0].sample)
        drawn.append((bundle.id, bundle.problem_id, used))
    return drawn


def bundles_of(path: str, problems: str | None = None) -> list[Bundle]:
    """The bundles, made again; with the texts of `problems`, where "" is the set that the file names.

    Raises InputError for a missing rollout or gold, and for problems of another set.
    """
    kept = read_kept(path)
    beside = Path(path).parent
    golds = read_golds(os.path.normpath(beside / kept.golds))
    if problems is None and any(golds[i].verifier == programs.NAME for _, i, _ in kept.bundles if i in golds):
        problems = ""  # programs are judged by tests, which are not kept
    if problems is not None:
        golds = with_texts(golds, {identity for _, identity, _ in kept.bundles}, problems or kept.problems)
    rollouts = rollouts_at(os.path.normpath(beside / kept.rollouts))
    by_sample = {(rollout.problem_id, rollout.sample): rollout for rollout in rollouts}
    bundles = []
    for identity, problem_id, samples in kept.bundles:
        if problem_id not in golds:
            raise InputError(f"{path}: bundle {identity}: no gold for problem {problem_id!r} in {kept.golds}")
        missing = [sample for sample in samples if (problem_id, sample) not in by_sample]
        if missing:
            raise InputError(f"{path}: bundle {identity}: no sample {missing[0]} in {kept.rollouts}")
        references = [reference_of(by_sample[problem_id, sample]) for sample in samples]
        bundles.append(bundle_of(golds[problem_id], references, identity))
    return bundles


def rollouts_at(path: str) -> Sequence[Rollout]:
    """As `read`, but the last file stays in memory: several kept evaluations use it, each of them twice."""
    there = os.stat(path) if os.path.isfile(path) else None
    return _rollouts_at(path, os.getcwd(), there and (there.st_mtime_ns, there.st_size))


@lru_cache(maxsize=1)
def _rollouts_at(path: str, *_changes: object) -> Sequence[Rollout]:
    return read(Rollout, path)


def with_texts(golds: Mapping[str, Problem], asked: set[str], problems: str) -> dict[str, Problem]:
    """The golds with the texts of their set, a file or a data set of the hub.

    Raises InputError for a problem that is missing or has another answer.
    """
    if not problems:
        raise InputError(
            "--problems: the kept bundles have no texts; name the set that their problems come from"
        )
    known = {problem.id: problem for problem in read(Problem, problems)}
    found: dict[str, Problem] = {}
    for identity in golds.keys() & asked:
        gold, problem = golds[identity], known.get(identity)
        if problem is None or kept_answer(problem) != gold.answer:
            there = f"has the answer {problem.answer[:40]!r}" if problem else "is missing"
            raise InputError(
                f"{problems}: problem {identity!r} {there}, but the kept gold is {gold.answer[:40]!r}; "
                "name the set that the kept bundles come from"
            )
        found[identity] = replace(
            gold, problem=problem.problem, answer=problem.answer, metadata=problem.metadata
        )
    return found


def made_whole(config: EvaluateConfig, folder: Path, problems: str | None = None) -> EvaluateConfig:
    """The config with whole bundles in place of kept ones; they are written into the folder."""
    paths: dict[str, Any] = {}
    for key in ("bundles", "adaptive_validation"):
        if is_kept(path := getattr(config, key)):
            paths[key] = str(folder / f"{key}.jsonl")
            write(bundles_of(path, problems), paths[key])
    return replace(config, **paths)
