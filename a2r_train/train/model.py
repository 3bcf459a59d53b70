"""The model that a trainer gets: its weights, their dtype and the adapter; and how GPUs compute with it."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from peft.utils import PeftType
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.utils import get_peft_config, get_quantization_config

from a2r_train.errors import InputError
from a2r_train.models import base_of, check_weights, empty_model, trust
from a2r_train.prompts import Prompter
from a2r_train.train.arguments import ModelArguments, TrainConfig, mapping

log = logging.getLogger(__name__)

# Besides PEFT's variants of LoRA: settings whose effect is not, or not only, in a layer's A and B.
BESIDE_LAYERS = ("lora_bias", "target_parameters", "trainable_token_indices")


def check_model(model: ModelArguments, trust_remote_code: bool = False) -> None:
    """Raise InputError for a model without trainable weights; its code is run only if told to.

    Raises it also for a revision other than main, because tokenizer, prompt, context and base would be those
    of main.
    """
    name = model.model_name_or_path
    if not name:
        raise InputError("model_name_or_path is missing; name a checkpoint folder or a model on the hub")
    if model.model_revision != "main":
        raise InputError(
            f"model_revision {model.model_revision} would change only the weights; download it to a folder, "
            f"and name that: hf download {name} --revision {model.model_revision} --local-dir FOLDER"
        )
    check_weights(name)
    if trust_remote_code:
        trust(name)
    _check_adapter_keys(model)
    if base_of(name).endswith(".gguf"):
        raise InputError(
            f"{name}: a GGUF file cannot be trained; convert it to a folder: "
            "a2r merge --model FILE --output_dir FOLDER"
        )


# Of the recipe, and what an adapter's config calls it.
ADAPTER_KEYS = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
    "lora_target_modules": "target_modules",
    "lora_target_parameters": "target_parameters",
    "lora_modules_to_save": "modules_to_save",
}
# Of the recipe, and without effect where all weights are trained.
ONLY_LORA = (*ADAPTER_KEYS, "lora_dropout", "load_in_8bit", "load_in_4bit")
LISTED = ("lora_target_modules", "lora_target_parameters", "lora_modules_to_save")


def _check_adapter_keys(model: ModelArguments) -> None:
    """Raise InputError for keys of another adapter than the one that the recipe continues. Warn of those that
    have no effect because no adapter is trained: a command may switch a recipe's adapter off.
    """
    if not _goes_on_with_adapter(model):
        given = [key for key in ONLY_LORA if getattr(model, key) != getattr(ModelArguments, key)]
        if given and not model.use_peft:
            log.warning(
                "%s: without effect, as all weights are trained; add use_peft: true for LoRA",
                ", ".join(given),
            )
        return
    saved = peft_of(model)
    for key, its in ADAPTER_KEYS.items():
        _check_adapter_key(model, key, getattr(saved, its, None))


def check_dropout(args: TrainConfig, model: ModelArguments) -> None:
    """Raise InputError for a recipe that asks for another dropout than that of the adapter it continues,
    unless dropout is off, as it is in GRPO.
    """
    if not getattr(args, "disable_dropout", False) and _goes_on_with_adapter(model):
        _check_adapter_key(model, "lora_dropout", getattr(peft_of(model), "lora_dropout", None))


def _check_adapter_key(model: ModelArguments, key: str, held: Any) -> None:
    asked = getattr(model, key)
    if asked != getattr(ModelArguments, key) and not _is_same(key, asked, held, model):
        has = _ends(held) if key in LISTED else held
        raise InputError(
            f"{key} is {asked}, but the adapter {model.model_name_or_path} has {has}, and is trained "
            "further as it is; remove the key"
        )


def _is_same(key: str, asked: Any, held: Any, model: ModelArguments) -> bool:
    """Whether a key asks for what the adapter has. Names of modules may be spelled in several ways, of which
    `all-linear` is one.
    """
    if key not in LISTED:
        return bool(asked == held)
    if key == "lora_target_parameters":
        return _listed(asked) == _listed(held)
    empty = empty_model(str(model.model_name_or_path))
    return _modules(empty, asked) == _modules(empty, held)


def _ends(names: Any) -> str:
    """A pattern, or names without their layer, which may be hundreds with it."""
    return ", ".join(sorted({name.rpartition(".")[2] for name in _listed(names)})) or "none"


def _listed(names: Any) -> set[str]:
    return {names} if isinstance(names, str) else set(names or ())


def _modules(model: Any, asked: Any) -> set[str]:
    """The names of the modules that an adapter's key means."""
    named = dict(model.named_modules())
    if asked != "all-linear":
        return {name for name in named if _names(asked, name)}
    head = model.get_output_embeddings()
    return {
        name for name, one in named.items() if isinstance(one, torch.nn.Linear | Conv1D) and one is not head
    }


