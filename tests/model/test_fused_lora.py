"""LoRA layers that add their adapter in place compute what PEFT's compute, with fewer copies."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM

from a2r_train.train.fused_lora import fuse_lora

PLAIN = [
    {},
    {"use_rslora": True, "rank_pattern": {"q_proj": 2}},
    {"target_modules": ["q_proj", "down_proj"], "lora_alpha": 5},
]
OTHER = [
    {"lora_dropout": 0.1},
    {"use_dora": True},
    {"lora_bias": True},
    {"target_modules": ["embed_tokens"]},
]


def pair(tiny: str, dtype: str = "float32", sharding: str = "ddp", **changes: Any) -> tuple[Any, Any, int]:
    """Two equal models with an adapter, of which the second is fused, and how many layers of it are."""
    torch.manual_seed(0)
    config = {"r": 4, "target_modules": "all-linear", "init_lora_weights": False, **changes}
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=dtype)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **config))
    fused = deepcopy(model)
    return model, fused, fuse_lora(fused, sharding)


def ids() -> torch.Tensor:
    return torch.randint(5, 200, (3, 17), generator=torch.Generator().manual_seed(1))


def gradients(model: Any, mixed: bool = False) -> dict[str, torch.Tensor]:
    """Logits, and the gradient of each trained weight."""
    model.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        logits = model(input_ids=ids()).logits
    logits.float().pow(2).mean().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return {"logits": logits.detach().float(), **found}


def away(found: dict[str, torch.Tensor], reference: dict[str, torch.Tensor]) -> dict[str, float]:
    """How far each tensor is from the reference, relative to it."""
    pairs = {name: (found[name].double(), one.double()) for name, one in reference.items()}
    return {name: float((one - other).norm() / other.norm()) for name, (one, other) in pairs.items()}


@pytest.mark.parametrize("changes", PLAIN)
def test_results_and_gradients_are_those_of_peft(changes: dict[str, Any], tiny: str) -> None:
    model, fused, layers = pair(tiny, "float64", **changes)
    for one in (model, fused):
        one.double()
    assert layers > 0
    expected = gradients(model)
    assert max(away(gradients(fused), expected).values()) < 1e-12


def test_in_bfloat16_it_is_no_farther_from_float32_than_peft(tiny: str) -> None:
    reference, _, _ = pair(tiny)
    exact = gradients(reference)
    model, fused, _ = pair(tiny, "bfloat16")
    for one in (model, fused):
        for name, weight in one.named_parameters():
            if "lora_" in name:
                weight.data = weight.data.float()
    theirs, ours = away(gradients(model, True), exact), away(gradients(fused, True), exact)
    assert sum(ours.values()) <= 1.02 * sum(theirs.values())
    assert all(p.grad.dtype == torch.float32 for p in fused.parameters() if p.requires_grad)


@pytest.mark.parametrize("changes", OTHER)
def test_another_adapter_is_left_to_peft(changes: dict[str, Any], tiny: str) -> None:
    assert pair(tiny, **changes)[2] == 0


def test_an_adapter_that_is_off_or_merged_is_left_to_peft(tiny: str) -> None:
    model, fused, _ = pair(tiny)
    on = fused(input_ids=ids()).logits
    with model.disable_adapter(), fused.disable_adapter():
        off = fused(input_ids=ids()).logits
        assert torch.equal(off, model(input_ids=ids()).logits)
    assert not torch.allclose(off, on)
    fused.merge_adapter()
    assert torch.allclose(fused(input_ids=ids()).logits, on, atol=1e-4)
    fused.unmerge_adapter()
    assert torch.allclose(fused(input_ids=ids()).logits, on, atol=1e-4)


def test_of_two_adapters_the_one_that_is_on_counts(tiny: str) -> None:
    """TRL adds a frozen copy as the reference of an adapter that is trained further."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype="float32")
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(base, config)
    model.add_adapter("ref", config)
    fused = deepcopy(model)
    assert fuse_lora(fused, "ddp") > 0
    for on in ("default", "ref", ["default", "ref"]):
        for one in (model, fused):
            one.base_model.set_adapter(on)
        torch.testing.assert_close(fused(input_ids=ids()).logits, model(input_ids=ids()).logits)


def test_a_fused_model_is_stored_and_loaded_whole(tiny: str, tmp_path: Path) -> None:
    _, fused, _ = pair(tiny)
    torch.save(fused, tmp_path / "model.pt")
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    torch.testing.assert_close(again(input_ids=ids()).logits, fused(input_ids=ids()).logits)


@pytest.mark.parametrize("sharding", ["zero3", "zero3_offload", "fsdp2"])
def test_shares_of_weights_are_left_to_peft(sharding: str, tiny: str) -> None:
    assert pair(tiny, sharding=sharding)[2] == 0


def test_a_layers_input_is_kept_once(tiny: str) -> None:
    """What the forward of one MLP keeps for 400 tokens; gate and up read one input."""
    kept = []
    for model in pair(tiny, "bfloat16")[:2]:
        for name, weight in model.named_parameters():
            weight.data = weight.data.float() if "lora_" in name else weight.data
        mlp = model.base_model.model.model.layers[0].mlp
        x = torch.randn(1, 400, model.config.hidden_size, dtype=torch.bfloat16, requires_grad=True)
        held: dict[int, torch.Tensor] = {}
        hooks = saved_tensors_hooks(lambda one, of=held: of.setdefault(one.data_ptr(), one), lambda one: one)
        with hooks, torch.autocast("cpu", torch.bfloat16):
            mlp(x)
        kept.append(sum(one.numel() for one in held.values() if 400 in one.shape))
    assert kept[0] - kept[1] >= 400 * model.config.hidden_size
