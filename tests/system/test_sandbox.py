"""The sandbox of `python_tests`: hostile programs earn nothing, nothing is left running, and what it
gives is said."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hostile_programs import HOSTILE, ROW, SOLUTION, running_below, still_running, verdict
from launching import left_running

from a2r_train.records import CORRECT, INCORRECT, TIMEOUT
from a2r_train.verify import judge, judge_all, programs, sandbox


def servers() -> set[int]:
    return {pid for pid, name in running_below(os.getpid()).items() if "sandbox_server" in name}


def run(program: str, *calls: str, **limits: float) -> sandbox.Ended:
    (ended,) = sandbox.run_all([sandbox.Run(program, calls, **limits)])
    return ended


def values(program: str, *calls: str) -> list[Any]:
    return programs.returned(run(program, *calls))


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left_running() -> Any:
    assert verdict(SOLUTION) == CORRECT
    yield
    sandbox._crew.stop()
    assert not {pid for pid, name in still_running(set()).items() if "sandbox" in name}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_earns_nothing(name: str) -> None:
    assert len(HOSTILE) >= 30
    began, before = time.monotonic(), set(running_below(os.getpid()))
    assert verdict(HOSTILE[name]) == INCORRECT
    assert time.monotonic() - began < 15
    assert {*still_running(before)} <= servers()
    assert len(servers()) <= 2 * sandbox.SERVERS
    assert verdict(SOLUTION) == CORRECT


@pytest.mark.parametrize(
    "program",
    [
        "import numpy", "import a2r_train", "import yaml", "import pip",
        "assert open('/proc/1/environ')", "assert open('/dev/mem')", "open('/root/x', 'w')",
        "import os; os.mkdir('/a2r')", "import os; os.rmdir('/usr/lib')",
        "import os; os.kill(-1, 9); open('/x')",
        "import subprocess; subprocess.run(['sh', '-c', 'true'], check=True)",
    ],
)  # fmt: skip
def test_what_is_not_there(program: str) -> None:
    assert programs.returned(run(f"{program}\ndef f():\n    return 1", "f()")) == []


def test_what_is_there() -> None:
    program = """
import asyncio, bisect, collections, dataclasses, heapq, itertools, json, math, re, sqlite3, typing, zlib
def f(x):
    open('/tmp/x', 'w').write(str(x))
    return int(open('/tmp/x').read()) + 1
def left():
    import os
    return sorted(os.listdir('/tmp'))
def who():
    import os
    return os.getpid(), os.getuid(), len(os.listdir('/'))
"""
    assert values(program, "f(1)") == [["int", "0x2"]]
    assert values(program, "left()") == [["list"]]  # of the last program nothing is there
    ((_, pid, uid, shown),) = values(program, "who()")
    assert int(pid[1], 16) == 1
    assert os.getuid() or int(uid[1], 16) >= 64_000
    assert int(shown[1], 16) < 8


def test_a_dataclass_finds_its_module() -> None:
    kind = "from dataclasses import dataclass\n@dataclass\nclass N:\n    v: int\n"
    assert values(kind + "def f(x):\n    return N(x).v", "f(1)") == [["int", "0x1"]]


def test_the_same_program_returns_the_same_each_time() -> None:
    program = "import random\ndef f():\n    return list({'a', 'b', 'c', 'd'}), random.random()"
    sandbox._crew.stop()
    found = [values(program, "f()") for _ in range(2)]
    sandbox._crew.stop()
    assert [values(program, "f()") for _ in range(2)] == found
    assert found[0] == found[1]


def test_a_problem_may_have_more_time() -> None:
    program = "def f():\n    n = 0\n    while n < 4 * 10**7:\n        n += 1\n    return n"
    assert run(program, "f()").how == "too long"
    assert run(program, "f()", cpu_s=30.0, wall_s=60.0).how == "returned"
    row = {"id": "p", "metadata": {"test_list": ["assert f() == 40000000"], "cpu_s": 30, "wall_s": 60}}
    (judged,) = judge_all([(f"```\n{program}\n```", "", "python_tests")], [row])
    assert judged.verdict == CORRECT


def test_a_server_that_is_killed_costs_one_verdict() -> None:
    sandbox._crew.stop()
    sleeper = "import time\ndef square(x):\n    time.sleep(20)\n    return x * x"
    row = {"id": "p", "metadata": {**ROW["metadata"], "wall_s": 60}}
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(judge, f"```\n{sleeper}\n```", SOLUTION, "python_tests", row)
        while len(servers()) < 4:  # a server is two processes, and a program at work two more
            time.sleep(0.05)
        (server,) = [one for one in sandbox._servers if one.is_alive]
        assert server._process
        server._process.kill()  # all below it go with it
        assert asked.result() == TIMEOUT
    assert verdict(SOLUTION + "\n") == CORRECT
    assert verdict(sleeper.replace("20", "0.1")) == CORRECT


def test_no_server_outlives_a_killed_parent() -> None:
    code = f"""
