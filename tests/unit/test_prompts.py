"""What is shown of a reference, and prompt files."""

from pathlib import Path

import pytest

from a2r_train.errors import InputError
from a2r_train.prompts import PromptConfig, visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" a ", "a"),
        ("<think>a</think> b ", "b"),
        ("<think>a</think>b<think>c</think>d", "d"),
        ("a</think>b", "b"),
        ("<think>never closed", ""),
        ("<think>a</think>", ""),
        ("a</think>b <think> c", "b <think> c"),
    ],
)
def test_visible_is_what_stands_after_the_thinking(text: str, expected: str) -> None:
    assert visible(text) == expected


def test_a_prompt_file_comes_back_and_mistakes_are_named(tmp_path: Path) -> None:
    config = PromptConfig(explorer_template="Q: {problem}\nA: ", reference="answer", max_reference_tokens=9)
    path = tmp_path / "prompt.yaml"
    path.write_text(config.dump())
    assert PromptConfig.load(path) == config
    assert PromptConfig.load("") == PromptConfig()
    mistakes = {
        "max_tokens: 3": "unknown key 'max_tokens'",
        "explorer_template: hello": "lacks the slot {problem}",
        "synthesizer_template: '{problem}'": "lacks the slot {references}",
        r"explorer_template: '{problem} \boxed{}'": "explorer_template cannot be filled",
        "explorer_template: '{problem} {number}'": "explorer_template cannot be filled ('number')",
        "reference_template: '{text} }'": "reference_template cannot be filled",
        "reference: all": "expected answer, solution or full",
        "a: [": "is not valid YAML; close the brackets",
        "- system": "expected `key: value` lines",
        "max_prompt_tokens: many": "max_prompt_tokens",
    }
    for content, says in mistakes.items():
        path.write_text(content)
        with pytest.raises(InputError) as error:
            PromptConfig.load(path)
        assert says in str(error.value), content
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="No such file"):
        PromptConfig.load(tmp_path / "none.yaml")
