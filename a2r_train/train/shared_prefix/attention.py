"""Attention over groups that share a prompt, using the kernels that SDPA itself would choose; no mask,
nothing to compile.

A row is computed in three pieces: each group's prompt attends causally to itself; its completions together
attend to the prompt, without a mask; each completion of the row attends causally to itself, all in one call.
A completion's two results are merged by their log-sum-exp, which is exact, and the kernels' backward, given
the merged result and log-sum-exp, returns each piece's share of the gradient (both as in Ring Attention,
arXiv 2310.01889). The kernels are cuDNN's or FlashAttention on a GPU, in bf16 or fp16, and torch's own on a
CPU.
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

ATTENTION = "shared_prefix"  # the name under which `attention` is registered with transformers

aten = torch.ops.aten
Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
State = tuple[Any, ...] | None  # what the backward of a piece needs


@dataclass(frozen=True)
class Padding:
    """Completions that attend to themselves in one call: where their T tokens are in the row.

    `places` (T,) says where these tokens go when each completion is padded to `shape`, (completions,
    longest), flattened.
    """

    tokens: slice
    shape: tuple[int, int]
    places: torch.Tensor

    def padded(self, row: torch.Tensor) -> torch.Tensor:
        """(1, heads, N, size) to (completions, heads, longest, size); padding is zero."""
        _, heads, _, size = row.shape
        wide = row.new_zeros(self.shape[0] * self.shape[1], heads, size)
        wide.index_copy_(0, self.places, row[0, :, self.tokens].transpose(0, 1))
        return wide.view(*self.shape, heads, size).transpose(1, 2)

    def unpadded(self, wide: torch.Tensor) -> torch.Tensor:
        """The inverse of `padded`, to (1, heads, T, size)."""
        return wide.transpose(1, 2).flatten(0, 1).index_select(0, self.places).transpose(0, 1)[None]


@dataclass(frozen=True)
class Groups:
    """The layout of a packed row: the shared tokens of every group, then the tokens of all completions, one
    after the other.

    `pairs` are the slices of each group's prompt and of its completions; either may be empty.
    """

    pairs: tuple[tuple[slice, slice], ...]
    paddings: tuple[Padding, ...]


def piece(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, causal: bool, scale: float
) -> tuple[Any, ...]:
    """Attention of (B, heads, S, size): the result, its log-sum-exp (B, heads, S), and what the backward
    needs.
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
            f"shared_prefix: no kernel for {q.dtype} with head size {q.size(-1)} on {q.device}; "
            "set bf16: true"
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
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, groups: Groups, scale: float
    ) -> torch.Tensor:
        out = torch.empty_like(q)
        lse = q.new_empty(q.shape[:3], dtype=torch.promote_types(q.dtype, torch.float32))
        prompts = [_prompt(prompt, (q, k, v), out, lse, scale) for prompt, _ in groups.pairs]
        own = [_own(padding, (q, k, v), out, lse, scale) for padding in groups.paddings]
        across = [_across(*pair, (q, k, v), out, lse, scale) for pair in groups.pairs]
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.groups, ctx.scale, ctx.states = groups, scale, (prompts, own, across)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        *saved, lse = ctx.saved_tensors
        gradients = [torch.empty_like(t) for t in saved[:3]]
        _backward(ctx.groups, (grads[0], *saved, lse[..., None]), gradients, ctx.scale, ctx.states)
        return *gradients, None, None


def _prompt(tokens: slice, qkv: Tensors, out: torch.Tensor, lse: torch.Tensor, scale: float) -> State:
    """Fills in a prompt's part of `out` and `lse`; returns what its backward needs, None if it has no
    tokens.
    """
    shared = [t[:, :, tokens] for t in qkv]
    if not shared[0].numel():
        return None
    state: State
    out[:, :, tokens], lse[:, :, tokens], state = piece(*shared, causal=True, scale=scale)
    return state


def _own(padding: Padding, qkv: Tensors, out: torch.Tensor, lse: torch.Tensor, scale: float) -> State:
    """Fills in the completions' attention to themselves."""
    state: State
    wide, wide_lse, state = piece(*map(padding.padded, qkv), causal=True, scale=scale)
    out[:, :, padding.tokens] = padding.unpadded(wide)
    lse[:, :, padding.tokens] = padding.unpadded(wide_lse[..., None])[..., 0]
    return state


def _across(
    prompt: slice, tokens: slice, qkv: Tensors, out: torch.Tensor, lse: torch.Tensor, scale: float
) -> State:
    """Merges the attention of a group's completions to its prompt into their attention to themselves."""
    q, k, v = (t[:, :, place] for t, place in zip(qkv, (tokens, prompt, prompt), strict=True))
    if not (q.numel() and k.numel()):
        return None
    state: State
    other, other_lse, state = piece(q, k, v, causal=False, scale=scale)
    own, own_lse = out[:, :, tokens].to(lse.dtype), lse[:, :, tokens]
    out[:, :, tokens] = own.lerp(other.to(lse.dtype), (other_lse - own_lse).sigmoid()[..., None])
    lse[:, :, tokens] = torch.logaddexp(own_lse, other_lse)
    return state


def _backward(
    groups: Groups,
    saved: tuple[torch.Tensor, ...],
    gradients: list[torch.Tensor],
    scale: float,
    states: tuple[list[State], ...],
) -> None:
    """Fills in `gradients`; `saved` is the result's gradient, query, key, value, result and log-sum-exp."""
    prompts, own, across = states
    for (tokens, _), state in zip(groups.pairs, prompts, strict=True):
        if state:
            shared = [t[:, :, tokens] for t in saved]
            parts = piece_backward(*shared, causal=True, scale=scale, state=state)
            for total, part in zip(gradients, parts, strict=True):
                total[:, :, tokens] = part
    for padding, state in zip(groups.paddings, own, strict=True):
        parts = piece_backward(*map(padding.padded, saved), causal=True, scale=scale, state=state or ())
        for total, part in zip(gradients, parts, strict=True):
            total[:, :, padding.tokens] = padding.unpadded(part)
    for (prompt, tokens), state in zip(groups.pairs, across, strict=True):
        if state:
            places = (tokens, tokens, prompt, prompt, tokens, tokens)
            of = (t[:, :, place] for t, place in zip(saved, places, strict=True))
            parts = piece_backward(*of, causal=False, scale=scale, state=state)
            for total, part, place in zip(gradients, parts, places[1:4], strict=True):
                total[:, :, place] += part


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

    The kernels need a single dtype, but autocast leaves normalised queries and keys in float32.
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
