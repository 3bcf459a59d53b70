"""The scorer of Reasoning Gym (arXiv 2505.24760). It is called only in the killable worker, because some
tasks evaluate the answer as code.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

try:
    import reasoning_gym
except ImportError:
    raise ImportError("reasoning-gym is missing; pip install -e '.[reasoning-gym]'") from None

log = logging.getLogger(__name__)

THRESHOLD = 1.0  # the library pays parts of 1 for parts of an answer


def solved(answer: str, gold: str, row: Mapping[str, Any]) -> bool:  # noqa: ARG001 (the entry has it)
    """Whether the task pays the answer in full.

    Entries went through JSON, which has no tuples; they are restored for a scorer that compares with tuples.
    Raises KeyError for a problem that has no entry.
    """
    metadata = row["metadata"]
    task = _task(metadata["task"], tuple(sorted((metadata.get("config") or {}).items(), key=str)))
    entry = metadata["entry"]
    return any(_score(task, answer, one) >= THRESHOLD for one in (entry, _as_tuples(entry)))


def prepare(task: str) -> None:
    """Load the data of a task, which may take longer than judging an answer."""
    _task(task, ())


def _score(task: Any, answer: str, entry: Any) -> float:
    """0 for an answer on which the scorer fails: answers of models are arbitrary input."""
    try:
        return float(task.score_answer(answer, entry))
    except Exception as error:  # noqa: BLE001 (scorers parse and evaluate answers, and raise anything)
        log.debug("%s of %r", error, answer[:80])
        return 0.0


@lru_cache(maxsize=256)
def _task(name: str, config: tuple[tuple[str, Any], ...]) -> Any:
    return reasoning_gym.create_dataset(name, **{**dict(config), "size": 1, "seed": 0})


def _as_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_as_tuples, value))
    return {key: _as_tuples(one) for key, one in value.items()} if isinstance(value, dict) else value
