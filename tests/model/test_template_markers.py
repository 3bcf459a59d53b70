"""What parts the turns of well known chat templates is broken in a text, and no ordinary text is."""

import re
from typing import Any

import pytest
from test_turns_and_thoughts import tokenizer

from a2r_train.prompts import PromptConfig, Prompter

CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You "
    "are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_31 = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 26 Jul 2024\n\n{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
    "<|eot_id|>{% for m in messages if m.role != 'system' %}<|start_header_id|>{{ m.role }}"
    "<|end_header_id|>\n\n{{ m.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
HARMONY = (
    "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: "
    "2024-06\n\nReasoning: medium\n\n# Valid channels: analysis, commentary, final. Channel must be included "
    "for every message.<|end|>{% for m in messages %}{% if m.role == 'system' %}<|start|>developer<|message|>"
    "# Instructions\n\n{{ m.content }}<|end|>{% elif m.role == 'user' %}<|start|>user<|message|>"
    "{{ m.content }}<|end|>{% else %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
MISTRAL = (
    "<s>{% for m in messages %}{% if m.role == 'system' %}[SYSTEM_PROMPT]{{ m.content }}[/SYSTEM_PROMPT]"
    "{% elif m.role == 'user' %}[INST]{{ m.content }}[/INST]{% else %}{{ m.content }}</s>{% endif %}"
    "{% endfor %}"
)
GEMMA = (
    "<bos>{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role refused') }}"
    "{% endif %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
ALPACA = (
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% else %}Below is an instruction that "
    "describes a task. Write a response that appropriately completes the request.{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}\n\n### Instruction:\n{{ m.content }}"
    "{% elif m.role == 'assistant' %}\n\n### Response:\n{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}\n\n### Response:\n{% endif %}"
)
VICUNA = (
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% else %}A chat between a curious user "
    "and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to "
    "the user's questions.{% endif %}{% for m in messages %}{% if m.role == 'user' %} USER: {{ m.content }}"
    "{% elif m.role == 'assistant' %} ASSISTANT: {{ m.content }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
R1 = (
    "{% for m in messages %}{{ m.role | capitalize }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant: Let me solve this step by step.\n{% endif %}"
)
HEADERS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
TEMPLATES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "ChatML": (CHATML, (), ("<|im_start|>", "<|im_end|>")),
    "Llama 3.1": (LLAMA_31, HEADERS, HEADERS),
    "gpt-oss": (
        HARMONY,
        ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>"),
        ("<|start|>", "<|end|>", "<|message|>", "<|channel|>final<|message|>", "<|return|>"),
    ),
    "Mistral": (MISTRAL, ("<s>", "</s>", "[INST]", "[/INST]"), ("[INST]", "[/INST]", "[/SYSTEM_PROMPT]")),
    "Gemma": (GEMMA, ("<bos>", "<start_of_turn>", "<end_of_turn>"), ("<start_of_turn>", "<end_of_turn>")),
    "Gemma, plain": (GEMMA, (), ("<start_of_turn>", "<end_of_turn>")),
    "Zephyr": (ZEPHYR, ("</s>",), ("</s>", "<|user|>", "<|assistant|>", "<|system|>")),
    "Alpaca": (ALPACA, (), ()),
    "Vicuna": (VICUNA, ("</s>",), ("</s>",)),
    "R1": (R1, (), ()),
}
LABELS = {
    "Alpaca": ["### Instruction:", "### Response:", "###  Response:", "###Response:"],
    "Vicuna": ["USER:", "ASSISTANT:"],
    "R1": ["User:", "Assistant:", "System:"],
}
PREAMBLE = re.compile(r"\{[{%].*?[%}]\}", re.DOTALL)
ORDINARY = [
    "Start Date: 26 Jul 2024, Knowledge of the Cutting: December 2023.",
    "By analysis, it is the semifinal. Its Reasoning: medium. A Valid commentary, final.\n# Instructions",
    "# Valid channels: two\nKnowledge cutoff: none\nToday Date: 1 May\nFinal answer: 3",
    "The assistant gives detailed, polite answers to the user's questions. A user: Al; assistant: Bo.",
    "Response: 4. The instruction: write it. ### Step 1:\nUSERS: 5, an ASSISTANT: none, said the user",
    "user\nassistant\nmodel\nsystem\nturn: <b> [x] [1] a < b > c ### 2",
]


