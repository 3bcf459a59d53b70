"""Run scripts in turn, each in a fresh fork of the processes that accelerate has launched: what takes most of
the time of so small a training, to launch them and to import torch and TRL, is then done once.

accelerate launch [options] tests/in_turn.py FOLDER

The command of a turn is read from FOLDER/TURN.json, after the port of the store where the processes meet; an
empty file is the end. What process RANK says goes to
TURN-RANK.out and .err, and its exit status to TURN-RANK.status. See launching.in_turn.
"""

import json
import os
import runpy
import sys
import time
from itertools import count
from pathlib import Path

from a2r_train.train import grpo, sft

IMPORTED = (grpo, sft)  # which starts no thread, so that a fork is as good as a new process
if os.environ.get("ACCELERATE_USE_DEEPSPEED"):
    from deepspeed.comm import torch as backend

    # Of inference alone, and compiled for a minute on two cores where no earlier run has done so.
    backend.build_shm_op = lambda: None


def become(command: list[str], port: int, said: str) -> None:
    """Run the script as a process that was launched for it alone."""
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{said}.{name}", os.O_WRONLY | os.O_CREAT), stream)
    os.environ["MASTER_PORT"] = str(port)  # at the launcher's store they would find the earlier turn
    sys.argv, sys.path[0] = command, str(Path(command[0]).parent)
    runpy.run_path(command[0], run_name="__main__")


def main(folder: Path, rank: str) -> None:
    for turn in count():
        asked = folder / f"{turn}.json"
        while not asked.exists():
            time.sleep(0.02)
        if not (text := asked.read_text()):
            return
        port, *command = json.loads(text)
        said = f"{folder}/{turn}-{rank}"
        if (child := os.fork()) == 0:
            become(command, port, said)
            sys.exit()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        Path(f"{said}.part").write_text(str(status))
        Path(f"{said}.part").rename(f"{said}.status")


if __name__ == "__main__":
    main(Path(sys.argv[1]), os.environ["RANK"])
