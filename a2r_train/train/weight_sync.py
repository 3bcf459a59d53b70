"""How vLLM gets the trained weights before each generation: an adapter's delta is added out of place.

TRL merges the adapter into the base, passes each weight in a separate call, and unmerges the adapter. That
rounds a bfloat16 base each time, so TRL's way needs a float32 base. Here base plus delta is a new float32
tensor, one layer at a time, and the base is never written to. vLLM rounds the sum once, as it rounds the
merged weight of a float32 base.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora import Embedding, Linear, LoraLayer
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer import grpo_trainer

from a2r_train.train.arguments import ModelArguments
from a2r_train.train.fused_lora import FusedLinear
from a2r_train.train.model import adds_plainly, peft_of, tied_adapters
from a2r_train.train.preflight import Check

Weights = Iterator[tuple[str, torch.Tensor]]


def summed_weights(model: Any) -> Weights:
    """Every weight of a LoRA model under its name in the base model; layers with an adapter give base +
    delta, in float32. Equals what `merge_adapter` gives on a float32 base. The model stays unchanged.
    """
    saved = f"modules_to_save.{model.active_adapter}."
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    for name, weight in model.named_parameters():
        if model.prefix in name or "original_module" in name:  # the adapter; what `modules_to_save` replaces
            continue
        if "modules_to_save." in name and saved not in name:  # of the reference policy
            continue
        layer = layers.get(name.removesuffix(".base_layer.weight"))
        name = name.removeprefix("base_model.model.").replace(".base_layer", "")
        name = name.replace(saved, "").replace("_checkpoint_wrapped_module.", "")
        yield name, weight.data if layer is None else _sum(weight.data, layer)


def _sum(weight: torch.Tensor, layer: Any) -> torch.Tensor:
    held = {**layer.lora_A, **layer.lora_embedding_A}
    total = weight.float()
    for adapter in layer.active_adapters:
        if adapter in held:
            total = total + layer.get_delta_weight(adapter)
    return total


class SummedGeneration(VLLMGeneration):
    """TRL's VLLMGeneration, with two methods overridden: which weights vLLM gets, and how they get there."""

    @torch.no_grad()
    def _iter_named_params(self) -> Weights:
        """Base plus delta, if the adapter is nothing else; otherwise as TRL does it."""
        model: Any = self.model
        if self._dist.is_fsdp or not self._adds():
            yield from super()._iter_named_params()  # type: ignore[no-untyped-call]
            return
        with self._dist.gather_params(list(model.parameters())):
            yield from summed_weights(model)

    def _adds(self) -> bool:
        """Whether base plus delta is all there is; layers of other types have a quantised base, or no single
        weight.
        """
        model: Any = self.model
        configs = getattr(model, "peft_config", None)
        if not configs or not adds_plainly(configs[model.active_adapter]):
            return False
        return all(
            type(m) in (Linear, FusedLinear, Embedding) for m in model.modules() if isinstance(m, LoraLayer)
        )

    def sync_weights(self) -> None:
        """Pass all weights in one call of vLLM's loader, because each call searches the whole model."""
        if self.mode != "colocate" or self.enable_sleep_mode:
            super().sync_weights()  # type: ignore[no-untyped-call]
            return
        self.llm.llm_engine.model_executor.driver_worker.model_runner.model.load_weights(
            self._iter_named_params()
        )
        self.llm.reset_prefix_cache()


def checks(model: ModelArguments) -> list[Check]:
    """Red if vLLM would sample from a policy other than the one that is trained."""
    says = []
    if model.load_in_4bit or model.load_in_8bit:
        says = [
            "before each generation the adapter is merged into the quantised base and taken out again, "
            "which changes the base a little each time; set use_vllm to false, or remove load_in_4bit and "
            "load_in_8bit"
        ]
    if tied := tied_adapters(str(model.model_name_or_path), peft_of(model)):
        says.append(
            f"embedding and LM head share one tensor, and the adapter changes {' and '.join(tied)} alone; "
            "vLLM holds the tensor once. Remove it from lora_target_modules and lora_modules_to_save, or set "
            "use_vllm to false"
        )
    return [Check("vllm weights", not says, "; ".join(says) or "the engine gets what is trained")]


def add_out_of_place() -> None:
    """Make TRL's trainers sync this way; call it before creating one."""
    trl: Any = grpo_trainer
    trl.VLLMGeneration = SummedGeneration
