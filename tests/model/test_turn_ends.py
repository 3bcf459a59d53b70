"""A turn ends as the template has it, in training and in what is saved; a cut thought earns nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import options, save_tiny, write_rows
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from a2r_train.data.builder import bundle_of
from a2r_train.prompts import Prompter
from a2r_train.records import Problem, Reference, as_row
from a2r_train.train import grpo, sft
from a2r_train.train.rewards import VerifiableReward


def another_eos(path: str) -> str:
    """As base models that are packaged as chat models: eos is not what ends a turn."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(path)
    settings = Path(path) / "generation_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "eos_token_id": 0}))
    return path


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Any]:
    model = another_eos(save_tiny(tmp_path / "packaged", seed=6))
    references = [Reference(r"\boxed{5}", "5", "correct", 4), Reference(r"\boxed{7}", "7", "incorrect", 4)]
    bundles = [bundle_of(Problem(f"p{i}", f"{i} more?", "5"), references, f"p{i}/0") for i in range(4)]
    return {
        "bundles": write_rows(tmp_path / "bundles.jsonl", map(as_row, bundles)),
        "model_name_or_path": model,
        "output_dir": tmp_path / "out",
        "use_cpu": True,
        "max_steps": 1,
        "report_to": "none",
    }


@pytest.mark.parametrize("stage", [sft, grpo])
def test_the_end_of_the_template_is_saved(stage: Any, keys: dict[str, Any], tmp_path: Path) -> None:
    own = {"num_generations": 2, "per_device_train_batch_size": 2, "max_completion_length": 16}
    if stage is sft:
        target = {"bundle_id": "p0/0", "sample": 0, "text": r"\boxed{5}", "answer": "5", "verdict": "correct"}
        target |= {
            "prompt_tokens": 1,
            "completion_tokens": 1,
            "finish_reason": "stop",
            "model": "m",
            "seed": 0,
        }
        own = {"targets": write_rows(tmp_path / "targets.jsonl", [target])}
    assert stage.main(options({**keys, **own})) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.eos_token == "<|im_end|>"
    settings = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    ends = settings["eos_token_id"]
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in (ends if isinstance(ends, list) else [ends])


@pytest.mark.parametrize("key", ["eos_token", "pad_token", "chat_template_path"])
def test_keys_that_would_change_one_stage_alone_are_refused(
    key: str, keys: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sft.main(options({**keys, key: "<|endoftext|>"})) == 2
    error = capsys.readouterr().err
    assert f"{key}: explore and evaluate use the model's own tokenizer" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "all_checkpoints"])
def test_a_push_before_the_end_is_refused_and_not_taken_for_another(
    strategy: str, keys: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sft.main(options({**keys, "hub_strategy": strategy})) == 2
    error = capsys.readouterr().err
    assert f"hub_strategy: {strategy} is not supported" in error
    assert error.count("\n") == 1


def test_a_cut_thought_between_special_tokens_earns_nothing(tiny: str) -> None:
    """TRL decodes completions without special tokens: the thought would be the answer."""
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
    reward = VerifiableReward(Prompter(tokenizer))
    columns = {"answer": ["5"], "verifier": ["math"], "n_correct": [0], "majority_answer": [""]}
    for text, earned in ((r"[THINK]so \boxed{5}", 0.0), (r"[THINK]so[/THINK]\boxed{5}", 1.0)):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        shown = [[{"role": "assistant", "content": tokenizer.decode(ids, skip_special_tokens=True)}]]
        assert reward(shown, completion_ids=[ids], **columns) == [earned]
