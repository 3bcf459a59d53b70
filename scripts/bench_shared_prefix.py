"""The GRPO policy update of stock TRL beside ours with `shared_prefix`: forward, backward, optimizer, beta 0, random weights.

    python scripts/bench_shared_prefix.py                        # one H100 or H200, bf16, the shape of Qwen3-1.7B: the table
    python scripts/bench_shared_prefix.py --profile              # and what our update waits for
    python scripts/bench_shared_prefix.py --longest              # the longest prompt that fits, 1.7B and 4B
    python scripts/bench_shared_prefix.py --lengths 100          # compilations of a run with so many different lengths
    python scripts/bench_shared_prefix.py --shape tiny           # as a trial on the CPU; goes with each of the above
    python scripts/bench_shared_prefix.py --recipe recipes/tiny/grpo.yaml --model_name_or_path M --bundles B    # real steps

Both get the same batch. Stock is at its best: the fastest of its attentions, with and without activation checkpointing, each
with the largest micro-batch that fits. Bound is what the count of tokens allows, G (P + C) / (P + G C), and share how much of
it is reached. `--recipe` trains by that recipe, dense and shared by turns; on a CPU it counts processor time, not the clock's.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from torch._dynamo.utils import counters
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import is_flash_attn_2_available
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from a2r_train.train import grpo
from a2r_train.train.shared_prefix import ATTENTION, SharedPrefixGRPOTrainer

CUDA = torch.cuda.is_available()
GIB = 2**30
# hidden size, intermediate size, layers, heads, key-value heads, head size, vocabulary
SHAPES = {
    "1.7b": (2048, 6144, 28, 16, 8, 128, 151936),  # Qwen/Qwen3-1.7B's config.json
    "4b": (2560, 9728, 36, 32, 8, 128, 151936),  # Qwen/Qwen3-4B's
    "tiny": (64, 128, 2, 4, 2, 32, 512),
}
POINTS = {(2048, 512, 8): 1.8, (8192, 1024, 8): 3.5, (16384, 2048, 8): 3.3}  # P, C, G: the speed-up that is asked for
TINY_POINTS = {(128, 16, 4): 1.0, (16, 48, 4): 1.0}
LONGEST = {"step": 1024, "most": 2**20, "completion": 1024, "group": 8}  # tokens
TINY_LONGEST = {"step": 64, "most": 256, "completion": 16, "group": 4}


@dataclass(frozen=True)
class Way:
    """One way to compute the update."""

    shared: bool
    attention: str
    checkpointing: bool

    def __str__(self) -> str:
        return f"{self.attention}, {'with' if self.checkpointing else 'no'} checkpointing"


@dataclass(frozen=True)
class Result:
    way: Way
    micro_batch: int
    seconds: float
    peak_gib: float


def build(shape: str, shared: bool, folder: str) -> GRPOTrainer:
    """A trainer with a random model of that shape, bf16 on CUDA, and its optimizer."""
    hidden, intermediate, layers, heads, kv_heads, head, vocabulary = SHAPES[shape]
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head, tie_word_embeddings=True,
        max_position_embeddings=2**21, rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        pad_token_id=0, bos_token_id=None, eos_token_id=1, dtype="bfloat16" if CUDA else "float32",
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda" if CUDA else "cpu"):
        model = Qwen3ForCausalLM(config).to(torch.bfloat16 if CUDA else torch.float32)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>")),
        pad_token="<pad>",
        eos_token="<eos>",
    )
    options: dict[str, Any] = {"num_generations": 8, "per_device_train_batch_size": 8, "beta": 0.0, "learning_rate": 1e-6}
    trainer = (SharedPrefixGRPOTrainer if shared else GRPOTrainer)(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=GRPOConfig(folder, bf16=False, use_cpu=not CUDA, report_to="none", activation_checkpointing=False, **options),
        train_dataset=Dataset.from_dict({"prompt": ["<eos>"] * 8}),
        processing_class=tokenizer,
    )
    trainer.create_optimizer()
    return trainer


def batch_of(trainer: GRPOTrainer, prompt: int, completion: int, group: int) -> dict[str, torch.Tensor]:
    """One group in TRL's shape: random ids, full lengths."""
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


