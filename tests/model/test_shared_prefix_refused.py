"""What the shared prefix refuses: settings, models, adapters and devices, each in one line."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from a2r_train.errors import InputError
from a2r_train.train.arguments import ModelArguments
from a2r_train.train.shared_prefix import trainer as shared_prefix
from a2r_train.train.shared_prefix.attention import need_a_kernel

SMALL = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}


@pytest.mark.parametrize(
    ("device", "capability", "dtype", "size", "remedy"),
    [
        ("cuda:0", (9, 0), torch.float32, 8, "bf16"), ("mps", (0, 0), torch.bfloat16, 64, "shared_prefix"),
        ("cuda:0", (9, 0), torch.bfloat16, 12, "shared_prefix"),
        ("cuda:0", (9, 0), torch.bfloat16, 264, "shared_prefix"),
        ("cuda:0", (7, 5), torch.float16, 64, "shared_prefix"), ("cuda:0", (8, 0), torch.float16, 80, ""),
    ],
)  # fmt: skip
def test_a_kernel_that_is_not_served_is_named(
    device: str, capability: Any, dtype: Any, size: int, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    query: Any = SimpleNamespace(device=torch.device(device), dtype=dtype, size=lambda _: size)
    told = f"no kernel for {dtype} with head size {size} on {device}; set {remedy}"
    with pytest.raises(InputError, match=told) if remedy else nullcontext():
        need_a_kernel(query)


@pytest.mark.parametrize(
    ("capability", "sizes", "is_refused"),
    [
        ((9, 0), {"head_dim": 128}, False),
        ((7, 5), {"head_dim": 128}, True),
        ((9, 0), {"head_dim": 12}, True),
        ((9, 0), {"head_dim": None, "hidden_size": 64}, False),
    ],
)
def test_the_preflight_knows_the_kernel(
    capability: Any, sizes: dict[str, Any], is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    config: Any = SimpleNamespace(model_type="qwen3", **{**SMALL, **sizes})
    reasons = shared_prefix.refused_device(config, torch.device("cuda"))
    assert [reason.startswith("its kernel needs an Ampere GPU") for reason in reasons] == [True] * is_refused
    assert shared_prefix.refused_device(config, torch.device("cpu")) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"per_device_train_batch_size": 12}, "a multiple of num_generations"),
        ({"use_liger_kernel": True}, "use_liger_kernel"),
        ({"torch_compile": True}, "torch_compile"),
        ({"use_transformers_continuous_batching": True}, "use_transformers_continuous_batching"),
        ({"model_init_kwargs": {"attn_implementation": "eager"}}, "remove attn_implementation"),
        ({"attn_implementation": "flash_attention_2"}, "remove attn_implementation"),
        ({}, ""),
    ],
)
def test_settings_that_cannot_be_served(changes: dict[str, Any], reason: str) -> None:
    given_model = {key: changes[key] for key in changes.keys() & {"attn_implementation"}}
    plain = {
        "num_generations": 8,
        "per_device_train_batch_size": 16,
        "use_liger_kernel": False,
        "torch_compile": False,
    }
    more = {"use_transformers_continuous_batching": False, "model_init_kwargs": None}
    args: Any = SimpleNamespace(**{**plain, **more, **changes})
    reasons = shared_prefix.refused_settings(args, ModelArguments("m", **given_model))
    assert len(reasons) == bool(reason)
    assert reason in "".join(reasons)


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        (
            "qwen3",
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
            "sliding_attention",
        ),
        ("mistral", {"sliding_window": 8}, "sliding_attention"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "longest row",
        ),
        ("llama", {"attention_dropout": 0.1}, "disable_dropout"),
        (
            "qwen3_moe",
            {"router_aux_loss_coef": 0.1, "num_experts": 2, "moe_intermediate_size": 16},
            "router_aux_loss_coef",
        ),
        ("gpt2", {}, "gpt2 is not among the tested models: gemma, granite,"),
        ("qwen3_vl", {}, "qwen3_vl is not among the tested models"),
    ],
)
def test_models_that_cannot_be_served(kind: str, changes: dict[str, Any], reason: str) -> None:
    config = AutoConfig.for_model(kind, **{**SMALL, **changes} if kind != "qwen3_vl" else {})
    args: Any = SimpleNamespace(router_aux_loss_coef=None, disable_dropout=False)
    reasons = shared_prefix.refused_model(config, args)
    assert any(reason in found for found in reasons), reasons


def test_adapters_that_cannot_be_served(tmp_path: Path) -> None:
    assert shared_prefix.refused_adapter(str(tmp_path)) == []
    for kind, reasons in (
        ("LORA", []),
        ("PREFIX_TUNING", ["the adapter is PREFIX_TUNING, and only LORA is tested"]),
    ):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": kind}))
        assert shared_prefix.refused_adapter(str(tmp_path)) == reasons