@pytest.fixture(params=TEMPLATES)
def named(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def prompter_of(name: str) -> Prompter:
    source, special, _ = TEMPLATES[name]
    return Prompter(tokenizer(source, special))


def test_no_ordinary_text_is_changed(named: str) -> None:
    prompter = prompter_of(named)
    for text in ORDINARY:
        assert prompter.neutralise(text) == text


def test_no_word_of_a_preamble_is_changed(named: str) -> None:
    """All words of the template's own text that are no marker, each alone and at the start of a line."""
    prompter = prompter_of(named)
    source, special, markers = TEMPLATES[named]
    text = PREAMBLE.sub(" ", source)
    for marker in sorted({*special, *markers, "<|im_start|>", "<|im_end|>"}, key=len, reverse=True):
        text = text.replace(marker, " ")
    labels = {word for label in LABELS.get(named, ()) for word in (label, *label.split())}
    words = [word for word in text.split() if word not in labels and not re.match(r"[<\[]", word)]
    for word in words:
        assert prompter.neutralise(f"x{word}y {word}\n{word}") == f"x{word}y {word}\n{word}"


@pytest.mark.parametrize("head", ["{number}. ", "{number}) ", "[{number}] ", "{number}:\n"])
def test_a_head_without_letters_leaves_numbers_alone(head: str) -> None:
    source, special, _ = TEMPLATES["ChatML"]
    prompter = Prompter(tokenizer(source, special), PromptConfig(reference_template=head + "{text}"))
    for text in ("3.5 m", "it is 3.5, f(2) at 5:30", "a[1] = 2.", "12", "(1, 2) 3) 4. 5"):
        assert prompter.neutralise(text) == text
    forged = head.format(number=12)
    assert forged.strip() not in prompter.neutralise(f"5\n{forged}6")


def test_a_head_that_is_a_bare_number_marks_nothing() -> None:
    source, special, _ = TEMPLATES["ChatML"]
    prompter = Prompter(tokenizer(source, special), PromptConfig(reference_template="{number}\n{text}"))
    assert prompter.neutralise("12 + 3") == "12 + 3"


def test_a_label_of_several_words_is_broken_within_one() -> None:
    source = "{% for m in messages %}# {{ m.role|capitalize }}\n{{ m.content }}\n{% endfor %}# Assistant\n"
    prompter = Prompter(tokenizer(source, []))
    assert prompter.neutralise("5\n# User\n6") == "5\n# U ser\n6"
    assert prompter.neutralise("5\n#User") == "5\n#U ser"


def test_its_markers_are_broken_anywhere(named: str) -> None:
    prompter = prompter_of(named)
    for marker in TEMPLATES[named][2]:
        for text in (marker, f"a {marker} b", f"a{marker}b", marker + marker):
            assert marker not in prompter.neutralise(text)


@pytest.mark.parametrize(("name", "label"), [(name, one) for name, some in LABELS.items() for one in some])
def test_a_forged_turn_is_broken_at_the_start_of_a_line_alone(name: str, label: str) -> None:
    prompter = prompter_of(name)
    for before in ("", "4.\n", "4.\n\n  ", "4.\u2028", "4.\r"):
        found = prompter.neutralise(f"{before}{label} 5")
        assert found == f"{before}{label[0]} {label[1:]} 5"
        assert prompter.neutralise(found) == found
    inside = f"they wrote {label} 5, x{label}y"
    assert prompter.neutralise(inside) == inside


def test_a_reference_with_words_of_a_preamble_is_shown_as_it_is() -> None:
    from a2r_train.records import Reference

    for name in ("Llama 3.1", "gpt-oss"):
        chat = (
            prompter_of(name).synthesizer("Start Date: 2?", [Reference("By analysis, the semifinal.")]).chat
        )
        shown: Any = chat[-1]["content"]
        assert "Start Date: 2?" in shown
        assert "By analysis, the semifinal." in shown
