"""Prove the distributed recipes on several GPUs of one host; each measurement is written at once as JSON.

    python scripts/proofs/prove_gpus.py --output gpus.jsonl     # two GPUs; about six minutes
    python scripts/proofs/prove_gpus.py --output gpus.jsonl --model MODEL_0.5B \\
        --parts same_lora,scaling_explore,scaling_update
    python scripts/proofs/prove_gpus.py --output trial.jsonl    # without a GPU: a trial on two cores

The times are seconds on two H100s, most of them for startup.

same: in float32, losses and weights of two processes equal those of one. On a GPU the shared prefix has no
float32 kernel. 35 s.
same_lora: the same with an adapter on all linear layers. 50 s for a model of 0.5B.
same_bf16: how far they differ in bf16; there is nothing to pass. Not timed.
live: scripts/grpo.py takes three steps with its own completions, dense and with a shared prefix. 60 s.
kill: SIGKILL of all processes after the second step; the same command continues to the last step. 80 s.
server: a vLLM server on the last GPU receives the weights of a trainer on the first. 100 s.
colocate: vLLM in the trainer's processes, each model split over both GPUs. 90 s.
scaling_explore: tokens per second on all GPUs against one, same work on each: at least 90 %. 40 s for 0.5B.
scaling_update: the same for GRPO's update: at least 80 %. 70 s.

Parts start only within the first --budget_s seconds. A command that exceeds its timeout is killed, its row
shows the end of its output, and the next part starts. With GPUs, the runs of a part are parallel, except in
the last two parts. On CPUs fsdp2 uses tests/fsdp_on_cpu.py, and server is skipped, because it needs NCCL.
scaling_explore uses vLLM if it is installed, otherwise the transformers engine.
"""

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_commands import CUDA, ROOT, Bench, Ended, kill_all, python, visible, words
from safetensors.torch import load_file

from a2r_train.data.builder import bundle_of
from a2r_train.data.read import read
from a2r_train.records import CORRECT, INCORRECT, Problem, Reference, write

# Steps of clipped gradient descent: the weights move by the gradient of the global batch of 16 rows.
REPLAY = {
    "optim": "sgd", "learning_rate": 0.05, "lr_scheduler_type": "constant", "max_grad_norm": 1.0,
    "weight_decay": 0.0,
    "max_steps": 3,
}  # fmt: skip
LORA = {"peft_config": "{r: 16, target_modules: all-linear}", "learning_rate": 0.02}  # B begins at zero
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 1e-4, 1e-2
# Turn off vLLM's reductions over NVLink multicast, and a sampler that is compiled at startup.
VLLM = {"VLLM_ALLREDUCE_USE_SYMM_MEM": "0", "VLLM_USE_NCCL_SYMM_MEM": "0", "VLLM_USE_FLASHINFER_SAMPLER": "0"}
LOGP_TOLERANCE = 0.05  # of the mean difference between engine and trainer, both in bf16
PORT = 8765


