"""Compare the GRPO policy update of stock TRL with ours (`shared_prefix`): forward, backward and optimizer,
with beta 0 and random weights.

    python scripts/benchmarks/bench_shared_prefix.py --output rows.jsonl    # one H200, bf16, about 5 minutes
    python scripts/benchmarks/bench_shared_prefix.py --parts table          # or check, longest, lengths
    python scripts/benchmarks/bench_shared_prefix.py --parts table --profile    # where our update spends time
    python scripts/benchmarks/bench_shared_prefix.py --shape tiny    # a trial on the CPU, half a minute

`check` compares the gradients of both. In `table` (the shape of Qwen3-1.7B) both get the same batch. Stock
runs at its best: SDPA's faster kernel, with and without activation checkpointing, each with the largest
micro-batch that fits. Ours has FlashAttention's kernel. `bound` is the speed-up that the token count allows,
G (P + C) / (P + G C), and `share` how much of it is reached. `longest` estimates the longest prompt for 1.7B
and 4B, by a line through measured peaks. `lengths` uses new lengths in each update. Each row is written at
once. On a CPU, CPU time is counted.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from measure_memory import CUDA, SHAPES, config_of, own_clock, tokenizer_of_two
from torch._dynamo.utils import counters
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from a2r_train.train.shared_prefix import trainer as shared_prefix
from a2r_train.train.shared_prefix.trainer import SharedPrefixGRPOTrainer

GIB = 2**30
# (P, C, G): the required speed-up. The last point is there for MIN_TOKEN_RATIO.
POINTS = {(8192, 1024, 8): 3.5, (2048, 512, 8): 1.8, (16384, 2048, 8): 3.3, (256, 1024, 8): 1.0}
TINY_POINTS = {(128, 16, 4): 1.0, (16, 48, 4): 1.0}
LENGTHS, LENGTHS_TINY = (1024, 256, 8), (64, 16, 4)
PARTS = ["check", "table", "longest", "lengths"]
KERNELS = {"flash": SDPBackend.FLASH_ATTENTION, **({"cudnn": SDPBackend.CUDNN_ATTENTION} if CUDA else {})}


@dataclass(frozen=True)
class Way:
    """One way to compute the update."""

    shared: bool
    kernel: str
    checkpointing: bool

    def __str__(self) -> str:
        return (
            f"{'shared' if self.shared else 'stock'}, {self.kernel}, "
            f"{'with' if self.checkpointing else 'no'} checkpointing"
        )


@dataclass(frozen=True)
class Result:
    way: Way
    micro_batch: int
    seconds: float
    peak_gib: float | None  # None on a CPU


def build(
    shape: str, shared: bool, folder: str, dtype: torch.dtype = torch.bfloat16 if CUDA else torch.float32
) -> GRPOTrainer:
    """A trainer with a random model of this shape, and its optimizer."""
    torch.manual_seed(0)
    with torch.device("cuda" if CUDA else "cpu"):
        model = AutoModelForCausalLM.from_config(config_of(shape), dtype=dtype, attn_implementation="sdpa")
    options: dict[str, Any] = {
        "num_generations": 8,
        "per_device_train_batch_size": 8,
        "beta": 0.0,
        "learning_rate": 1e-6,
    }
    trainer = (SharedPrefixGRPOTrainer if shared else GRPOTrainer)(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=GRPOConfig(
            folder, bf16=False, use_cpu=not CUDA, report_to="none", activation_checkpointing=False, **options
        ),
        train_dataset=Dataset.from_dict({"prompt": ["<eos>"] * 8}),
        processing_class=tokenizer_of_two(),
    )
    trainer.create_optimizer()
    return trainer


def batch_of(trainer: GRPOTrainer, prompt: int, completion: int, group: int) -> dict[str, torch.Tensor]:
    """One group in TRL's format: random ids, full lengths."""
    device, draw = trainer.accelerator.device, torch.Generator().manual_seed(prompt)
    vocabulary = trainer.model.config.vocab_size
    ids = torch.randint(2, vocabulary, (1, prompt), generator=draw).expand(group, -1)
    completions = torch.randint(2, vocabulary, (group, completion), generator=draw)
    batch = {
        "prompt_ids": ids,
        "prompt_mask": torch.ones_like(ids),
        "completion_ids": completions,
        "completion_mask": torch.ones_like(completions),
        "advantages": torch.randn(group, generator=draw),
        "num_items_in_batch": torch.tensor(group * completion),
    }
    return {key: value.to(device) for key, value in batch.items()}