def tied_adapters(model: str, config: PeftConfig | None) -> list[str]:
    """The names of embedding and LM head that the adapter changes, if the two share one tensor; else none.

    PEFT gives each of them an adapter, or a copy, of its own, so they no longer are one tensor.
    """
    if config is None or not (empty := empty_model(model)).config.tie_word_embeddings:
        return []
    ends = (empty.get_input_embeddings(), empty.get_output_embeddings())
    names = [name for name, module in empty.named_modules() if any(module is end for end in ends)]
    asked = [getattr(config, "target_modules", None), getattr(config, "modules_to_save", None)]
    return [name for name in names if any(_names(one, name) for one in asked)]


def _names(asked: Any, name: str) -> bool:
    """As PEFT reads it: a pattern, or the ends of names; `all-linear` leaves the LM head out."""
    if isinstance(asked, str):
        return asked != "all-linear" and re.fullmatch(asked, name) is not None
    return any(name == one or name.endswith(f".{one}") for one in asked or ())


def dtype_of(args: TrainConfig | None, model: ModelArguments, adapter: bool) -> str | None:
    """The dtype of the loaded weights on a GPU; `adapter`: only adapters are trained.

    For vLLM any adapter that is not plain LoRA, and under FSDP2 any adapter at all, is merged into its base
    and unmerged before each generation: bfloat16 would round the base each time, and the saved adapter would
    no longer fit the base it was trained on. A plain one is added out of place (weight_sync.py). A quantised
    base is rounded anyway.
    """
    if model.dtype != "auto":
        return model.dtype
    whole = not (model.load_in_4bit or model.load_in_8bit)
    merged = (
        isinstance(args, GRPOConfig)
        and (args.use_vllm and whole)
        and (sharding_of(args) == "fsdp2" or not adds_plainly(peft_of(model)))
    )
    return "bfloat16" if adapter and not merged else "float32"


def adds_plainly(config: PeftConfig | None) -> bool:
    """Whether this config's adapter changes weights only by adding a delta B A to the base."""
    if not isinstance(config, LoraConfig) or config.peft_type != PeftType.LORA:
        return False
    variants = [f.name for f in dataclasses.fields(config) if f.metadata.get("is_lora_variant")]
    return not any(getattr(config, name) for name in (*variants, *BESIDE_LAYERS))


def peft_of(model: ModelArguments) -> PeftConfig | None:
    """The adapters that are trained: those of the recipe, or those of the adapter folder that it
    continues.
    """
    name = str(model.model_name_or_path)
    if base_of(name) == name:
        chosen: PeftConfig | None = get_peft_config(model)
        return chosen
    return saved_adapter(name)


def saved_adapter(model: str) -> PeftConfig | None:
    """Of a folder; None where it holds no adapter."""
    if base_of(model) == model:
        return None
    saved: PeftConfig = PeftConfig.from_pretrained(model)
    saved.inference_mode = False
    return saved


