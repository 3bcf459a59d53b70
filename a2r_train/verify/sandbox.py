"""Runs untrusted programs through sandbox_server.py, in separate processes and never in this one."""

from __future__ import annotations

import json
import logging
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from a2r_train.verify.child import CORES, Child, Crew

log = logging.getLogger(__name__)

SERVERS = min(16, CORES + 1)  # one more than cores, because a program may wait
CPU_S, WALL_S = 0.3, 2.0  # for one program with all its calls, unless its problem sets more
START_S, REPLY_S = 60.0, 20.0  # for a server to start; for a busy machine, beyond the limits of a program
MAX_REPLY_BYTES = 2**22
SERVER = Path(__file__).with_name("sandbox_server.py")
WALLS = {
    "network": "no network",
    "processes": "a pid namespace of its own",
    "files": "no files but the standard library",
    "uid": "another uid",
    "ipc": "no shared memory of other processes",
}

_said = threading.Lock()


@dataclass(frozen=True)
class Run:
    """One program and the calls that it has to answer; limits in seconds for all of it."""

    program: str
    calls: tuple[str, ...]
    cpu_s: float = CPU_S
    wall_s: float = WALL_S


@dataclass(frozen=True)
class Ended:
    """How a run ended (`returned`, `too long`, `too much`, `died`), and its JSON, which must not be trusted.
    `lost`: the sandbox itself did not answer.
    """

    how: str
    values: str


def run_all(runs: Sequence[Run]) -> list[Ended]:
    """Run programs on all servers; results are in order. Raises RuntimeError if no server starts."""
    return _crew.map(_run, runs)


class _Server(Child):
    """One server, started at its first request. Used by one thread at a time."""

    def run(self, run: Run) -> Ended:
        if not self.is_alive:
            self._start()
        reply: dict[str, Any] | None = None
        try:
            self.send(_framed(asdict(run)))
            reply = self._reply(run.wall_s + REPLY_S)
        except BrokenPipeError:
            pass
        finally:
            if reply is None:  # a late reply must never pass for that of the next program
                self.stop()
        return Ended(reply["ended"], reply["values"]) if reply else Ended("lost", "")

    def _start(self) -> None:
        # The hash seed: the same program gives sets in the same order each time.
        environment = {"PYTHONHASHSEED": "0", "PATH": "/nowhere", "LC_ALL": "C.UTF-8"}
        command = [sys.executable, "-s", "-P", "-S", "-B", str(SERVER)]
        self.start(command, environment, stderr=subprocess.DEVNULL)
        hello = self._reply(START_S)
        if hello is None:
            raise RuntimeError(f"the sandbox does not start; see `python -S {SERVER} < /dev/null`")
        _say(hello["walls"])

    def _reply(self, deadline_s: float) -> dict[str, Any] | None:
        end = time.monotonic() + deadline_s
        head = self._exactly(4, end)
        size = struct.unpack(">I", head)[0] if head else 0
        if not head or size > MAX_REPLY_BYTES:
            return None
        body = self._exactly(size, end)
        reply: dict[str, Any] | None = json.loads(body) if body else None
        return reply

    def _exactly(self, size: int, end: float) -> bytes:
        """Exactly `size` bytes, or b"" if they do not arrive."""
        data = b""
        while len(data) < size:
            part = self.receive(size - len(data), end)
            if not part:
                return b""
            data += part
        return data


def _framed(content: dict[str, Any]) -> bytes:
    data = json.dumps(content).encode()
    return struct.pack(">I", len(data)) + data


def _run(run: Run) -> Ended:
    with _crew.taken() as server:
        return server.run(run)


def protection(walls: Sequence[str]) -> str:
    """One line: how the sandbox protects, and what is missing."""
    there = [text for wall, text in WALLS.items() if wall in walls]
    missing = [text for wall, text in WALLS.items() if wall not in walls]
    said = f"programs run with {', '.join([*there, 'limits on time, memory and output'])}"
    return f"{said}; this system does not provide: {', '.join(missing)}" if missing else said


def _say(walls: Sequence[str]) -> None:
    """Log the protection, once per process; as a warning if programs can reach the network, other processes
    or the files of this machine.
    """
    if _said.acquire(blocking=False):
        is_weak = not {"network", "processes", "files"} <= {*walls}
        log.log(logging.WARNING if is_weak else logging.INFO, "sandbox: %s", protection(walls))


_servers = [_Server() for _ in range(SERVERS)]
_crew = Crew(_servers)
