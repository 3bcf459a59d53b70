"""The process behind pool.py, and the only place that imports math_verify: `python -m a2r_train.verify.worker`.

One request a line, `[answer, gold, verifier, deadline_s]`; one reply a line, `{"verdict": ...}` or `{"error": ...}`.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import signal
import sys
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify

from a2r_train.records import CORRECT, INCORRECT, UNPARSABLE, Verdict

MEMORY_BYTES = 4 * 2**30  # of address space: a runaway power must not take the machine with it


def compare(answer: str, gold: str) -> Verdict:
    """Compare with math_verify, gold first; `unparsable` if either side is no mathematics. No deadline of its own."""
    golds, answers = _parse(gold), _parse(answer)
    if not (_is_mathematics(golds) and _is_mathematics(answers)):
        return UNPARSABLE
    return CORRECT if verify(golds, answers, timeout_seconds=None) else INCORRECT


def call_own(answer: str, gold: str, path: str) -> dict[str, str]:
    """Call the user's function; an empty answer only tries the path."""
    module, _, name = path.replace(":", ".").rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
        verdict = CORRECT if not answer or function(answer, gold) else INCORRECT
    except Exception as error:  # noqa: BLE001 (the user's code may raise anything)
        message = " ".join(f"{type(error).__name__}: {error}".split())
        return {"error": f"verifier {path!r}: {message[:300]}; expected an importable f(answer, gold) -> bool"}
    return {"verdict": verdict}


def main() -> None:
    """Serve requests until the end of the input."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a library prints must not end up among the replies
    _restrain()
    _parse("1")  # the first parse compiles its patterns
    os.write(replies, b"{}\n")
    for line in requests:
        answer, gold, verifier, deadline_s = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, deadline_s + 1)  # should the parent be gone by then
        reply = {"verdict": compare(answer, gold)} if verifier == "math" else call_own(answer, gold, verifier)
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.write(replies, json.dumps(reply).encode() + b"\n")


def _restrain() -> None:
    """Bound the memory, and leave Ctrl-C and a launcher's SIGTERM to the parent, which may still have to save."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    sys.path.append(os.getcwd())


def _parse(answer: str) -> list[Any]:
    """All of the answer, or the bare string: by its default settings math_verify would look for a number in what it cannot
    parse, so that `4 \\lor 5` earned as much as 5."""
    config = [LatexExtractionConfig(boxed_match_priority=0)]
    return list(parse(rf"\boxed{{{answer}}}", config, extraction_mode="first_match", parsing_timeout=None))


def _is_mathematics(parsed: list[Any]) -> bool:
    """math_verify falls back to the bare string for what it could not parse."""
    return any(not isinstance(one, str) for one in parsed)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        sys.exit(0)
