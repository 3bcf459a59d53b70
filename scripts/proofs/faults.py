"""Break a stage on purpose: start it, kill it, start it again with the same arguments, and compare outputs.

Each run is a separate process that writes `out` in its own folder, so that outputs can be compared byte by
byte, config.yaml included. The processes are forked from one that has already imported the libraries, which
saves seconds per run.
"""

import json
import logging
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from conftest import bundle_row, files_of, options, save_tiny, teach, write_rows

from a2r_train.records import Problem

STAGES = ("explore", "bundle", "sft", "grpo", "evaluate")
TRAINERS = ("sft", "grpo")
TOLERANCE = 1e-5  # of a loss, between the resumed and the undisturbed run
PATIENCE_S = 1800.0  # after which a run counts as hung

_context = multiprocessing.get_context("forkserver")
PRELOADED = (
    "a2r_train.data.bundle",
    "a2r_train.train.sft",
    "a2r_train.train.grpo",
    "a2r_train.evaluate.run",
    "matplotlib.pyplot",
)
_context.set_forkserver_preload(
    [*PRELOADED, "a2r_train.engines.transformers", "transformers.models.qwen3.modeling_qwen3"]
)


@dataclass(frozen=True)
class Run:
    """How a process ended, when its output folder appeared, and how long it then worked."""

    status: int
    says: str
    began_s: float
    work_s: float

    @property
    def line(self) -> str:
        """The last line on its standard error."""
        return self.says.strip().splitlines()[-1] if self.says.strip() else ""


def write_inputs(folder: Path) -> dict[str, dict[str, Any]]:
    """Write a tiny model that answers 3 or 6, and the inputs of each stage; returns the stages' keys."""
    model = save_tiny(folder / "model", seed=3)
    _run_apart(teach, model, [r"\boxed{3}", r"\boxed{6}"])
    return inputs_of(folder, model)


def inputs_of(folder: Path, model: str, problems: int = 24) -> dict[str, dict[str, Any]]:
    """Write problems, rollouts and bundles; returns the keys of each stage."""
    folder.mkdir(exist_ok=True)
    golds = [str(3 * (1 + i % 2)) for i in range(problems)]
    asked = [{"id": f"p{i}", "problem": f"What is {i} * 3?", "answer": gold} for i, gold in enumerate(golds)]
    samples = [
        (i, n, rf"So \boxed{{\frac{{{3 * (n + i % 2)}}}{{{1 + n % 3}}}}}")
        for i in range(problems)
        for n in range(8)
    ]
    bundles = [
        bundle_row(Problem(**problem), ["3", "6"], texts=[rf"{i}: \boxed{{3}}", rf"{i}: \boxed{{6}}"])
        for i, problem in enumerate(asked)
    ]
    bundled = write_rows(folder / "bundles.jsonl", bundles)
    rollouts = write_rows(
        folder / "rollouts.jsonl", [{**asked[i], "text": f"{n}. {text}"} for i, n, text in samples]
    )
    tuned = {
        "model_name_or_path": model, "bundles": bundled, "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant", "logging_steps": 1, "save_steps": 4, "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True, "activation_checkpointing": False,
    }  # fmt: skip
    return {
        "explore": {
            "problems": write_rows(folder / "problems.jsonl", asked), "model": model,
            "samples_per_problem": 4,
            "max_completion_tokens": 24, "chunk_problems": 2,
        },
        "bundle": {"rollouts": rollouts, "k": 4, "bundles_per_problem": 2, "tokenizer": model,
        "test_share": 0.2},
        "sft": {**tuned, "target_samples": 2, "max_target_tokens": 24, "max_steps": 40},
        "grpo": {**tuned, "num_generations": 2, "max_completion_length": 16, "num_iterations": 2,
        "max_steps": 16},
        "evaluate": {
            "bundles": bundled, "base": model, "temperature": 0.7, "max_completion_tokens": 24,
            "chunk_bundles": 6,
            "draws": 100,
        },
        "probe": {"rollouts": rollouts, "draws": 100},
    }  # fmt: skip


