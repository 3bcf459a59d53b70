"""Runs work in several processes, one result at a time, and logs its rate and the time left."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import connection
from typing import TypeVar

from a2r_train.verify import pool

log = logging.getLogger(__name__)
SAY_AFTER_S, SAY_EVERY_S = 10.0, 30.0

Task = TypeVar("Task")
Result = TypeVar("Result")


def cores() -> int:
    """The cores that a launcher or a Slurm job has left to this process, where the system can tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def mapped(
    function: Callable[[Task], Result], tasks: Sequence[Task], processes: int
) -> Iterator[tuple[int, Result]]:
    """Yield (number of the task, result) as tasks finish; with one process or task, they run in this process.

    The processes are spawned, because threads of tokenizers and Arrow do not survive a fork. They end with
    this one, however it ends: on an error or a signal, nothing waits for their current tasks. Raises what the
    function raises.
    """
    if processes < 2 or len(tasks) < 2:
        for number, task in enumerate(tasks):
            yield number, function(task)
        return
    several = min(processes, len(tasks))
    pool_of_them = ProcessPoolExecutor(
        several, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(several,)
    )
    before = set(multiprocessing.active_children())
    try:
        with _without_main():
            numbers = {pool_of_them.submit(function, task): number for number, task in enumerate(tasks)}
        for future in as_completed(numbers):
            yield numbers[future], future.result()
            del numbers[future]  # frees its result
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.kill()
        raise
    finally:
        pool_of_them.shutdown(cancel_futures=True)


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep spawned processes from running the user's script again, which may call the stage outside of
    `if __name__ == "__main__"`. All that the processes run is in modules.
    """
    main = vars(sys.modules["__main__"])
    names: tuple[str, ...] = ("__file__", "__spec__")
    hidden = {name: main.pop(name) for name in names if name in main}
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(hidden)


def _begin(processes: int) -> None:
    """Leave signals to the parent, and end when it is gone: a killed parent cannot tell its children."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pool.share(processes)
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(parent: int) -> None:
    connection.wait([parent])
    os._exit(1)


class Rate:
    """Logs how far a part of a stage is, its rate and the time left, if it takes long.

    `before`: how much of the total an earlier run did, which says nothing about the rate.
    """

    def __init__(self, name: str, total: float, unit: str, before: float = 0) -> None:
        self.name, self.total, self.unit, self.done, self.before = name, total, unit, before, before
        self.began = time.monotonic()
        self.said = self.began + SAY_AFTER_S - SAY_EVERY_S

    def add(self, count: float) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.said >= SAY_EVERY_S:
            self.said = now
            log.info("%s", self.line(now - self.began))

    def line(self, seconds: float) -> str:
        """The log line after so many seconds."""
        rate = (self.done - self.before) / seconds
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate else ""
        done = f"{self.done:,.0f} of {self.total:,.0f} {self.unit}"
        return f"{self.name}: {done}, {rate:,.0f} a second{left}"
