"""What a key of a recipe may be: one value where a list is expected, and the same kinds at every reading."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from a2r_train.config import configured, parse
from a2r_train.errors import InputError
from a2r_train.train import grpo

SMALL = {
    "bundles": "b.jsonl", "output_dir": "out", "model_name_or_path": "m", "use_cpu": True,
    "num_generations": 2, "per_device_train_batch_size": 2,
}  # fmt: skip
OWN = """
from transformers import TrainerCallback

def brevity(completions, **_):
    return [0.0] * len(completions)

class Count(TrainerCallback):
    pass
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "kinds_rewards.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("key", "given", "taken"),
    [
        ("callbacks", "kinds_rewards.Count", ["kinds_rewards.Count"]),
        ("callbacks", ["kinds_rewards.Count"], ["kinds_rewards.Count"]),
        ("callbacks", "", []),
        ("reward_funcs", "kinds_rewards.brevity", ["kinds_rewards.brevity"]),
        ("reward_weights", 1, [1.0]),
        ("reward_weights", "0.5", [0.5]),
        ("reward_weights", ["0.5"], [0.5]),
        ("lora_modules_to_save", "lm_head", ["lm_head"]),
        ("lora_target_modules", "all-linear", "all-linear"),  # of a list of one TRL makes a text
        ("lora_target_modules", r".*\.(q|k){1,2}_proj", r".*\.(q|k){1,2}_proj"),
        ("label_names", "labels", ["labels"]),
    ],
)
def test_one_value_is_a_list_of_one(key: str, given: Any, taken: Any, here: Path) -> None:
    (here / "grpo.yaml").write_text(yaml.safe_dump({**SMALL, key: given}))
    configs = parse(grpo.ARGUMENTS, ["--config", "grpo.yaml"])
    assert next(getattr(one, key) for one in configs if hasattr(one, key)) == taken


@pytest.mark.parametrize(
    ("key", "given", "says"),
    [
        ("callbacks", "a.B, c.D", "'a.B, c.D'; expected a list, such as [a.B, c.D]"),
        (
            "lora_target_modules",
            "q_proj v_proj",
            "'q_proj v_proj'; expected a list, such as [q_proj, v_proj]",
        ),
        ("reward_weights", "1,2", "'1,2'; expected a list, such as [1, 2]"),
        ("reward_weights", "much", "'much'; expected float"),
        ("reward_weights", [True], "True; expected float"),
        ("reward_funcs", {"a": 1}, "{'a': 1}; expected str"),
    ],
)
def test_what_is_no_list_is_refused_by_its_kind(key: str, given: Any, says: str) -> None:
    with pytest.raises(InputError) as refused:
        configured(grpo.ARGUMENTS, {**SMALL, key: given}, "grpo.yaml")
    assert str(refused.value) == f"grpo.yaml: key {key!r} is {says}"


def test_a_second_reading_in_one_process_takes_what_the_first_took() -> None:
    given = {**SMALL, "chat_template_kwargs": {"enable_thinking": False}}
    for _ in range(2):
        _, args, _ = configured(grpo.ARGUMENTS, given, "grpo.yaml")
        assert args.chat_template_kwargs == {"enable_thinking": False}


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("text", ["{enable_thinking: false}", '{"enable_thinking": false}'])
def test_a_mapping_on_the_command_line_is_written_as_in_a_recipe(joined: bool, text: str, here: Path) -> None:
    """TRL's parser reads JSON alone."""
    given = [f"--chat_template_kwargs={text}"] if joined else ["--chat-template-kwargs", text]
    (here / "r.yaml").write_text(yaml.safe_dump(SMALL))
    args = parse(grpo.ARGUMENTS, ["--config", "r.yaml", *given])[1]
    assert args.chat_template_kwargs == {"enable_thinking": False}
    said = configured(grpo.ARGUMENTS, SMALL, "r.yaml", ["--run_name", "{a: 1}"])[1].run_name
    assert said == "{a: 1}"  # a text stays one
