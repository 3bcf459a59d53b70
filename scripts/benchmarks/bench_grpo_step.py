"""Show where the time of a GRPO step goes: stock TRL against ours on one recipe, in separate processes.

    python scripts/benchmarks/bench_grpo_step.py --output rows.jsonl --recipe recipes/gsm8k-1.5b/grpo.yaml \\
        --micro_batches 8,16,32 -- --model_name_or_path MODEL --bundles BUNDLES     # one GPU
    python scripts/benchmarks/bench_grpo_step.py --table rows.jsonl                 # the table again
    python scripts/benchmarks/bench_grpo_step.py --output rows.jsonl -- --use_vllm true --vllm_mode colocate

The last command is a trial on a CPU, with the tiny synthesizer and made-up bundles. It takes about a minute
for each of `--ways`, and needs vLLM; without the keys after `--`, transformers generates. The two `lookup`
ways need a GPU.

Keys of the recipe follow `--`. Every way uses the recipe's adapter, lengths and completions per step; a
smaller micro-batch accumulates more. All ways start the verifier processes early, as ours does. The first
steps are not counted, and the next ones give the steps per hour. The last ones wait for the GPU at each
boundary, and show where the time goes. Parts have the names of TRL's own profiling contexts, and exclude
nested parts. A row is written as soon as its way is measured; a way that fails gives a row with the error.
`trainer_gib` is the peak of torch's tensors minus what vLLM allocated at its start. With `--trace FOLDER`
torch's profiler records two micro-batches of one more step, which must have at least four.

| way | trainer | base | what it is |
|---|---|---|---|
| stock | TRL's | float32 | `trl grpo` |
| stock_bf16 | TRL's | bfloat16 | the same with a bfloat16 base, which merging the adapter rounds |
| before | TRL's | float32 | `stock` with the shared prefix: ours before the other improvements |
| pass | ours | set by `auto` | `ours` with the pass of `before` |
| sync | ours | float32 | `ours` with TRL's weight sync |
| peft | ours | set by `auto` | `ours` with PEFT's own layers |
| lookup | ours | set by `auto` | `ours` with n-gram speculation in vLLM (`LOOKUP`) |
| lookup_gpu | ours | set by `auto` | the same, with proposals on the GPU |
| ours | ours | set by `auto` | a2r_train as it trains |
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WAYS = ("stock", "before", "ours", "stock_bf16", "pass", "sync", "peft", "lookup", "lookup_gpu")
STOCK, TRLS_SYNC, TRLS_PASS, PEFTS_LAYERS = (
    ("stock", "stock_bf16"),
    ("stock", "stock_bf16", "before", "sync"),
    ("before", "pass"),
    ("stock", "stock_bf16", "before", "peft"),
)
# What our trainer overrides besides the pass, to save work on the host.
LEAN = ("train", "_get_dataloader", "_tokenize_prompts")
# Names of contexts without the trainer's class; other contexts count towards the part that contains them.
PARTS = {
    "vLLM.generate": "generation",
    "transformers.generate": "generation",
    "sync_weights": "weight sync",
    "_calculate_rewards": "rewards",
    "_prepare_inputs": "preparing",
    "compute_loss": "update",
    "backward": "update",
    "optimizer": "update",
}
COLUMNS = ("generation", "weight sync", "log-probabilities", "update", "rewards", "preparing", "waiting")
GIB = 2**30


class Clock:
    """Seconds of each part of a step, excluding nested parts."""

    def __init__(self) -> None:
        self.on, self.open = False, list[list[Any]]()  # part, start time, seconds of nested parts
        self.seconds: dict[str, float] = defaultdict(float)

    def enter(self, name: str) -> None:
        import torch

        part = PARTS.get(name) or (self.open[-1][0] if self.open else "waiting")
        if name == "_get_per_token_logps_and_entropies":
            part = "update" if torch.is_grad_enabled() else "log-probabilities"
        self.open.append([part, self.now(), 0.0])

    def leave(self) -> None:
        part, began, within = self.open.pop()
        took = self.now() - began
        self.seconds[part] += took - within
        if self.open:
            self.open[-1][2] += took

    def now(self) -> float:
        import torch

        if self.on and torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


def watch(clock: Clock) -> None:
    """Make TRL's profiling contexts notify the clock when they start and end."""
    from trl.extras.profiling import ProfilingContext

    def enter(self: Any) -> Any:
        clock.enter(self.name.split(".", 1)[1])
        return self

    ProfilingContext.__enter__ = enter  # type: ignore[method-assign]
    ProfilingContext.__exit__ = lambda *_: bool(clock.leave())  # type: ignore[method-assign]


