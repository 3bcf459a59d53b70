"""Shared-prefix GRPO: a group's prompt is computed once (`shared_prefix: true`), with the same mathematics as
TRL's dense batch.

TRL's batch repeats the prompt for each of the G completions of a group: G (P + C) tokens. Here a group is one
row

    prompt without its last token | last prompt token, completion 1 | ... | last prompt token, completion G

of P - 1 + G C tokens, in which a completion attends to the prompt and to itself (the idea of Prefix Grouper,
arXiv 2506.05433). Each completion begins with a copy of the last prompt token, so that every position has one
next token, and ends before its own last token, which predicts nothing. Position ids are the columns of TRL's
batch. Several groups share a row: first their prompts, then all completions. Attention is computed in pieces
that need no mask: see attention.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import Any

import torch
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.utils import split_tensor_dict

from a2r_train.models import empty_model, model_file
from a2r_train.train.arguments import ModelArguments
from a2r_train.train.preflight import Check
from a2r_train.train.sampling import EpochGRPOTrainer
from a2r_train.train.shared_prefix.attention import ATTENTION, LARGEST_HEAD, Groups, Sequences, has_kernel

SERVED = (
    "gemma",
    "granite",
    "llama",
    "mistral",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "smollm3",
)  # each is tested
# Below this ratio of dense to packed tokens the batch stays dense, because packing may cost more than it
# saves. At 1.2 the update takes 0.95 to 1.06 times as long on a CPU (the smallest model of
# scripts/benchmarks/bench_shared_prefix.py) and 0.93 times on an H200 (docs/shared_prefix.md).
MIN_TOKEN_RATIO = 1.2

Batch = dict[str, Any]


@dataclass(frozen=True)
class Packed:
    """Groups in one row of N tokens, as indices into TRL's batch of B rows and W columns, flattened.

    `source` (N,) is the token itself, `target` (N,) its next token, -1 where nothing is predicted.
    """

    source: torch.Tensor
    target: torch.Tensor
    groups: Groups
    shape: tuple[int, int]

    @property
    def token_ratio(self) -> float:
        """Tokens of the dense batch over tokens of this one; without padding G (P + C) / (P - 1 + G C)."""
        return self.shape[0] * self.shape[1] / self.source.numel()

    def inputs(self, input_ids: torch.Tensor) -> dict[str, Any]:
        """The arguments for a model with TRL's fused LM head; `input_ids` is TRL's (B, W)."""
        flat = input_ids.flatten()
        return {
            "input_ids": flat[self.source][None],
            "position_ids": (self.source % self.shape[1])[None],
            "attention_mask": input_ids.new_ones(
                1, 1, 1, 1
            ),  # not read; four dimensions keep transformers from building a mask
            "shift_labels": flat[self.target.clamp(min=0)].masked_fill(self.target < 0, -100)[None],
            "shared_prefix": self.groups,
            "fused_lm_head": True,
        }

    def unpack(self, values: torch.Tensor, completion_columns: int) -> torch.Tensor:
        """(1, N) values of the next tokens to TRL's (B, completion_columns); 0 where nothing was
        predicted.
        """
        flat = values.new_zeros(self.shape[0] * self.shape[1] + 1)  # the last is for what predicts nothing
        dense = flat.index_put((self.target,), values[0])[:-1].view(self.shape)
        return dense[:, -completion_columns:]


def pack(input_ids: torch.Tensor, attention_mask: torch.Tensor, completion_columns: int) -> Packed:
    """Pack TRL's batch of (B, W) ids and mask; neighbouring rows with the same prompt form a group.

    Prompts are padded on the left and completions on the right; a fully masked completion is left out. Raises
    ValueError for any other mask.
    """
    device, (rows, columns) = input_ids.device, input_ids.shape
    # One copy: everything below asks for numbers, and on a GPU each of them would be waited for.
    input_ids, attention_mask = torch.stack((input_ids, attention_mask.to(input_ids.dtype))).cpu()
    prompt_columns = columns - completion_columns
    prompts, completions = (
        attention_mask[:, :prompt_columns].sum(1),
        attention_mask[:, prompt_columns:].sum(1),
    )
    column = torch.arange(columns)
    whole = (column >= prompt_columns - prompts[:, None]) & (column < prompt_columns + completions[:, None])
    if not torch.equal(whole, attention_mask.bool()) or not bool((prompts > 0).all()):
        raise ValueError(
            "shared_prefix: the mask has holes, or a prompt is empty; pad prompts left, completions right"
        )
    prompt = input_ids[:, :prompt_columns].masked_fill(~whole[:, :prompt_columns], -1)
    starts = [0, *((prompt[1:] != prompt[:-1]).any(1).nonzero().flatten() + 1).tolist(), rows]
    prompt_tokens, completion_tokens = prompts.tolist(), completions.tolist()
    prefixes, targets, lengths = [], [], []
    for first, end in sorted(
        pairwise(starts),
        key=lambda group: prompt_tokens[group[0]] == 1 or not any(completion_tokens[slice(*group)]),
    ):  # groups that attend across come first
        lengths.append(completion_tokens[first:end])
        last = first * columns + prompt_columns - 1
        begin = last - prompt_tokens[first] + 1
        prefixes.append(torch.arange(begin, last + (not any(lengths[-1]))))  # never an empty row
        rows_of = [row * columns + prompt_columns for row in range(first, end)]
        targets += [start + torch.arange(n) for start, n in zip(rows_of, lengths[-1], strict=True)]
    prefix, target = torch.cat(prefixes), torch.cat(targets)
    source = torch.cat((prefix, target - 1))
    target = torch.cat((torch.full_like(prefix, -1), target))
    source, target = torch.stack((source, target)).to(device)
    return Packed(source, target, _groups(list(map(len, prefixes)), lengths, device), (rows, columns))


def _groups(prefixes: list[int], completions: list[list[int]], device: torch.device) -> Groups:
    """The layout of groups, given the numbers of shared tokens and the lengths of their completions."""
    sums = list(map(sum, completions))
    across = sum(bool(prefix and answers) for prefix, answers in zip(prefixes, sums, strict=True))
    own = _sequences([*prefixes, *chain.from_iterable(completions)], device)
    prompts, answers = (_sequences(lengths[:across], device) for lengths in (prefixes, sums))
    return Groups(own, prompts, answers, sum(prefixes))


def _sequences(lengths: list[int], device: torch.device) -> Sequences:
    stops = tuple(accumulate(filter(None, lengths), initial=0))
    return Sequences(stops, torch.tensor(stops, dtype=torch.int32).to(device))


class SharedPrefixGRPOTrainer(EpochGRPOTrainer):
    """A trainer that computes log-probabilities (policy, old and reference) with the prompt shared.

    Two methods are overridden: the forward pass, and the batch, whose groups TRL's shuffling separates.
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
        """(B, logits_to_keep) log-probabilities and entropies of the completions; dense where sharing does
        not pay off.
        """
        logps, entropies = [], []
        chunks = (torch.split(rows, batch_size or len(rows)) for rows in (input_ids, attention_mask))
        for ids, mask in zip(*chunks, strict=True):
            packed = pack(ids, mask, logits_to_keep)
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
        """`token_ratio` is 1 if the batch was dense."""
        model: Any = self.model
        metrics = self._metrics["train" if model.training else "eval"]
        metrics["shared_prefix/token_ratio"].append(token_ratio)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """TRL's micro-batch; if TRL has just generated and shuffled, whole groups are put back together."""
        before: Any = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        after: Any = self._buffered_inputs
        if after is before:
            return inputs
        self._buffered_inputs: Any = regroup(after)
        return self._buffered_inputs[self._step % len(self._buffered_inputs)]


