"""Custom verifiers: how they are named, and what they ask for.

`package.module.function` or `package.module:function` names `f(answer, gold)`, which returns True or False. A
function that returns a score is named with a threshold: `package.module.function>=0.8`. By parameter name, it
may ask for `text`, the whole completion, and for `row`, the problem as a dict with its metadata. `traits.py`
has the attributes that it may set.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from a2r_train.errors import InputError
from a2r_train.records import Verdict
from a2r_train.verify import pool
from a2r_train.verify.traits import traits_of

NAME = re.compile(r"[^\W\d]\w*(\.\w+)*[.:]\w+(>=-?\d+(\.\d+)?)?")
PATHS = {"reasoning_gym": "a2r_train.verify.gym:solved"}  # ours, but called like custom ones


def path_of(verifier: str, row: Mapping[str, Any]) -> str:
    """What the worker calls: a custom path, or ours with what has to be loaded before the first answer."""
    if verifier not in PATHS:
        return verifier
    metadata = row.get("metadata") or {}
    task = metadata.get("task")
    if not isinstance(task, str) or not isinstance(metadata.get("entry"), dict):
        raise InputError(f"problem {row.get('id')!r}: {verifier} needs task and entry in the metadata")
    return f"{PATHS[verifier]}#{task}"


def check_entries(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Raise InputError for a problem with a verifier of `PATHS` but without what its scorer reads."""
    for verifier, row in rows:
        path_of(verifier, row)


def judge_own(
    items: Sequence[tuple[str, str, str]], answers: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> list[Verdict]:
    """Verdicts of (text, gold, verifier) whose functions see text or row; equal questions are asked once."""
    requests = []
    for (text, gold, verifier), answer, row in zip(items, answers, rows, strict=True):
        seen = {"text": text, "row": dict(row)}
        context = {name: seen[name] for name in sorted(traits_of(verifier).asks)}
        path = path_of(verifier, row)
        requests.append((answer, gold, path, json.dumps(context, sort_keys=True)))
    different = list(dict.fromkeys(requests))
    verdicts = dict(zip(different, pool.ask_all(different), strict=True))
    return [verdicts[request] for request in requests]
