"""The process behind pool.py, and the only place that imports sympy: `python -m a2r_train.verify.worker`.

One request per line, `[answer, gold, verifier, deadline_s]`; one reply per line, `{"verdict": ...}` or
`{"error": ...}`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import resource
import signal
import sys
from typing import Any

from a2r_train.records import CORRECT, INCORRECT, UNPARSABLE, Verdict
from a2r_train.verify.algebra import expression
from a2r_train.verify.equality import Equality
from a2r_train.verify.exact import MAX_BITS, TooLarge, limit
from a2r_train.verify.expression import Node, Unreadable, parse
from a2r_train.verify.kinds import nodes_of
from a2r_train.verify.pieces_algebra import PiecesAlgebra
from a2r_train.verify.reading import read

MAX_DEADLINE_S = 600  # that a custom verifier may ask for
FORM = "form"  # pool.FORM, in place of a context
MEMORY_BYTES = 4 * 2**30  # of address space: a runaway power must not take the machine with it
EQUALITY = Equality(PiecesAlgebra())


def compare(answer: str, gold: str) -> Verdict:
    """Compare two normal forms; `unparsable` if either side is no mathematics. It has no deadline of its own.

    Comparing a form with itself only tests whether all of it can be read.
    """
    try:
        if answer == gold:
            _try(answer)
            return CORRECT
        return CORRECT if EQUALITY.same(read(answer), read(gold)) else INCORRECT
    except (Unreadable, TooLarge):
        return UNPARSABLE


def _try(text: str) -> None:
    for node in nodes_of(read(text)):
        if isinstance(node, Node):
            expression(node)


def call_own(answer: str, gold: str, verifier: str, context: str = "") -> dict[str, str]:
    """Call the user's function, or ask it for the canonical form. Without answer and context, only import it
    and return its traits.
    """
    path, _, threshold = verifier.partition(">=")
    path, _, prepared = path.partition("#")  # for our own functions: what to load before the first answer
    module, _, name = path.replace(":", ".").rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
        if prepared and not answer and not context:
            importlib.import_module(module).prepare(prepared)
        if context == FORM:
            return {"form": str(function.vote(answer))}
        if not answer and not context:
            return {"verdict": CORRECT, **_traits(function)}
        right = _right(function(answer, gold, **json.loads(context or "{}")), threshold)
    except Exception as error:  # noqa: BLE001 (the user's code may raise anything)
        message = " ".join(f"{type(error).__name__}: {error}".split())
        return {
            "error": f"verifier {verifier!r}: {message[:300]}; expected an importable f(answer, gold) -> bool"
        }
    return {"verdict": CORRECT if right else INCORRECT}


def _traits(function: Any) -> dict[str, str]:
    """Raises TypeError for an attribute with a value that is not valid."""
    asks = [name for name in inspect.signature(function).parameters if name in ("text", "row")]
    vote, place = getattr(function, "vote", "equivalence"), getattr(function, "answer_in", "box")
    if not callable(vote) and vote not in ("equivalence", "none"):
        raise TypeError(
            f"its vote is {vote!r}, not equivalence, none, or a function that gives canonical forms"
        )
    if place not in ("box", "code", "tags"):
        raise TypeError(f"its answer_in is {place!r}, not box, code or tags")
    said = {"asks": ",".join(asks), "vote": "canonical" if callable(vote) else vote, "answer_in": place}
    deadline_s = getattr(function, "deadline_s", None)
    if deadline_s is None:
        return said
    if isinstance(deadline_s, bool) or not 0 < float(deadline_s) <= MAX_DEADLINE_S:
        raise TypeError(f"its deadline_s is {deadline_s!r}, not a number of seconds up to {MAX_DEADLINE_S}")
    return {**said, "deadline_s": str(float(deadline_s))}


def _right(returned: Any, threshold: str) -> bool:
    """Raises TypeError unless it returned a verdict: True, False, or a score with a threshold."""
    if threshold:
        return float(returned) >= float(threshold)
    value = returned.item() if type(returned).__module__ in ("numpy", "torch") else returned
    is_number = isinstance(value, bool | int | float)
    if (is_number and value not in (0, 1)) or value is None:
        raise TypeError(
            f"it returned {value!r}, and a score needs a threshold after the name, such as {'>=0.8'!r}"
        )
    if value and not is_number:
        raise TypeError(f"it returned {value!r:.80}, which is neither True nor False")
    return bool(value)


def main() -> None:
    """Serve requests until the end of the input."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a library prints must not end up among the replies
    _restrain()
    limit.bits = MAX_BITS
    EQUALITY.equal(parse(r"\pi"), parse(r"2\pi"))  # the first comparison is slow
    os.write(replies, b"{}\n")
    for line in requests:
        answer, gold, verifier, *context, deadline_s = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, deadline_s + 1)  # in case the parent is gone by then
        reply = (
            {"verdict": compare(answer, gold)}
            if verifier == "math"
            else call_own(answer, gold, verifier, *context)
        )
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.write(replies, json.dumps(reply).encode() + b"\n")


def _restrain() -> None:
    """Limit the memory, and leave Ctrl-C and a launcher's SIGTERM to the parent, which may still have to
    save.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        sys.exit(0)
