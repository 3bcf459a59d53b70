"""What would train one policy and draw from another, or another adapter than was asked for, is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import options
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from a2r_train.commands.merge import MergeConfig, check_merge
from a2r_train.config import parse
from a2r_train.errors import InputError
from a2r_train.train import grpo, preflight, weight_sync
from a2r_train.train.arguments import ModelArguments
from a2r_train.train.lean import Batch
from a2r_train.train.model import check_model, tied_adapters
from a2r_train.train.one_pass import spread

TIED = str(Path(__file__).parents[2] / "data/tiny/synthesizer")


def adapter(tiny: str, folder: Path, **changes: Any) -> str:
    """The folder of an adapter of the tiny model."""
    config = LoraConfig(task_type="CAUSAL_LM", **{"r": 4, "target_modules": ["q_proj"], **changes})
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"target_modules": "all-linear"}, []),
        ({"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["norm"]}, []),
        ({"target_modules": ["q_proj", "embed_tokens"]}, ["model.embed_tokens"]),
        ({"target_modules": r".*\.(q_proj|embed_tokens)"}, ["model.embed_tokens"]),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, ["lm_head"]),
        (
            {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
            ["model.embed_tokens", "lm_head"],
        ),
    ],
)
def test_one_of_two_tied_ends(changes: dict[str, Any], expected: list[str], tiny: str) -> None:
    assert tied_adapters(TIED, LoraConfig(**changes)) == expected
    assert tied_adapters(tiny, LoraConfig(**changes)) == []  # its ends are two tensors


def test_an_adapter_of_one_tied_end_goes_neither_to_vllm_nor_into_its_base(tmp_path: Path) -> None:
    folder = adapter(TIED, tmp_path / "ends", target_modules=["q_proj", "embed_tokens"])
    [check] = weight_sync.checks(ModelArguments(model_name_or_path=folder))
    assert not check.passed
    assert "changes model.embed_tokens" in check.detail
    with pytest.raises(InputError, match=r"model\.embed_tokens alone, so it cannot be merged"):
        check_merge(MergeConfig(model=folder, output_dir=str(tmp_path / "merged")))


@pytest.mark.parametrize("bits", ["load_in_4bit", "load_in_8bit"])
def test_a_quantised_base_is_not_merged_again_and_again(bits: str, tiny: str) -> None:
    plain = ModelArguments(model_name_or_path=tiny, use_peft=True, lora_target_modules=["q_proj"])
    assert weight_sync.checks(plain)[0].passed
    quantised = ModelArguments(
        model_name_or_path=tiny, use_peft=True, lora_target_modules=["q_proj"], **{bits: True}
    )
    [check] = weight_sync.checks(quantised)
    assert not check.passed
    assert "set use_vllm to false" in check.detail


def test_the_engine_gets_what_is_trained_and_not_the_reference(tiny: str) -> None:
    config = LoraConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["norm"], init_lora_weights=False
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), config)
    alone = {name: weight.clone() for name, weight in weight_sync.summed_weights(model)}
    model.add_adapter("ref", config)  # as TRL does for beta > 0
    for name, weight in model.named_parameters():
        if ".ref." in name:
            weight.data.fill_(7.0)
    both = dict(weight_sync.summed_weights(model))
    assert list(both) == list(alone)
    assert all(torch.equal(both[name], alone[name]) for name in alone)


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ({"lora_r": 32}, "^lora_r is 32, but the adapter .* has 4, and is trained further as it is; remove"),
        ({"lora_alpha": 64}, "^lora_alpha is 64"),
        ({"use_rslora": True}, "^use_rslora is True"),
        ({"lora_r": 4}, ""),
        ({}, ""),
    ],
)
def test_keys_of_another_adapter_than_the_one_that_is_trained_further(
    keys: dict[str, Any], error: str, tiny: str, tmp_path: Path
) -> None:
    model = ModelArguments(model_name_or_path=adapter(tiny, tmp_path / "adapter"), **keys)
    if not error:
        check_model(model)
        return
    with pytest.raises(InputError, match=error):
        check_model(model)


def arguments(tmp_path: Path, **keys: Any) -> Any:
    fixed = {
        "model_name_or_path": "data/tiny/synthesizer",
        "bundles": "none.jsonl",
        "output_dir": tmp_path / "out",
        "use_cpu": "true",
    }
    return parse(grpo.ARGUMENTS, options({**fixed, **keys}))[1]


@pytest.mark.parametrize(
    ("steps", "accumulated", "passed"),
    [(3, 2, False), (6, 4, False), (2, 4, True), (4, 2, True), (1, 3, True)],
)
def test_generations_that_straddle_steps_are_refused(
    steps: int, accumulated: int, passed: bool, tmp_path: Path
) -> None:
    args = arguments(tmp_path, steps_per_generation=steps, gradient_accumulation_steps=accumulated)
    found = preflight._windows(args)
    assert bool(found) != passed
    assert all(not check.passed and "make one a multiple of the other" in check.detail for check in found)


def test_ddp_does_not_look_for_unused_parameters_unless_told(tmp_path: Path) -> None:
    assert arguments(tmp_path).ddp_find_unused_parameters is False
    assert arguments(tmp_path, ddp_find_unused_parameters="true").ddp_find_unused_parameters is True


@pytest.mark.parametrize(
    ("own", "expected"),
    [({}, False), ({"top_k": 5}, False), ({"stop": ["</answer>"]}, None), ({"bad_words": ["x"]}, None)],
)
def test_a_stop_string_is_looked_for_in_texts(
    own: dict[str, Any], expected: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("prepare_colocate", "read_flat_lists"):
        monkeypatch.setattr(grpo, name, lambda: None)
    monkeypatch.setattr(weight_sync, "add_out_of_place", lambda: None)
    args = arguments(tmp_path)
    args.use_vllm, args.vllm_mode, args.generation_kwargs = True, "colocate", dict(own)
    grpo.prepare_vllm(args, [5])
    assert args.generation_kwargs.get("detokenize") is expected
    assert args.generation_kwargs["stop_token_ids"] == [5]


def test_a_batch_is_asked_for_columns_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("a2r_train.train.lean.deepcopy", lambda _: pytest.fail("a row was copied"))
    assert "input_ids" not in Batch([{"prompt": "a"}])


@pytest.mark.parametrize(
    "draw", [lambda: torch.rand(4, 5) > 0.5, lambda: torch.zeros(4, 5, dtype=torch.bool)]
)
def test_the_spread_of_what_counts(draw: Callable[[], torch.Tensor]) -> None:
    torch.manual_seed(0)
    values, counted = torch.randn(4, 5), draw()
    values[~counted] = float("nan")
    kept = values[counted] if counted.any() else torch.zeros(1)
    expected = torch.stack((kept.min(), kept.mean(), kept.max()))
    assert torch.allclose(spread(values, counted), expected)
