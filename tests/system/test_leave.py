"""One of several processes ends with its status and all it wrote, and without the end of the interpreter."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys
from a2r_train.process import leave

class Held:
    def __del__(self):
        print("interpreter ended")

def main():
    print("worked")
    sys.stderr.write("a warning\\n")
    {end}

held = Held()
atexit.register(print, "tracker ended")
leave(main)
"""


def ended(end: str, processes: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "WORLD_SIZE": str(processes)}
    command = [sys.executable, "-c", PROGRAM.format(end=end)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("end", ["return 3", "sys.exit(3)"])
@pytest.mark.parametrize("processes", [1, 2])
def test_status_and_output(end: str, processes: int) -> None:
    done = ended(end, processes)
    assert done.returncode == 3
    assert done.stderr == "a warning\n"
    assert done.stdout.split("\n") == [
        "worked",
        "tracker ended",
        *["interpreter ended"] * (processes == 1),
        "",
    ]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("end", "shown"), [("raise ValueError('broken')", "ValueError: broken"), ("sys.exit('no')", "no")]
)
def test_what_is_raised_is_shown(end: str, shown: str, processes: int) -> None:
    done = ended(end, processes)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == shown
