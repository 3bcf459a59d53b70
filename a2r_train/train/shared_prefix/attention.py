"""Attention over groups that share a prompt, by FlashAttention's calls for sequences of any lengths; no mask,
no padding, nothing to compile.

A row is computed in two calls. In the first, every prompt and every completion attends causally to itself.
In the second, all completions of a group attend to the group's prompt, without a mask. A completion's two
results are merged by their log-sum-exp, which is exact. The kernel's backward, given the merged result and
log-sum-exp, returns each call's share of the gradient (both as in Ring Attention, arXiv 2310.01889). On a GPU
the kernel is torch's FlashAttention, in bf16 or fp16. On a CPU it is torch's own, one sequence at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from a2r_train.errors import InputError

ATTENTION = "shared_prefix"  # the name under which `attention` is registered with transformers
LARGEST_HEAD = 256  # of FlashAttention, which also needs a multiple of 8
OLDEST_GPU = (8, 0)  # of FlashAttention: the compute capability of Ampere

aten = torch.ops.aten
Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Sequences:
    """Neighbouring sequences of tokens: `stops` (n + 1) are where they meet, from 0; `offsets` are the same
    as int32 on the device.
    """

    stops: tuple[int, ...]
    offsets: torch.Tensor

    @cached_property
    def longest(self) -> int:
        return max((stop - start for start, stop in pairwise(self.stops)), default=0)

    @property
    def tokens(self) -> int:
        return self.stops[-1]

    def split(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """(T, heads, size) to (1, heads, length, size) of each sequence, as torch's CPU kernel takes it."""
        return [rows[start:stop].transpose(0, 1)[None] for start, stop in pairwise(self.stops)]


@dataclass(frozen=True)
class Groups:
    """The layout of a packed row: the shared tokens of every group, then the tokens of all completions, in
    the same order of groups.

    `own` are the prompts and completions. `prompts` and `answers` are the shared tokens and the completions
    of each group that has both; these groups are the first ones. Completions begin at token `begin`.
    """

    own: Sequences
    prompts: Sequences
    answers: Sequences
    begin: int

    @property
    def across(self) -> tuple[slice, slice]:
        """Where the tokens of `answers` and of `prompts` are in the row."""
        return slice(self.begin, self.begin + self.answers.tokens), slice(0, self.prompts.tokens)


