"""What `--dry_run` says about tokens and memory: for the recipe as it is, for other ways to shard the model
and other numbers of GPUs, and which settings would fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table
from trl.trainer.grpo_config import GRPOConfig

from a2r_train.models import base_of
from a2r_train.train.arguments import ModelArguments, TrainConfig, batch_and_steps
from a2r_train.train.estimate.memory import (
    BFLOAT16,
    SHARDINGS,
    Group,
    Memory,
    Size,
    mixes_experts,
    size_of,
    update,
)
from a2r_train.train.model import peft_of, sharding_of

PROCESSES = (1, 2, 4, 8, 16)
USUAL_GPU_BYTES = 80e9  # assumed if there is no GPU to ask
USABLE = 0.92  # of a GPU's memory: the rest goes to CUDA itself and to gaps between tensors


@dataclass(frozen=True)
class Step:
    """A micro-batch as the trainer builds it: its groups; in SFT a group is one row.

    `vllm_share` is the part of a GPU that vLLM reserves; if it sleeps, only while it generates. `gathers`:
    under ZeRO-3 every GPU holds all weights to generate. `merges`: every GPU holds the base's full weights
    while the adapter is added for vLLM.
    """

    group: Group
    groups: int
    accumulates: bool
    reference: bool = False
    generates: int = 0  # sequences generated at once, if transformers generates on the trainer's GPU
    vllm_share: float = 0.0
    vllm_sleeps: bool = False
    gathers: bool = False
    merges: bool = False

    @property
    def rows(self) -> int:
        return self.groups * self.group.completions


@dataclass(frozen=True)
class Proposal:
    """Settings that fit; `times`: how many of these micro-batches equal one of the recipe's."""

    size: Size
    step: Step
    sharding: str
    times: int
    total: float

    def in_words(self, args: TrainConfig) -> str:
        keys = {
            "per_device_train_batch_size": self.step.rows,
            "gradient_accumulation_steps": self.times * args.gradient_accumulation_steps,
            "activation_checkpointing": str(self.size.checkpointing).lower(),
            "use_peft": str(not self.size.full).lower(),
        }
        if getattr(args, "shared_prefix", False):
            keys["shared_prefix"] = str(self.step.group.shared).lower()
        settings = ", ".join(f"{key} {value}" for key, value in keys.items())
        return f"this fits, with {self.total / 1e9:.0f} GB: {settings}, {self.sharding}"


def show(
    args: TrainConfig,
    model: ModelArguments,
    step: Step,
    epoch_completions: int,
    console: Console,
    validation_completions: float = 0,
) -> None:
    """Print tokens and memory.

    `epoch_completions` counts over all steps of an epoch, `validation_completions` over all evaluations.
    """
    if args.process_index > 0:
        return
    _print(console, "at most", _tokens(tokens_of(args, step, epoch_completions, validation_completions)))
    if mixes_experts(model):
        console.print("no memory estimate: the model is a mixture of experts")
        return
    gpu, sharding, processes = _gpu_bytes(), sharding_of(args), args.world_size
    size = size_of(model, bool(args.activation_checkpointing), args)
    other = size_of(_other(model), size.checkpointing, args)
    peak = memory(size, step, sharding, processes, gpu)
    _print(
        console, f"memory: {sharding} on {processes} GPU(s), micro-batch {step.rows}", _breakdown(peak, gpu)
    )
    _print(
        console,
        "with other shardings, by number of GPUs; (does not fit)",
        _by_sharding(size, other, step, gpu),
    )
    if peak.total > USABLE * gpu:
        proposal = next(proposals(model, step, sharding, processes, gpu, args), None)
        few = "no settings fit on so few GPUs: use more, with zero3 or fsdp2"
        console.print(proposal.in_words(args) if proposal else few, markup=False)


def _print(console: Console, title: str, table: Table) -> None:
    console.print(f"\n{title}", markup=False, highlight=False, soft_wrap=True)
    console.print(table)


def step_of(args: TrainConfig, prompt: int, completion: int) -> Step:
    """The micro-batch of a recipe if every prompt and completion were as long as the longest."""
    rows, accumulates = args.per_device_train_batch_size, args.gradient_accumulation_steps > 1
    if not isinstance(args, GRPOConfig):
        return Step(Group(prompt, completion), rows, accumulates)
    members = int(args.num_generations or 1)
    shared = bool(getattr(args, "shared_prefix", False))
    group = Group(prompt, completion, members, shared) if shared else Group(prompt, completion)
    colocated = args.use_vllm and args.vllm_mode == "colocate"
    generates = max(
        rows * int(args.steps_per_generation or 1), args.per_device_eval_batch_size if args.do_eval else 0
    )
    return Step(
        group,
        rows // members if shared else rows,
        accumulates,
        reference=args.beta > 0,
        generates=0 if args.use_vllm else generates * _oversampling(args),
        vllm_share=args.vllm_gpu_memory_utilization if colocated else 0.0,
        vllm_sleeps=args.vllm_enable_sleep_mode,
        gathers=not args.use_vllm and args.ds3_gather_for_generation,
        merges=args.use_vllm,
    )


