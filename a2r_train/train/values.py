"""Values of TRL's keys that would fail only once a trainer is built, or in its first step."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.model_config import ModelConfig
from trl.trainer.sft_config import SFTConfig

from a2r_train.config import check_least
from a2r_train.errors import InputError

# The values that TRL reads, by key. For scale_rewards, true and false are the older names of group and none.
SFT_NAMES: dict[str, tuple[Any, ...]] = {
    "loss_type": ("nll", "dft", "chunked_nll"),
    "packing_strategy": ("bfd", "bfd_split", "wrapped"),
}
GRPO_NAMES: dict[str, tuple[Any, ...]] = {
    "loss_type": ("dapo", "grpo", "dr_grpo", "bnpo", "cispo", "luspo", "sapo", "vespo"),
    "scale_rewards": ("group", "batch", "none", True, False),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "vllm_mode": ("colocate", "server"),
    "vllm_importance_sampling_mode": (
        "sequence_mask",
        "sequence_truncate",
        "token_mask",
        "token_truncate",
    ),
}
# Whether a number makes sense, and what is expected.
GRPO_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "min_p": (lambda p: 0 <= p <= 1, "0 to 1"),
    "top_p": (lambda p: 0 < p <= 1, "above 0, and at most 1"),
    "repetition_penalty": (lambda penalty: penalty > 0, "above 0"),
}


def check_values(args: SFTConfig | GRPOConfig) -> None:
    """Raise InputError for a name that no trainer knows, and for a number out of range."""
    if not (args.max_steps == -1 or args.max_steps >= 1):
        raise InputError(
            f"max_steps is {args.max_steps}; expected at least 1, or -1 for num_train_epochs epochs"
        )
    if args.num_train_epochs <= 0:
        raise InputError(f"num_train_epochs is {args.num_train_epochs:g}; expected above 0")
    check_report_to(args.report_to)
    if not isinstance(args, GRPOConfig):
        _check_names(args, SFT_NAMES)
        return
    for key in ("num_generations", "max_completion_length"):
        if getattr(args, key) is None:
            raise InputError(f"{key}: empty; remove the key or give it a value")
    _check_names(args, GRPO_NAMES)
    off = -1 if args.use_vllm else 0  # of top_k; vLLM knows both
    check_least(args, num_iterations=1, num_generations=2, max_completion_length=1, top_k=off)
    for key, (is_in, expected) in GRPO_RANGES.items():
        value = getattr(args, key)
        if value is not None and not is_in(value):
            raise InputError(f"{key} is {value:g}; expected {expected}")


def _check_names(args: Any, names: dict[str, tuple[Any, ...]]) -> None:
    for key, known in names.items():
        if getattr(args, key) not in known:
            shown = ", ".join(one for one in known if isinstance(one, str))
            raise InputError(f"{key} is {getattr(args, key)!r}; expected one of {shown}")


def check_report_to(report_to: Any) -> None:
    """Raise InputError for a name that transformers reports to nowhere."""
    named = report_to if isinstance(report_to, list) else [report_to]
    for name in named:
        if name not in (None, "none", "all", *INTEGRATION_TO_CALLBACK):
            known = ", ".join(["none", "all", *INTEGRATION_TO_CALLBACK])
            raise InputError(f"report_to is {name!r}; expected one of {known}")


def check_model_values(model: ModelConfig) -> None:
    """Raise InputError for an attention that transformers lacks, and for numbers that LoRA refuses."""
    asked, known = model.attn_implementation, ["eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()]
    if asked and "/" in asked:  # of the hub
        if not importlib.util.find_spec("kernels"):
            raise InputError(
                f"attn_implementation {asked} needs kernels, which is not installed: pip install it, or "
                "remove the key"
            )
    elif asked is not None and asked not in known:
        raise InputError(
            f"attn_implementation is {asked!r}; expected one of {', '.join(known)}, or a kernel on the hub"
        )
    if model.lora_task_type != "CAUSAL_LM":
        raise InputError(
            f"lora_task_type is {model.lora_task_type!r}; expected CAUSAL_LM: a synthesizer writes text"
        )
    if model.use_peft:
        check_least(model, lora_r=1, lora_alpha=1)
        if not 0 <= model.lora_dropout < 1:
            raise InputError(f"lora_dropout is {model.lora_dropout:g}; expected 0 or more, and less than 1")