def timed(kind: Any, way: str) -> Any:
    """The trainer class with contexts where TRL has none, and with TRL's own methods if the way uses them."""
    from trl import GRPOTrainer
    from trl.extras.profiling import profiling_context, profiling_decorator

    from a2r_train.train.lean import LeanGRPOTrainer

    names = ("_compute_loss", "_generate_and_score_completions") if way in TRLS_PASS else ()
    names += LEAN if way == "before" else ()
    its = {name: getattr(GRPOTrainer if way == "before" else LeanGRPOTrainer, name) for name in names}

    def logps(self: Any, *args: Any, **kwargs: Any) -> Any:
        return kind._get_per_token_logps_and_entropies(self, *args, **kwargs)

    logps.__name__ = "_get_per_token_logps_and_entropies"
    made = type(kind.__name__, (kind,), {**its, logps.__name__: profiling_decorator(logps)})

    def trainer(**options: Any) -> Any:
        one = made(**options)
        backward = one.accelerator.backward

        def watched(*args: Any, **kwargs: Any) -> None:
            with profiling_context(one, "backward"):
                backward(*args, **kwargs)

        one.accelerator.backward = watched
        return one

    return trainer


def steps_of(clock: Clock, given: argparse.Namespace) -> Any:
    """A callback that times each step, and makes the clock wait for the GPU in the last steps."""
    import torch
    from transformers import TrainerCallback

    class Steps(TrainerCallback):
        def __init__(self) -> None:
            self.took, self.parts, self.began = list[float](), list[dict[str, float]](), 0.0

        def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            clock.on = state.global_step >= given.warm_up + given.steps
            if torch.cuda.is_available() and state.global_step == given.warm_up:
                torch.cuda.reset_peak_memory_stats()
            clock.seconds.clear()
            self.began = clock.now()

        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            clock.enter("optimizer")

        def on_optimizer_step(self, *_: Any, **__: Any) -> None:
            clock.leave()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            took = time.perf_counter() - self.began
            self.took.append(took)
            waiting = took - sum(clock.seconds.values())
            self.parts.append({**clock.seconds, "waiting": clock.seconds["waiting"] + waiting})

    return Steps()


