"""Two processes compute what one computes, save all of it, and go on from it: under every config that a CPU
can run.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import replay
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from conftest import bundle_with, options
from launching import ROOT, Said, in_turn, launched, weights_in
from pyarrow.parquet import read_table
from test_epochs import EPOCHS, GRPO, differences, write_files
from test_finite import of_stage, write_keys
from test_shared_prefix_training import relative_difference, trained
from test_train import bundle, last_step

from a2r_train.data.builder import problem_in
from a2r_train.data.read import read
from a2r_train.records import Bundle, Synthesis, write
from a2r_train.train import sft

Two = tuple[str, Callable[..., Said]]
ON_CPU = ("ddp", "zero2", "zero3", "fsdp2")
# The first step of gradient descent at rate 1 moves the weights by the gradient of the global batch, of 16
# rows. The momentum is what a resumed run must find again; FSDP2 cannot load the state of an optimizer that
# has none.
SGD = {
    "optim": "sgd",
    "learning_rate": 1.0,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
    "weight_decay": 0.0,
}
SGD |= {"optim_args": "momentum=0.9"}
RUN = {**SGD, "max_steps": 2, "save_steps": 1, "save_strategy": "steps", "bf16": False, "report_to": "none"}


pytestmark = pytest.mark.usefixtures("at_root")


def test_the_slurm_script_starts_one_launcher_a_machine(tmp_path: Path) -> None:
    """Slurm's own commands are played: two machines, of which each gets what the script would run there."""
    for name, does in {
        "scontrol": "printf 'host1\\nhost2\\n'",
        "srun": 'shift; for i in 0 1; do SLURM_NODEID=$i "$@"; done',
        "accelerate": 'printf "%s\\n" "$*"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    script, given = "scripts/slurm_two_nodes.sbatch", ["scripts/grpo.py", "--config", "a b.yaml"]
    slurm = {"SLURM_JOB_NODELIST": "host[1-2]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "8"}
    env = {**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", script, *given], env=env, capture_output=True, text=True, check=True)
    for rank, line in enumerate(done.stdout.splitlines()):
        args = launch_command_parser().parse_args(line.replace("a b", "'a b'").split()[1:])
        args, _, _ = _validate_launch_command(args)
        assert (args.num_machines, args.machine_rank, args.num_processes, args.main_process_ip) == (
            2,
            rank,
            16,
            "host1",
        )
        assert args.use_deepspeed
        assert args.training_script == given[0]
    assert len(done.stdout.splitlines()) == 2


@pytest.fixture(scope="module")
def sft_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 bundles with a target each, of different lengths."""
    folder = tmp_path_factory.mktemp("sft")
    bundles = [bundle(i) for i in range(32)]
    texts = [f"{'It follows. ' * (i % 5)}So \\boxed{{5}}" for i in range(32)]
    write(bundles, folder / "bundles.jsonl")
    targets = [
        Synthesis(b.id, 0, t, "5", "correct", 1, 1, "stop", "m", 0)
        for b, t in zip(bundles, texts, strict=True)
    ]
    write(targets, folder / "targets.jsonl")
    return folder


def words(values: dict[str, Any], dashes: str = "") -> list[str]:
    return [f"{dashes}{key}={value}" for key, value in values.items()]


def on_cpu(config: str) -> dict[str, Any]:
    """Under fsdp2 the processes are told of GPUs, and have none; see tests/fsdp_on_cpu.py."""
    return {"use_cpu": config != "fsdp2"}


def command(stage: str, model: str, out: Path, files: Path, a_process: int, config: str = "") -> list[str]:
    """A training of two steps on 16 rows each, whose folder is `out`."""
    run = {**RUN, "per_device_train_batch_size": a_process, **on_cpu(config)}
    if stage == "grpo":
        return ["tests/replay.py", model, f"{out}.pt", "false", *words(run)]
    named = {
        "bundles": files / "bundles.jsonl",
        "targets": files / "targets.jsonl",
        "model_name_or_path": model,
    }
    return [
        "scripts/sft.py",
        *words({**run, **named, "activation_checkpointing": False, "output_dir": out}, "--"),
    ]


@pytest.fixture(scope="module")
def alone(tiny: str, tmp_path_factory: pytest.TempPathFactory, sft_files: Path) -> dict[str, Path]:
    """The same trainings in one process."""
    out = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert sft.main(command("sft", tiny, out / "sft", sft_files, 16)[1:]) == 0
        replay.main(*command("grpo", tiny, out / "grpo", sft_files, 16)[1:])
    return {stage: out / stage for stage in ("sft", "grpo")}


@pytest.fixture(scope="module", params=ON_CPU)
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """A config, and what runs a script in the two processes that were launched with it."""
    if "zero" in request.param:
        pytest.importorskip("deepspeed")
    with in_turn(request.param, tmp_path_factory.mktemp("turns")) as run:
        yield request.param, run


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_two_processes_have_the_gradient_of_one(
    two: Two, stage: str, tiny: str, alone: dict[str, Path], sft_files: Path, tmp_path: Path
) -> None:
    config, run = two
    out, start = tmp_path / stage, weights_in(tiny)
    together = command(stage, tiny, out, sft_files, 8, config)
    run(*together)
    single, double = (start - weights_in(folder / "checkpoint-1") for folder in (alone[stage], out))
    assert single.norm() > 1e-3 * start.norm()
    assert (double - single).norm() / single.norm() < 1e-4
    ranks = {path.name for path in (out / "checkpoint-1").glob("rng_state_*")}
    assert ranks == {"rng_state_0.pth", "rng_state_1.pth"}

    whole = weights_in(out / "checkpoint-2")
    shutil.rmtree(out / "checkpoint-2")
    (out / "done.json").unlink(missing_ok=True)
    first = (out / "checkpoint-1" / "trainer_state.json").stat().st_mtime_ns
    run(*together)
    assert (out / "checkpoint-1" / "trainer_state.json").stat().st_mtime_ns == first  # went on from it
    again = weights_in(out / "checkpoint-2")
    assert (again - whole).norm() <= 1e-5 * (whole - weights_in(out / "checkpoint-1")).norm()


def gold_of_three(i: int) -> Bundle:
    """A bundle whose answer the model gives in half of its completions."""
    return bundle_with(replace(problem_in(bundle(i)), answer="3"), ["3", "7"], f"b{i}")


def test_live_grpo_in_two_processes(two: Two, speaking: str, tmp_path: Path) -> None:
    config, run = two
    write([gold_of_three(i) for i in range(8)], tmp_path / "bundles.jsonl")  # it says 3 or 6
    named = {
        "bundles": tmp_path / "bundles.jsonl",
        "model_name_or_path": speaking,
        "output_dir": tmp_path / "grpo",
    }
    small = {
        "num_generations": 4,
        "per_device_train_batch_size": 4,
        "max_completion_length": 12,
        "max_steps": 3,
    }
    quiet = {
        **on_cpu(config),
        "report_to": "none",
        "save_steps": 3,
        "logging_steps": 1,
        "learning_rate": 1e-3,
    }
    run("scripts/grpo.py", *words({**named, **small, **quiet}, "--"))
    state = json.loads((tmp_path / "grpo" / "trainer_state.json").read_text())
    assert state["global_step"] == 3
    assert len([entry for entry in state["log_history"] if "loss" in entry]) == 3
    assert (weights_in(tmp_path / "grpo") != weights_in(speaking)).any()


@pytest.fixture(scope="module")
def dense(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.Tensor, torch.Tensor]:
    """Before and after 20 updates of one process without sharing."""
    return trained(tiny, tmp_path_factory.mktemp("dense"), False)


def test_two_processes_with_a_shared_prefix_end_at_the_dense_weights(
    two: Two, tiny: str, tmp_path: Path, dense: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """What they end at without is held above."""
    config, run = two
    out = tmp_path / "shared.pt"
    run("tests/replay.py", tiny, str(out), "true", "per_device_train_batch_size=8", *words(on_cpu(config)))
    ours = torch.load(out)
    assert relative_difference(*dense, ours["weights"]) < 1e-2
    ratios = [entry["shared_prefix/token_ratio"] for entry in ours["log"] if "loss" in entry]
    assert min(ratios) > 1


def test_all_processes_end_when_one_is_not_finite(two: Two, tiny: str, tmp_path: Path) -> None:
    config, run = two
    keys = {**write_keys(tiny, tmp_path), **on_cpu(config), "bf16": False}
    given = options(of_stage("sft", keys))
    poisoned = ["tests/poisoned.py", "sft", "4", *given]
    if config == "ddp":  # and the launcher says so
        done = launched(config, *poisoned, timeout_s=120)
        assert done.returncode == 1
        err = done.stderr
    else:
        err = run(*poisoned, status=1).err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert (
        f"{keys['output_dir']}: step 4: the weights are not finite; checkpoint-2 is the last good one"
        in lines[0]
    )
    assert [path.name for path in keys["output_dir"].glob("checkpoint-*")] == ["checkpoint-2"]
    assert not (keys["output_dir"] / "done.json").exists()
    run("scripts/sft.py", *given)
    assert last_step(keys["output_dir"]) == 4


@pytest.mark.parametrize("two", ["ddp"], indirect=True)
def test_two_processes_go_on_in_a_later_epoch(two: Two, tmp_path: Path) -> None:
    """accelerate skips the batches of one of several processes in another way than those of one alone."""
    files = write_files(tmp_path)
    given = {
        **EPOCHS,
        **GRPO,
        "gradient_accumulation_steps": 2,
        "bundles": files / "bundles.jsonl",
        "output_dir": files / "out",
    }
    arguments = ["--config", "recipes/tiny/grpo.yaml", *options(given)]
    assert differences(lambda: two[1]("scripts/grpo.py", *arguments), files / "out") == []


@pytest.mark.parametrize("two", ["ddp"], indirect=True)
def test_two_processes_choose_the_same_groups(two: Two, speaking: str, tmp_path: Path) -> None:
    """Three groups of six are made for one, and of each group both processes have a part: what is kept is
    moved between them, and a completion keeps its prompt, its reward and its verdict.
    """
    write([gold_of_three(i) for i in range(8)], tmp_path / "bundles.jsonl")
    named = {
        "bundles": tmp_path / "bundles.jsonl",
        "model_name_or_path": speaking,
        "output_dir": tmp_path / "grpo",
    }
    small = {
        "num_generations": 6,
        "per_device_train_batch_size": 3,
        "max_completion_length": 12,
        "max_steps": 2,
    }
    keys = {"use_cpu": True, "report_to": "none", "log_completions": True, "logging_steps": 1, "bf16": False}
    two[1]("scripts/grpo.py", *words({**named, **small, **keys, "oversampling_factor": 3}, "--"))
    for step in (1, 2):
        rows = read_table(tmp_path / f"grpo/completions/completions_0000{step}.parquet").to_pylist()
        assert len({str(row["prompt"]) for row in rows}) == 1
        assert len(rows) == 6
        for row in rows:
            right = "{3}" in str(row["completion"])
            assert row["verifiable_reward"] == right
            assert row["verdict"] == ("correct" if right else "incorrect")
            assert (row["advantage"] > 0) == right
    state = json.loads((tmp_path / "grpo/trainer_state.json").read_text())
    steps = [entry for entry in state["log_history"] if "loss" in entry]
    assert [entry["dynamic_sampling/groups_used"] for entry in steps] == [1, 1]
    made = state["stateful_callbacks"]["a2r_train"]
    assert made["generated_tokens"] == pytest.approx(1.5 * made["dropped_tokens"], rel=0.1)


@pytest.mark.parametrize("two", ["zero3"], indirect=True)
def test_targets_are_sampled_under_zero3(two: Two, speaking: str, tmp_path: Path) -> None:
    """The model that answers the bundles is whole in each process, though that which is trained is split."""
    write([gold_of_three(i) for i in range(8)], tmp_path / "bundles.jsonl")
    named = {
        "bundles": tmp_path / "bundles.jsonl",
        "model_name_or_path": speaking,
        "output_dir": tmp_path / "sft",
    }
    small = {"target_samples": 4, "max_target_tokens": 12, "max_steps": 1, "per_device_train_batch_size": 2}
    two[1]("scripts/sft.py", *words({**named, **small, "use_cpu": True, "report_to": "none"}, "--"))
    targets = read(Synthesis, str(tmp_path / "sft" / "targets.jsonl"))
    assert len({t.bundle_id for t in targets}) >= 6  # it says 3 every other time, and is asked four times
    assert all(t.text == r"\boxed{3}" for t in targets)


def test_a2r_run_trains_in_two_processes(tiny: str, sft_files: Path, tmp_path: Path) -> None:
    keys = {"model_name_or_path": tiny, "bundles": sft_files / "bundles.jsonl",
    "targets": sft_files / "targets.jsonl",
            "output_dir": tmp_path / "out", "max_steps": 1, "per_device_train_batch_size": 2, "use_cpu": True,
            "report_to": "none"}  # fmt: skip
    (tmp_path / "sft.yaml").write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))
    launch = ["--accelerate_config", "accelerate_configs/ddp.yaml", "--processes", "2"]
    command = [sys.executable, "-m", "a2r_train.cli", "run", str(tmp_path), *launch]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "out" / "done.json").read_text())["steps"] == 1
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    assert state["epoch"] == 1 / 8  # 32 rows, 4 of them a step: both processes had two


@pytest.mark.parametrize("two", ["zero3"], indirect=True)
def test_a_dry_run_knows_how_it_was_launched(two: Two, tiny: str, sft_files: Path, tmp_path: Path) -> None:
    """And is shown once, though there are two processes."""
    named = {
        "bundles": sft_files / "bundles.jsonl",
        "model_name_or_path": tiny,
        "output_dir": tmp_path,
        "dry_run": True,
    }
    said = two[1]("scripts/grpo.py", *words({**named, "use_cpu": True, "bf16": False}, "--"))
    assert said.out.count("memory: zero3 on 2 GPU(s), micro-batch 8\n") == 1