def update(trainer: GRPOTrainer, batch: dict[str, torch.Tensor], micro_batch: int) -> None:
    """One optimizer step of the policy."""
    chunks = split_tensor_dict(batch, len(batch["advantages"]) // micro_batch)
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = len(chunks)
    trainer.optimizer.zero_grad(set_to_none=True)
    for chunk in chunks:
        trainer.compute_loss(trainer.model, chunk).backward()
    trainer.optimizer.step()


def choose(trainer: GRPOTrainer, way: Way) -> None:
    model: Any = trainer.model
    model.set_attn_implementation(way.attention)
    if way.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.activation_checkpointing_disable()
    model.train()


def synchronize() -> float:
    """The clock, when the device is done; on a CPU the processor time, which other programs do not disturb."""
    if CUDA:
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def fits(action: Callable[[], None]) -> bool:
    """Whether the action ends without running out of device memory."""
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
    """The median of some updates after two, with the largest micro-batch that fits; ours keeps a group whole."""
    choose(trainer, way)
    size = len(batch["advantages"])
    while size and not fits(lambda: [update(trainer, batch, size) for _ in range(2)]):  # noqa: B023
        size = 0 if way.shared else size // 2
    if not size:
        return None
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        began = synchronize()
        update(trainer, batch, size)
        seconds.append(synchronize() - began)
    return Result(way, size, statistics.median(seconds), torch.cuda.max_memory_allocated() / GIB if CUDA else float("nan"))


def ways(shared: bool) -> Iterator[Way]:
    stock = ["sdpa", *(["flex_attention"] if CUDA else []), *(["flash_attention_2"] if is_flash_attn_2_available() else [])]
    for attention in [ATTENTION] if shared else stock:
        for checkpointing in (False, True):
            yield Way(shared, attention, checkpointing)


def discard(*trainers: GRPOTrainer) -> None:
    """Give the memory of model and optimizer back."""
    for trainer in trainers:
        trainer.model = trainer.model_wrapped = trainer.optimizer = None
    fits(lambda: None)


def table(shape: str, points: dict[tuple[int, int, int], float], repeats: int, profile: bool) -> list[dict[str, Any]]:
    """Measure every way at every point, the two trainers by turns; prints as it goes and returns the rows."""
    rows = []
    for (prompt, completion, group), asked in points.items():
        best: dict[bool, Result] = {}
        for shared in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                trainer = build(shape, shared, folder)
            batch = batch_of(trainer, prompt, completion, group)
            for way in ways(shared):
                result = measure(trainer, way, batch, repeats)
                print(f"P {prompt} C {completion} G {group}, {way}: {result or 'does not fit'}", flush=True)
                if result and (shared not in best or result.seconds < best[shared].seconds):
                    best[shared] = result
            if shared and profile:
                show_profile(trainer, best[True], batch)
            discard(trainer)
        rows.append(row_of(prompt, completion, group, asked, best))
    return rows


def row_of(prompt: int, completion: int, group: int, asked: float, best: dict[bool, Result]) -> dict[str, Any]:
    bound = group * (prompt + completion) / (prompt + group * completion)
    row = {"P": prompt, "C": completion, "G": group, "asked": asked, "bound": bound}
    for name, result in (("stock", best.get(False)), ("ours", best.get(True))):
        row |= {f"{name}_s": result.seconds, f"{name}_gib": result.peak_gib} if result else {}
        row[name] = f"{result.way}, micro-batch {result.micro_batch}" if result else "does not fit"
    if len(best) == 2:
        speedup = best[False].seconds / best[True].seconds
        row |= {"speedup": speedup, "share": speedup / bound, "memory": best[True].peak_gib / best[False].peak_gib}
    return row


def show_profile(trainer: GRPOTrainer, best: Result, batch: dict[str, torch.Tensor]) -> None:
    """What one of our updates spends its time on."""
    choose(trainer, best.way)
    with torch.profiler.profile() as profiler:
        update(trainer, batch, best.micro_batch)
        synchronize()
    by = f"self_{'device' if CUDA else 'cpu'}_time_total"
    print(profiler.key_averages().table(sort_by=by, row_limit=15, max_name_column_width=60))


def longest(shape: str, shared: bool, limits: dict[str, int]) -> int:
    """The longest prompt, in tokens, whose update fits with activation checkpointing; dense with micro-batches of one."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(shape, shared, folder)
    choose(trainer, Way(shared, ATTENTION if shared else "sdpa", True))
    group = limits["group"]

    def works(steps: int) -> bool:
        batch = batch_of(trainer, steps * limits["step"], limits["completion"], group)
        return fits(lambda: update(trainer, batch, group if shared else 1))

    low, high = 0, 1
    while high * limits["step"] <= limits["most"] and works(high):
        low, high = high, 2 * high
    high = min(high, limits["most"] // limits["step"] + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if works(middle) else (low, middle)
    discard(trainer)
    return low * limits["step"]


def compilations(shape: str, steps: int, prompt: int, completion: int, group: int) -> int:
    """Graphs compiled over so many updates, each of another length up to these."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(shape, True, folder)
    choose(trainer, Way(True, ATTENTION, True))
    before = counters["stats"]["unique_graphs"]
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        lengths = [int(torch.randint(most // 2, most, (), generator=draw)) for most in (prompt, completion)]
        update(trainer, batch_of(trainer, *lengths, group), group)
    return int(counters["stats"]["unique_graphs"] - before)


def timed(name: str, spent: dict[str, list[float]]) -> Callable[..., Any]:
    """GRPOTrainer's method of that name, which also notes its seconds."""
    method = getattr(GRPOTrainer, name)

    def run(*args: Any, **kwargs: Any) -> Any:
        began = synchronize()
        result = method(*args, **kwargs)
        spent.setdefault(name, []).append(synchronize() - began)
        return result

    return run


def end_to_end(recipe: list[str], steps: int, rounds: int) -> None:
    """Train by a recipe, dense and shared by turns, and print a step's median: all of it, and without generation."""
    spent: dict[bool, dict[str, list[float]]] = {False: {}, True: {}}
    methods = {name: getattr(GRPOTrainer, name) for name in ("training_step", "_generate_and_score_completions")}
    ratios = []
    for i in range(2 * rounds):
        shared = bool(i % 2)
        for name in methods:
            setattr(GRPOTrainer, name, timed(name, spent[shared]))
        with tempfile.TemporaryDirectory() as folder:
            given = ["--output_dir", folder, "--max_steps", str(steps), "--logging_steps", "1", "--shared_prefix", str(shared)]
            if grpo.main(["--config", *recipe, *given, *([] if CUDA else ["--use_cpu", "true"])]):
                raise SystemExit(2)
            log = json.loads((Path(folder) / "trainer_state.json").read_text())["log_history"]
        ratios += [entry["shared_prefix/token_ratio"] for entry in log if "shared_prefix/token_ratio" in entry]
        for name, method in methods.items():
            setattr(GRPOTrainer, name, method)
    step = {shared: statistics.median(times["training_step"]) for shared, times in spent.items()}
    generation = {shared: statistics.median(times["_generate_and_score_completions"]) for shared, times in spent.items()}
    policy = {shared: step[shared] - generation[shared] for shared in step}
    for name, part in (("step", step), ("of it generation and reward", generation), ("of it policy update", policy)):
        print(f"{name}: dense {part[False]:.3f} s, shared {part[True]:.3f} s, {part[False] / part[True]:.2f} times")
    print(f"tokens: {statistics.mean(ratios):.2f} times fewer; medians of {steps * rounds} steps each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="1.7b")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--longest", action="store_true")
    parser.add_argument("--lengths", type=int, default=0)
    parser.add_argument("--output", default="", help="write the rows there, as JSON")
    parser.add_argument("--recipe", default="", help="any further option goes to the recipe")
    parser.add_argument("--steps", type=int, default=4, help="of each run of the recipe")
    parser.add_argument("--rounds", type=int, default=2, help="runs of the recipe, dense and shared each")
    given, rest = parser.parse_known_args()
    tiny = given.shape == "tiny"
    print(f"{torch.cuda.get_device_name() if CUDA else 'CPU'}, torch {torch.__version__}, shape {given.shape}")
    if given.recipe:
        end_to_end([given.recipe, *rest], given.steps, given.rounds)
        return
    if rest:
        parser.error(f"unknown: {' '.join(rest)}")
    points, limits = (TINY_POINTS, TINY_LONGEST) if tiny else (POINTS, LONGEST)
    if given.longest:
        for shape in ["tiny"] if tiny else ["1.7b", "4b"]:
            found = {name: longest(shape, name == "shared", limits) for name in ("dense", "shared")}
            print(f"{shape}, C {limits['completion']}, G {limits['group']}: longest P in tokens {found}", flush=True)
    elif given.lengths:
        print(f"{compilations(given.shape, given.lengths, *next(iter(points)))} graphs compiled in {given.lengths} updates")
    else:
        rows = table(given.shape, points, given.repeats, given.profile)
        for row in rows:
            print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
        if given.output:
            Path(given.output).write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