def attend(
    qkv: Tensors, queries: Sequences, keys: Sequences, *, causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
    """Attention of each sequence of queries (T, heads, size) to its keys and values: the result, its
    log-sum-exp (heads, T) and what the backward needs.
    """
    if qkv[0].device.type == "cpu":
        return _attend_on_cpu(qkv, queries, keys, causal, scale)
    lengths = queries.offsets, keys.offsets, queries.longest, keys.longest
    out, lse, *state, _ = aten._flash_attention_forward(*qkv, *lengths, 0.0, causal, False, scale=scale)
    return out, lse, state


def attend_backward(
    grad: torch.Tensor,
    qkv: Tensors,
    out: torch.Tensor,
    lse: torch.Tensor,
    queries: Sequences,
    keys: Sequences,
    *,
    causal: bool,
    scale: float,
    state: list[Any],
) -> Tensors:
    """The gradients of query, key and value; `out` and `lse` may be those of several calls, merged."""
    if grad.device.type == "cpu":
        return _backward_on_cpu(grad, qkv, out, lse, queries, keys, causal, scale)
    lengths = queries.offsets, keys.offsets, queries.longest, keys.longest
    kernel: Any = aten._flash_attention_backward
    gradients: Tensors = kernel(grad, *qkv, out, lse.contiguous(), *lengths, 0.0, causal, *state, scale=scale)
    return gradients


def _attend_on_cpu(
    qkv: Tensors, queries: Sequences, keys: Sequences, causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
    rows = zip(queries.split(qkv[0]), keys.split(qkv[1]), keys.split(qkv[2]), strict=True)
    kernel: Any = aten._scaled_dot_product_flash_attention_for_cpu
    parts = [kernel(*row, 0.0, causal, scale=scale) for row in rows]
    out = torch.cat([part[0][0].transpose(0, 1) for part in parts])
    return out, torch.cat([part[1][0] for part in parts], dim=1), []


def _backward_on_cpu(
    grad: torch.Tensor,
    qkv: Tensors,
    out: torch.Tensor,
    lse: torch.Tensor,
    queries: Sequences,
    keys: Sequences,
    causal: bool,
    scale: float,
) -> Tensors:
    of = (*map(queries.split, (grad, qkv[0])), *map(keys.split, qkv[1:]), queries.split(out))
    sums = [lse[None, :, start:stop] for start, stop in pairwise(queries.stops)]
    kernel: Any = aten._scaled_dot_product_flash_attention_for_cpu_backward
    parts = [kernel(*row, 0.0, causal, scale=scale) for row in zip(*of, sums, strict=True)]
    first, second, third = (torch.cat([part[i][0].transpose(0, 1) for part in parts]) for i in range(3))
    return first, second, third


class SharedPrefixAttention(torch.autograd.Function):
    """`apply(query, key, value, groups, scale)` of (N, heads, size); the groups cover the row."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, groups: Groups, scale: float
    ) -> torch.Tensor:
        out, lse, state = attend((q, k, v), groups.own, groups.own, causal=True, scale=scale)
        ctx.groups, ctx.scale, ctx.state, ctx.state_across = groups, scale, state, []
        if groups.answers.tokens:
            answers, prompts = groups.across
            across = q[answers], k[prompts], v[prompts]
            other, other_lse, ctx.state_across = attend(
                across, groups.answers, groups.prompts, causal=False, scale=scale
            )
            _merge(out[answers], lse[:, answers], other, other_lse)
        ctx.save_for_backward(q, k, v, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        groups, scale, (grad, *_) = ctx.groups, ctx.scale, grads
        grad_q, grad_k, grad_v = attend_backward(
            grad, (q, k, v), out, lse, groups.own, groups.own, causal=True, scale=scale, state=ctx.state
        )
        if groups.answers.tokens:
            answers, prompts = groups.across
            across, of = (q[answers], k[prompts], v[prompts]), (out[answers], lse[:, answers])
            sequences, state = (groups.answers, groups.prompts), ctx.state_across
            parts = attend_backward(
                grad[answers], across, *of, *sequences, causal=False, scale=scale, state=state
            )
            grad_q[answers] += parts[0]
            grad_k[prompts] += parts[1]
            grad_v[prompts] += parts[2]
        return grad_q, grad_k, grad_v, None, None


def _merge(out: torch.Tensor, lse: torch.Tensor, other: torch.Tensor, other_lse: torch.Tensor) -> None:
    """Merge the attention to other keys into `out` (T, heads, size) and `lse` (heads, T), in place."""
    share = (other_lse - lse).sigmoid().t()[..., None]
    out.copy_(out.to(lse.dtype).lerp_(other.to(lse.dtype), share))
    torch.logaddexp(lse, other_lse, out=lse)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    shared_prefix: Groups | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention over the groups if the model was called with them, otherwise SDPA, as in generation.

    The kernels need a single dtype, but autocast leaves normalised queries and keys in float32. Raises
    InputError if there is no kernel.
    """
    if shared_prefix is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    need_a_kernel(query)
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    rows = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return SharedPrefixAttention.apply(*rows, shared_prefix, scale)[None], None  # type: ignore[no-untyped-call]


def need_a_kernel(query: torch.Tensor) -> None:
    """Raise InputError if FlashAttention does not take this query (1, heads, N, size) on a GPU."""
    device, size, is_half = query.device, query.size(-1), query.dtype in (torch.bfloat16, torch.float16)
    if has_kernel(device, size) and (is_half or device.type == "cpu"):
        return
    remedy = "set bf16: true" if has_kernel(device, size) else "set shared_prefix: false"
    raise InputError(
        f"shared_prefix: no kernel for {query.dtype} with head size {size} on {device}; {remedy}"
    )


def has_kernel(device: torch.device, size: int) -> bool:
    """Whether there is a kernel on this device for heads of this size, on a GPU in bf16 or fp16."""
    if device.type == "cpu":
        return True
    is_new = device.type == "cuda" and torch.cuda.get_device_capability(device) >= OLDEST_GPU
    return is_new and size % 8 == 0 and size <= LARGEST_HEAD


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
