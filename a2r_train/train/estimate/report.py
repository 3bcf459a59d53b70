"""What `--dry_run` says about memory and time: of the recipe as it is, in other ways and on more GPUs, and
what would fit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table
from trl.trainer.grpo_config import GRPOConfig

from a2r_train.models import base_of
from a2r_train.train.arguments import ModelArguments, TrainConfig, batch_and_steps
from a2r_train.train.bundles import Material
from a2r_train.train.estimate.memory import (
    BFLOAT16,
    WAYS,
    Memory,
    Size,
    mixes_experts,
    peft_of,
    size_of,
    update,
)
from a2r_train.train.estimate.time import (
    BANDWIDTH,
    BANDWIDTH_SHARE,
    MATRIX_FLOPS,
    MATRIX_SHARE,
    Group,
    Work,
    generation,
    training,
)

PROCESSES = (1, 2, 4, 8, 16)
USUAL_GPU_BYTES = 80e9  # where there is no GPU to ask
AT = (
    f"at {MATRIX_SHARE:.0%} of {MATRIX_FLOPS / 1e12:.0f} TFLOP/s in training and {BANDWIDTH_SHARE:.0%} of "
    f"{BANDWIDTH / 1e12:.2f} TB/s in generation"
)
USABLE = 0.92  # of a GPU's memory: the rest goes to CUDA itself and to gaps between tensors


@dataclass(frozen=True)
class Step:
    """A micro-batch as the trainer makes it: so many groups; SFT has groups of one row.

    `vllm_share` is the part of a GPU that vLLM takes for itself; if it sleeps, only while it generates.
    `gathers`: under ZeRO-3 all weights are on each GPU to generate; `merges`: so are those of a base, to add
    its adapter for vLLM.
    """

    group: Group
    groups: int
    accumulates: bool
    reference: bool = False
    generates: int = 0  # sequences at once, if transformers generates on the trainer's GPU
    vllm_share: float = 0.0
    vllm_sleeps: bool = False
    gathers: bool = False
    merges: bool = False

    @property
    def rows(self) -> int:
        return self.groups * self.group.completions


@dataclass(frozen=True)
class Proposal:
    """Settings that fit; `times`: how many of these micro-batches make one of the recipe's."""

    size: Size
    step: Step
    way: str
    times: int
    total: float

    def says(self, args: TrainConfig) -> str:
        keys = {
            "per_device_train_batch_size": self.step.rows,
            "gradient_accumulation_steps": self.times * args.gradient_accumulation_steps,
            "activation_checkpointing": str(self.size.checkpointing).lower(),
            "use_peft": str(not self.size.full).lower(),
        }
        if getattr(args, "shared_prefix", False):
            keys["shared_prefix"] = str(self.step.group.shared).lower()
        given = ", ".join(f"{key} {value}" for key, value in keys.items())
        return f"this fits, with {self.total / 1e9:.0f} GB: {given}, {self.way}"


def show(
    args: TrainConfig,
    model: ModelArguments,
    material: Material,
    completion: int,
    rows: int,
    console: Console,
    validated: float = 0,
) -> None:
    """Print the estimate; `rows` counts completions over all steps of an epoch, `validated` those of all
    evaluations.
    """
    if args.process_index > 0:
        return
    if mixes_experts(model):
        console.print("no estimate of memory and time: the model is a mixture of experts")
        return
    step, gpu = step_of(args, material.longest_prompt, completion), _gpu_bytes()
    way, processes = way_of(args), args.world_size
    size = size_of(model, bool(args.activation_checkpointing), args)
    peak = memory(size, step, way, processes, gpu)
    tables = {
        f"memory: {way} on {processes} GPU(s), micro-batch {step.rows}": _breakdown(peak, gpu),
        "in other ways, by number of GPUs; (does not fit)": _ways(
            size, size_of(_other(model), size.checkpointing, args), step, gpu
        ),
        f"time at most, on {processes} GPU(s) {AT}": _hours(work_of(args, size, step, rows, gpu, validated)),
    }
    for title, table in tables.items():
        console.print(f"\n{title}", markup=False, highlight=False, soft_wrap=True)
        console.print(table)
    if peak.total > USABLE * gpu:
        found = next(proposals(model, step, way, processes, gpu, args), None)
        console.print(
            found.says(args) if found else "no setting fits so few GPUs: take more, with zero3 or fsdp2",
            markup=False,
        )


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
        generates=0 if args.use_vllm else generates,
        vllm_share=args.vllm_gpu_memory_utilization if colocated else 0.0,
        vllm_sleeps=args.vllm_enable_sleep_mode,
        gathers=not args.use_vllm and args.ds3_gather_for_generation,
        merges=args.use_vllm,
    )