def _oversampling(args: GRPOConfig) -> int:
    """Groups generated for each one that is trained on."""
    return int(getattr(args, "oversampling_factor", 1))


def memory(size: Size, step: Step, sharding: str, processes: int, gpu: float) -> Memory:
    """The peak of a training on one GPU: of its update or of its generation."""
    tokens, predicted = step.groups * step.group.tokens, step.groups * step.group.predicted
    peak = update(
        size, sharding, processes, tokens, predicted, accumulates=step.accumulates, reference=step.reference
    )
    vllm = step.vllm_share * gpu
    cache = step.generates * (step.group.prompt + step.group.completion) * size.kv_bytes
    gathers = sharding in ("zero3", "zero3_offload") and (step.gathers or (step.merges and not size.full))
    gathered = BFLOAT16 * size.parameters if gathers else 0.0
    idle = replace(peak, gradients=0.0, activations=0.0, head=0.0, buffers=gathered)
    generating = replace(idle, generation=vllm or float(cache))
    updating = replace(peak, generation=0.0 if step.vllm_sleeps else vllm)
    return max(updating, generating, key=lambda one: one.total)


def tokens_of(
    args: TrainConfig, step: Step, epoch_completions: int, validation_completions: float = 0
) -> dict[str, float]:
    """Tokens of the whole training, by part; an evaluation counts as what it generates."""
    batch, steps = batch_and_steps(args, epoch_completions)
    completions, group = batch * steps, step.group
    trained = completions / group.completions * group.tokens
    if not isinstance(args, GRPOConfig):
        return {"training": trained}
    parts = {
        "generation": completions * _oversampling(args) / args.num_iterations * group.completion,
        "policy update": trained,
        "validation": validation_completions * group.completion,
    }
    return {part: tokens for part, tokens in parts.items() if tokens}


def proposals(
    model: ModelArguments,
    step: Step,
    sharding: str,
    processes: int,
    gpu: float,
    args: TrainConfig | None = None,
) -> Iterator[Proposal]:
    """Settings that fit, those that change least first: a smaller micro-batch, checkpointing, sharding,
    LoRA.
    """
    shardings = dict.fromkeys([sharding, *(["zero2", "zero3", "fsdp2"] if processes > 1 else [])])
    for chosen in [model] if peft_of(model) else [model, _other(model)]:
        sizes = [size_of(chosen, checkpointing, args) for checkpointing in (False, True)]
        for name in shardings:
            for size in sizes:
                for small in _smaller(step):
                    total = memory(size, small, name, processes, gpu).total
                    if total <= USABLE * gpu:
                        yield Proposal(size, small, name, step.rows // small.rows, total)


def _smaller(step: Step) -> Iterator[Step]:
    """The micro-batch, halved again and again; a single group with a shared prompt cannot be halved, but its
    rows can, without sharing.
    """
    groups = step.groups
    while groups:
        yield replace(step, groups=groups, accumulates=step.accumulates or groups < step.groups)
        groups //= 2
    if step.group.shared:
        rows = Group(step.group.prompt, step.group.completion)
        yield from _smaller(replace(step, group=rows, groups=step.group.completions, accumulates=True))


def _other(model: ModelArguments) -> ModelArguments:
    """The same model with LoRA if it had none, and trained in full if it had."""
    if peft_of(model):
        base = base_of(str(model.model_name_or_path))
        return replace(
            model,
            model_name_or_path=base,
            use_peft=False,
            load_in_4bit=False,
            load_in_8bit=False,
            dtype="auto",
        )
    return replace(
        model, use_peft=True, lora_target_modules=model.lora_target_modules or ["all-linear"], dtype="auto"
    )


def _gpu_bytes() -> float:
    return (
        float(torch.cuda.get_device_properties(0).total_memory)
        if torch.cuda.is_available()
        else USUAL_GPU_BYTES
    )


def _breakdown(peak: Memory, gpu: float) -> Table:
    table = Table("GB of one GPU")
    table.add_column(f"of {gpu / 1e9:.0f}", justify="right")
    for name, value in {**vars(peak), "total": peak.total}.items():
        table.add_row(name, f"{value / 1e9:.1f}", end_section=name == "generation")
    return table


def _by_sharding(size: Size, other: Size, step: Step, gpu: float) -> Table:
    """Memory by sharding and number of GPUs; what does not fit is in brackets."""
    table = Table("GB of one GPU")
    for processes in PROCESSES:
        table.add_column(str(processes), justify="right")
    for one in (size, other):
        for sharding in SHARDINGS:
            totals = [memory(one, step, sharding, processes, gpu).total for processes in PROCESSES]
            cells = [
                f"{total / 1e9:.1f}" if total <= USABLE * gpu else f"({total / 1e9:.1f})" for total in totals
            ]
            table.add_row(f"{'full' if one.full else 'LoRA'}, {sharding}", *cells)
    return table


def _tokens(parts: dict[str, float]) -> Table:
    table = Table("part")
    table.add_column("million tokens", justify="right")
    for part, tokens in parts.items():
        table.add_row(part, f"{tokens / 1e6:.2f}")
    return table
