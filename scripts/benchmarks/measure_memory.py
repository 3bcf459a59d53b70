"""Compare memory estimates with measured peaks: SFT steps and GRPO updates of random models of Qwen3 sizes.

    python scripts/benchmarks/measure_memory.py --output memory.jsonl    # one H200; three minutes
    python scripts/benchmarks/measure_memory.py --shapes tiny --output trial.jsonl    # on the CPU

A row is written as soon as it is measured: the estimate of a2r_train/train/estimate/memory.py,
torch.cuda.max_memory_allocated of the second step (on a CPU the tensors are counted), and tokens per second.
Points that do not fit on the GPU by the estimate are skipped. The first row is 8B with LoRA, 8 completions of
2048 tokens and a prompt of 8192.
"""

import argparse
import contextlib
import functools
import gc
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Qwen3Config,
    TrainerCallback,
    TrainerState,
)
from trl import GRPOConfig, SFTConfig, SFTTrainer

from a2r_train.train.arguments import ModelArguments
from a2r_train.train.estimate.activations import Live
from a2r_train.train.estimate.memory import Group, Size, size_of, update
from a2r_train.train.estimate.report import USABLE
from a2r_train.train.shared_prefix.trainer import SharedPrefixGRPOTrainer

CUDA = torch.cuda.is_available()
STEPS = 3  # the first creates the optimizer state and compiles, the second measures memory, the third time
# hidden size, intermediate size, layers, heads, key-value heads, head size, vocabulary, tied embeddings
SHAPES = {
    "8b": (4096, 12288, 36, 32, 8, 128, 151936, False),  # Qwen/Qwen3-8B's config.json
    "4b": (2560, 9728, 36, 32, 8, 128, 151936, True),  # Qwen/Qwen3-4B's
    "1.7b": (2048, 6144, 28, 16, 8, 128, 151936, True),  # Qwen/Qwen3-1.7B's
    "0.6b": (1024, 3072, 28, 16, 8, 128, 151936, True),  # Qwen/Qwen3-0.6B's
    "small": (512, 1024, 4, 8, 2, 128, 4096, True),
    "tiny": (256, 768, 8, 4, 2, 64, 2048, True),
}
LORA = {"use_peft": True, "lora_r": 16, "lora_target_modules": ["all-linear"], "lora_dropout": 0.0}


@dataclass(frozen=True)
class Point:
    """One measurement. In GRPO the `completions` of a group share a prompt; in SFT they are plain rows."""

    shape: str
    stage: str
    lora: bool
    prompt: int
    completion: int
    completions: int
    checkpointing: bool = True
    groups: int = 1

    @property
    def group(self) -> Group:
        return Group(self.prompt, self.completion, self.completions, shared=self.stage == "grpo")


def points(shape: str) -> Iterator[Point]:
    if shape == "tiny":
        for stage, completions in (("sft", 1), ("grpo", 4)):
            yield from (Point(shape, stage, lora, 256, 64, completions) for lora in (True, False))
        return
    if shape == "8b":
        yield Point(shape, "grpo", True, 8192, 2048, 8)
        yield Point(shape, "sft", True, 8192, 2048, 1, groups=2)
    for lora in (True, False):
        yield Point(shape, "grpo", lora, 2048, 512, 8)
        yield Point(shape, "sft", lora, 2048, 512, 1, groups=4)
    yield Point(shape, "sft", True, 2048, 512, 1, checkpointing=False)


