"""The end of a turn, special tokens of a thought, templates that refuse a system turn or show the date;
servers' parts.
"""

from types import SimpleNamespace
from typing import Any

import pytest
from conftest import CHAT_TEMPLATE, save_tiny

from a2r_train.engines import EngineArguments, Sampling, load_engine
from a2r_train.engines.openai import OpenAIEngine
from a2r_train.errors import InputError
from a2r_train.prompts import PromptConfig, Prompter, visible
from a2r_train.verify import judge

MISTRAL = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ "
    "raise_exception('System role not supported') }}"
    "{% elif message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
    "{% else %} {{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
DATED = "{{ strftime_now('%d %b %Y') }} {{ date_string }}\n" + CHAT_TEMPLATE
TURN_IN_IT = CHAT_TEMPLATE.replace("<|im_start|>{{", "<|im_start|>turn {{").replace(
    "<|im_end|>\n", "<|im_end|>\nturn over"
)


def tokenizer(
    template: str = CHAT_TEMPLATE, special: tuple[str, ...] = (), eos: str = "<|endoftext|>"
) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *special])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=eos, pad_token="<|endoftext|>")
    fast.chat_template = template
    return fast


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, TURN_IN_IT])
def test_the_end_of_a_turn_is_an_end_where_eos_is_another_token(template: str) -> None:
    prompter = Prompter(tokenizer(template))
    ids = {name: prompter.tokenizer.convert_tokens_to_ids(name) for name in ("<|im_end|>", "<|endoftext|>")}
    assert prompter.end_of_turn() == ids["<|im_end|>"]
    assert prompter.stop_ids() == sorted(ids.values())


def test_without_an_end_in_the_template_it_is_the_eos() -> None:
    prompter = Prompter(tokenizer("{% for m in messages %}{{ m['content'] }}\n{% endfor %}"))
    assert prompter.stop_ids() == [prompter.tokenizer.eos_token_id] == [prompter.end_of_turn()]


def test_the_engine_stops_at_the_end_of_a_turn(tmp_path: Any) -> None:
    from transformers import AutoTokenizer

    path = save_tiny(tmp_path / "packaged", seed=0)
    other = AutoTokenizer.from_pretrained(path)
    other.eos_token = "<|endoftext|>"
    other.save_pretrained(path)
    engine: Any = load_engine(path, EngineArguments(dtype="float32"))
    engine.model.generation_config.eos_token_id = None  # as in a base model's own settings
    engine.model.generation_config = engine._settings(engine.model.generation_config)
    assert engine._stop_ids() == {0, 2}
    made = engine._completion(3, [*other("so", add_special_tokens=False)["input_ids"], 2, 5, 5])
    assert (made.text, made.finish_reason) == ("so", "stop")
    assert engine.generate([[{"role": "user", "content": "x"}]], Sampling(max_completion_tokens=4), [0])


@pytest.mark.parametrize(
    ("opened", "closed", "named"),
    [
        ("[THINK]", "[/THINK]", False),
        ("<thought>", "</thought>", False),
        ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>", False),
        ("<|begin_of_reason|>", "<|end_of_reason|>", True),
        ("<musing>", "</musing>", True),
    ],
)
def test_a_thought_between_special_tokens_is_found_and_never_earns(
    opened: str, closed: str, named: bool
) -> None:
    special = ("<|channel|>", "<|message|>") if "channel" in opened else (opened, closed)
    config = PromptConfig(thinking=(opened, closed)) if named else PromptConfig()
    prompter = Prompter(tokenizer(special=special), config)

    def completed(text: str) -> str:
        ids = prompter.tokenizer(text, add_special_tokens=False)["input_ids"]
        return prompter.complete(prompter.decode(ids))

    whole = completed(rf"{opened}maybe \boxed{{4}}{closed}It is \boxed{{5}}.<|im_end|>")
    assert whole == r"<think>maybe \boxed{4}</think>It is \boxed{5}."
    assert visible(whole) == r"It is \boxed{5}."
    assert judge(whole, "5") == "correct"
    assert judge(whole, "4") == "incorrect"
    assert judge(completed(rf"{opened}so \boxed{{5}}"), "5") == "unparsable"
    assert opened not in prompter.neutralise(f"{opened} x")


def test_thinking_in_a_prompt_file(tmp_path: Any) -> None:
    file = tmp_path / "prompt.yaml"
    file.write_text("thinking: ['<a>', '</a>']\n")
    config = PromptConfig.load(file)
    assert config.thinking == ("<a>", "</a>")
    file.write_text(config.dump())
    assert PromptConfig.load(file) == config
    with pytest.raises(InputError, match=r"thinking is .*\[open, close\]"):
        PromptConfig(thinking=("<a>",))


def test_a_template_that_refuses_a_system_turn() -> None:
    with pytest.raises(InputError, match=r"refuses a system turn.*system_in: user"):
        Prompter(tokenizer(MISTRAL), PromptConfig(system="Be brief."))
    prompter = Prompter(tokenizer(MISTRAL), PromptConfig(system="Be brief.", system_in="user"))
    assert prompter.text(prompter.explorer("2+3?")).startswith("[INST] Be brief.\n\n2+3?")
    assert Prompter(tokenizer(MISTRAL)).text([{"role": "user", "content": "x"}]) == "[INST] x [/INST]"


def test_a_template_with_the_date_in_it_shows_a_fixed_one() -> None:
    prompter = Prompter(tokenizer(DATED))
    assert prompter.text(prompter.explorer("x")).startswith("01 Jan 2025 01 Jan 2025\n")
    later = Prompter(tokenizer(DATED), PromptConfig(date="2026-03-09"))
    assert later.text(later.explorer("x")).startswith("09 Mar 2026 09 Mar 2026\n")
    assert "date: '2026-03-09'" in later.config.dump()
    with pytest.raises(InputError, match="date is 'today'"):
        PromptConfig(date="today")


CHAT = [{"role": "user", "content": "x"}]
PARTS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
    {"type": "text", "text": "It is 5."},
]


@pytest.mark.parametrize(
    ("content", "text"),
    [("It is 5.", "It is 5."), ([{"type": "text", "text": "It is "}, {"type": "text", "text": "5."}],
    "It is 5."),
     (PARTS, "<think>hm</think>It is 5."), (None, "")],
)  # fmt: skip
@pytest.mark.parametrize("usage", [{"prompt_tokens": 9, "completion_tokens": 8}, None])
def test_servers_that_return_parts_or_no_usage(content: Any, text: str, usage: Any) -> None:
    engine = OpenAIEngine.__new__(OpenAIEngine)
    engine.name, engine._prompter, engine._compared = "m", Prompter(tokenizer()), True
    body = {
        "choices": [{"message": {"content": content}, "finish_reason": "stop"}],
        **({"usage": usage} if usage else {}),
    }
    response: Any = SimpleNamespace(status_code=200, json=lambda: body)
    found = engine._completion("http://x", CHAT, response)
    assert found.text == text
    prompt = 9 if usage else len(engine._prompter.token_ids(CHAT))
    assert found.prompt_tokens == prompt
    assert found.completion_tokens == (8 if usage else engine._prompter.count(text) + 1)