def same(bench: Bench, part: str = "same", **changes: Any) -> None:
    """Compare replayed completions in one process and in several."""
    options = {**REPLAY, **changes}

    def replay(command: Callable[..., list[str]], name: str, rows: int, **env: str) -> tuple[Ended, Path]:
        out = bench.folder / f"{part}-{name}.pt"
        given = words(
            {**options, "per_device_train_batch_size": rows, "use_cpu": not CUDA and name != "fsdp2"}
        )
        return bench.run(
            f"{part}-{name}", command("tests/replay.py", bench.model, str(out), "false", *given), **env
        ), out

    def several(config: str) -> None:
        ended, out = replay(lambda *script: bench.launch(config, *script), config, 16 // bench.processes)
        one, alone = single.result()
        if ended.status or one.status or not out.exists() or not alone.exists():
            bench.row(part, config, False, one if one.status else ended)
            return
        off = apart(torch.load(alone), torch.load(out))
        passed = (
            None
            if options.get("bf16")
            else off["losses_off"] < LOSS_TOLERANCE and off["weights_off"] < WEIGHT_TOLERANCE
        )
        bench.row(part, config, passed, ended, processes=bench.processes, **off)

    last = {"CUDA_VISIBLE_DEVICES": visible()[-1]} if CUDA else {}
    with ThreadPoolExecutor(1) as pool:
        single: Future[tuple[Ended, Path]] = pool.submit(replay, python, "one", 16, **last)
        if not CUDA:
            single.result()
        bench.together([lambda config=config: several(config) for config in bench.configs])  # type: ignore[misc]


def apart(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """How far losses and trained weights differ, relative to the loss and to how far the weights moved."""
    ours, theirs = ([entry["loss"] for entry in run["log"] if "loss" in entry] for run in (one, other))
    off = max(abs(a - b) / max(abs(a), 0.01) for a, b in zip(ours, theirs, strict=True))
    moved = (one["weights"] - one["start"]).norm()
    return {
        "losses": ours, "losses_off": off,
        "weights_off": float((other["weights"] - one["weights"]).norm() / moved),
        "moved": float(moved / one["start"].norm()),
    }  # fmt: skip


def bundles(bench: Bench) -> str:
    """Write 64 bundles of data/tiny, each with a right and a wrong reference."""
    path = bench.folder / "bundles.jsonl"
    wrong = Reference("\\boxed{0}", "0", INCORRECT, 5)
    made = [
        bundle_of(p, [Reference(f"\\boxed{{{p.answer}}}", p.answer, CORRECT, 5), wrong], f"b{i}")
        for i, p in enumerate(read(Problem, str(ROOT / "data/tiny/train.jsonl"))[:64])
    ]
    if not path.exists():
        write(made, path)
    return str(path)


def grpo(bench: Bench, config: str, out: Path, **changes: Any) -> list[str]:
    """The command for scripts/grpo.py with the tiny recipe, two groups of eight in each process."""
    options = {
        "model_name_or_path": bench.model, "bundles": bundles(bench), "output_dir": out, "max_steps": 3,
        "logging_steps": 1,
        "save_steps": 3, "save_total_limit": 20, "per_device_train_batch_size": 16, "disable_tqdm": True,
        "warmup_steps": 0,
        "ddp_timeout": int(bench.timeout_s), "use_cpu": not CUDA and config != "fsdp2", **changes,
    }  # fmt: skip
    return bench.launch(
        config, "scripts/grpo.py", "--config", "recipes/tiny/grpo.yaml", *words(options, "--")
    )


def logged(out: Path) -> tuple[int, list[dict[str, Any]]]:
    """The last step, and the log entries with a loss."""
    state = out / "trainer_state.json"
    found = json.loads(state.read_text()) if state.exists() else {"global_step": 0, "log_history": []}
    return found["global_step"], [entry for entry in found["log_history"] if "loss" in entry]


def moved(bench: Bench, out: Path) -> float:
    """The largest change of a weight that both checkpoints have; 0 for an adapter or a missing checkpoint."""
    folders = [path / "model.safetensors" for path in (ROOT / bench.model, out)]
    if not all(path.exists() for path in folders):
        return 0.0
    before, after = map(load_file, map(str, folders))
    return max(
        float((after[name] - before[name].float()).abs().max()) for name in before.keys() & after.keys()
    )


def live(bench: Bench) -> None:
    def steps(config: str, shared: bool) -> None:
        name = f"{config}-{'shared' if shared else 'dense'}"
        out = bench.folder / f"live-{name}"
        ended = bench.run(f"live-{name}", grpo(bench, config, out, shared_prefix=shared))
        (last, history), way = logged(out), moved(bench, out)
        passed = ended.status == 0 and last == len(history) == 3 and way > 0
        keys = (
            "loss",
            "grad_norm",
            "reward",
            "completions/mean_length",
            "completions/max_length",
            "shared_prefix/token_ratio",
        )
        metrics = {key: [entry[key] for entry in history if key in entry] for key in keys}
        bench.row("live", name, passed, ended, moved=way, **metrics)

    bench.together([lambda c=c, s=s: steps(c, s) for c in bench.configs for s in (False, True)])  # type: ignore[misc]


def kill(bench: Bench) -> None:
    """Kill all processes at once when the second checkpoint is complete, and resume."""

    def cut(config: str) -> None:
        out, steps = bench.folder / f"kill-{config}", 20 if CUDA else 6
        command = grpo(bench, config, out, max_steps=steps, save_steps=1)
        process, mark = bench.start(f"kill-{config}", command)
        first = bench.wait(process, mark, (out / "checkpoint-2" / "trainer_state.json").exists)
        if first.status is not None or (out / "done.json").exists():
            bench.row("kill", config, False, first, found="it ended before it could be killed")
            return
        kept = sorted(
            int(path.parent.name.split("-")[1]) for path in out.glob("checkpoint-*/trainer_state.json")
        )
        again = bench.run(f"kill-{config}-again", command)
        last, history = logged(out)
        went_on = f"resuming from {out}/checkpoint-" in again.stderr
        passed = (
            again.status == 0
            and last == steps
            and went_on
            and [e["step"] for e in history] == list(range(1, steps + 1))
        )
        bench.row("kill", config, passed, again, first_s=round(first.seconds, 1), kept=kept, global_step=last)

    bench.together([lambda config=config: cut(config) for config in bench.configs])  # type: ignore[misc]


def no_vllm(bench: Bench, part: str) -> bool:
    """Whether the part must be skipped; if so, write a row that says why."""
    reason = "needs GPUs" if part == "server" and not CUDA else ""
    if importlib.util.find_spec("vllm") is None:
        reason = "vllm is not installed"
    if reason:
        bench.row(part, "vllm", None, skipped=reason)
    return bool(reason)


def judge(bench: Bench, part: str, name: str, ended: Ended) -> None:
    """Write a row on whether the engine had the trainer's weights at each step.

    With stale weights, the engine's log-probabilities would be off by about as much as training moved them.
    """
    found = ended.json()
    means = found.get("mean_differences", [])
    passed = ended.status == 0 and len(means) == 4 and max(means) < LOGP_TOLERANCE < found["mean_moved"]
    bench.row(part, name, passed, ended, **found)


def server(bench: Bench) -> None:
    if no_vllm(bench, "server"):
        return
    gpus = visible()
    serve = [
        *python("-m", "vllm.entrypoints.openai.api_server", "--model", bench.model, "--port", str(PORT)),
        *("--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1", "--gpu-memory-utilization", "0.1"),
        *("--weight-transfer-config", '{"backend": "nccl"}', "--enforce-eager"),
    ]
    engine, mark = bench.start(
        "server", serve, **VLLM, CUDA_VISIBLE_DEVICES=gpus[-1], VLLM_SERVER_DEV_MODE="1"
    )
    options = {"vllm_mode": "server", "vllm_server_host": "localhost", "vllm_server_port": PORT}
    options |= {
        "model_name_or_path": bench.model,
        "vllm_server_timeout": bench.timeout_s,
        "learning_rate": 1e-3,
    }
    out = str(bench.folder / "server-out")
    command = python("tests/grpo_vllm_run.py", bundles(bench), out, *words(options, "--"))
    trainer, own = bench.start("server-trainer", command, **VLLM, CUDA_VISIBLE_DEVICES=gpus[0])
    ended = bench.wait(trainer, own, lambda: engine.poll() is not None)
    lost = engine.poll() is not None
    kill_all(mark)
    engine.wait()
    if lost:
        said = (bench.folder / f"{mark}.err").read_text(errors="replace")
        ended = Ended(engine.returncode, "", f"the server ended: {said}", ended.seconds)
    judge(bench, "server", "one trainer, one server", ended)


def colocate(bench: Bench) -> None:
    if no_vllm(bench, "colocate"):
        return
    options = {
        "vllm_mode": "colocate",
        "vllm_tensor_parallel_size": bench.processes,
        "vllm_gpu_memory_utilization": 0.1,
    }
    options |= {"model_name_or_path": bench.model, "learning_rate": 1e-3}
    out = str(bench.folder / "colocate-out")
    command = bench.launch("ddp", "tests/grpo_vllm_run.py", bundles(bench), out, *words(options, "--"))
    judge(bench, "colocate", f"tensor parallel {bench.processes}", bench.run("colocate", command, **VLLM))


def scaling_explore(bench: Bench) -> None:
    """Compare all GPUs with one, at the same work per GPU."""
    small = [] if CUDA else ["--samples", "8", "--tokens", "32"]
    given = ["--model", bench.model, "--gpus", str(bench.processes), *small]
    script = "scripts/benchmarks/bench_scaling.py"
    if importlib.util.find_spec("vllm"):
        explored = bench.run("explore", python(script, "explore", *given), **VLLM)
    else:
        explored = bench.run("explore", bench.launch("ddp", script, "explore_transformers", *given))
    found = explored.json()
    share = found.get("tokens_s", 0) / bench.processes / found.get("tokens_s_of_one", 1)
    passed = None if found and not CUDA else share >= 0.9
    bench.row(
        "scaling_explore", str(found.get("engine")), passed, explored, efficiency=round(share, 3), **found
    )


def scaling_update(bench: Bench) -> None:
    """Compare all GPUs with one, at the same work per GPU."""
    rates: list[int] = []
    for processes in (1, bench.processes):
        shape = ["--shape", "0.6b" if CUDA else "tiny"]
        one = {"CUDA_VISIBLE_DEVICES": visible()[0]} if CUDA and processes == 1 else {}
        start = python if processes == 1 else partial(bench.launch, "ddp")
        command = start("scripts/benchmarks/bench_scaling.py", "update", *shape)
        updated = bench.run(f"update-{processes}", command, **one)
        rates.append(updated.json().get("tokens_s", 0))
        share = rates[-1] / processes / (rates[0] or 1)
        passed = None if rates[-1] and not CUDA else share >= 0.8
        bench.row("scaling_update", "GRPO", passed, updated, efficiency=round(share, 3), **updated.json())


PARTS: dict[str, Callable[[Bench], None]] = {
    "same": same,
    "live": live,
    "kill": kill,
    "server": server,
    "colocate": colocate,
    "same_lora": lambda bench: same(bench, "same_lora", **LORA),
    "same_bf16": lambda bench: same(bench, "same_bf16", bf16=True),
    "scaling_explore": scaling_explore,
    "scaling_update": scaling_update,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--parts", default="same,live,kill,server,colocate", help=f"of {', '.join(PARTS)}; comma-separated"
    )
    parser.add_argument(
        "--config", default="ddp,zero3,fsdp2", help="names in accelerate_configs; comma-separated"
    )
    parser.add_argument("--model", default="data/tiny/synthesizer", help="a checkpoint folder")
    parser.add_argument(
        "--output", default="gpus.jsonl", help="file to append rows to, one JSON object per line"
    )
    parser.add_argument(
        "--budget_s", type=float, default=500.0, help="seconds after which no further part starts"
    )
    parser.add_argument("--timeout_s", type=float, default=150.0, help="timeout of each command")
    parser.add_argument("--processes", type=int, default=2, help="number of GPUs; must divide 16")
    given = parser.parse_args()
    began = time.monotonic()
    output = Path(given.output).resolve()
    with tempfile.TemporaryDirectory(prefix="gpus-", ignore_cleanup_errors=True) as folder:
        bench = Bench(
            given.model, given.config.split(","), output, Path(folder), given.processes, given.timeout_s
        )
        for config in [
            c for c in bench.configs if c.startswith("zero") and not importlib.util.find_spec("deepspeed")
        ]:
            bench.configs.remove(config)
            bench.row("configs", config, None, skipped="deepspeed is not installed")
        for part in given.parts.split(","):
            if time.monotonic() - began > given.budget_s:
                bench.row(part, "", None, skipped="no time left")
                continue
            try:
                PARTS[part](bench)
            except Exception as error:  # noqa: BLE001 - the next part must still run
                bench.row(part, "", False, error=f"{type(error).__name__}: {error}"[-600:])
            print(f"{part}: {time.monotonic() - began:.0f} s since the start", flush=True)


if __name__ == "__main__":
    main()
