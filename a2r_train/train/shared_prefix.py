"""Shared-prefix GRPO: a group reads its prompt once (`shared_prefix: true`), with the same mathematics as TRL's dense batch.

TRL's batch repeats the prompt for each of the G completions of a group: G (P + C) tokens. Here a group is one row

    prompt without its last token | last prompt token, completion 1 | ... | last prompt token, completion G

of P - 1 + G C tokens, in which a completion attends to the prompt and to itself (the idea of Prefix Grouper,
arXiv 2506.05433). Each completion begins with a copy of the last prompt token, so that every position has one next token, and
ends before its own last token, which predicts nothing. Position ids are the columns of TRL's batch. CUDA takes FlexAttention
(arXiv 2412.05496), which skips what the mask leaves out; elsewhere the mask is a dense one for SDPA.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.utils import counters
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from a2r_train.models import empty_model
from a2r_train.train.common import ModelArguments
from a2r_train.train.preflight import Check

ATTENTION = "shared_prefix"  # the name under which transformers knows `attention`
BLOCK = 128  # FlexAttention's block, in tokens; rows are padded to whole blocks, which it would compute anyway
PADDING = 2**30  # segment of the padding
SERVED = ("gemma", "granite", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "qwen3_moe", "smollm3")  # each is tested
# Below this ratio of dense to packed tokens the batch stays dense. Measured on a CPU (G 4 and 8, P 16-768, C 16-256): from
# 2 on no case was slower (1.1 to 5 times faster), below it some were, as SDPA computes what the mask leaves out. FlexAttention
# skips that, so a GPU should gain earlier: to be measured there, with scripts/bench_shared_prefix.py.
MIN_TOKEN_RATIO = 2.0

Batch = dict[str, Any]
MaskMod = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Packed:
    """Groups as rows of N tokens, as indices into TRL's batch of B rows and W columns, flattened. All (groups, N).

    `source` is the token itself, `target` its next token (-1 where nothing is predicted), `segment` 0 for the prompt,
    1 ... G for the completions, PADDING for padding; it never decreases along a row.
    """

    source: torch.Tensor
    target: torch.Tensor
    segment: torch.Tensor
    shape: tuple[int, int]

    @property
    def token_ratio(self) -> float:
        """Tokens of the dense batch over tokens of this one; without padding G (P + C) / (P - 1 + G C)."""
        return self.shape[0] * self.shape[1] / self.source.numel()

    def inputs(self, input_ids: torch.Tensor) -> dict[str, Any]:
        """What a model with TRL's fused LM head is called with; `input_ids` is TRL's (B, W)."""
        flat = input_ids.flatten()
        on_cuda = input_ids.device.type == "cuda"
        return {
            "input_ids": flat[self.source],
            "position_ids": self.source % self.shape[1],
            "attention_mask": block_mask(self.segment) if on_cuda else dense_mask(self.segment),
            "shift_labels": flat[self.target.clamp(min=0)].masked_fill(self.target < 0, -100),
            "fused_lm_head": True,
        }

    def unpack(self, values: torch.Tensor, completion_columns: int) -> torch.Tensor:
        """(groups, N) values of the next tokens to TRL's (B, completion_columns); 0 where nothing was predicted."""
        predicts = self.target >= 0
        flat = values.new_zeros(self.shape[0] * self.shape[1])
        dense = flat.index_put((self.target[predicts],), values[predicts]).view(self.shape)
        return dense[:, -completion_columns:]


