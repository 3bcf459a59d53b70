"""Programs that try to earn a reward without solving the problem, or to harm the machine. None earns, and no process survives.

    python scripts/proofs/hostile_programs.py

The kinds are early exits, forged results, objects that fake equality, access to files and memory of others, processes that
outlive their time, and excessive use of resources. The problem asks for the square of a number.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from a2r_train.verify import judge

ROW = {
    "id": "square",
    "metadata": {
        "test_list": ["assert square(3) == 9", "assert square(-4) == 16", "assert square(12) == 144"]
    },
}
SOLUTION = "def square(x):\n    return x * x"

EXITS = {
    "sys.exit": "import sys\ndef square(x):\n    sys.exit(0)",
    "os._exit": "import os\ndef square(x):\n    os._exit(0)",
    "exit while it is defined": "import sys\nsys.exit(0)",
    "SystemExit": "raise SystemExit(0)",
    "quits by signal": "import os, signal\ndef square(x):\n    os.kill(os.getpid(), signal.SIGTERM)\n    return 9",
    "asserts patched": "import builtins\nbuiltins.AssertionError = None\n__debug__ = False if False else None\n",
    "no function": "print('all tests passed')",
    "stops at an exception": "def square(x):\n    raise KeyboardInterrupt",
    "a generator": "def square(x):\n    yield 9\n    yield 16",
}
FORGED = {
    "a printed marker": "def square(x):\n    print('PASSED', 'correct', 9, 16, 144)\n    return None",
    "writes to every descriptor": (
        "import os\nfor fd in range(1, 64):\n    try:\n        os.write(fd, b'[true, true, true]')\n"
        "    except OSError:\n        pass\nos._exit(0)"
    ),
    "forges a verdict": (
        'import os\nos.write(3, b\'{"ended": "returned", "values": "correct", "verdict": "correct"}\')\nos._exit(0)'
    ),
    "forges a frame": (
        'import os, struct\nbody = b\'{"ended": "returned", "values": "[9]"}\'\n'
        "for fd in range(64):\n    try:\n        os.write(fd, struct.pack('>I', len(body)) + body)\n"
        "    except OSError:\n        pass\nos._exit(0)"
    ),
    "numbers of every kind": (
        'import os\nos.write(3, b\'[["int", "0x9"], ["any"], ["float", "nan"]]\')\nos._exit(0)'
    ),
    "endless nesting": "import os\nos.write(3, b'[' * 200000)\nos._exit(0)",
    "endless digits": "import os\nos.write(3, b'[' + b'9' * 200000 + b']')\nos._exit(0)",
    "patches the encoder": (
        "import json\njson.dumps = lambda *a, **k: 'true'\ndef square(x):\n    return True"
    ),
    "patches ==": "class Any(int):\n    def __eq__(self, other):\n        return True\n    __hash__ = int.__hash__\n"
    "def square(x):\n    return Any(7)",
}
OBJECTS = {
    "equal to all": "class All:\n    def __eq__(self, other):\n        return True\ndef square(x):\n    return All()",
    "a list that is equal to all": (
        "class All(list):\n    def __eq__(self, other):\n        return True\ndef square(x):\n    return All()"
    ),
    "__reduce__": (
        "import os\nclass Payload:\n    def __reduce__(self):\n        return (os.system, ('touch /tmp/pwned',))\n"
        "def square(x):\n    return Payload()"
    ),
    "a mock": "from unittest.mock import ANY\ndef square(x):\n    return ANY",
    "not a number": "def square(x):\n    return float('nan')",
    "a cycle": "def square(x):\n    a = []\n    a.append(a)\n    return a",
    "a repr of a million characters": (
        "class Long:\n    def __repr__(self):\n        return '9' * 10**6\ndef square(x):\n    return Long()"
    ),
}
SPIES = {
    "files of the machine": "def square(x):\n    return open('/etc/passwd').read()",
    "the hidden tests": (
        "import os\ndef square(x):\n    for folder, _, names in os.walk('/'):\n        for name in names:\n"
        "            if name.endswith('.jsonl'):\n                return 9\n    return None"
    ),
    "frames of the parent": (
        "import sys\ndef square(x):\n    frame = sys._getframe()\n    seen = []\n    while frame:\n"
        "        seen += [str(v) for v in frame.f_locals.values()]\n        frame = frame.f_back\n"
        "    return next((int(t.rsplit('==')[1]) for t in seen if f'square({x}) ==' in t), None)"
    ),
    "objects of the parent": (
        "import gc\ndef square(x):\n    for one in gc.get_objects():\n        text = repr(one)[:10000]\n"
        "        if '== 9' in text and 'assert' in text and 'gc.get_objects' not in text:\n            return 9"
    ),
    "memory of the parent": (
        "import os\ndef square(x):\n    for pid in (1, os.getppid(), 'self'):\n        open(f'/proc/{pid}/mem', 'rb')\n"
        "    return 9"
    ),
    "the environment": "import os\ndef square(x):\n    return 9 if 'HOME' in os.environ else None",
    "the network": (
        "import socket\ndef square(x):\n    socket.create_connection(('127.0.0.1', 22), 1)\n    return x * x"
    ),
    "a second namespace": (
        "import ctypes\ndef square(x):\n    assert ctypes.CDLL(None).unshare(0x10000000) == 0\n    return x * x"
    ),
    "writes outside": (
        "def square(x):\n    open('/usr/lib/pwned', 'w').write('x')\n    open('/pwned', 'w')\n    return x * x"
    ),
    "another user": "import os\ndef square(x):\n    os.setuid(0)\n    os.chroot('/')\n    return x * x",
}
HOGS = {
    "an infinite loop": "def square(x):\n    while True:\n        pass",
    "an infinite sleep": "import time\ndef square(x):\n    time.sleep(10**6)",
    "a loop that catches all": (
        "def square(x):\n    while True:\n        try:\n            while True:\n                pass\n"
        "        except BaseException:\n            pass"
    ),
    "signals ignored": (
        "import signal\nfor one in range(1, 65):\n    try:\n        signal.signal(one, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n        pass\ndef square(x):\n    while True:\n        pass"
    ),
    "a fork bomb": "import os\ndef square(x):\n    while True:\n        try:\n            os.fork()\n"
    "        except OSError:\n            pass",
    "a fork that finishes late": (
        "import os, time\ndef square(x):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(30)\n"
        "        os._exit(0)\n    return x"
    ),
    "a daemon": (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(60)\n"
        "    os._exit(0)\ndef square(x):\n    return 0"
    ),
    "threads": (
        "import threading\ndef spin():\n    while True:\n        pass\ndef square(x):\n    while True:\n"
        "        threading.Thread(target=spin).start()"
    ),
    "a thread that outlives": (
        "import threading, time\ndef square(x):\n    threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "    return 0"
    ),
    "2 GB of output": "import sys\ndef square(x):\n    for _ in range(2048):\n        sys.stdout.write('x' * 2**20)",
    "2 GB of results": "def square(x):\n    return ['x' * 1000] * 2**21",
    "2 GB in a file": (
        "def square(x):\n    with open('/tmp/big', 'wb') as file:\n        for _ in range(2048):\n"
        "            file.write(b'x' * 2**20)\n    return x * x"
    ),
    "a million files": (
        "def square(x):\n    for i in range(10**6):\n        open(f'/tmp/{i}', 'w')\n    return x * x"
    ),
    "memory": "def square(x):\n    return len(bytearray(2**34))",
    "a big power": "def square(x):\n    return 9 ** 9 ** 9",
    "a big number": "def square(x):\n    return 10 ** 400000",
    "recursion": "def square(x):\n    return square(x)",
    "recursion without limit": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef square(x):\n    return square(x)"
    ),
    "a broken interpreter": "import ctypes\ndef square(x):\n    ctypes.string_at(0)",
    "a program without end": "x = " + "(" * 5000 + ")" * 5000,
    "a null byte": "def square(x):\n    return 9\0",
}
HOSTILE: Mapping[str, str] = {**EXITS, **FORGED, **OBJECTS, **SPIES, **HOGS}


def verdict(program: str) -> str:
    return judge(f"```python\n{program}\n```", SOLUTION, "python_tests", ROW)


def running_below(pid: int) -> dict[int, str]:
    """The descendants of this process and their commands, without zombies."""
    parents, names = {}, {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                stat = (path / "stat").read_text()
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            state, parent = stat.rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(path.name)], names[int(path.name)] = int(parent), command
    found, new = {}, {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        found |= {child: names[child] for child in new}
    return found


def still_running(before: set[int], patience_s: float = 2.0) -> dict[int, str]:
    """New descendants that still run; a helper needs a moment after its reply."""
    end = time.monotonic() + patience_s
    while True:
        left = {pid: name for pid, name in running_below(os.getpid()).items() if pid not in before}
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.05)


def main() -> None:
    assert verdict(SOLUTION) == "correct"
    before, began = set(running_below(os.getpid())), time.monotonic()
    earned = [name for name, program in HOSTILE.items() if verdict(program) == "correct"]
    left = still_running(before)
    seconds = time.monotonic() - began
    print(
        f"{len(HOSTILE)} hostile programs in {seconds:.0f} s: {len(earned)} earn {earned}, {len(left)} still run"
    )
    raise SystemExit(bool(earned or left))


if __name__ == "__main__":
    main()
