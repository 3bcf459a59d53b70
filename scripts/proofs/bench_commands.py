"""Helpers of prove_gpus.py: run commands that can be killed with all their children, and write rows."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

ROOT = Path(__file__).parents[2]
CUDA = torch.cuda.is_available()
MARK = "A2R_PROVE_GPUS"  # set in the environment of each process started here, to find it again


@dataclass(frozen=True)
class Ended:
    """How a command ended; status is None if it ran out of time."""

    status: int | None
    stdout: str
    stderr: str
    seconds: float

    @property
    def error(self) -> str:
        """The first error lines, and the end of stderr."""
        named = " | ".join([line for line in self.stderr.splitlines() if "Error" in line][:2])
        return f"{'out of time; ' if self.status is None else ''}{named[:300]} ... {self.stderr[-600:]}"

    def json(self) -> dict[str, Any]:
        """The last line of stdout that is a JSON object; empty if there is none."""
        found = [line for line in self.stdout.splitlines() if line.startswith('{"')]
        return dict(json.loads(found[-1])) if found else {}


@dataclass
class Bench:
    """What all parts of the proof share."""

    model: str
    configs: list[str]
    output: Path
    folder: Path
    processes: int
    timeout_s: float
    written: threading.Lock = field(default_factory=threading.Lock)

    def row(
        self, part: str, name: str, passed: bool | None, ended: Ended | None = None, **found: Any
    ) -> None:
        """Append a row; `passed` is None if the row proves nothing."""
        devices = (
            [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if CUDA else ["CPU"]
        )
        row = {
            "part": part,
            "name": name,
            "pass": passed,
            "model": self.model,
            "devices": devices,
            "torch": torch.__version__,
        }
        row |= {"seconds": round(ended.seconds, 1), "status": ended.status} if ended else {}
        row |= {
            **found,
            **({"error": ended.error} if ended and (ended.status != 0 or passed is False) else {}),
        }
        with self.written, self.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)

    def launch(self, config: str, *script: str, processes: int = 0) -> list[str]:
        """The command that launches a script with its arguments in several processes."""
        launcher = ["-m", "accelerate.commands.launch", "--config_file", f"accelerate_configs/{config}.yaml"]
        wrapped = ["tests/fsdp_on_cpu.py"] if config == "fsdp2" and not CUDA else []
        count = ["--num_processes", str(processes or self.processes), "--main_process_port", "0"]
        return python(*launcher, *count, *wrapped, *script)

    def start(self, name: str, command: list[str], **env: str) -> tuple[subprocess.Popen[bytes], str]:
        """Start a command from the project's root in this environment; also returns its mark."""
        mark = f"{name}-{uuid.uuid4()}"
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        own = {
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "DS_BUILD_OPS": "0",
            "PYTHONPATH": paths,
            MARK: mark,
        }
        with (self.folder / f"{mark}.out").open("wb") as out, (self.folder / f"{mark}.err").open("wb") as err:
            process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **own, **env}, stdout=out, stderr=err
            )
        return process, mark

    def wait(
        self, process: subprocess.Popen[bytes], mark: str, until: Callable[[], bool] = lambda: False
    ) -> Ended:
        """Wait until it ends, `until` is true, or the time is up; then kill whatever is still running."""
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < self.timeout_s and not until():
            time.sleep(0.05)
        status = process.poll()
        kill_all(mark)
        process.wait()
        says = [(self.folder / f"{mark}.{stream}").read_text(errors="replace") for stream in ("out", "err")]
        return Ended(status, *says, time.monotonic() - began)

    def run(self, name: str, command: list[str], **env: str) -> Ended:
        return self.wait(*self.start(name, command, **env))

    def together(self, works: list[Callable[[], None]]) -> None:
        """Run them in parallel if there are GPUs, otherwise one by one."""
        with ThreadPoolExecutor(8 if CUDA else 1) as pool:
            list(pool.map(lambda work: work(), works))


def python(*script: str) -> list[str]:
    return [sys.executable, *script]


def kill_all(mark: str) -> None:
    """Send SIGKILL to all processes started under a mark, including orphans."""
    for process in [
        *psutil.process_iter(),
        *psutil.process_iter(),
    ]:  # twice, to catch processes that were just starting
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                process.send_signal(signal.SIGKILL)


def visible() -> list[str]:
    return os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count())))).split(
        ","
    )


def words(values: dict[str, Any], dashes: str = "") -> list[str]:
    return [f"{dashes}{key}={value}" for key, value in values.items()]
