"""The records of the loop (problems, rollouts, bundles with their references, syntheses), and how they are
written.

`a2r_train.data.read` reads them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from a2r_train.atomic import replacing

Verdict = str
CORRECT, INCORRECT, UNPARSABLE, TIMEOUT = "correct", "incorrect", "unparsable", "timeout"
CHECK_VERDICT = "unverified"  # of rollouts made elsewhere, until `a2r bundle` has judged them
VERDICTS = (CORRECT, INCORRECT, UNPARSABLE, TIMEOUT, CHECK_VERDICT)


@dataclass(frozen=True)
class Problem:
    """A question with a gold answer and the name of its verifier.

    source: the problem set. metadata: what a verifier may need beside the answer.
    """

    id: str
    problem: str
    answer: str
    verifier: str = "math"
    source: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rollout:
    """One explorer solution of a problem.

    `answer` is "" where none could be extracted; token counts are the engine's.
    """

    problem_id: str
    sample: int
    text: str
    answer: str = ""
    verdict: Verdict = CHECK_VERDICT
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = ""
    model: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Reference:
    """A rollout, or a synthesis, as a bundle holds it; `tokens` are those of its completion."""

    text: str
    answer: str = ""
    verdict: Verdict = CHECK_VERDICT
    tokens: int = 0
    model: str = ""


@dataclass(frozen=True)
class Bundle:
    """One problem with k references in a fixed order.

    majority_answer: the most frequent answer among the references, the first one on a tie, "" if none
    has a vote; majority_verdict is its verdict, in the last case `unparsable`.
    `a2r_train.data.builder.bundle_of` makes bundles.
    """

    id: str
    problem_id: str
    problem: str
    answer: str
    verifier: str
    references: list[Reference]
    n_correct: int
    majority_answer: str
    majority_verdict: Verdict
    source: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


VOTED = "voted"  # the finish_reason of an answer that the vote of the references gave, and no model wrote


@dataclass(frozen=True)
class Synthesis:
    """One synthesizer answer to one bundle; `rationalised` if the gold answer was shown with it.

    verdict_probabilities: for each reference, the probability of `right` where the model wrote its verdict,
    0.5 for a reference without one; [] if the prompt asks for no verdicts or the engine gives none.
    """

    bundle_id: str
    sample: int
    text: str
    answer: str
    verdict: Verdict
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    model: str
    seed: int
    rationalised: bool = False
    verdict_probabilities: list[float] = field(default_factory=list)


def row_of(problem: Problem | Bundle) -> dict[str, Any]:
    """The problem as a custom verifier sees it."""
    identity = problem.problem_id if isinstance(problem, Bundle) else problem.id
    return {
        "id": identity,
        "problem": problem.problem,
        "answer": problem.answer,
        "source": problem.source,
        "metadata": problem.metadata,
    }


def write(records: Iterable[Problem | Rollout | Bundle | Synthesis], path: str | Path) -> None:
    """Write records as JSONL, atomically: the file appears complete or not at all."""
    write_text(path, "".join(json.dumps(as_row(r), ensure_ascii=False) + "\n" for r in records))


def as_row(record: Problem | Rollout | Bundle | Synthesis) -> dict[str, Any]:
    """A record as files hold it. Empty metadata is left out, because Parquet has no empty objects, and so are
    the unused fields of a synthesis.
    """
    row = asdict(record)
    for name in ("metadata", "rationalised", "verdict_probabilities"):
        if not row.get(name, True):
            del row[name]
    return row


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, with the user's umask."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, open(part, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def seed_of(seed: int, *parts: object) -> int:
    """A seed that depends on names alone, so that shards, chunks and resumes agree."""
    digest = hashlib.sha256("/".join(map(str, (seed, *parts))).encode()).digest()
    return int.from_bytes(digest[:4], "big")