def config_of(shape: str) -> Qwen3Config:
    hidden, intermediate, layers, heads, kv_heads, head, vocabulary, tied = SHAPES[shape]
    return Qwen3Config(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head, tie_word_embeddings=tied,
        max_position_embeddings=40960, rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        architectures=["Qwen3ForCausalLM"], pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip


@functools.cache
def size_at(shape: str, lora: bool, checkpointing: bool) -> Size:
    with tempfile.TemporaryDirectory() as folder:
        config_of(shape).save_pretrained(folder)
        return size_of(ModelArguments(model_name_or_path=folder, **(LORA if lora else {})), checkpointing)


def estimate(point: Point) -> float:
    """The estimated peak in bytes."""
    size = size_at(point.shape, point.lora, point.checkpointing)
    tokens, predicted = point.groups * point.group.tokens, point.groups * point.group.predicted
    return update(size, "ddp", 1, tokens, predicted).total


class Watch(TrainerCallback):
    """Records the seconds of each step, and the peak bytes of tensors in the second step.

    On a CPU the tensors are counted one by one, on top of weights and optimizer state.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.peak = 0
        self.trainer: Any = None
        self._counter: Live | None = None
        self._began = 0.0

    def on_step_begin(self, _args: Any, state: TrainerState, _control: Any, **_: Any) -> None:
        if state.global_step == 1 and CUDA:
            torch.cuda.reset_peak_memory_stats()
        elif state.global_step == 1:
            optimizer, model = self.trainer.optimizer, self.trainer.model
            states = [
                value for one in optimizer.state.values() for value in one.values() if torch.is_tensor(value)
            ]
            known = [*model.parameters(), *model.buffers(), *states]
            self.peak = sum({tensor.data_ptr(): tensor.nbytes for tensor in known}.values())
            self._counter = Live(known)
            self._counter.__enter__()
        self._began = clock()

    def on_step_end(self, _args: Any, state: TrainerState, _control: Any, **_: Any) -> None:
        self.seconds.append(clock() - self._began)
        if state.global_step == 2 and CUDA:
            self.peak = torch.cuda.max_memory_allocated()
        elif self._counter:
            self._counter.__exit__(None, None, None)
            self.peak, self._counter = self.peak + self._counter.peak, None


def clock() -> float:
    """The time when the device has finished its work."""
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def own_clock() -> float:
    """Like `clock`, but on a CPU this process's CPU time, which other programs do not affect."""
    return clock() if CUDA else time.process_time()


def tokenizer_of_two() -> PreTrainedTokenizerFast:
    """A dummy tokenizer for trainers that require one; all token ids are random."""
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


def ids(point: Point, length: int, seed: int) -> list[int]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(2, SHAPES[point.shape][6], (length,), generator=draw).tolist()


def trainer_of(point: Point, folder: str) -> Any:
    """A trainer whose steps are one micro-batch: random rows, or random completions with one prompt per
    group.
    """
    torch.manual_seed(0)
    with torch.device("cuda" if CUDA else "cpu"):
        dtype = torch.bfloat16 if point.lora else torch.float32
        model = AutoModelForCausalLM.from_config(
            config_of(point.shape), dtype=dtype, attn_implementation="sdpa"
        )
    rows = point.groups * point.completions
    options: dict[str, Any] = {
        "bf16": True, "use_cpu": not CUDA, "report_to": "none",
        "activation_checkpointing": point.checkpointing,
        "per_device_train_batch_size": rows, "max_steps": STEPS, "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True, "dataloader_pin_memory": False,
    }  # fmt: skip
    lora = LoraConfig(r=LORA["lora_r"], target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")
    common: dict[str, Any] = {"model": model, "peft_config": lora if point.lora else None}
    common["processing_class"] = tokenizer_of_two()
    if point.stage == "sft":
        texts = [ids(point, point.prompt + point.completion, i) for i in range(rows * STEPS)]
        masks = [[0] * point.prompt + [1] * point.completion for _ in texts]
        data = Dataset.from_dict({"input_ids": texts, "completion_mask": masks})
        args = SFTConfig(folder, max_length=None, completion_only_loss=True, **options)
        return SFTTrainer(args=args, train_dataset=data, **common)

    def completions(prompts: list[str], _trainer: Any) -> dict[str, Any]:
        asked = [ids(point, point.prompt, int(prompt)) for prompt in prompts]
        written = [ids(point, point.completion, 1000 + i) for i in range(len(prompts))]
        return {"prompt_ids": asked, "completion_ids": written, "logprobs": None}

    lengths = {"num_generations": point.completions, "max_completion_length": point.completion}
    return SharedPrefixGRPOTrainer(
        reward_funcs=lambda completion_ids, **_: [sum(row) % 7 / 7 for row in completion_ids],
        args=GRPOConfig(folder, beta=0.0, disable_dropout=True, **lengths, **options),
        train_dataset=Dataset.from_dict(
            {"prompt": [str(i) for i in range(1000)]}
        ),  # enough for many processes
        rollout_func=completions,
        **common,
    )


def measure(point: Point) -> dict[str, Any]:
    """The estimate, the peak of the second step, and the time of the last step."""
    estimated = estimate(point)
    with tempfile.TemporaryDirectory() as folder:
        trainer, watch = trainer_of(point, folder), Watch()
        watch.trainer = trainer
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(watch)
        left = (
            torch.cuda.memory_allocated() - sum(p.nbytes for p in trainer.model.parameters()) if CUDA else 0
        )
        trainer.train()
    trainer.accelerator.free_memory()
    trainer.model = trainer.model_wrapped = trainer.optimizer = None
    seconds, tokens = watch.seconds[-1], point.groups * point.group.tokens
    return {
        **asdict(point), "estimated_gb": round(estimated / 1e9, 3), "measured_gb": round(watch.peak / 1e9, 3),
        "off": round(estimated / watch.peak - 1, 3), "seconds": round(seconds, 3),
        "tokens_s": round(tokens / seconds),
        "left_by_others_gb": round(left / 1e9, 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default="8b,4b,1.7b", help="comma-separated")
    parser.add_argument(
        "--output", default="memory.jsonl", help="file to append rows to, one JSON object per line"
    )
    parser.add_argument(
        "--budget_s", type=float, default=170.0, help="seconds after which no further row starts"
    )
    given = parser.parse_args()
    began = time.monotonic()
    place = torch.cuda.get_device_name() if CUDA else "CPU"
    gpu = torch.cuda.get_device_properties(0).total_memory if CUDA else float("inf")
    print(f"{place}, torch {torch.__version__}")
    for point in [point for shape in given.shapes.split(",") for point in points(shape)]:
        estimated = estimate(point)
        if estimated > USABLE * gpu:
            print(f"{point}: skipped, {estimated / 1e9:.0f} GB do not fit")
            continue
        if time.monotonic() - began > given.budget_s:
            print(f"{point}: skipped, no time left")
            continue
        row = {**asdict(point), "estimated_gb": round(estimated / 1e9, 3), "measured_gb": "out of memory"}
        with contextlib.suppress(torch.OutOfMemoryError):
            row = {**measure(point), "device": place}
        with Path(given.output).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