def update(
    trainer: GRPOTrainer, batch: dict[str, torch.Tensor], micro_batch: int, kernel: str, step: bool = True
) -> None:
    """One optimizer step of the policy, or only its gradients."""
    chunks = split_tensor_dict(batch, len(batch["advantages"]) // micro_batch)
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = len(chunks)
    trainer.optimizer.zero_grad(set_to_none=True)
    order = dict.fromkeys(
        [KERNELS[kernel], SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
    )  # MATH: the only kernel for float32
    with sdpa_kernel([*order], set_priority=True):
        for chunk in chunks:
            trainer.compute_loss(trainer.model, chunk).backward()
    if step:
        trainer.optimizer.step()


def choose(trainer: GRPOTrainer, checkpointing: bool) -> None:
    model: Any = trainer.model
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.activation_checkpointing_disable()
    model.train()


def fits(action: Callable[[], None]) -> bool:
    """Whether the action finishes without running out of device memory."""
    try:
        action()
    except torch.OutOfMemoryError:
        found = False
    else:
        found = True
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()
    return found


def measure(trainer: GRPOTrainer, way: Way, batch: dict[str, torch.Tensor], repeats: int) -> Result | None:
    """Median of updates after a warm-up with the largest micro-batch that fits; ours splits no group."""
    choose(trainer, way.checkpointing)
    size = len(batch["advantages"])
    while size and not fits(lambda: update(trainer, batch, size, way.kernel)):  # noqa: B023
        size = 0 if way.shared else size // 2
    if not size:
        return None
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        began = own_clock()
        update(trainer, batch, size, way.kernel)
        seconds.append(own_clock() - began)
    return Result(way, size, statistics.median(seconds), peak_gib())


def peak_gib() -> float | None:
    return torch.cuda.max_memory_allocated() / GIB if CUDA else None


def fastest_kernel(trainer: GRPOTrainer, batch: dict[str, torch.Tensor]) -> str:
    """SDPA's faster kernel for this batch, by forward and backward of one layer's attention, without
    projections.
    """
    config: Any = trainer.model.config
    rows, tokens = len(batch["advantages"]), batch["prompt_ids"].size(1) + batch["completion_ids"].size(1)
    made: dict[str, Any] = {
        "device": trainer.accelerator.device,
        "dtype": trainer.model.dtype,
        "requires_grad": True,
    }
    q, k, v = (
        torch.randn(rows, tokens, heads, config.head_dim, **made).transpose(1, 2)
        for heads in (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
    )
    took = {}
    for name, kernel in KERNELS.items():
        for _ in range(3):  # the last one counts
            began = own_clock()
            with sdpa_kernel([kernel, SDPBackend.MATH], set_priority=True):
                out = torch.nn.functional.scaled_dot_product_attention(
                    q, k, v, is_causal=True, enable_gqa=True
                )
            torch.autograd.grad(out, (q, k, v), out)
            took[name] = own_clock() - began
    print(
        "stock's attention in one layer, seconds:",
        {name: round(seconds, 4) for name, seconds in took.items()},
        flush=True,
    )
    return min(took, key=lambda name: took[name])


def discard(*trainers: GRPOTrainer) -> None:
    """Free the memory of model and optimizer."""
    for trainer in trainers:
        trainer.model = trainer.model_wrapped = trainer.optimizer = None
    fits(lambda: None)


def table(
    shape: str, points: dict[tuple[int, int, int], float], repeats: int, profile: bool, kernel: str
) -> Iterator[dict[str, Any]]:
    """Measure every way at every point; yields a row for each, and one for the point."""
    for (prompt, completion, group), asked in points.items():
        point = {"P": prompt, "C": completion, "G": group}
        found: list[Result] = []
        for shared in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                trainer = build(shape, shared, folder)
            batch = batch_of(trainer, prompt, completion, group)
            chosen = "flash" if shared else kernel or fastest_kernel(trainer, batch)
            for way in (Way(shared, chosen, checkpointing) for checkpointing in (False, True)):
                told: dict[str, Any] = {"way": str(way)}
                try:
                    result = measure(trainer, way, batch, repeats)
                except RuntimeError as error:  # a way that fails must not stop the others
                    result, told["error"] = None, str(error)[:500]
                found += [result] if result else []
                yield {**point, **told, **(asdict(result) if result else {"fits": False}), "way": str(way)}
            if shared and profile:
                show_profile(trainer, best_of(found, True), batch)
            discard(trainer)
        yield {
            **point,
            "asked": asked,
            **row_of(group * (prompt + completion) / (prompt + group * completion), found),
        }


def best_of(found: list[Result], shared: bool) -> Result | None:
    return min(
        (result for result in found if result.way.shared == shared),
        key=lambda result: result.seconds,
        default=None,
    )


def row_of(bound: float, found: list[Result]) -> dict[str, Any]:
    """The best of both, overall and with checkpointing."""
    row: dict[str, Any] = {"bound": bound}
    checkpointed = [result for result in found if result.way.checkpointing]
    for prefix, results in (("", found), ("checkpointed_", checkpointed)):
        stock, ours = best_of(results, False), best_of(results, True)
        for name, result in (("stock", stock), ("ours", ours)):
            row[prefix + name] = f"{result.way}, micro-batch {result.micro_batch}" if result else "none"
            row |= (
                {f"{prefix}{name}_s": result.seconds, f"{prefix}{name}_gib": result.peak_gib}
                if result
                else {}
            )
        if stock and ours:
            speedup = stock.seconds / ours.seconds
            row |= {f"{prefix}speedup": speedup, f"{prefix}share": speedup / bound}
            if ours.peak_gib and stock.peak_gib:
                row[f"{prefix}memory"] = ours.peak_gib / stock.peak_gib
    return row


def show_profile(trainer: GRPOTrainer, best: Result | None, batch: dict[str, torch.Tensor]) -> None:
    """Print where one of our updates spends its time."""
    if not best:
        return
    choose(trainer, best.way.checkpointing)
    with torch.profiler.profile() as profiler:
        update(trainer, batch, best.micro_batch, best.way.kernel)
        own_clock()
    by = f"self_{'device' if CUDA else 'cpu'}_time_total"
    print(profiler.key_averages().table(sort_by=by, row_limit=20, max_name_column_width=60), flush=True)


def gradients(shared: bool, dtype: torch.dtype) -> torch.Tensor:
    """The gradient of a small model's loss on 8 completions of unequal length, as one vector."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = build("small" if CUDA else "tiny", shared, folder, dtype)
    choose(trainer, checkpointing=True)
    batch = batch_of(trainer, *(1000, 512) if CUDA else (100, 40), 8)
    longest_completion = batch["completion_mask"].size(1)
    for row in range(8):
        batch["completion_mask"][row, longest_completion * (row + 1) // 8 :] = 0
    update(trainer, batch, 8, "flash", step=False)
    found = torch.cat(
        [p.grad.flatten().float() for p in trainer.model.parameters() if p.grad is not None]
    ).cpu()
    discard(trainer)
    return found


def check() -> Iterator[dict[str, Any]]:
    """How far both differ from the dense float32 gradient. On a GPU both use bf16, and ours must not be much
    further off.
    """
    exact = gradients(False, torch.float32)
    row: dict[str, Any] = {"check": "flash"}
    for shared in (False, True):
        gradient = gradients(shared, torch.bfloat16 if CUDA else torch.float32)
        row["shared_off" if shared else "dense_off"] = float((gradient - exact).norm() / exact.norm())
    yield {**row, "ok": row["shared_off"] <= 1.5 * row["dense_off"] + 1e-4}


def longest(shape: str, completion: int, group: int, prompts: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """Estimate the longest prompt in tokens, by a line through the peaks of two prompts, with checkpointing;
    dense uses micro-batches of one.
    """
    for shared, micro_batch in ((True, group), (False, 1)):
        with tempfile.TemporaryDirectory() as folder:
            trainer = build(shape, shared, folder)
        choose(trainer, checkpointing=True)
        update(
            trainer, batch_of(trainer, 128, 128, group), micro_batch, "flash"
        )  # creates the optimizer state
        peaks = []
        for prompt in prompts:
            batch = batch_of(trainer, prompt, completion, group)
            if not shared:  # two rows: the second runs with the gradients of the first in memory
                batch = {key: value[:2] if value.ndim else value for key, value in batch.items()}
            torch.cuda.reset_peak_memory_stats()
            update(trainer, batch, micro_batch, "flash", step=False)
            peaks.append(peak_gib())
        discard(trainer)
        slope = (peaks[1] - peaks[0]) / (prompts[1] - prompts[0])
        most = int(
            prompts[0] + (torch.cuda.mem_get_info()[1] / GIB - 1 - peaks[0]) / slope
        )  # 1 GiB is not available to the allocator
        way = {"shared": shared, "micro_batch": micro_batch, "C": completion, "G": group}
        yield {"longest": shape, **way, "P": most, "measured_P": prompts, "peaks_gib": peaks}


def lengths(shape: str, steps: int, prompt: int, completion: int, group: int) -> Iterator[dict[str, Any]]:
    """Update `steps` times, with different lengths up to the given ones: compiled graphs, and seconds per
    step.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(shape, True, folder)
    choose(trainer, checkpointing=False)
    before, draw, seconds = counters["stats"]["unique_graphs"], torch.Generator().manual_seed(0), []
    for _ in range(steps):
        drawn = [int(torch.randint(most // 2, most, (), generator=draw)) for most in (prompt, completion)]
        batch, began = batch_of(trainer, *drawn, group), own_clock()
        update(trainer, batch, group, "flash")
        seconds.append(own_clock() - began)
    for _ in range(2):
        began = own_clock()
        update(trainer, batch, group, "flash")
        again = own_clock() - began
    row = {"lengths": steps, "graphs": int(counters["stats"]["unique_graphs"] - before)}
    yield {**row, "median_s": statistics.median(seconds), "last_s": seconds[-1], "last_again_s": again}


def parts(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of all requested parts."""
    tiny, points = given.shape == "tiny", TINY_POINTS if given.shape == "tiny" else POINTS
    if "check" in given.parts:
        yield from check()
    if "table" in given.parts:
        chosen = {
            point: asked for point, asked in points.items() if not given.prompts or point[0] in given.prompts
        }
        yield from table(given.shape, chosen, given.repeats, given.profile, given.kernel)
    if "longest" in given.parts and CUDA:
        for shape in ["tiny"] if tiny else ["1.7b", "4b"]:
            yield from longest(shape, 1024, 8, (12288, 24576))
    if "lengths" in given.parts:
        yield from lengths(given.shape, given.steps, *LENGTHS_TINY if tiny else LENGTHS)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="1.7b")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--prompts", nargs="+", type=int, default=[], help="only the rows of the table with these P"
    )
    parser.add_argument(
        "--kernel",
        choices=KERNELS,
        default="",
        help="for stock; default: the faster one",
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--output", default="", help="file to append rows to, as JSON lines")
    parser.add_argument("--steps", type=int, default=100, help="updates in `lengths`")
    given = parser.parse_args()
    print(
        f"{torch.cuda.get_device_name() if CUDA else 'CPU'}, torch {torch.__version__}, shape {given.shape}",
        flush=True,
    )
    shared_prefix.MIN_TOKEN_RATIO = 0.0  # no threshold, because its value is measured here
    began, failed = time.perf_counter(), False
    for row in parts(given):
        failed |= not row.get("ok", True)
        line = json.dumps({"at_s": round(time.perf_counter() - began, 1), **row})
        print(line, flush=True)
        if given.output:
            with Path(given.output).open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    if failed:
        raise SystemExit("check: the shared gradient is further from float32 than the dense one")


if __name__ == "__main__":
    main()
