"""Attention over groups that share a prompt, by the kernels that SDPA itself would take; no mask, nothing to
compile.

Three pieces make up a group: the prompt attends to itself, causally; all completions together to the prompt,
without a mask; each completion to itself, causally. A completion's two results are merged by their
log-sum-exp, which is exact, and the kernels' backward, given the merged result and log-sum-exp, returns each
piece's share of the gradient (both as in Ring Attention, arXiv 2310.01889). The kernels are cuDNN's or
FlashAttention on a GPU, in bf16 or fp16, and torch's own on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from a2r_train.errors import InputError

ATTENTION = "shared_prefix"  # the name under which transformers knows `attention`

aten = torch.ops.aten
Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Group:
    """Where a group lies in a packed row: its shared tokens, then the T tokens of its G completions, one
    after the other.

    `places` (T,) says where these go when each completion is padded to `shape`, (G, longest), flattened.
    """

    prompt: slice
    completions: slice
    shape: tuple[int, int]
    places: torch.Tensor

    def padded(self, rows: torch.Tensor) -> torch.Tensor:
        """(1, heads, T, size) to (G, heads, longest, size); zero where there is nothing."""
        _, heads, _, size = rows.shape
        wide = rows.new_zeros(self.shape[0] * self.shape[1], heads, size)
        wide.index_copy_(0, self.places, rows[0].transpose(0, 1))
        return wide.view(*self.shape, heads, size).transpose(1, 2)

    def unpadded(self, wide: torch.Tensor) -> torch.Tensor:
        """The way back."""
        return wide.transpose(1, 2).flatten(0, 1).index_select(0, self.places).transpose(0, 1)[None]


def piece(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, causal: bool, scale: float
) -> tuple[Any, ...]:
    """Attention of (B, heads, S, size): the result, its log-sum-exp (B, heads, S), and what its backward
    reads.
    """
    if q.device.type == "cpu":
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
        return out, lse, (SDPBackend.MATH,)
    backend = SDPBackend(torch._fused_sdp_choice(q, k, v, None, 0.0, causal, scale=scale, enable_gqa=True))
    if backend == SDPBackend.CUDNN_ATTENTION:
        out, lse, *rest = aten._scaled_dot_product_cudnn_attention(
            q, k, v, None, True, 0.0, causal, False, scale=scale
        )
    elif backend == SDPBackend.FLASH_ATTENTION:
        out, lse, *rest = aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)
    else:
        raise InputError(
            f"shared_prefix: no kernel for {q.dtype} with heads of {q.size(-1)} on {q.device}; set bf16: true"
        )
    return out, lse.reshape(out.shape[:3]), (backend, *rest[:6])


def piece_backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    *,
    causal: bool,
    scale: float,
    state: tuple[Any, ...],
) -> Tensors:
    """The gradients of query, key and value; `out` and `lse` (B, heads, S, 1) may be those of several pieces,
    merged.
    """
    backend, *rest = state
    sequences, seeds = rest[:4], rest[4:]
    lse = lse.contiguous()
    if backend == SDPBackend.CUDNN_ATTENTION:
        kernel, more = (
            aten._scaled_dot_product_cudnn_attention_backward,
            (*seeds, None, *sequences, 0.0, causal),
        )
    elif backend == SDPBackend.FLASH_ATTENTION:
        kernel, more = aten._scaled_dot_product_flash_attention_backward, (*sequences, 0.0, causal, *seeds)
    else:
        kernel, more = aten._scaled_dot_product_flash_attention_for_cpu_backward, (0.0, causal)
    lse = lse if backend == SDPBackend.CUDNN_ATTENTION else lse[..., 0]
    return kernel(grad, q, k, v, out, lse, *more, scale=scale)  # type: ignore[no-any-return]


class SharedPrefixAttention(torch.autograd.Function):
    """`apply(query, key, value, groups, scale)` of (1, heads, N, size); the groups cover the row."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, groups: tuple[Group, ...], scale: float
    ) -> torch.Tensor:
        out = torch.empty_like(q)
        lse = q.new_empty(q.shape[:3], dtype=torch.promote_types(q.dtype, torch.float32))
        states = [_forward(group, (q, k, v), out, lse, scale) for group in groups]
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.groups, ctx.scale, ctx.states = groups, scale, states
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        *saved, lse = ctx.saved_tensors
        gradients = [torch.empty_like(t) for t in saved[:3]]
        for group, state in zip(ctx.groups, ctx.states, strict=True):
            _backward(group, (grads[0], *saved), lse, gradients, ctx.scale, state)
        return *gradients, None, None


def _forward(group: Group, qkv: Tensors, out: torch.Tensor, lse: torch.Tensor, scale: float) -> list[Any]:
    """Fills in the group's part of `out` and `lse`; returns what the backward of its three pieces reads."""
    shared, private = ([t[:, :, tokens] for t in qkv] for tokens in (group.prompt, group.completions))
    prompt = completions = across = None
    if shared[0].numel():
        out[:, :, group.prompt], lse[:, :, group.prompt], prompt = piece(*shared, causal=True, scale=scale)
    if private[0].numel():
        wide, wide_lse, completions = piece(*(group.padded(t) for t in private), causal=True, scale=scale)
        merged, merged_lse = group.unpadded(wide), group.unpadded(wide_lse[..., None])[..., 0]
        if shared[0].numel():
            other, other_lse, across = piece(private[0], *shared[1:], causal=False, scale=scale)
            share = (other_lse - merged_lse).sigmoid()[..., None]
            merged = merged.to(lse.dtype).lerp(other.to(lse.dtype), share)
            merged_lse = torch.logaddexp(merged_lse, other_lse)
        out[:, :, group.completions], lse[:, :, group.completions] = merged, merged_lse
    return [prompt, completions, across]


def _backward(
    group: Group,
    saved: tuple[torch.Tensor, ...],
    lse: torch.Tensor,
    gradients: list[torch.Tensor],
    scale: float,
    state: list[Any],
) -> None:
    """Fills in the group's part of `gradients`; `saved` is the result's gradient, query, key, value and
    result.
    """
    shared, private = (
        [t[:, :, tokens] for t in (*saved, lse[..., None])] for tokens in (group.prompt, group.completions)
    )
    prompt, completions, across = state
    if prompt:
        for total, part in zip(
            gradients, piece_backward(*shared, causal=True, scale=scale, state=prompt), strict=True
        ):
            total[:, :, group.prompt] = part
    if completions:
        wide = piece_backward(*map(group.padded, private), causal=True, scale=scale, state=completions)
        for total, part in zip(gradients, wide, strict=True):
            total[:, :, group.completions] = group.unpadded(part)
    if across:
        parts = piece_backward(
            *private[:2], *shared[2:4], *private[4:], causal=False, scale=scale, state=across
        )
        for total, part, tokens in zip(
            gradients, parts, (group.completions, group.prompt, group.prompt), strict=True
        ):
            total[:, :, tokens] += part


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    shared_prefix: tuple[Group, ...] | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Over the groups where the model was called with them, else SDPA, as in generation.

    The kernels want one dtype, and autocast leaves queries and keys in float32 that were normalised.
    """
    if shared_prefix is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    out = SharedPrefixAttention.apply(query, key, value, shared_prefix, scale)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
