"""Child processes that answer over their pipes, killed and replaced when they hang or die.

A child is a fresh interpreter that shares nothing with the parent. So it works from any thread, alongside
torch, and under any launcher.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

# The cores that a launcher or a Slurm job leaves to this process, if the system can tell.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Child:
    """One child process. Used by one thread at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, command: Sequence[str], env: Mapping[str, str], stderr: int | None = None) -> None:
        """Start it, replacing an earlier one."""
        self.stop()
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=stderr, bufsize=0, env=dict(env)
        )

    def end(self) -> None:
        """Let an idle process end, by closing its input."""
        if self._process and self._process.stdin:
            self._process.stdin.close()
            self._process.wait()
        self.forget()

    def stop(self) -> None:
        """Kill the process, if there is one."""
        if self._process:
            self._process.kill()
            self._process.wait()
        self.forget()

    def forget(self) -> None:
        """Drop the process without touching it: after a fork it belongs to the parent."""
        process, self._process = self._process, None
        if process and process.stdin and process.stdout:
            process.returncode = process.returncode or 0  # nothing to wait for
            process.stdin.close()
            process.stdout.close()

    def send(self, data: bytes) -> None:
        """Raises BrokenPipeError if the process has ended."""
        assert self._process is not None
        assert self._process.stdin is not None
        while data:
            data = data[os.write(self._process.stdin.fileno(), data) :]

    def receive(self, most: int, end: float) -> bytes:
        """Up to `most` bytes, as they arrive; b"" at `end`, by the monotonic clock, or when it dies."""
        assert self._process is not None
        assert self._process.stdout is not None
        stdout = self._process.stdout.fileno()
        ready = select.poll()
        ready.register(stdout, select.POLLIN)
        left_s = end - time.monotonic()
        return os.read(stdout, most) if left_s > 0 and ready.poll(left_s * 1000) else b""


class _Stoppable(Protocol):
    def stop(self) -> None: ...

    def forget(self) -> None: ...


Member = TypeVar("Member", bound=_Stoppable)
Request = TypeVar("Request")
Reply = TypeVar("Reply")


class Crew(Generic[Member]):
    """A few children; each thread takes one that is idle."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._idle = self._all_idle()
        atexit.register(self.stop)
        os.register_at_fork(after_in_child=self._renew_after_fork)

    @contextmanager
    def taken(self) -> Iterator[Member]:
        member = self._idle.get()
        try:
            yield member
        finally:
            self._idle.put(member)

    def map(self, ask: Callable[[Request], Reply], requests: Sequence[Request]) -> list[Reply]:
        """`ask` for each request, in order, as many at once as there are children."""
        if len(requests) < 2:
            return [ask(request) for request in requests]
        with ThreadPoolExecutor(min(len(self._members), len(requests))) as threads:
            return list(threads.map(ask, requests))

    def beside(self, do: Callable[[Member], object]) -> list[threading.Thread]:
        """Call `do` for each idle child, all at once, in the background. An error is left to the next request
        to that child.
        """
        started = []
        with contextlib.suppress(queue.Empty):
            while True:
                member = self._idle.get_nowait()
                started.append(threading.Thread(target=self._do, args=(do, member, self._idle), daemon=True))
        for thread in started:
            thread.start()
        return started

    def _do(self, do: Callable[[Member], object], member: Member, idle: queue.LifoQueue[Member]) -> None:
        try:
            with contextlib.suppress(Exception):
                do(member)
        finally:
            idle.put(member)

    def keep(self, count: int) -> None:
        """Stop all children but the first `count`; none may be in use."""
        for member in self._members[count:]:
            member.stop()
        self._members = self._members[:count]
        self._idle = self._all_idle()

    def stop(self) -> None:
        for member in self._members:
            member.stop()

    def _renew_after_fork(self) -> None:
        """A forked data loader must not write to its parent's pipes, or wait for children that the parent's
        threads had taken.
        """
        for member in self._members:
            member.forget()
        self._idle = self._all_idle()

    def _all_idle(self) -> queue.LifoQueue[Member]:
        """The last one used is taken first, so that single requests use one child and start no others."""
        idle: queue.LifoQueue[Member] = queue.LifoQueue()
        for member in self._members:
            idle.put(member)
        return idle