import sys, threading, time
sys.path.insert(0, {str(Path("scripts/proofs").absolute())!r})
from hostile_programs import verdict
sleeper = "import time\\ndef square(x):\\n    time.sleep(1.9)"
threading.Thread(target=verdict, args=(sleeper,), daemon=True).start()
time.sleep(1.0)
print("ready", flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    assert parent.stdout.readline() == "ready\n"
    below = running_below(parent.pid)
    assert below
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert not left_running(below, 15)


SERVE = """
import json, os, struct, sys
sys.path.insert(0, {folder!r})
import sandbox_server as server
{change}
server.main()
"""
OWN_UIDS = range(80_000, 81_000)  # which the sandboxes of other tests do not use
WITHOUT = f"server.NOBODY = {OWN_UIDS[0]}; server._unshared = server._own_user = lambda *_: server._check(-1)"


def served(change: str, *requests: dict[str, Any], **how: Any) -> list[dict[str, Any]]:
    """What a server says at its start, and its replies."""
    code = SERVE.format(folder=str(sandbox.SERVER.parent), change=change)
    python = how.pop("python", sys.executable)
    data = b"".join(sandbox._framed({"cpu_s": 0.5, "wall_s": 3.0, **one}) for one in requests)
    done = subprocess.run(
        [python, "-s", "-B", "-S", "-c", code], input=data, capture_output=True, check=False, **how
    )
    found, at = [], 0
    while at < len(done.stdout):
        size = int.from_bytes(done.stdout[at : at + 4], "big")
        found.append(json.loads(done.stdout[at + 4 : at + 4 + size]))
        at += 4 + size
    return found


CALLS = [f"square({n})" for n in (3, -4, 12)]


# That of the tests may lie in a folder of root.
ANYBODYS_PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin")


@pytest.mark.skipif(os.getuid() != 0 or not ANYBODYS_PYTHON, reason="needs another user, and a Python for it")
def test_a_user_without_rights_has_the_same_walls() -> None:
    asked = [{"program": program, "calls": CALLS} for program in (SOLUTION, *HOSTILE.values())]
    hello, right, *others = served(
        "", *asked, python=ANYBODYS_PYTHON, user=65534, group=65534, extra_groups=[], cwd="/"
    )
    assert {"network", "processes", "files"} <= {*hello["walls"]}
    assert right == {"ended": "returned", "values": '[["int", "0x9"], ["int", "0x10"], ["int", "0x90"]]'}
    assert len(others) == len(HOSTILE)
    row = programs.hidden_tests(ROW)
    judged = [programs._verdict(row, sandbox.Ended(one["ended"], one["values"])) for one in others]
    assert dict(zip(HOSTILE, judged, strict=True)) == dict.fromkeys(HOSTILE, INCORRECT)


def test_where_linux_gives_no_walls_limits_hold_and_it_is_said() -> None:
    names = [
        "a fork bomb",
        "an infinite loop",
        "a fork that finishes late",
        "a daemon",
        "2 GB of output",
        "memory",
    ]
    programs_asked = [SOLUTION, *(HOSTILE[name] for name in names)]
    folder = Path(tempfile.gettempdir())
    before = {*folder.iterdir()}
    asked = [{"program": program, "calls": CALLS} for program in programs_asked]
    hello, right, *others = served(WITHOUT, *asked)
    assert not {"network", "processes", "files"} & {*hello["walls"]}
    assert right["ended"] == "returned"
    assert len(others) == len(names)
    assert not [path for path in {*folder.iterdir()} - before if _uid(path) in OWN_UIDS]
    assert not [path for path in Path("/proc").iterdir() if path.name.isdigit() and _uid(path) in OWN_UIDS]
    assert "this system does not provide: no network" in sandbox.protection(hello["walls"])


def _uid(path: Path) -> int:
    try:
        return path.stat().st_uid
    except OSError:
        return -1


def test_how_far_it_protects_is_one_line() -> None:
    said = sandbox.protection([*sandbox.WALLS])
    assert said == (
        "programs run with no network, a pid namespace of its own, no files but the standard library, "
        "another uid, no shared memory of other processes, limits on time, memory and output"
    )
