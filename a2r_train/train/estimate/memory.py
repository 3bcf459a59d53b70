"""The memory of a training step on one GPU, from the model's config: its parts, and the moment that needs the
most.

Every training computes in bfloat16. DDP and FSDP2 hold trained weights in float32; DeepSpeed holds them in
bfloat16, with a float32 copy in the optimizer (ZeRO, arXiv 1910.02054). docs/scaling.md compares the
estimates with measured peaks.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from trl.trainer.grpo_config import GRPOConfig

from a2r_train.models import empty_model
from a2r_train.train.arguments import ModelArguments, TrainConfig
from a2r_train.train.estimate.activations import TokenBytes, trace
from a2r_train.train.fused_lora import fuse_lora
from a2r_train.train.model import dtype_of, peft_of

SHARDINGS = ("ddp", "zero2", "zero3", "zero3_offload", "fsdp2")
BFLOAT16, FLOAT32 = 2, 4
HEAD_TOKENS, HEAD_WORDS = 4096, 32768  # a tile of TRL's fused LM head, which never holds all logits
ZERO_BUCKET = 500_000_000  # elements of each of DeepSpeed's two buckets, by default
ZERO3_LIVE = 1_000_000_000  # the most gathered parameters that ZeRO-3 keeps, by default


@dataclass(frozen=True)
class Size:
    """What the memory of a model depends on.

    `embedding`: vocabulary size times hidden size; `kv_width`: width of the keys of all heads.
    """

    parameters: int
    trained: int
    layers: int
    hidden: int
    embedding: int
    tied: bool
    kv_width: int
    weight_bytes: float
    plain: TokenBytes
    sharded: TokenBytes
    checkpointing: bool

    def token(self, sharding: str) -> TokenBytes:
        """Bytes of activations; DeepSpeed and FSDP2 compute with bfloat16 weights, so the sums between layers
        are bfloat16, too.
        """
        return self.plain if sharding == "ddp" else self.sharded

    @property
    def full(self) -> bool:
        """Whether all weights are trained, not only adapters."""
        return self.trained == self.parameters

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV cache per token."""
        return 2 * BFLOAT16 * self.layers * self.kv_width


@dataclass(frozen=True)
class Group:
    """A prompt with its completions, in tokens; `shared`: the prompt is computed once (shared prefix)."""

    prompt: int
    completion: int
    completions: int = 1
    shared: bool = False

    @property
    def tokens(self) -> int:
        return (1 if self.shared else self.completions) * self.prompt + self.predicted

    @property
    def predicted(self) -> int:
        return self.completions * self.completion


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the moment that needs the most.

    `buffers`: for communication between processes, and for layers gathered whole. `generation`: the KV cache
    of transformers, or everything that vLLM reserves. Counts only tensors, as torch.cuda.max_memory_allocated
    does.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    head: float
    buffers: float
    generation: float = 0.0

    @property
    def total(self) -> float:
        return float(sum(vars(self).values()))


def mixes_experts(model: ModelArguments) -> bool:
    """Whether each token uses only some of the weights: such a model cannot be traced."""
    config = empty_model(str(model.model_name_or_path)).config.get_text_config()
    return any(
        getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")
    )


def size_of(model: ModelArguments, checkpointing: bool, args: TrainConfig | None = None) -> Size:
    """Size of the model that a recipe trains; loads only its config."""
    empty, peft = empty_model(str(model.model_name_or_path)), peft_of(model)
    config = empty.config.get_text_config()
    if isinstance(args, GRPOConfig) and args.disable_dropout and isinstance(peft, LoraConfig):
        peft.lora_dropout = 0.0  # TRL switches it off before training, so nothing is kept for it

    def wrap(plain: Any) -> Any:
        # a copy, because PEFT writes the model's module names into the config
        return get_peft_model(plain, copy.deepcopy(peft)) if peft else plain

    def fused(plain: Any) -> Any:
        model = wrap(plain)
        fuse_lora(model, "ddp")
        return model

    held = BFLOAT16 if dtype_of(args, model, bool(peft)) in ("bfloat16", "float16") else FLOAT32
    dtype = torch.bfloat16 if held == BFLOAT16 else torch.float32
    known = partial(_traced, config, peft, checkpointing)
    plain = known(fused, dtype)
    sharded = plain if held == BFLOAT16 and not peft else known(wrap, torch.bfloat16)
    bits = 4 if model.load_in_4bit else 8 if model.load_in_8bit else 0
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    embedding = empty.get_input_embeddings().weight.numel()
    whole = wrap(empty)
    return Size(
        parameters=sum(p.numel() for p in whole.parameters()),
        trained=sum(p.numel() for p in whole.parameters() if p.requires_grad),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        embedding=embedding,
        tied=bool(config.tie_word_embeddings),
        kv_width=config.num_key_value_heads * width,
        weight_bytes=bits / 8 or held,
        plain=plain,
        sharded=sharded,
        checkpointing=checkpointing,
    )


_traces: dict[str, TokenBytes] = {}


