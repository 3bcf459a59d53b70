"""What the openai engine sends to a server, and reads of its answers: the same prompt and text as locally."""

import re
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from conftest import save_tiny
from serving import completion, reply, saying, serving
from transformers import AutoTokenizer

from a2r_train.engines import EngineArguments, Sampling, load_engine
from a2r_train.engines.openai import OpenAIEngine
from a2r_train.prompts import PromptConfig, Prompter

GREEDY = Sampling(0.0, max_completion_tokens=12)
CHATS = [[{"role": "user", "content": content}] for content in ("1", "How many apples are left?")]


def test_a_request_names_the_end_of_a_turn_even_where_eos_is_another_token(tmp_path: Path) -> None:
    path = save_tiny(tmp_path / "packaged", seed=0)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(path)
    asked: list[dict[str, Any]] = []

    def note(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        asked.append(body)
        reply(handler, 200, completion("5"))

    with serving(path, note) as url:
        load_engine(path, EngineArguments(engine="openai", endpoint=url)).generate(CHATS[:1], GREEDY, [7])
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    assert asked[0]["stop_token_ids"] == sorted(ends)


def test_a_server_renders_the_date_that_the_prompt_shows(tmp_path: Path) -> None:
    path = save_tiny(tmp_path / "dated", seed=0)
    tokenizer = AutoTokenizer.from_pretrained(path)
    today = "{% if not date_string is defined %}{% set date_string = 'today' %}{% endif %}{{ date_string }}"
    tokenizer.chat_template = f"{today} {{{{ tone }}}}\n{tokenizer.chat_template}"
    tokenizer.save_pretrained(path)
    rendered: list[str] = []

    def render(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        given = body.get("chat_template_kwargs", {})
        rendered.append(
            tokenizer.apply_chat_template(
                body["messages"], add_generation_prompt=True, tokenize=False, **given
            )
        )
        reply(handler, 200, completion("5"))

    prompter = Prompter(tokenizer, PromptConfig(date="2024-07-01", chat_template_kwargs={"tone": "plain"}))
    chat = prompter.explorer("2 + 3")
    with serving(path, render) as url:
        load_engine(path, EngineArguments(engine="openai", endpoint=url)).generate([chat], GREEDY, [7])
    assert rendered == [prompter.text(chat)]
    assert rendered[0].startswith("01 Jul 2024 plain\n")


def test_another_chat_template_is_told(tiny: str, caplog: pytest.LogCaptureFixture) -> None:
    with serving(tiny, saying(completion("x", prompt=7))) as url:
        OpenAIEngine(tiny, EngineArguments(endpoint=url)).generate(CHATS, GREEDY, range(4))
    assert caplog.text.count("the server's chat template differs from the tokenizer's") == 1


@pytest.mark.parametrize(("model", "opened"), [("tiny", "<think>"), ("thinking_tiny", "")])
def test_thinking_that_the_server_has_parted_is_put_back(
    model: str, opened: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(model)
    parted = [completion("so 3", reasoning_content="hm"), completion(None, reasoning="hm", reason="length")]
    with serving(path, saying(*parted)) as url:
        found = OpenAIEngine(path, EngineArguments(endpoint=url, max_concurrent_requests=1)).generate(
            CHATS[:2], GREEDY, [0, 0]
        )
    assert {c.text for c in found} == {f"{opened}hm</think>so 3", f"{opened}hm"}


@pytest.mark.parametrize(
    ("text", "warned"), [("so \\boxed{3}", True), ("hm</think>so \\boxed{3}", False), ("", False)]
)
def test_a_server_that_hides_thoughts_is_a_warning_once(
    text: str, warned: bool, thinking_tiny: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(thinking_tiny, saying(completion(text))) as url:
        engine = load_engine(thinking_tiny, EngineArguments(engine="openai", endpoint=url))
        for _ in range(2):
            engine.generate(
                [[{"role": "user", "content": "1"}]], Sampling(0.0, max_completion_tokens=12), [0]
            )
    assert (
        caplog.text.count("its chat template opens a thought that no answer of the server closes") == warned
    )


@pytest.mark.parametrize("thinking", [True, False])
def test_thinking_is_put_back_once_where_an_argument_of_the_template_opens_it(
    thinking: bool, tmp_path: Path
) -> None:
    path = save_tiny(tmp_path / "hybrid", seed=0)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.chat_template += "{% if add_generation_prompt and thinking %}<think>{% endif %}"
    tokenizer.save_pretrained(path)
    prompter = Prompter(tokenizer, PromptConfig(chat_template_kwargs={"thinking": thinking}))
    with serving(path, saying(completion("so 3", reasoning_content="hm"))) as url:
        engine = OpenAIEngine(path, EngineArguments(endpoint=url))
        (found,) = engine.generate([prompter.explorer("1 + 2")], GREEDY, [0])
    assert prompter.complete(found.text) == "<think>hm</think>so 3"


def test_a_thought_between_special_tokens_is_asked_for(tmp_path: Path, tiny: str) -> None:
    path = save_tiny(tmp_path / "special", seed=0)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
    tokenizer.save_pretrained(path)
    asked: list[dict[str, Any]] = []

    def say(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        asked.append(body)
        whole = "<|im_start|>[THINK]maybe 4[/THINK]It is 5."
        skips = body.get("skip_special_tokens", True)
        reply(handler, 200, completion(re.sub(r"\[/?THINK\]|<\|im_start\|>", "", whole) if skips else whole))

    for model, text in ((path, "<think>maybe 4</think>It is 5."), (tiny, "maybe 4It is 5.")):
        with serving(model, say) as url:
            (found,) = OpenAIEngine(model, EngineArguments(endpoint=url)).generate(CHATS[:1], GREEDY, [0])
        assert found.text == text
    assert [body.get("skip_special_tokens") for body in asked] == [False, None]  # only where it is needed
