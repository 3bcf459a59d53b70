"""vLLM servers as child processes, for the models that were given no URL."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from a2r_train.engines.vllm import lora_folder, lora_settings
from a2r_train.engines.vllm_copies import CPU_ENVIRONMENT, GPU_ENVIRONMENT, check_vllm
from a2r_train.errors import RunError
from a2r_train.inference.serve.config import ServeConfig
from a2r_train.models import base_of, check_weights
from a2r_train.process import ending_with_parent

log = logging.getLogger(__name__)

POLL_S, END_S = 0.5, 20.0


@dataclass(frozen=True)
class Plan:
    """A server to start: a base model, and the adapters that it serves besides."""

    base: str
    adapters: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()  # explorer, synthesizer, or both
    also_named: tuple[str, ...] = ()  # other paths of the base's folder


@dataclass
class Child:
    """A running server; `log` is the file that it writes to."""

    plan: Plan
    process: subprocess.Popen[bytes]
    url: str
    log: Path = field(default_factory=Path)

    def fault(self) -> str:
        """How it ended, with the last lines of its log; "" while it runs."""
        if self.process.poll() is None:
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = [line for line in lines if "rror" in line][-3:] or lines[-3:]
        return f"vllm serve {self.plan.base} ended with status {self.process.returncode}: {' | '.join(said)}"


def plans(config: ServeConfig) -> list[Plan]:
    """One server if both models share a base, otherwise one for each model without a URL.

    Raises InputError for a model that cannot be loaded.
    """
    models = {"explorer": config.explorer, "synthesizer": config.synthesizer}
    given = {"explorer": config.explorer_url, "synthesizer": config.synthesizer_url}
    by_base: dict[str, list[str]] = {}
    for stage in (stage for stage in models if not given[stage]):
        by_base.setdefault(_resolved(base_of(models[stage])), []).append(stage)
    found = []
    for stages in by_base.values():
        base = base_of(models[stages[0]])
        wanted = list(dict.fromkeys(models[stage] for stage in stages))
        for model in wanted:
            check_weights(model)
        names = {model: _resolved(model) == _resolved(base) for model in wanted}
        adapters = tuple(model for model, is_base in names.items() if not is_base)
        also = tuple(model for model, is_base in names.items() if is_base and model != base)
        found.append(Plan(base, adapters, tuple(stages), also))
    return found


def _resolved(model: str) -> str:
    """One name for a folder that is named by several paths."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def command(plan: Plan, port: int, on_cpu: bool, memory: float) -> list[str]:
    """The command that starts a server; each model is served under the name that it has here."""
    # The module, because the `vllm` program does not recognise the build for CPUs.
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", plan.base]
    words += ["--served-model-name", plan.base, *plan.also_named, "--host", "127.0.0.1", "--port", str(port)]
    words += ["--disable-uvicorn-access-log"]
    if plan.adapters:
        rank = lora_settings(plan.adapters)["max_lora_rank"]
        words += ["--enable-lora", "--max-lora-rank", str(rank)]
        words += ["--max-loras", str(len(plan.adapters)), "--lora-modules"]
        words += [f"{adapter}={lora_folder(adapter)}" for adapter in plan.adapters]
    if on_cpu:
        return [*words, "--dtype", "float32", "--enforce-eager", "--no-enable-chunked-prefill"]
    return [*words, "--gpu-memory-utilization", f"{memory:.3f}"]


def environment(on_cpu: bool, servers: int) -> dict[str, str]:
    """The environment of one of several servers on this machine; the user's own variables take precedence.

    Without a GPU the servers share the cores and are not bound to any: vLLM would bind all of them to the
    same ones.
    """
    given = {"VLLM_LOGGING_LEVEL": "ERROR" if on_cpu else "WARNING"}
    own = {name: value for name, value in os.environ.items() if name != "VLLM_API_KEY"}  # only we ask them
    if not on_cpu:
        return {**given, **GPU_ENVIRONMENT, **own}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = {
        "OMP_NUM_THREADS": str(max(1, cores // (servers + 1))),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    return {**given, **CPU_ENVIRONMENT, **threads, **own}


@contextmanager
def started(config: ServeConfig) -> Iterator[list[Child]]:
    """Start the missing servers and wait until they answer; they end with the context.

    Raises InputError if vLLM is not installed, RunError for a server that does not start.
    """
    wanted = plans(config)
    if wanted:
        check_vllm()
    with ExitStack() as stack:
        children = []
        for plan in wanted:  # one after the other, as each measures the memory that is free
            children.append(stack.enter_context(_child(plan, config, len(wanted))))
            _await(children)
        yield children


@contextmanager
def _child(plan: Plan, config: ServeConfig, servers: int) -> Iterator[Child]:
    import torch

    on_cpu, port = not torch.cuda.is_available(), free_port()
    words = command(plan, port, on_cpu, config.gpu_memory_utilization / servers)
    folder = tempfile.TemporaryDirectory(prefix="a2r-serve-")
    file = Path(folder.name) / "vllm.log"
    log.info("starting vLLM with %s; its log is %s", ", ".join((plan.base, *plan.adapters)), file)
    with folder, open(file, "wb") as output:
        process = subprocess.Popen(
            words,
            env=environment(on_cpu, servers),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C must reach only this process, which drains first
            preexec_fn=ending_with_parent(),
        )
        try:
            yield Child(plan, process, f"http://127.0.0.1:{port}/v1", file)
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server and the processes that it has started, which may outlive it and keep a GPU."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:  # none of them is left
            break
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
    process.wait()


def _await(children: list[Child]) -> None:
    """Wait until all of them answer. Raises RunError if one ends."""
    silent = list(children)
    while silent:
        for child in children:
            if fault := child.fault():
                raise RunError(fault)
        silent = [child for child in silent if not _answers(child.url)]
        time.sleep(POLL_S if silent else 0)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/models", timeout=5).status_code == 200
    except httpx2.RequestError:
        return False


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