def memory(size: Size, step: Step, way: str, processes: int, gpu: float) -> Memory:
    """The peak of a training on one GPU: its update, or its generation."""
    tokens, predicted = step.groups * step.group.tokens, step.groups * step.group.predicted
    peak = update(
        size, way, processes, tokens, predicted, accumulates=step.accumulates, reference=step.reference
    )
    vllm = step.vllm_share * gpu
    cache = step.generates * (step.group.prompt + step.group.completion) * size.kv_bytes
    gathers = way in ("zero3", "zero3_offload") and (step.gathers or (step.merges and not size.full))
    gathered = BFLOAT16 * size.parameters if gathers else 0.0
    idle = replace(peak, gradients=0.0, activations=0.0, head=0.0, buffers=gathered)
    generating = replace(idle, generation=vllm or float(cache))
    updating = replace(peak, generation=0.0 if step.vllm_sleeps else vllm)
    return max(updating, generating, key=lambda one: one.total)


def work_of(
    args: TrainConfig, size: Size, step: Step, rows: int, gpu: float, validated: float = 0
) -> list[Work]:
    """What the whole training computes; an evaluation counts as what it generates."""
    batch, steps = batch_and_steps(args, rows)
    groups = batch * steps / step.group.completions
    if not isinstance(args, GRPOConfig):
        return [training("training", size, step.group, groups, args.world_size)]
    generate_every = int(args.steps_per_generation or 1) * args.num_iterations
    old = args.gradient_accumulation_steps % generate_every != 0 or (
        args.use_vllm and args.vllm_importance_sampling_correction
    )
    scored = int(old) + int(args.beta > 0)
    share = args.vllm_gpu_memory_utilization if args.use_vllm else 1.0
    room = max(0.0, share * gpu - BFLOAT16 * size.parameters)
    at_once = args.per_device_train_batch_size * int(args.steps_per_generation or 1)
    parts = [
        generation(
            "generation", size, step.group, groups / args.num_iterations, args.world_size, at_once, room
        ),
        training("policy update", size, step.group, groups, args.world_size, scored),
    ]
    if validated:
        groups, at_once = validated / step.group.completions, args.per_device_eval_batch_size
        parts.append(generation("validation", size, step.group, groups, args.world_size, at_once, room))
    return parts


def proposals(
    model: ModelArguments, step: Step, way: str, processes: int, gpu: float, args: TrainConfig | None = None
) -> Iterator[Proposal]:
    """Settings that fit, those first that change least: a smaller micro-batch, checkpointing, sharding,
    LoRA.
    """
    ways = dict.fromkeys([way, *(["zero2", "zero3", "fsdp2"] if processes > 1 else [])])
    for chosen in [model] if peft_of(model) else [model, _other(model)]:
        sizes = [size_of(chosen, checkpointing, args) for checkpointing in (False, True)]
        for name in ways:
            for size in sizes:
                for small in _smaller(step):
                    total = memory(size, small, name, processes, gpu).total
                    if total <= USABLE * gpu:
                        yield Proposal(size, small, name, step.rows // small.rows, total)


def way_of(args: TrainConfig) -> str:
    """How the processes share the model, as accelerate was told."""
    if (plugin := args.deepspeed_plugin) is not None:
        offloads = plugin.offload_param_device == "cpu"
        return "zero2" if plugin.zero_stage < 3 else "zero3_offload" if offloads else "zero3"
    return "fsdp2" if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" else "ddp"


def _smaller(step: Step) -> Iterator[Step]:
    """The micro-batch, halved again and again; one group with a shared prompt cannot be, but its rows without
    sharing.
    """
    groups = step.groups
    while groups:
        yield replace(step, groups=groups, accumulates=step.accumulates or groups < step.groups)
        groups //= 2
    if step.group.shared:
        rows = Group(step.group.prompt, step.group.completion)
        yield from _smaller(replace(step, group=rows, groups=step.group.completions, accumulates=True))


def _other(model: ModelArguments) -> ModelArguments:
    """The same model with LoRA where it had none, and trained whole where it had."""
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


def _ways(size: Size, other: Size, step: Step, gpu: float) -> Table:
    """Memory by way and number of GPUs; what does not fit is in brackets."""
    table = Table("GB of one GPU")
    for processes in PROCESSES:
        table.add_column(str(processes), justify="right")
    for one in (size, other):
        for way in WAYS:
            totals = [memory(one, step, way, processes, gpu).total for processes in PROCESSES]
            cells = [
                f"{total / 1e9:.1f}" if total <= USABLE * gpu else f"({total / 1e9:.1f})" for total in totals
            ]
            table.add_row(f"{'full' if one.full else 'LoRA'}, {way}", *cells)
    return table


def _hours(parts: list[Work]) -> Table:
    table = Table("part")
    for name in ("million tokens", "hours"):
        table.add_column(name, justify="right")
    for part in parts:
        table.add_row(part.name, f"{part.tokens / 1e6:.2f}", f"{part.hours:.2f}")
    return table