def pack(input_ids: torch.Tensor, attention_mask: torch.Tensor, completion_columns: int, multiple: int = 1) -> Packed:
    """Pack TRL's batch, of (B, W) ids and mask; neighbouring rows with the same prompt are a group.

    N is a multiple of `multiple`. Prompts are padded on the left and completions on the right; a completion that is masked
    throughout is left out. Raises ValueError for any other mask.
    """
    rows, columns = input_ids.shape
    prompt_columns = columns - completion_columns
    prompts, completions = attention_mask[:, :prompt_columns].sum(1), attention_mask[:, prompt_columns:].sum(1)
    column = torch.arange(columns, device=input_ids.device)
    whole = (column >= prompt_columns - prompts[:, None]) & (column < prompt_columns + completions[:, None])
    if not torch.equal(whole, attention_mask.bool()) or not bool((prompts > 0).all()):
        raise ValueError("shared_prefix: a mask with holes, or an empty prompt; prompts are padded left, completions right")
    prompt = input_ids[:, :prompt_columns].masked_fill(~whole[:, :prompt_columns], -1)
    starts = [0, *((prompt[1:] != prompt[:-1]).any(1).nonzero().flatten() + 1).tolist(), rows]
    lengths = (prompts.tolist(), completions.tolist())
    groups = [_group(range(a, b), columns, prompt_columns, *lengths) for a, b in pairwise(starts)]
    longest = max(1, *(group.size(1) for group in groups))
    padded = torch.empty(3, len(groups), -(-longest // multiple) * multiple, dtype=torch.long)
    padded[0], padded[1], padded[2] = 0, -1, PADDING
    for i, group in enumerate(groups):
        padded[:, i, : group.size(1)] = group
    source, target, segment = padded.to(input_ids.device, non_blocking=True)
    return Packed(source, target, segment, (rows, columns))


def _group(rows: range, columns: int, prompt_columns: int, prompts: list[int], completions: list[int]) -> torch.Tensor:
    """One group as (3, tokens): source, target and segment."""
    last = prompt_columns - 1
    start = rows[0] * columns
    prefix = torch.arange(start + prompt_columns - prompts[rows[0]], start + last)
    parts = [torch.stack((prefix, torch.full_like(prefix, -1), torch.zeros_like(prefix)))]
    for segment, row in enumerate(rows, start=1):
        target = row * columns + prompt_columns + torch.arange(completions[row])
        parts.append(torch.stack((target - 1, target, torch.full_like(target, segment))))
    return torch.cat(parts, dim=1)


def attends(segment: torch.Tensor) -> MaskMod:
    """Which key a query sees: those before it, in its own segment or in the prompt. Padding sees padding alone."""

    def mask_mod(b: torch.Tensor, _head: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        own, other = segment[b, q], segment[b, k]
        return (q >= k) & ((own == other) | ((other == 0) & (own != PADDING)))

    return mask_mod


def dense_mask(segment: torch.Tensor) -> torch.Tensor:
    """The mask for SDPA: bool, (groups, 1, N, N)."""
    groups, n = segment.shape
    index = torch.arange(n, device=segment.device)
    group = torch.arange(groups, device=segment.device)[:, None, None]
    return attends(segment)(group, index[:0], index[:, None], index)[:, None]


def block_mask(segment: torch.Tensor) -> BlockMask:
    """The mask for FlexAttention; N is a multiple of BLOCK.

    Segments never decrease along a row, so the first and last of a block tell which blocks see each other. No (N, N) mask is
    made and nothing is compiled, as create_block_mask would do.
    """
    blocks = segment.reshape(len(segment), -1, BLOCK)
    first, last = blocks[..., 0], blocks[..., -1]
    index = torch.arange(blocks.size(1), device=segment.device)
    before, here = index[:, None] > index, index[:, None] == index
    any_real = first[:, :, None] != PADDING
    some = (before | here) & ((last[:, None] >= first[:, :, None]) | ((first[:, None] == 0) & any_real))
    one_segment = first[:, None] == last[:, :, None]
    in_prompt = (last[:, None] == 0) & (last[:, :, None] != PADDING)
    full = before & (one_segment | in_prompt)
    length = (segment.size(1), segment.size(1))
    return BlockMask.from_kv_blocks(
        *_ordered(some & ~full),
        *_ordered(full),
        BLOCK_SIZE=BLOCK,
        mask_mod=attends(segment),
        seq_lengths=length,
    )


def _ordered(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Number and indices of the chosen key blocks of each query block, the chosen ones first."""
    blocks = blocks[:, None].int()
    return blocks.sum(-1, dtype=torch.int32), blocks.argsort(dim=-1, descending=True, stable=True).int()


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | BlockMask | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """FlexAttention where the mask is made for it, else SDPA, as in generation.

    FlexAttention wants one dtype, and autocast leaves queries and keys in float32 that were normalised.
    """
    if not isinstance(attention_mask, BlockMask):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    return flex_attention_forward(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


class SharedPrefixGRPOTrainer(GRPOTrainer):
    """TRL's, whose log-probabilities (policy, old and reference) are computed with the prompt shared.

    Two methods are overridden: the forward itself, and the batch, whose groups TRL shuffles apart.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for model in (self.model, self.ref_model):
            if model is not None:
                self.accelerator.unwrap_model(model).set_attn_implementation(ATTENTION)

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **other: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """(B, logits_to_keep) log-probabilities and entropies of the completions; dense where sharing does not pay."""
        logps, entropies = [], []
        chunks = (torch.split(rows, batch_size or len(rows)) for rows in (input_ids, attention_mask))
        for ids, mask in zip(*chunks, strict=True):
            packed = pack(ids, mask, logits_to_keep, BLOCK if ids.device.type == "cuda" else 1)
            shared = packed.token_ratio >= MIN_TOKEN_RATIO
            self._log_packing(packed.token_ratio if shared else 1.0)
            if shared:
                with self.accelerator.autocast():
                    out = model(**packed.inputs(ids))
                logps.append(packed.unpack(out.log_probs, logits_to_keep))
                if compute_entropy:
                    entropies.append(packed.unpack(out.entropy, logits_to_keep))
            else:
                dense = super()._get_per_token_logps_and_entropies
                logp, entropy, _ = dense(model, ids, mask, logits_to_keep, None, compute_entropy, **other)
                logps.append(logp)
                entropies += [entropy] if compute_entropy else []
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None

    def _log_packing(self, token_ratio: float) -> None:
        """`token_ratio` is 1 where the batch was dense; compilations are counted from the start of the process."""
        model: Any = self.model
        metrics = self._metrics["train" if model.training else "eval"]
        metrics["shared_prefix/token_ratio"].append(token_ratio)
        metrics["shared_prefix/compilations"] = [float(counters["stats"]["unique_graphs"])]

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """TRL's micro-batch; where it has just generated, and shuffled, whole groups are put together again."""
        before: Any = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        after: Any = self._buffered_inputs
        if after is before:
            return inputs
        self._buffered_inputs: Any = regroup(after)
        return self._buffered_inputs[self._step % len(self._buffered_inputs)]


def regroup(batches: list[Batch]) -> list[Batch]:
    """The same rows in as many batches, those with the same prompt together; groups and members keep the shuffled order."""
    joined = {key: _join([batch[key] for batch in batches]) for key in batches[0]}
    prompt = joined["prompt_ids"].masked_fill(joined["prompt_mask"] == 0, -1)
    _, group = torch.unique(prompt, dim=0, return_inverse=True)
    first = (group[:, None] == group).int().argmax(dim=1)  # the first row with the same prompt
    order = first.argsort(stable=True)
    rows = {key: value if value is None or value.ndim == 0 else value[order] for key, value in joined.items()}
    return split_tensor_dict(rows, len(batches))


def _join(values: list[Any]) -> Any:
    return values[0] if values[0] is None or values[0].ndim == 0 else torch.cat(values)


def checks(args: GRPOConfig, model: ModelArguments) -> list[Check]:
    """Whether model and settings can be served; loads no weights."""
    name = str(model.model_name_or_path)
    reasons = [*refused_settings(args, model), *refused_adapter(name), *refused_model(empty_model(name).config, args)]
    return [Check("shared_prefix", not reasons, "; ".join(reasons) or "a group's prompt is read once where that pays")]


def refused_settings(args: GRPOConfig, model: ModelArguments) -> list[str]:
    """Why these settings cannot be served."""
    group = int(args.num_generations or 1)
    init = args.model_init_kwargs if isinstance(args.model_init_kwargs, dict) else {}
    chosen = init.get("attn_implementation", model.attn_implementation)
    found = {
        "a micro-batch must hold whole groups: make per_device_train_batch_size a multiple of num_generations": (
            args.per_device_train_batch_size % group != 0
        ),
        "it brings its own attention: leave attn_implementation out": chosen not in (None, "sdpa"),
        "it does not go with use_liger_kernel": args.use_liger_kernel,
        "it does not go with torch_compile (FlexAttention is compiled by itself)": args.torch_compile,
        "it does not go with use_transformers_continuous_batching": args.use_transformers_continuous_batching,
    }
    return [reason for reason, is_so in found.items() if is_so]


def refused_adapter(model: str) -> list[str]:
    """Why the adapter of this folder, if it holds one, cannot be served: some put tokens of their own before the prompt."""
    path = Path(model) / "adapter_config.json"
    kind = json.loads(path.read_text(encoding="utf-8"))["peft_type"] if path.is_file() else "LORA"
    return [] if kind == "LORA" else [f"the adapter is {kind}, and only LORA is tested"]


def refused_model(config: Any, args: GRPOConfig) -> list[str]:
    """Why a model of this config cannot be served."""
    kind = config.model_type
    layers = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    window = not getattr(config, "layer_types", None) and getattr(config, "sliding_window", None)
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    coefficient = args.router_aux_loss_coef
    router = getattr(config, "router_aux_loss_coef", 0.0) if coefficient is None else coefficient
    found = {
        f"{kind} is not among the tested models: {', '.join(SERVED)}": kind not in SERVED,
        f"the model has layers of {', '.join(layers) or 'sliding_attention'}, whose mask is another": bool(layers or window),
        f"the model scales its positions by the longest row ({rope})": rope in ("dynamic", "longrope"),
        "the model drops attention out: set disable_dropout": bool(
            getattr(config, "attention_dropout", 0.0) and not args.disable_dropout
        ),
        "the model balances its experts over all tokens, repeated ones too: set router_aux_loss_coef to 0": bool(
            hasattr(config, "output_router_logits") and router
        ),
    }
    return [reason for reason, is_so in found.items() if is_so]
