"""Several processes on the CPU, as `accelerate launch` starts them with the shipped configs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch.distributed import TCPStore

ROOT = Path(__file__).parent.parent
ON_CPU = {"OMP_NUM_THREADS": "1", "DS_BUILD_OPS": "0"}


def without_vllm(**more: str) -> dict[str, str]:
    """The environment of a process that needs no vllm, which then starts in half of the time."""
    return with_vllm(**{"A2R_TEST_WITHOUT_VLLM": "1", **more})


def with_vllm(**more: str) -> dict[str, str]:
    """The environment of one that does.

    It may keep the package compiled, whatever it is told outside: each process would compile all of it.
    """
    own = {"PYTHONPATH": f"{ROOT / 'tests' / 'quick_start'}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": ""}
    return {**os.environ, **own, **more}


def launch(config: str, *command: str, timeout_s: float = 300, **more: str) -> str:
    """Run a script from the project's root under `accelerate_configs/CONFIG.yaml`, and return what it
    shows.
    """
    done = launched(config, *command, timeout_s=timeout_s, **more)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def launched(
    config: str, *command: str, timeout_s: float = 300, **more: str
) -> subprocess.CompletedProcess[str]:
    """The same for a script that may fail; `more` is its environment.

    Under fsdp2 it is told `use_cpu: false` by the caller, and has none but CPUs all the same.
    """
    environment = without_vllm(**ON_CPU, **more)
    return subprocess.run(
        launcher(config, *command),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


def launcher(config: str, *command: str) -> list[str]:
    """What starts a script in two processes."""
    start = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2"]
    wrapped = ["tests/fsdp_on_cpu.py"] if config == "fsdp2" else []
    config_file = f"accelerate_configs/{config}.yaml"
    return [*start, "--config_file", config_file, "--main_process_port", "0", *wrapped, *command]


class Said(NamedTuple):
    """Of two processes together."""

    out: str
    err: str


@contextmanager
def in_turn(config: str, folder: Path, timeout_s: float = 300) -> Iterator[Callable[..., Said]]:
    """Launch two processes, and let them run one script after the other, each in a fork; see
    tests/in_turn.py. What runs a script returns what both have said, and fails unless both end with `status`.
    """
    turns = count()

    def ask(text: str) -> int:
        turn = next(turns)
        (folder / f"{turn}.part").write_text(text)
        (folder / f"{turn}.part").rename(folder / f"{turn}.json")
        return turn

    def run(*command: str, status: int = 0) -> Said:
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as the launcher has one
        turn, until = ask(json.dumps([store.port, *command])), time.monotonic() + timeout_s
        found: list[str] = []
        while len(found) < 2 and set(found) <= {str(status)}:
            time.sleep(0.02)
            found = [path.read_text() for path in folder.glob(f"{turn}-*.status")]
            said = [path.read_text()[-3000:] for path in sorted(folder.glob(f"{turn}-*.err"))]
            assert process.poll() is None, said
            assert time.monotonic() < until, said
        assert found == [str(status)] * 2, said
        out, err = (
            "".join(p.read_text() for p in folder.glob(f"{turn}-*.{name}")) for name in ("out", "err")
        )
        return Said(out, err)

    process = subprocess.Popen(
        launcher(config, "tests/in_turn.py", str(folder)),
        cwd=ROOT,
        env=without_vllm(**ON_CPU),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield run
        ask("")
        assert process.wait(60) == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def running(process: int) -> bool:
    """Whether it is there and has not ended; the parent may not have read its status yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def left_running(processes: Iterable[int], wait_s: float) -> list[int]:
    """Those that still run after that time, which a process needs to see that its parent is gone."""
    until = time.monotonic() + wait_s
    while (left := [process for process in processes if running(process)]) and time.monotonic() < until:
        time.sleep(0.05)
    return left


def weights_in(folder: str | Path) -> torch.Tensor:
    """All weights of a checkpoint, end to end in the order of their names."""
    state = load_file(Path(folder) / "model.safetensors")
    return torch.cat([state[name].flatten().float() for name in sorted(state)])