def start(stage: str, keys: dict[str, Any], folder: Path, file_bytes: int = 0) -> ForkServerProcess:
    """Start a stage in a folder. `file_bytes` limits the size of files, which simulates a full disk."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log").touch()
    given = options({"output_dir": "out", **keys})
    process = _context.Process(target=_stage, args=(stage, given, str(folder), file_bytes))
    process.start()
    return process


def run(stage: str, keys: dict[str, Any], folder: Path, file_bytes: int = 0) -> Run:
    """Run a stage to its end."""
    began = time.monotonic()
    process = start(stage, keys, folder, file_bytes)
    appeared = await_folder(process, folder) - began
    status = ended(process)
    done = folder / "out" / "done.json"
    work_s = done.stat().st_mtime - (folder / "out" / "config.yaml").stat().st_mtime if done.exists() else 0.0
    return Run(status, (folder / "log").read_text(errors="replace"), appeared, work_s)


def kill(
    stage: str,
    keys: dict[str, Any],
    folder: Path,
    delay_s: float,
    began: bool = True,
    how: signal.Signals = signal.SIGKILL,
    once: Callable[[], bool] = lambda: True,
) -> Run | None:
    """Start a stage and send it a signal `delay_s` after its output folder appears (or after its start), and
    after `once` is true.

    Returns None if the stage finished first. Raises RuntimeError if one of its processes survives.
    """
    process = start(stage, keys, folder)
    if began:
        await_folder(process, folder)
    while process.exitcode is None and not once():
        time.sleep(0.002)
    process.join(delay_s)
    if process.exitcode is not None:
        return None
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(int(process.pid or 0), how)
    status = ended(process)
    if left := psutil.wait_procs(children, timeout=15)[1]:
        raise RuntimeError(f"{stage}: {len(left)} processes outlive their parent")
    if status == 0 or (folder / "out" / "done.json").exists():
        return None
    return Run(status, (folder / "log").read_text(errors="replace"), 0.0, 0.0)


def ended(process: ForkServerProcess) -> int:
    """Wait for the exit status. Kills a process that hangs, and raises RuntimeError."""
    process.join(PATIENCE_S)
    if process.exitcode is None:
        process.kill()
        raise RuntimeError(f"a run hangs, after {PATIENCE_S:.0f} s")
    return process.exitcode


def difference(stage: str, whole: Path, other: Path) -> str:
    """What differs between two output folders, "" if nothing does.

    Compares the losses of a training run, and otherwise every byte except timings.
    """
    if stage in TRAINERS:
        ours, theirs = losses(whole), losses(other)
        off = [step for step in ours if step not in theirs or not abs(ours[step] - theirs[step]) <= TOLERANCE]
        return f"losses of steps {off}" if off or ours.keys() != theirs.keys() else ""
    ours, theirs = (
        {
            name: content
            for name, content in files_of(folder).items()
            if not Path(name).name.startswith("timing")
        }
        for folder in (whole, other)
    )
    return ", ".join(sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)))


def losses(folder: Path) -> dict[int, float]:
    """The logged loss of each step."""
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry["loss"] for entry in history if "loss" in entry}


def await_folder(process: ForkServerProcess, folder: Path) -> float:
    while not (folder / "out" / "config.yaml").exists() and process.exitcode is None:
        time.sleep(0.002)
    return time.monotonic()


def _stage(stage: str, arguments: list[str], folder: str, file_bytes: int) -> None:
    """Run the stage's command in this process, with its output in the log."""
    log = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    logging.getLogger().handlers.clear()
    if file_bytes:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    sys.argv = ["a2r", stage, *arguments]
    if stage in TRAINERS:
        from a2r_train.train import grpo, sft

        sys.exit({"sft": sft.main, "grpo": grpo.main}[stage](arguments))
    from a2r_train import cli

    cli.main()


def _run_apart(function: Callable[..., Any], *arguments: Any) -> None:
    """Call it in another process, because a process must not be forked after a backward pass."""
    process = _context.Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{function.__name__} ended with status {process.exitcode}")