def traces_of(given: argparse.Namespace) -> list[Any]:
    """With `--trace`, a callback that profiles the second and third micro-batch of the last step, which
    is not counted.
    """
    from torch.profiler import profile
    from transformers import TrainerCallback

    class Trace(TrainerCallback):
        def __init__(self) -> None:
            self.ended, self.profiler = 0, profile()

        def on_substep_end(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
            if state.global_step < args.max_steps - 1:
                return
            self.ended += 1
            if self.ended == 1:
                self.profiler.start()
            elif self.ended == 3:
                self.profiler.stop()
                self.write(Path(given.trace) / f"{given.only}-{given.micro_batch}.txt")

        def write(self, path: Path) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            averages = self.profiler.key_averages()
            tables = [averages.table(sort_by=f"self_{kind}_time_total", row_limit=60) for kind in KINDS]
            path.write_text("\n".join(tables), encoding="utf-8")

    return [Trace()] if given.trace else []


KINDS = ("cpu", "device")  # device whose time sorts the trace
# vLLM finds an earlier match of the last two to four tokens, and proposes up to four tokens that followed it.
# Answers repeat their references.
LOOKUP = {"num_speculative_tokens": 4, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
METHODS = {"lookup": "ngram", "lookup_gpu": "ngram_gpu"}


def count_vllm(**more: Any) -> list[int]:
    """Start vLLM with `more` settings in TRL. The bytes that it leaves allocated are appended to the list."""
    import torch
    from trl.generation import vllm_generation

    taken: list[int] = []
    if not hasattr(vllm_generation, "LLM"):
        return taken
    start = vllm_generation.LLM

    def counted(*args: Any, **kwargs: Any) -> Any:
        before = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
        llm = start(*args, **kwargs, **more)
        taken.append(torch.cuda.memory_allocated() - before if torch.cuda.is_available() else 0)
        return llm

    vllm_generation.LLM = counted
    return taken


def measured(given: argparse.Namespace, way: str, micro_batch: int, folder: str) -> dict[str, Any]:
    """Measure one way in this process."""
    import torch
    from trl import GRPOTrainer
    from trl.generation.vllm_generation import VLLMGeneration
    from trl.trainer import grpo_trainer

    from a2r_train.config import parse
    from a2r_train.train import grpo
    from a2r_train.train.fused_lora import fuse_lora
    from a2r_train.train.logprobs import FLAT
    from a2r_train.train.sampling import EpochGRPOTrainer
    from a2r_train.train.shared_prefix import trainer as packing

    data, args, model = parse(grpo.ARGUMENTS, arguments_of(given, way, micro_batch, folder))
    bundles = grpo.load_bundles(data, model)
    args.chat_template_kwargs = bundles.template_arguments()
    grpo.end_turns_as_the_template_does(bundles.prompter)
    grpo.prepare_vllm(args, bundles.prompter.stop_ids())
    if way in TRLS_SYNC:
        grpo_trainer.VLLMGeneration = VLLMGeneration
    if way in (*STOCK, "before") and args.use_vllm:
        for name in ("detokenize", *FLAT):
            args.generation_kwargs.pop(name, None)
    if way not in STOCK or given.no_cudnn:
        grpo.avoid_cudnn_attention(args)
    grpo.set_loading_options(args, model)
    clock = Clock()
    watch(clock)
    more = {"speculative_config": {"method": METHODS[way], **LOOKUP}} if way in METHODS else {}
    steps, taken = steps_of(clock, given), count_vllm(**more)
    ours = packing.SharedPrefixGRPOTrainer if args.shared_prefix else EpochGRPOTrainer
    trainer = timed(GRPOTrainer if way in STOCK else ours, way)(
        reward_funcs=grpo.rewards_of(args, bundles),
        args=args,
        train_dataset=grpo.dataset_of(bundles),
        callbacks=[steps, *traces_of(given)],
        processing_class=bundles.prompter.tokenizer,
        **grpo.model_arguments(args, model),
    )
    if way not in PEFTS_LAYERS:
        fuse_lora(trainer.model, "ddp")
    trainer.train()
    log = [row for row in trainer.state.log_history if "reward" in row]
    held = trainer.accelerator.unwrap_model(trainer.model)
    row = {
        "trainer_gib": None,
        "vllm_gib": None,
        "host_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB, 2),
        "base": str(next(p for p in held.parameters() if p.ndim > 1).dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "completion_tokens": round(statistics.mean(one["completions/mean_length"] for one in log), 1),
        "reward": round(statistics.mean(one["reward"] for one in log), 4),
    }
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() - sum(taken)
        row |= {"trainer_gib": round(peak / GIB, 2), "vllm_gib": round(sum(taken) / GIB, 2)}
    return {**row, **timing_of(steps, given)}


def timing_of(steps: Any, given: argparse.Namespace) -> dict[str, Any]:
    """Mean seconds per step, and of its parts in the steps that waited for the GPU."""
    end = given.warm_up + given.steps
    counted, watched = steps.took[given.warm_up : end], slice(end, end + given.watched_steps)
    seconds, parts = statistics.mean(counted), steps.parts[watched]
    return {
        "seconds": round(seconds, 4),
        "seconds_of_each": [round(one, 4) for one in counted],
        "steps_per_hour": round(3600 / seconds, 1),
        "watched_seconds": round(statistics.mean(steps.took[watched]), 4),
        "parts": {name: round(statistics.mean(one.get(name, 0.0) for one in parts), 4) for name in COLUMNS},
    }


def arguments_of(given: argparse.Namespace, way: str, micro_batch: int, folder: str) -> list[str]:
    """The command line: the recipe plus the keys that a measurement needs."""
    import yaml

    recipe = yaml.safe_load((ROOT / given.recipe).read_text())
    micro = recipe["per_device_train_batch_size"]
    completions = micro * recipe.get("gradient_accumulation_steps", 1)
    micro = min(micro_batch or micro, completions)
    fixed: dict[str, Any] = {
        "output_dir": folder,
        "max_steps": given.warm_up + given.steps + given.watched_steps + bool(given.trace),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": completions // micro,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": "true",
        "eval_strategy": "no",
        "eval_on_start": "false",
        "load_best_model_at_end": "false",
        "validation": "",
        "dtype": {"stock": "float32", "before": "float32", "sync": "float32", "stock_bf16": "bfloat16"}.get(
            way, "auto"
        ),
    }
    if way in STOCK:
        fixed["shared_prefix"] = "false"
    if given.bundles:
        fixed |= {"bundles": given.bundles}
    if given.recipe == "recipes/tiny/grpo.yaml":
        fixed |= {"model_name_or_path": "data/tiny/synthesizer", "use_peft": "true", "use_cpu": "true"}
    pairs = [text for key, value in fixed.items() for text in (f"--{key}", str(value))]
    return ["--config", str(ROOT / given.recipe), *pairs, *given.keys]


def made_up_bundles(problems: str, path: Path) -> str:
    """Write bundles of the problems with four references, some right and some wrong."""
    from a2r_train.data.builder import bundle_of
    from a2r_train.data.read import read
    from a2r_train.records import Problem, Reference, write

    def reference(problem: Problem, answer: str) -> Reference:
        text = f"{problem.problem} The answer is \\boxed{{{answer}}}."
        return Reference(text, answer, "correct" if answer == problem.answer else "incorrect", 40)

    found = read(Problem, problems)[:64]
    write(
        [
            bundle_of(p, [reference(p, answer) for answer in (p.answer, "0", p.answer, "1")], p.id)
            for p in found
        ],
        path,
    )
    return str(path)


def run_way(given: argparse.Namespace) -> int:
    """Measure `--only` in this process, and write its row."""
    import contextlib

    from a2r_train.output import versions

    row: dict[str, Any] = {"way": given.only, "micro_batch": given.micro_batch, "recipe": given.recipe}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        row |= measured(given, given.only, given.micro_batch, folder)
    write_row(given.output, {**row, "keys": given.keys, "versions": versions()})
    return 0


def write_row(path: str, row: dict[str, Any]) -> None:
    with open(path, "a", encoding="utf-8") as out:
        out.write(json.dumps(row) + "\n")


def run_all(given: argparse.Namespace) -> None:
    """Measure each way with each micro-batch in a separate process."""
    with tempfile.TemporaryDirectory() as folder:
        if given.recipe == "recipes/tiny/grpo.yaml" and not given.bundles:
            given.bundles = made_up_bundles(
                str(ROOT / "data/tiny/train.jsonl"), Path(folder) / "bundles.jsonl"
            )
        for way in given.ways.split(","):
            for micro_batch in map(int, given.micro_batches.split(",")):
                named = {
                    "only": way,
                    "micro_batch": micro_batch,
                    "bundles": given.bundles,
                    "recipe": given.recipe,
                }
                named |= {
                    key: getattr(given, key)
                    for key in ("output", "warm_up", "steps", "watched_steps", "trace")
                }
                options = [text for key, value in named.items() for text in (f"--{key}", str(value))]
                options += ["--no_cudnn"] if given.no_cudnn else []
                command = [sys.executable, __file__, *options, "--", *given.keys]
                done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
                if done.returncode:
                    said = [line for line in done.stderr.splitlines() if line.strip()]
                    write_row(given.output, {**named, "way": way, "error": " ".join(said[-3:])[-600:]})
                sys.stderr.write(
                    f"{way}, micro-batch {micro_batch}: {'failed' if done.returncode else 'done'}\n"
                )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown with the fastest micro-batch of each way; ratios are relative to the fastest `stock` row."""
    good = [row for row in rows if "seconds" in row]
    best: dict[str, dict[str, Any]] = {}
    for row in sorted(good, key=lambda row: float(row["seconds"])):
        best.setdefault(row["way"], row)
    base = best.get("stock")
    heads = ["way", "base", "micro-batch", "s a step", "steps an hour", "of stock", "trainer GiB", "of stock"]
    lines = [f"| {' | '.join([*heads, *COLUMNS])} |", "|---" * (len(heads) + len(COLUMNS)) + "|"]
    for way, row in best.items():
        ratio = f"{base['seconds'] / row['seconds']:.2f}" if base else ""
        memory = f"{row['trainer_gib'] / base['trainer_gib']:.2f}" if base and base["trainer_gib"] else ""
        cells = [way, row["base"], row["micro_batch"], f"{row['seconds']:.2f}", row["steps_per_hour"], ratio]
        cells += ["" if row["trainer_gib"] is None else row["trainer_gib"], memory]
        cells += [f"{row['parts'][name]:.2f}" for name in COLUMNS]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [
        f"{row['way']}, micro-batch {row['micro_batch']}: {row['error']}" for row in rows if "error" in row
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    given_argv = list(sys.argv[1:] if argv is None else argv)
    at = given_argv.index("--") if "--" in given_argv else len(given_argv)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default="grpo_step.jsonl", help="file to append rows to")
    parser.add_argument("--recipe", default="recipes/tiny/grpo.yaml")
    parser.add_argument("--bundles", default="", help="instead of the recipe's; made up for tiny")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument(
        "--micro_batches",
        default="0",
        help="completions per micro-batch, comma-separated; 0: as in the recipe",
    )
    parser.add_argument("--warm_up", type=int, default=2, help="first steps that are not counted")
    parser.add_argument("--steps", type=int, default=6, help="steps that are counted")
    parser.add_argument(
        "--watched_steps", type=int, default=3, help="last steps, which show where the time goes"
    )
    parser.add_argument("--trace", default="", help="folder for the tables of torch's profiler")
    parser.add_argument("--no_cudnn", action="store_true", help="no cuDNN attention for stock TRL either")
    parser.add_argument("--table", default="", help="only show the table of this file of rows")
    parser.add_argument("--only", default="", choices=["", *WAYS], help=argparse.SUPPRESS)
    parser.add_argument("--micro_batch", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args(given_argv[:at])
    given.keys = given_argv[at + 1 :]
    if given.only:
        return run_way(given)
    if not given.table:
        run_all(given)
    rows = [json.loads(line) for line in Path(given.table or given.output).read_text().splitlines()]
    sys.stdout.write(table(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
