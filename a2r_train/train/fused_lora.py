"""LoRA layers that add the adapter in place, with PEFT's mathematics.

PEFT copies a layer's input to the adapter's float32, and autocast copies it back. Scaling the adapter's
result and adding it take two more passes over the whole output, each of which rounds. Here a single product
adds the scaled result to the output, and the input is kept once for all layers that read it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch.nn import functional


class LoraProduct(torch.autograd.Function):
    """`apply(x, weight, bias, a, b, scaling)`: x Wᵀ + bias + scaling (x Aᵀ) Bᵀ.

    x (..., in), weight (out, in), bias (out,) or None, A (rank, in), B (out, rank), all of one dtype. Weight
    and bias get no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        out = functional.linear(x, weight, bias)
        low = functional.linear(x, a)
        out.view(-1, out.size(-1)).addmm_(low.view(-1, low.size(-1)), b.t(), alpha=scaling)
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scaling = scaling
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, a, b, low = ctx.saved_tensors
        grad = grads[0].reshape(-1, weight.size(0))
        low_grad = _scaled(grad, b, ctx.scaling)  # (tokens, rank)
        x_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = (grad @ weight).addmm_(low_grad, a).view_as(x)
        a_grad = low_grad.t() @ x.reshape(-1, x.size(-1))
        b_grad = _scaled(grad.t(), low.reshape(-1, low.size(-1)), ctx.scaling)
        return x_grad, None, None, a_grad, b_grad, None


def _scaled(left: torch.Tensor, right: torch.Tensor, scaling: float) -> torch.Tensor:
    """scaling (left @ right) in one kernel; with beta 0 the uninitialised result is not read."""
    return left.new_empty(left.size(0), right.size(1)).addmm_(left, right, beta=0, alpha=scaling)


class FusedLinear(Linear):
    """PEFT's layer with its own forward where exactly one plain adapter is active. PEFT's forward is used
    elsewhere: if the adapter is off or merged, or if dtypes differ outside autocast.
    """

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        base, device, name = self.base_layer, x.device.type, self._adapter()
        if args or kwargs or not name or not torch.amp.is_autocast_available(device):
            return super().forward(x, *args, **kwargs)
        weights = base.weight, self.lora_A[name].weight, self.lora_B[name].weight
        mixed = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if mixed else x.dtype
        if not (mixed or all(one.dtype == dtype for one in weights)):
            return super().forward(x)
        weight, a, b = (one.to(dtype) for one in weights)
        bias = None if base.bias is None else base.bias.to(dtype)
        with torch.autocast(device, enabled=False):
            apply: Callable[..., torch.Tensor] = LoraProduct.apply
            return apply(x.to(dtype), weight, bias, a, b, self.scaling[name])

    def _adapter(self) -> str:
        """The one active adapter; "" if there is none, or several."""
        on = [name for name in self.active_adapters if name in self.lora_A]
        return on[0] if len(on) == 1 and not (self.disable_adapters or self.merged) else ""


def fuse_lora(model: Any, sharding: str) -> int:
    """Let the model's plain LoRA layers use this forward; returns how many there are.

    `sharding` is that of `sharding_of`. Left to PEFT: sharded weights (ZeRO-3, FSDP2), which its submodules
    gather, and layers that are not `_is_plain`.
    """
    if sharding not in ("ddp", "zero2"):
        return 0
    layers = [module for module in model.modules() if type(module) is Linear and _is_plain(module)]
    for layer in layers:
        layer.__class__ = FusedLinear
    return len(layers)


def _is_plain(layer: Any) -> bool:
    """Whether its adapters have no variant, dropout or bias, on a frozen linear layer that is not
    quantised.
    """
    base = layer.base_layer
    if type(base) is not torch.nn.Linear or base.weight.requires_grad:
        return False
    if base.bias is not None and base.bias.requires_grad:
        return False
    drops = any(getattr(dropout, "p", 0.0) for dropout in layer.lora_dropout.values())
    biased = any(low.bias is not None for low in layer.lora_B.values())
    return not (layer.lora_variant or drops or biased)