def sharding_of(args: TrainConfig) -> str:
    """How the processes share the model, according to accelerate's settings."""
    if (plugin := args.deepspeed_plugin) is not None:
        offloads = plugin.offload_param_device == "cpu"
        return "zero2" if plugin.zero_stage < 3 else "zero3_offload" if offloads else "zero3"
    return "fsdp2" if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" else "ddp"


def shard_precisely(args: TrainConfig) -> None:
    """Under FSDP2: shard gradients; with bfloat16, keep outputs as they are and sum gradients in float32.

    accelerate would round what the model returns, and so TRL's log-probabilities, to bfloat16: by 0.03 at
    -10. The gradients of each micro-batch are sharded at once; otherwise every GPU would hold those of all
    weights until the last one.
    """
    if os.environ.get("ACCELERATE_USE_FSDP") != "true" or os.environ.get("FSDP_VERSION") != "2":
        return
    settings: Any = args.accelerator_config
    settings.gradient_accumulation_kwargs = {"sync_each_batch": True}
    if args.bf16:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        args.fsdp_plugin_args = {"mixed_precision_policy": policy}


def avoid_cudnn_attention(args: TrainConfig) -> None:
    """On a GPU, switch cuDNN attention off, for two reasons.

    Since torch 2.11 its backward gives NaN on Hopper if a padded batch is 64 tokens longer than a multiple of
    128 (pytorch issue 196678; Qwen2.5 is affected). And it builds a plan for each new shape, which every
    batch of a training has: on an H200 an update at new lengths took 0.543 s with cuDNN and 0.189 s with
    flash, in an earlier form of the attention (docs/shared_prefix.md).
    """
    if args.device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


def end_turns_as_the_template_does(prompter: Prompter) -> None:
    """Make the token that ends a turn in the chat template the tokenizer's eos.

    Base models packaged as chat models have a different eos. TRL and transformers stop at eos, and it is
    saved with the model.
    """
    prompter.tokenizer.eos_token_id = prompter.end_of_turn()
    prompter.tokenizer.chat_template = prompter.chat_template  # otherwise TRL would render today's date


def set_loading_options(args: TrainConfig, model: ModelArguments) -> None:
    """Tell TRL how to load the weights, except for an adapter, which `model_arguments` loads itself."""
    if not _goes_on_with_adapter(model):
        args.model_init_kwargs = {**_loading_options(args, model), **mapping(args.model_init_kwargs)}


def model_arguments(args: TrainConfig, model: ModelArguments) -> dict[str, Any]:
    """The trainer's `model`, `peft_config` and `quantization_config`; an adapter folder is loaded as an
    adapter and trained further.
    """
    name, options = str(model.model_name_or_path), _loading_options(args, model)
    quantization = get_quantization_config(dataclasses.replace(model, dtype=options["dtype"]))
    if not _goes_on_with_adapter(model):
        return {"model": name, "peft_config": get_peft_config(model), "quantization_config": quantization}
    device = {"device_map": {"": args.device}} if quantization else {}
    own = {**options, "quantization_config": quantization, **device, **mapping(args.model_init_kwargs)}
    args.model_init_kwargs = None  # they are used here; TRL would warn that it ignores them
    base = AutoModelForCausalLM.from_pretrained(base_of(name), **own)
    return {"model": PeftModel.from_pretrained(base, name, is_trainable=True)}


def _loading_options(args: TrainConfig, model: ModelArguments) -> dict[str, Any]:
    adapter = model.use_peft or _goes_on_with_adapter(model)
    return {
        "use_safetensors": True,
        "trust_remote_code": args.trust_remote_code,
        "dtype": dtype_of(args, model, args.device.type == "cuda" and adapter),
        "attn_implementation": model.attn_implementation,
        "revision": model.model_revision,
    }


def _goes_on_with_adapter(model: ModelArguments) -> bool:
    name = str(model.model_name_or_path)
    return base_of(name) != name
