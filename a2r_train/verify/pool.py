"""A few worker processes that compare answers, each killed and replaced when it hangs or dies.

A worker is a fresh interpreter that speaks lines of JSON over its pipes: it shares nothing with the parent,
so it works from any thread, beside torch, and under any launcher. It ends by itself: at the end of its input
when it is idle, by its own alarm when it is busy.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from a2r_train.errors import InputError
from a2r_train.records import TIMEOUT, Verdict

DEADLINE_S = 5.0  # for one comparison, by the clock
START_S = 120.0  # for a worker to import math_verify, or the module of an own verifier
# Of the cores that a launcher or a Slurm job has left to this process, where the system can tell.
WORKERS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

# answer, gold, verifier ("math" or the name of an own one), and for an own one what it sees besides, as JSON
Request = tuple[str, ...]
Reply = dict[str, str]


def ask_all(requests: Sequence[Request]) -> list[Verdict]:
    """Have the workers make each comparison, in order; `timeout` where a worker hung or died.

    Raises InputError for an own verifier that cannot be imported or raises, RuntimeError if no worker starts.
    """
    if len(requests) < 2:
        return [_ask(request) for request in requests]
    with ThreadPoolExecutor(min(WORKERS, len(requests))) as threads:
        return list(threads.map(_ask, requests))


def parameters(verifier: str) -> list[str]:
    """What a function of one's own asks for. Raises InputError where it cannot be imported."""
    reply = _reply(("", "", verifier))
    return [] if reply is None else reply["asks"].split(",")


class _Worker:
    """One child process, started when it is first asked. Used by one thread at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._imported = {"math"}
        self._import_path = ""

    def ask(self, request: Request) -> Reply | None:
        """The reply, or None if the worker hung or died."""
        path = request[2]
        if path != "math" and self._import_path != _import_path():
            self.stop()  # a module of that name may stand elsewhere now
        if self._process is None or self._process.poll() is not None:
            self._start()
        if path not in self._imported:  # apart from the answer, whose deadline it would use up
            reply = self._exchange(("", "", path), START_S)
            if reply is None or "error" in reply:
                return reply
            self._imported.add(path)
        return self._exchange(request, DEADLINE_S)

    def stop(self) -> None:
        """Kill the process, if there is one; the next request starts another."""
        if self._process:
            self._process.kill()
            self._process.wait()
        self.forget()

    def forget(self) -> None:
        """Let go of the process without touching it: after a fork it is the parent's."""
        process, self._process = self._process, None
        self._imported = {"math"}
        if process and process.stdin and process.stdout:
            process.returncode = process.returncode or 0  # nothing to wait for
            process.stdin.close()
            process.stdout.close()

    def _start(self) -> None:
        self.stop()
        self._import_path = _import_path()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "a2r_train.verify.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": self._import_path},
        )
        if self._exchange(None, START_S) is None:
            raise RuntimeError(
                "the verify worker does not start; see `python -m a2r_train.verify.worker < /dev/null`"
            )

    def _exchange(self, request: Request | None, deadline_s: float) -> Reply | None:
        """Send a request (None: nothing, at the start) and read one reply; None, and the process ended, if
        none comes.
        """
        line = b""
        try:
            if request is not None:
                self._send(json.dumps([*request, deadline_s]).encode() + b"\n")
            line = self._read_line(deadline_s)
        except BrokenPipeError:
            pass
        finally:
            # Also after Ctrl-C: a late reply must never be taken for that of the next request.
            if not line:
                self.stop()
        reply: Reply | None = json.loads(line) if line else None
        return reply

    def _send(self, data: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        while data:
            data = data[os.write(self._process.stdin.fileno(), data) :]

    def _read_line(self, deadline_s: float) -> bytes:
        """One line, or b"" at the deadline or the death of the worker."""
        assert self._process is not None
        assert self._process.stdout is not None
        stdout, end, line = self._process.stdout.fileno(), time.monotonic() + deadline_s, b""
        ready = select.poll()
        ready.register(stdout, select.POLLIN)
        while not line.endswith(b"\n"):
            left_s = end - time.monotonic()
            part = os.read(stdout, 65536) if left_s > 0 and ready.poll(left_s * 1000) else b""
            if not part:
                return b""
            line += part
        return line


def _import_path() -> str:
    """Where this process finds modules at this moment, the working directory last."""
    return os.pathsep.join(map(os.path.abspath, [*sys.path, "."]))


def _ask(request: Request) -> Verdict:
    reply = _reply(request)
    return TIMEOUT if reply is None else reply["verdict"]


def _reply(request: Request) -> Reply | None:
    """None from a worker that hung or died. Raises InputError for what an own verifier raised."""
    worker = _idle.get()
    try:
        reply = worker.ask(request)
    finally:
        _idle.put(worker)
    if reply and "error" in reply:
        raise InputError(reply["error"])
    return reply


def _stop_all() -> None:
    for worker in _workers:
        worker.stop()


def _renew_after_fork() -> None:
    """A forked data loader must not talk into its parent's pipes, nor wait for workers that its threads had
    taken.
    """
    global _idle
    for worker in _workers:
        worker.forget()
    _idle = _all_idle()


def _all_idle() -> queue.LifoQueue[_Worker]:
    """The last worker used is the first taken, so single requests keep one busy and start no others."""
    idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
    for worker in _workers:
        idle.put(worker)
    return idle


_workers = [_Worker() for _ in range(WORKERS)]
_idle = _all_idle()
atexit.register(_stop_all)
os.register_at_fork(after_in_child=_renew_after_fork)
