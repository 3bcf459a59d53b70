"""The end of a process that may be one of several."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from typing import NoReturn


def leave(main: Callable[[], int]) -> NoReturn:
    """Run `main` and end this process with its exit status; one of several ends without taking the interpreter apart.

    A thread of gloo, which outlives the process group, may then release what it holds of Python's. That aborts a process whose
    work is done and saved, and the launcher ends the others and calls the training failed (pytorch pull request 179291). vLLM's
    engines of one group may wait for each other there, too.
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