def regroup(batches: list[Batch]) -> list[Batch]:
    """The same rows in the same number of batches, with equal prompts together; groups and their members keep
    the shuffled order.
    """
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
    """Whether model and settings are supported; loads no weights."""
    name = str(model.model_name_or_path)
    config = empty_model(name).config
    is_on_gpu = torch.cuda.is_available() and not args.use_cpu
    reasons = [
        *refused_settings(args, model),
        *refused_adapter(name),
        *refused_model(config, args),
        *refused_device(config, torch.device("cuda" if is_on_gpu else "cpu")),
    ]
    return [
        Check(
            "shared_prefix",
            not reasons,
            "; ".join(reasons) or "a group's prompt is computed once where that pays off",
        )
    ]


def refused_settings(args: GRPOConfig, model: ModelArguments) -> list[str]:
    """Why these settings are not supported."""
    group = int(args.num_generations or 1)
    init = args.model_init_kwargs if isinstance(args.model_init_kwargs, dict) else {}
    chosen = init.get("attn_implementation", model.attn_implementation)
    refused = {
        "a micro-batch must hold whole groups: "
        "make per_device_train_batch_size a multiple of num_generations": (
            args.per_device_train_batch_size % group != 0
        ),
        "it has its own attention: remove attn_implementation": chosen not in (None, "sdpa"),
        "it does not work with use_liger_kernel": args.use_liger_kernel,
        "it does not work with torch_compile": args.torch_compile,
        "it does not work with use_transformers_continuous_batching": (
            args.use_transformers_continuous_batching
        ),
    }
    return [reason for reason, is_so in refused.items() if is_so]


def refused_adapter(model: str) -> list[str]:
    """Why the model's adapter, if it has one, is not supported: some kinds put their own tokens before the
    prompt.
    """
    path = model_file(model, "adapter_config.json")
    kind = json.loads(path.read_text(encoding="utf-8"))["peft_type"] if path else "LORA"
    return [] if kind == "LORA" else [f"the adapter is {kind}, and only LORA is tested"]


def refused_model(config: Any, args: GRPOConfig) -> list[str]:
    """Why a model with this config is not supported."""
    kind = config.model_type
    layers = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    window = not getattr(config, "layer_types", None) and getattr(config, "sliding_window", None)
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    coefficient = args.router_aux_loss_coef
    router = getattr(config, "router_aux_loss_coef", 0.0) if coefficient is None else coefficient
    refused = {
        f"{kind} is not among the tested models: {', '.join(SERVED)}": kind not in SERVED,
        f"the model has layers of {', '.join(layers) or 'sliding_attention'}, whose mask differs": bool(
            layers or window
        ),
        f"the model scales its positions by the longest row ({rope})": rope in ("dynamic", "longrope"),
        "the model has attention dropout: set disable_dropout": bool(
            getattr(config, "attention_dropout", 0.0) and not args.disable_dropout
        ),
        "the model balances its experts over all tokens, including repeated ones: "
        "set router_aux_loss_coef to 0": bool(hasattr(config, "output_router_logits") and router),
    }
    return [reason for reason, is_so in refused.items() if is_so]


def refused_device(config: Any, device: torch.device) -> list[str]:
    """Why a tested model with this config cannot be trained on this device."""
    if config.model_type not in SERVED:
        return []
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    needed = (
        "its kernel needs an Ampere GPU or a newer one, and a head size that is a multiple of 8 and at most "
        f"{LARGEST_HEAD} (here {head_size})"
    )
    return [] if has_kernel(device, head_size) else [needed]
