"""What SFT and GRPO share: arguments, rendered bundles, token budget, model, and how a training begins,
resumes and ends.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import AutoModelForCausalLM
from transformers.trainer_utils import HubStrategy
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.model_config import ModelConfig
from trl.trainer.sft_config import SFTConfig
from trl.trainer.utils import get_peft_config, get_quantization_config

from a2r_train.config import check_least
from a2r_train.errors import InputError
from a2r_train.models import base_of

log = logging.getLogger(__name__)

TrainConfig = SFTConfig | GRPOConfig


@dataclass
class BundleArguments:
    """What is trained on, and how it is rendered."""

    bundles: str = field(
        metadata={"help": "training bundles: a .jsonl or .parquet file, or a data set of the hub"}
    )
    prompt: str = field(
        default="", metadata={"help": "a prompt file; empty for the model's own, else the default prompt"}
    )
    plain_share: float = field(
        default=0.0,
        metadata={"help": "share of the bundles that are shown as the problem alone; 1 is the control"},
    )
    max_bundles: int = field(default=0, metadata={"help": "take only the first so many; 0 takes all"})
    dry_run: bool = field(
        default=False, metadata={"help": "show config, one example, token budget and steps, and stop"}
    )


@dataclass
class ModelArguments(ModelConfig):
    """TRL's, but `dtype` auto is float32, save for LoRA on a GPU, whose frozen base is bfloat16 (`dtype_of`).

    Weights that are trained stay float32 (autocast computes in bfloat16): bfloat16 rounds small updates away.
    """

    dtype: str | None = field(
        default="auto",
        metadata={
            "help": "of the loaded weights; auto is bfloat16 under an adapter "
            "on a GPU, and float32 else and for vLLM",
            "choices": ["auto", "bfloat16", "float16", "float32"],
        },
    )


def set_defaults(args: TrainConfig) -> None:
    """bfloat16 autocast and pinned memory where there is a GPU, unless the recipe says; TRL asks for both on
    any machine.

    Raises InputError for a batch of nothing.

    A token of the hub goes where huggingface_hub looks for it: the arguments are written into every
    checkpoint as they are. TRL sets activation checkpointing by its old name, of which transformers warns.
    What goes to the hub is the finished folder: at each save transformers would copy a half-trained model
    into it.
    """
    check_least(args, per_device_train_batch_size=1, gradient_accumulation_steps=1, learning_rate=0)
    gpu = torch.cuda.is_available() and not args.use_cpu
    if args.bf16 is None:
        args.bf16 = gpu and not args.fp16
    args.dataloader_pin_memory = args.dataloader_pin_memory and gpu
    if args.hub_token:
        os.environ["HF_TOKEN"], args.hub_token = args.hub_token, None
    args.hub_strategy = HubStrategy.END
    if args.activation_checkpointing is None:
        args.activation_checkpointing = args.gradient_checkpointing


def dtype_of(args: TrainConfig | None, model: ModelArguments, adapter: bool) -> str | None:
    """Of the loaded weights on a GPU; `adapter`: adapters alone are trained.

    For vLLM TRL adds an adapter to its base and takes it away again, before each generation: bfloat16 would
    round the base each time, and the saved adapter would not be that of the base it was trained on. A
    quantised base is rounded anyway.
    """
    if model.dtype != "auto":
        return model.dtype
    whole = not (model.load_in_4bit or model.load_in_8bit)
    merged = isinstance(args, GRPOConfig) and args.use_vllm and whole
    return "bfloat16" if adapter and not merged else "float32"


def check_launch(args: TrainConfig) -> None:
    """Raise InputError where one process sees several GPUs: transformers would copy the model to each, which
    TRL refuses.
    """
    if args.n_gpu > 1:
        raise InputError(
            f"one process and {args.n_gpu} GPUs: start one process a GPU (accelerate launch --config_file "
            f"accelerate_configs/ddp.yaml --num_processes {args.n_gpu} "
            "..., or a2r run ... --accelerate_config "
            f"accelerate_configs/ddp.yaml --processes {args.n_gpu}), or show it one (CUDA_VISIBLE_DEVICES=0)"
        )


def shard_precisely(args: TrainConfig) -> None:
    """Under FSDP2: gradients as shares; in bfloat16 outputs as they are, and gradients summed in float32.

    accelerate would round what the model returns, and so TRL's log-probabilities, to bfloat16: by 0.03 at
    -10. Each micro-batch's gradients are shared out at once: else every GPU holds those of all weights until
    the last one.
    """
    if os.environ.get("ACCELERATE_USE_FSDP") != "true" or os.environ.get("FSDP_VERSION") != "2":
        return
    settings: Any = args.accelerator_config
    settings.gradient_accumulation_kwargs = {"sync_each_batch": True}
    if args.bf16:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        args.fsdp_plugin_args = {"mixed_precision_policy": policy}


def avoid_cudnn_attention(args: TrainConfig) -> None:
    """On a GPU, no attention by cuDNN, for two reasons.

    Since torch 2.11 its backward gives NaN on Hopper where a padded batch is 64 over a multiple of 128 tokens
    long (pytorch issue 196678; Qwen2.5 meets it). And it makes a plan for each new shape, as every batch of a
    training is: on an H200 an update at new lengths takes 0.543 s with cuDNN and 0.189 s with flash
    (docs/shared_prefix.md).
    """
    if args.device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


def model_arguments(args: TrainConfig, model: ModelArguments) -> dict[str, Any]:
    """The trainer's `model`, `peft_config` and `quantization_config`; an adapter folder goes on as the
    adapter it is.
    """
    shard_precisely(args)
    avoid_cudnn_attention(args)
    name = str(model.model_name_or_path)
    adapter = base_of(name) != name
    dtype = dtype_of(args, model, args.device.type == "cuda" and (model.use_peft or adapter))
    model = dataclasses.replace(model, dtype=dtype)
    options: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": args.trust_remote_code}
    options |= {
        "dtype": dtype,
        "attn_implementation": model.attn_implementation,
        "revision": model.model_revision,
    }
    quantization = get_quantization_config(model)
    if not adapter:
        args.model_init_kwargs = {**options, **mapping(args.model_init_kwargs)}
        return {"model": name, "peft_config": get_peft_config(model), "quantization_config": quantization}
    from peft import PeftModel

    device = {"device_map": {"": args.device}} if quantization else {}
    base = AutoModelForCausalLM.from_pretrained(
        base_of(name), quantization_config=quantization, **options, **device
    )
    return {"model": PeftModel.from_pretrained(base, name, is_trainable=True)}


def cycle_steps(args: TrainConfig) -> int:
    """Optimizer steps after which GRPO generates anew, and a run can be resumed; TRL counts them in forward
    passes.
    """
    if not isinstance(args, GRPOConfig):
        return 1
    passes, a_step = (
        int(args.steps_per_generation or 1) * args.num_iterations,
        args.gradient_accumulation_steps,
    )
    return math.lcm(passes, a_step) // a_step


def batch_and_steps(args: TrainConfig, rows: int) -> tuple[int, int]:
    """Completions an optimizer step, and steps of the whole training, where one epoch has so many
    completions.
    """
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return batch, args.max_steps if args.max_steps > 0 else math.ceil(
        math.ceil(rows / batch) * args.num_train_epochs
    )


def interval(every: float, steps: int) -> float:
    """Steps between two saves or evaluations; below 1 it is a share of the training, as transformers takes
    it.
    """
    return every if every >= 1 else max(1.0, steps * every)


def mapping(value: dict[str, Any] | str | None) -> dict[str, Any]:
    """The dict that an argument of TRL's may be; it is text only until it is parsed."""
    return value if isinstance(value, dict) else {}
