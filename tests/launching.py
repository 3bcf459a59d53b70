"""Several processes on the CPU, as `accelerate launch` starts them with the shipped configs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parent.parent


def need_deepspeed() -> None:
    """Skip the test where DeepSpeed cannot run: between processes on a CPU it compiles a part of itself
    first.
    """
    pytest.importorskip("deepspeed")
    if not shutil.which(os.environ.get("CXX", "c++")):
        pytest.skip("deepspeed needs a C++ compiler")


def without_vllm(**more: str) -> dict[str, str]:
    """The environment of a process that needs no vllm, which then starts in two thirds of the time."""
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'tests' / 'without_vllm'}{os.pathsep}{ROOT}", **more}


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
    command = ("tests/fsdp_on_cpu.py", *command) if config == "fsdp2" else command
    launcher = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        f"accelerate_configs/{config}.yaml",
    ]
    return subprocess.run(
        [*launcher, "--num_processes", "2", "--main_process_port", "0", *command],
        cwd=ROOT,
        env=without_vllm(OMP_NUM_THREADS="1", DS_BUILD_OPS="0", **more),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


def weights_in(folder: str | Path) -> torch.Tensor:
    """All weights of a checkpoint, end to end in the order of their names."""
    state = load_file(Path(folder) / "model.safetensors")
    return torch.cat([state[name].flatten().float() for name in sorted(state)])
