"""How a process ends: exit status, signals, a full disk, and one process of several."""

from __future__ import annotations

import atexit
import ctypes
import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from safetensors import SafetensorError

from a2r_train.errors import InputError, RunError

KEPT = "what is complete is kept, and the same command goes on from there"


PR_SET_PDEATHSIG = 1  # of prctl(2)
ENDED_BY = {
    signal.SIGTERM: "SIGTERM",
    signal.SIGINT: "Ctrl-C",
}  # the exit status is 128 plus the signal


# What Python, torch and safetensors raise if a file cannot be written to its end; the last two say so only in
# the message.
WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)


_NO_ROOM = (
    "No space left",
    "File too large",
    "quota exceeded",
    "PytorchStreamWriter failed writing",
    "unexpected pos",
)


def start_logging() -> None:
    """Log to stderr, from the first of several training processes: the others would repeat each line."""
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s")


def run(stage: Callable[[], None]) -> int:
    """Run a stage; returns its exit status, with one line on stderr where it is not 0.

    It is 2 if the user's input is wrong, and 1 if the disk is full or a run failed. SIGTERM ends the stage
    with status 143, Ctrl-C with 130, and a second signal of the same kind ends it at once.
    """
    try:
        with _ending_at_signals():
            stage()
    except InputError as error:
        return _say(error, 2)
    except RunError as error:
        return _say(error, 1)
    except WRITE_ERRORS as error:
        if not (line := no_room(error)):
            raise
        return _say(line, 1)
    return 0


def _say(line: object, status: int) -> int:
    sys.stderr.write(f"error: {line}\n")
    return status


def listened_to() -> list[signal.Signals]:
    """The signals that this process was not told to ignore, as a shell does with Ctrl-C for what it starts
    with `&`; none in a thread, because Python handles signals only in the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    return [number for number in ENDED_BY if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def handling_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within this context the handler gets SIGTERM and Ctrl-C. If SystemExit ends it, the handler stays."""
    before, ending = {number: signal.signal(number, handler) for number in listened_to()}, False
    try:
        yield
    except SystemExit:  # a second signal must not interrupt the cleanup of the process
        ending = True
        raise
    finally:
        for number, earlier in before.items() if not ending else ():
            signal.signal(number, earlier)


@contextmanager
def _ending_at_signals() -> Iterator[None]:
    """Within this context, SIGTERM and Ctrl-C end the process with status and one line, and a forked child at
    once.
    """
    own, ending, said, hook = os.getpid(), 0, False, sys.unraisablehook

    def end(number: int, _frame: FrameType | None) -> None:
        nonlocal ending, said
        if os.getpid() != own or number == ending:
            os._exit(128 + number)
        if ending:  # `a2r run` passes Ctrl-C on as SIGTERM, after the terminal has sent it
            return
        ending = number
        if not said:
            try:
                sys.stderr.write(f"stopped by {ENDED_BY[signal.Signals(number)]}; {KEPT}\n")
            except OSError:  # its reader may be gone, as `tee` is at Ctrl-C; Python would end with status 120
                sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (to the end)
        said = True
        raise SystemExit(128 + number)

    def send_again(lost: sys.UnraisableHookArgs) -> None:
        """Python drops what is raised in a destructor or at the end of an import, where a signal may well
        arrive.
        """
        nonlocal ending
        if ending and isinstance(lost.exc_value, SystemExit):
            threading.Timer(0.02, os.kill, (own, ending)).start()
            ending = 0
        else:
            hook(lost)

    sys.unraisablehook = send_again
    try:
        with handling_signals(end):
            yield
            if ending:  # a library caught it with a bare except
                raise SystemExit(128 + ending)
    finally:
        sys.unraisablehook = send_again if ending else hook


def ending_with_parent() -> Callable[[], None] | None:
    """What a child process runs first (its `preexec_fn`): it asks Linux for a SIGTERM in case this process is
    killed, which then cannot pass anything on.
    """
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent was killed before the request
            os._exit(128 + signal.SIGTERM)

    return ask


def no_room(error: BaseException) -> str:
    """One line for an error that says that the disk, or a quota, is full; "" for any other error."""
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if full or any(message in str(error) for message in _NO_ROOM):
        first = str(error).strip().splitlines()[0]
        return f"no space left on the disk ({first[:160]}); free some space and run the same command again"
    return ""


def leave(main: Callable[[], int]) -> NoReturn:
    """Run `main` and end this process with its exit status; one of several skips the interpreter's shutdown.

    A thread of gloo outlives the process group, and may release Python objects during that shutdown. That
    aborts a process whose work is done and saved; the launcher then ends the others and reports a failed
    training (pytorch pull request 179291). vLLM's engines of one group may also wait for each other there.
    """
    try:
        status = main()
    except SystemExit as ended:
        if not isinstance(ended.code, int):
            raise
        status = ended.code
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        sys.exit(status)
    atexit._run_exitfuncs()  # trackers, temporary folders, the processes of verifiers
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
