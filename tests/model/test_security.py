"""What comes in is data: no code of a model runs, no text adds a turn; and no secret goes out."""

import json
import re
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from conftest import CHAT_TEMPLATE
from hypothesis import given, settings
from hypothesis import strategies as st

from a2r_train import models
from a2r_train.errors import InputError
from a2r_train.models import load_tokenizer
from a2r_train.prompts import PromptConfig, Prompter
from a2r_train.records import Reference

LLAMA_3 = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role "
    "}}<|end_header_id|>\n\n{{ m.content | trim }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt "
    "%}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# Its role markers are plain text: the tokenizer does not know them.
LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] "
    "{% if loop.index0 == 1 and messages[0].role == 'system' %}<<SYS>>\n{{ "
    "messages[0].content }}\n<</SYS>>\n\n{% endif %}"
    "{{ m.content }} [/INST]{% elif m.role == 'assistant' %} {{ m.content }} </s>{% endif %}{% endfor %}"
)
TEMPLATES = {
    "ChatML": (CHAT_TEMPLATE, [], r"<\|im_start\|>\w*|<\|im_end\|>|<\|endoftext\|>"),
    "Llama 3": (
        LLAMA_3,
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        r"<\|begin_of_text\|>|<\|start_header_id\|>\w*|<\|end_header_id\|>|<\|eot_id\|>",
    ),
    "Llama 2": (LLAMA_2, ["<s>", "</s>"], r"<s>|</s>|\[INST\]|\[/INST\]|<<SYS>>|<</SYS>>"),
}
DELIMITERS = [
    *(
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        "<|begin_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
    ),
    *("<|eot_id|>", "<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<think>", "</think>"),
]
ROLES = [
    "user\n",
    "assistant\n",
    "system\n",
    "<|im_start|>system\n",
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
]
HALVES = [half for d in DELIMITERS for half in (d[:1], d[:-1], d[1:], d[-1:], d[:3] + d + d[3:])]
HOSTILE = st.lists(
    st.sampled_from([*DELIMITERS, *ROLES, *HALVES, " ", "\n", "</s><s>"]) | st.text(max_size=4), max_size=14
)


@pytest.fixture(scope="module", params=TEMPLATES)
def template(request: pytest.FixtureRequest, tiny: str) -> tuple[Any, str]:
    """A tokenizer with one of the templates, and a pattern that parses what it renders into its delimiters
    and roles.
    """
    source, added, pattern = TEMPLATES[request.param]
    tokenizer: Any = load_tokenizer(tiny)
    tokenizer.add_special_tokens({"additional_special_tokens": added})
    tokenizer.chat_template = source
    return tokenizer, pattern


def turns(prompter: Prompter, pattern: str, chat: Any) -> tuple[list[str], list[int]]:
    """Delimiters and roles in order, as read from the text and as the model reads them."""
    special = {*prompter.tokenizer.all_special_ids}
    return re.findall(pattern, prompter.text(chat)), [
        token for token in prompter.token_ids(chat) if token in special
    ]


@given(
    problem=HOSTILE.map("".join),
    references=st.lists(HOSTILE.map("".join), min_size=1, max_size=3),
    shown=st.sampled_from(["full", "solution", "answer"]),
    cap=st.sampled_from([8, 2048]),
    system=st.sampled_from(["", "Be brief."]),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_no_text_adds_a_turn(
    template: tuple[Any, str], problem: str, references: list[str], shown: Any, cap: int, system: str
) -> None:
    tokenizer, pattern = template
    prompter = Prompter(tokenizer, PromptConfig(reference=shown, max_reference_tokens=cap, system=system))
    plain = turns(prompter, pattern, prompter.synthesizer("x", [Reference("y", "y")]).chat)
    assert len(plain[0]) >= 3
    assert (
        turns(prompter, pattern, prompter.synthesizer(problem, [Reference(r, r) for r in references]).chat)
        == plain
    )
    assert turns(prompter, pattern, prompter.explorer(problem)) == turns(
        prompter, pattern, prompter.explorer("x")
    )


def test_every_delimiter_is_broken_in_the_template_that_has_it(template: tuple[Any, str]) -> None:
    tokenizer, pattern = template
    prompter = Prompter(tokenizer)
    own = [delimiter for delimiter in DELIMITERS if re.fullmatch(pattern, delimiter)]
    assert len(own) >= 3
    for delimiter in own:
        assert prompter.neutralise(f"a {delimiter} b") == f"a {delimiter[0]} {delimiter[1:]} b"


def test_ordinary_text_is_left_alone(template: tuple[Any, str]) -> None:
    text = (
        "The user asks the assistant: ### Step 1. [x] a < b, so f(x) = 2 | 4 "
        "and \\boxed{5}. You are a helpful system.\n- ok"
    )
    assert Prompter(template[0]).neutralise(text) == text


MARK = "open({path!r}, 'w').close()\n"
OWN_MODEL = """
from transformers import Qwen3Config, Qwen3ForCausalLM


class Config(Qwen3Config):
    model_type = "own"


class Model(Qwen3ForCausalLM):
    config_class = Config
"""


def with_own_code(tiny: str, tmp_path: Path) -> tuple[str, Path]:
    """A model that needs code of its own, and the file that its code makes when it runs."""
    folder, ran = copytree(tiny, tmp_path / "model"), tmp_path / "ran"
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(MARK.format(path=str(ran)) + OWN_MODEL)
    return str(folder), ran


@pytest.fixture
def own_code(tiny: str, tmp_path: Path) -> tuple[str, Path]:
    return with_own_code(tiny, tmp_path)


@pytest.mark.parametrize("load", [models.load_model, models.context_length, models.empty_model])
def test_the_code_of_a_model_runs_only_if_it_is_asked_for(
    load: Any, own_code: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ran = own_code
    monkeypatch.setattr(models, "_trusted", set())
    says = "contains custom code which must be executed"
    with pytest.raises((InputError, ValueError), match=says):
        load(model)
    models.trust(str(tmp_path / "another"))
    with pytest.raises((InputError, ValueError), match=says):
        load(model)
    assert not ran.exists()
    models.trust(model)
    load(model)
    assert ran.exists()
