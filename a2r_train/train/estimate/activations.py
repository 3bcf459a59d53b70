"""What autograd keeps per token, measured by running the model on fake tensors: no memory, no arithmetic, a
few seconds.

Two short copies of the model, of one and two layers, run forward and backward under bfloat16 autocast on
PyTorch's fake tensors, and every live storage is counted. So it works for any architecture, LoRA and dropout,
without a formula for each.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM

from a2r_train.models import whole_models

ATTENTION = "traced"  # the name under which `_attention` is registered with transformers
# So many that the gradients of the weights are negligible; the difference to twice as many is what counts.
TOKENS = 2**17


@dataclass(frozen=True)
class TokenBytes:
    """Bytes per token of a micro-batch.

    kept: what a layer keeps from its forward to its backward pass. once: what is kept once, outside the
    layers (embeddings, last norm). work: what the backward pass of a layer needs while it runs, beyond what
    is kept.
    """

    kept: float
    once: float
    work: float


def trace(config: Any, wrap: Callable[[Any], Any], dtype: torch.dtype, checkpointing: bool) -> TokenBytes:
    """`config` is the model's; `wrap` adds the adapters to a model on the meta device."""
    held, peak = {}, {}
    for layers in (1, 2):
        (held1, peak1), (held2, peak2) = (
            _run(_short(config, layers, wrap, dtype), tokens, checkpointing)
            for tokens in (TOKENS, 2 * TOKENS)
        )
        held[layers], peak[layers] = (held2 - held1) / TOKENS, (peak2 - peak1) / TOKENS
    kept = held[2] - held[1]
    return TokenBytes(kept, held[1] - kept, peak[1] - held[1])


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of live storages (`now`), and the most that were live at once (`peak`).

    Storages `known` from the start do not count.
    """

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        identity, size = storage._cdata, storage.nbytes()
        if identity in self._known:
            return
        self._known.add(identity)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, identity, size)

    def _free(self, identity: int, size: int) -> None:
        self._known.discard(identity)
        self.now -= size


def _short(config: Any, layers: int, wrap: Callable[[Any], Any], dtype: torch.dtype) -> Any:
    """The model with this many layers on the meta device."""
    short = copy.deepcopy(config)
    short.num_hidden_layers = layers
    if getattr(short, "layer_types", None):
        short.layer_types = (short.layer_types * layers)[:layers]
    build: Any = AutoModelForCausalLM.from_config
    with torch.device("meta"), whole_models():
        return wrap(build(short, dtype=dtype, attn_implementation=ATTENTION)).train()


def _run(model: Any, tokens: int, checkpointing: bool) -> tuple[int, int]:
    """Bytes held after the forward pass over this many tokens, and the peak of the backward pass."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        _fake(model)
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        ids = torch.zeros(1, tokens, dtype=torch.long)
        whole = model.get_base_model() if hasattr(model, "peft_config") else model
        with Live([*model.parameters(), *model.buffers(), ids]) as live:
            with torch.autocast("cpu", torch.bfloat16):
                hidden = whole.base_model(input_ids=ids, use_cache=False).last_hidden_state
            held = live.now
            live.peak = 0
            hidden.backward(torch.empty_like(hidden))
            return held, max(held, live.peak)


def _fake(model: Any) -> None:
    """Replace tensors on the meta device by fake CPU tensors, on which autocast works."""
    for module in model.modules():
        for name, old in module._parameters.items():
            if old is not None:
                new = torch.empty(old.shape, dtype=old.dtype)
                module._parameters[name] = torch.nn.Parameter(new, requires_grad=old.requires_grad)
        for name, old in module._buffers.items():
            if old is not None:
                module._buffers[name] = torch.empty(old.shape, dtype=old.dtype)


def _attention(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Keeps what fused kernels keep: queries, keys, values, output and one number per query and head."""
    query, key, value = (x.to(torch.bfloat16) for x in (query, key, value))
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=True
    )
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, lambda *_args, **_kwargs: None)
