"""A few worker processes that compare answers, each killed and replaced when it hangs or dies.

A worker reads and writes lines of JSON. Without its parent it still ends: at the end of its input if idle, by
its own alarm if busy.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from functools import cache

from a2r_train.errors import InputError
from a2r_train.records import TIMEOUT, Verdict
from a2r_train.verify.child import CORES, Child, Crew

log = logging.getLogger(__name__)

DEADLINE_S = 5.0  # for one comparison, by the clock
START_S = 120.0  # for a worker to import math_verify, or the module of a custom verifier
WORKERS = min(4, CORES)
FORM = "form"  # in place of the context of a custom verifier: asks for the canonical form

# answer, gold, verifier ("math" or the name of a custom one), and for a custom one its context as JSON
Request = tuple[str, ...]
Reply = dict[str, str]


def ask_all(requests: Sequence[Request]) -> list[Verdict]:
    """Have the workers make each comparison, in order; `timeout` where a worker hung or died.

    Raises InputError for a custom verifier that cannot be imported or raises, RuntimeError if no worker
    starts.
    """
    return _crew.map(_ask, requests)


def start() -> list[threading.Thread]:
    """Start the workers in the background, because each needs a second or more to import sympy."""
    return _crew.beside(_Worker.begin)


def traits(verifier: str) -> Reply:
    """What a custom function says about itself: `asks`, `vote`, `answer_in`, `deadline_s`.

    Raises InputError if it cannot be imported, or if a value is not valid.
    """
    return _reply(("", "", verifier)) or {}


def share(processes: int) -> None:
    """Keep this process's share of the workers, if `processes` of them compare answers at once."""
    _crew.keep(max(1, WORKERS // processes))


def forms(requests: Sequence[Request]) -> list[str]:
    """The canonical forms of (answer, "", verifier), in order; the answer itself where a worker hung."""
    found = _crew.map(_reply, [(*request, FORM) for request in requests])
    return [request[0] if one is None else one["form"] for request, one in zip(requests, found, strict=True)]


class _Worker(Child):
    """One child process, started at its first request. Used by one thread at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._deadline_s = {"math": DEADLINE_S}  # of the verifiers imported so far
        self._import_path = ""

    def ask(self, request: Request) -> Reply | None:
        """The reply, or None if the worker hung or died."""
        path = request[2]
        if path != "math" and self._import_path != _import_path():
            self.stop()  # a module of that name may now be a different one
        self.begin()
        if path not in self._deadline_s:  # separately: importing would use up the answer's deadline
            reply = self._exchange(("", "", path), START_S)
            if reply is None or "error" in reply:
                return reply
            self._deadline_s[path] = float(reply.get("deadline_s", DEADLINE_S))
        return self._exchange(request, self._deadline_s[path])

    def begin(self) -> None:
        """Start it, if it is not running."""
        if not self.is_alive:
            self._start()

    def forget(self) -> None:
        super().forget()
        self._deadline_s = {"math": DEADLINE_S}

    def _start(self) -> None:
        self._import_path = _import_path()
        env = {**os.environ, "PYTHONPATH": self._import_path}
        self.start([sys.executable, "-P", "-m", "a2r_train.verify.worker"], env)
        if self._exchange(None, START_S) is None:
            raise RuntimeError(
                "the verify worker does not start; see `python -m a2r_train.verify.worker < /dev/null`"
            )

    def _exchange(self, request: Request | None, deadline_s: float) -> Reply | None:
        """Send a request (None: nothing, at the start) and read one reply. If none comes, stop the process
        and return None.
        """
        line = b""
        try:
            if request is not None:
                self.send(json.dumps([*request, deadline_s]).encode() + b"\n")
            line = self._read_line(deadline_s)
        except BrokenPipeError:
            pass
        finally:
            # Also after Ctrl-C: a late reply must never pass for that of the next request.
            if not line:
                self.stop()
        reply: Reply | None = json.loads(line) if line else None
        return reply

    def _read_line(self, deadline_s: float) -> bytes:
        """One line, or b"" at the deadline or the death of the worker."""
        end, line = time.monotonic() + deadline_s, b""
        while not line.endswith(b"\n"):
            part = self.receive(65536, end)
            if not part:
                return b""
            line += part
        return line


def _import_path() -> str:
    """The current import path of this process, with the working directory last."""
    return os.pathsep.join(map(os.path.abspath, [*sys.path, "."]))


def _ask(request: Request) -> Verdict:
    reply = _reply(request)
    if reply is None:
        _tell_late(request[2])
        return TIMEOUT
    return reply["verdict"]


@cache
def _tell_late(verifier: str) -> None:
    """Warn once for each custom function, because otherwise the model would seem to be wrong."""
    if verifier != "math":
        log.warning(
            "verifier %r did not answer within its deadline_s, or ended its process; answers that it did not "
            "judge count as wrong",
            verifier,
        )


def _reply(request: Request) -> Reply | None:
    """None from a worker that hung or died. Raises InputError with the error of a custom verifier."""
    with _crew.taken() as worker:
        reply = worker.ask(request)
    if reply and "error" in reply:
        raise InputError(reply["error"])
    return reply


_workers = [_Worker() for _ in range(WORKERS)]
_crew = Crew(_workers)
_stop_all = _crew.stop