def _traced(
    config: Any, peft: Any, checkpointing: bool, wrap: Callable[[Any], Any], dtype: torch.dtype
) -> TokenBytes:
    """What `trace` finds, which takes seconds; the proposals of one dry run ask for the same again.

    `wrap` has a name, and depends on no more than the adapter.
    """
    shape, adapter = ({**one.to_dict(), "_name_or_path": ""} if one else None for one in (config, peft))
    key = json.dumps([wrap.__name__, str(dtype), checkpointing, shape, adapter], default=str)
    if key not in _traces:
        _traces[key] = trace(config, wrap, dtype, checkpointing)
    return _traces[key]


def update(
    size: Size,
    sharding: str,
    processes: int,
    tokens: int,
    predicted: int,
    *,
    accumulates: bool = False,
    reference: bool = False,
) -> Memory:
    """The peak of one optimizer step, with micro-batches of `tokens` tokens, of which `predicted` are
    predicted.

    `accumulates`: several micro-batches per step, so gradients exist during the forward pass, too.
    `reference`: a second, frozen model (GRPO's `beta` above 0, without adapters).
    """
    held = _held(size, sharding, processes)
    if reference and size.full:
        held = replace(held, weights=2 * held.weights)
    before = held if accumulates else replace(held, gradients=0.0)
    moments = [
        *_while_all_is_kept(size, sharding, tokens, predicted, before),
        _end_of_backward(size, sharding, tokens, held),
    ]
    if sharding in ("zero2", "zero3"):  # float32 gradients of this process's shard, for the optimizer
        moments.append(replace(held, buffers=held.buffers + FLOAT32 * size.trained / processes))
    return max(moments, key=lambda memory: memory.total)


def _held(size: Size, sharding: str, processes: int) -> Memory:
    """What is held throughout the step, with all gradients."""
    frozen, trained = size.parameters - size.trained, size.trained
    if sharding == "ddp":
        each = size.weight_bytes if size.full else FLOAT32
        buckets = each * trained if processes > 1 else 0
        return Memory(
            frozen * size.weight_bytes + each * trained, each * trained, 2 * each * trained, 0, 0, buckets
        )
    if sharding == "fsdp2":
        layer = (size.parameters - size.embedding) / size.layers
        gathered = BFLOAT16 * (2 * layer + size.embedding * (1 if size.tied else 2)) if processes > 1 else 0
        weights = (frozen * size.weight_bytes + FLOAT32 * trained) / processes
        return Memory(
            weights, FLOAT32 * trained / processes, 2 * FLOAT32 * trained / processes, 0, 0, gathered
        )
    weights = frozen * min(size.weight_bytes, BFLOAT16) + BFLOAT16 * trained
    optimizer, gradients = 3 * FLOAT32 * trained / processes, BFLOAT16 * trained / processes
    buckets = 2 * BFLOAT16 * min(ZERO_BUCKET, trained)
    if sharding == "zero2":
        return Memory(weights, gradients, optimizer, 0, 0, buckets)
    buckets += BFLOAT16 * min(ZERO3_LIVE, size.parameters)
    if sharding == "zero3_offload":
        return Memory(0, 0, 0, 0, 0, buckets)
    return Memory(weights / processes, gradients, optimizer, 0, 0, buckets)


def _while_all_is_kept(
    size: Size, sharding: str, tokens: int, predicted: int, before: Memory
) -> list[Memory]:
    """While all layers keep their activations: the end of the forward pass, and the backward pass of the LM
    head and of the last layer.
    """
    token = size.token(sharding)
    kept = tokens * (size.layers * token.kept + token.once) + _frozen_copies(size, sharding)
    float32 = sharding == "ddp" and size.full and size.weight_bytes == FLOAT32
    copies = BFLOAT16 * size.trained if float32 else 0  # autocast's copies of the weights
    chosen = predicted * size.hidden * (FLOAT32 if float32 else BFLOAT16)
    gradient = predicted * size.hidden * (FLOAT32 if float32 else FLOAT32 + BFLOAT16)
    tile = BFLOAT16 * min(predicted, HEAD_TOKENS) * HEAD_WORDS
    embeddings = FLOAT32 * size.embedding if size.full else 0
    in_backward = kept + (0 if size.checkpointing else copies)
    layer = before.gradients + embeddings + BFLOAT16 * (2 if float32 else 1) * size.trained / size.layers
    return [
        replace(before, activations=kept + copies, head=chosen + tile),
        replace(before, activations=in_backward, head=chosen + gradient + tile + embeddings),
        replace(before, activations=in_backward + tokens * token.work, gradients=layer),
    ]


def _frozen_copies(size: Size, sharding: str) -> float:
    """Autocast's copies of a frozen float32 base: it makes them each time, and the backward pass needs
    them.
    """
    if sharding != "ddp" or size.full or size.weight_bytes != FLOAT32:
        return 0.0
    in_layers = size.parameters - size.trained - size.embedding * (1 if size.tied else 2)
    return BFLOAT16 * in_layers / (size.layers if size.checkpointing else 1)


def _end_of_backward(size: Size, sharding: str, tokens: int, held: Memory) -> Memory:
    """While the first layer computes and all gradients exist; tied embeddings get gradients from both
    ends.
    """
    token = size.token(sharding)
    activations = tokens * (token.kept + token.once + token.work)
    twice = (
        size.embedding * (FLOAT32 if sharding in ("ddp", "fsdp2") else BFLOAT16)
        if size.full and size.tied
        else 0
    )
    return replace(held, activations=activations, buffers=held.buffers + twice)
