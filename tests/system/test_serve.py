"""The endpoint over real sockets, its two models scripted: OpenAI's own client, curl, and what goes wrong."""

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from copy import copy, deepcopy
from typing import Any

import httpx2
import openai
import pytest
from faulty_upstream import Body, chunk, saying
from pairs import ASK, Served, client_of, post, served, synthesis, until

from a2r_train.inference.price import Price
from a2r_train.inference.serve.turns import TurnPrompter


@pytest.fixture(scope="module")
def pair() -> Iterator[Served]:
    with served() as one:
        yield one


def test_openais_client_asks_and_reads_votes_and_usage(pair: Served) -> None:
    answer = client_of(pair).chat.completions.create(**ASK, extra_body={"a2r": {"references": True}})
    assert answer.choices[0].message.content == r"Both ways it is \boxed{4} in the end"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.completion_tokens_details
    written = 4 * 2, 8
    assert answer.usage.completion_tokens == sum(written)
    assert answer.usage.prompt_tokens == 20
    assert answer.usage.completion_tokens_details.reasoning_tokens == written[0]
    block: Any = answer.model_extra["a2r"] if answer.model_extra else {}
    assert block["votes"] == [{"answer": "3", "count": 3}, {"answer": "4", "count": 1}]
    assert (block["k"], block["agreement"], block["answered_by"]) == (4, 0.75, "synthesizer")
    assert [one["answer"] for one in block["references"]] == ["3", "3", "4", "3"]
    assert set(block["seconds"]) == {"wait", "explore", "first_token", "synthesise", "all"}
    assert block["tokens"] == {
        "explorer_prompt": 10, "references": 8, "synthesizer_prompt": 10, "synthesis": 8
    }  # fmt: skip


def test_openais_client_streams_and_has_usage_only_where_it_asks(pair: Served) -> None:
    plain = list(client_of(pair).chat.completions.create(**ASK, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in plain) == synthesis({"n": 1})[0]
    assert len(plain) > 5
    assert all(c.usage is None for c in plain)
    assert plain[-1].choices[0].finish_reason == "stop"
    asked = list(
        client_of(pair).chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    )
    assert [c.usage is not None for c in asked] == [False] * (len(asked) - 1) + [True]
    assert asked[-1].usage
    assert asked[-1].usage.total_tokens == 36


def test_openais_async_client_asks_many_at_once_and_none_is_crossed() -> None:
    def echo(body: Body) -> list[str]:
        said = body["messages"][-1]["content"].split()
        return [f"\\boxed{{{next(word for word in said if word.isdigit() and len(word) == 3)}}}"] * body["n"]

    async def ask_all(pair: Served) -> None:
        async with openai.AsyncOpenAI(base_url=pair.base_url, api_key="none", max_retries=0) as client:

            async def one(number: int) -> None:
                asked = {**ASK, "messages": [{"role": "user", "content": f"What is {number} ?"}]}
                if number % 2:
                    answer = await client.chat.completions.create(**asked)
                    text = answer.choices[0].message.content
                else:
                    stream = await client.chat.completions.create(**asked, stream=True)
                    text = "".join([c.choices[0].delta.content or "" async for c in stream])
                assert text == f"\\boxed{{{number}}}"

            await asyncio.gather(*map(one, range(100, 160)))

    with served(saying(echo, 0.01), saying(echo, 0.01), max_concurrent_requests=16) as pair:
        asyncio.run(ask_all(pair))
        assert pair.endpoint.places.under_way == pair.endpoint.places.waiting == 0


def test_curl(pair: Served) -> None:
    command = [
        "curl",
        "-sS",
        "-H",
        "Content-Type: application/json",
        "-d",
        json.dumps({**ASK, "stream": True}),
    ]
    said = subprocess.run(
        [*command, f"{pair.base_url}/chat/completions"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    events = said.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    texts = [json.loads(event[6:])["choices"][0]["delta"].get("content", "") for event in events[:-2]]
    assert "".join(texts) == synthesis({"n": 1})[0]


def test_the_models_are_listed(pair: Served) -> None:
    assert [model.id for model in client_of(pair).models.list()] == ["a2r"]
    assert client_of(pair).models.retrieve("a2r").id == "a2r"
    with pytest.raises(openai.NotFoundError):
        client_of(pair).models.retrieve("other")


def test_n_syntheses_share_one_set_of_references() -> None:
    def write(body: Body) -> list[str]:
        return [rf"\boxed{{{at}}}" for at in range(body["n"])]

    with served(synthesizer=saying(write)) as pair:
        answer = client_of(pair).chat.completions.create(**ASK, n=3, temperature=1)
        assert [choice.message.content for choice in answer.choices] == write({"n": 3})
        texts = {0: "", 1: "", 2: ""}
        for part in client_of(pair).chat.completions.create(**ASK, n=3, temperature=1, stream=True):
            for choice in part.choices:
                texts[choice.index] += choice.delta.content or ""
        assert list(texts.values()) == write({"n": 3})
        assert len(pair.explorer.seen) == len(pair.synthesizer.seen) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_equal_completions_are_asked_for_once_as_vllm_refuses_more(stream: bool) -> None:
    with served() as pair:
        asked = {"n": 3, "temperature": 0, "stream": stream}
        more = {"stream_options": {"include_usage": True}} if stream else {}
        answer = post(pair, **asked, **more, a2r={"k": 2, "explore_temperature": 0, "references": True})
        assert [one.body["n"] for one in (*pair.explorer.seen, *pair.synthesizer.seen)] == [1, 1]
        rows = [json.loads(row[6:]) for row in answer.text.split("\n\n") if row.startswith("data: {")]
        last = rows[-1] if stream else answer.json()
        choices = [choice for row in rows for choice in row["choices"]] or last["choices"]
        texts = ["", "", ""]
        for choice in choices:
            texts[choice["index"]] += choice.get("message", choice.get("delta", {})).get("content", "")
        assert texts == synthesis({"n": 3})
        assert [one["text"] for one in last["a2r"]["references"]] == [r"so \boxed{3}"] * 2
        assert last["a2r"]["votes"] == [{"answer": "3", "count": 2}]
        assert last["usage"]["completion_tokens"] == 2 + 8  # each as often as it was written
        assert [row["a2r"]["reference"]["at"] for row in rows if "reference" in row.get("a2r", {})] == (
            [0, 1] if stream else []
        )


def finishing(*order: int) -> Any:
    """An explorer whose completions finish in that order, one after another; an empty one is none."""

    async def chunks(body: Body) -> AsyncIterator[dict[str, Any]]:
        for index in order:
            if index < body["n"]:
                yield chunk(index, rf"from {body['n']}: \boxed{{{index}}}", "stop")

    return chunks


def test_references_stand_in_the_order_asked_however_they_finish() -> None:
    found = []
    for order in ((0, 1, 2), (2, 0, 1)):
        with served(explorer=finishing(*order), k=3) as pair:
            block = post(pair, seed=1, a2r={"references": True}).json()["a2r"]
            prompt = pair.synthesizer.seen[0].body["messages"][-1]["content"]
            found.append((block["votes"], [one["answer"] for one in block["references"]], prompt))
    assert found[0] == found[1]
    assert found[0][1] == ["0", "1", "2"]


def test_a_reference_that_was_asked_for_again_takes_the_place_of_the_lost_one() -> None:
    arrived: list[Any] = []
    with served(explorer=finishing(3, 2, 0), k=4, tries=2) as pair:
        for part in client_of(pair).chat.completions.create(
            **ASK, stream=True, extra_body={"a2r": {"references": True}}
        ):
            if one := (part.model_extra or {}).get("a2r", {}).get("reference"):
                arrived.append((one["at"], one["text"]))
        assert [seen.body["n"] for seen in pair.explorer.seen] == [4, 1]
        prompt = pair.synthesizer.seen[0].body["messages"][-1]["content"]
    assert arrived == [
        (3, r"from 4: \boxed{3}"),
        (2, r"from 4: \boxed{2}"),
        (0, r"from 4: \boxed{0}"),
        (1, r"from 1: \boxed{0}"),
    ]
    assert prompt.index(r"4: \boxed{0}") < prompt.index(r"1: \boxed{0}") < prompt.index(r"4: \boxed{2}")


def test_each_stage_gets_its_own_settings_and_a_seed_comes_again(pair: Served) -> None:
    asked = {"temperature": 0.7, "top_p": 0.9, "stop": ["END"], "max_tokens": 50, "seed": 7}
    own = {"a2r": {"k": 2, "explore_temperature": 0.3}}
    del pair.explorer.seen[:], pair.synthesizer.seen[:]
    for seed in (7, 7, 8):
        assert post(pair, **{**asked, "seed": seed}, **own).status_code == 200
    first, second = ([seen.body for seen in up.seen] for up in (pair.explorer, pair.synthesizer))
    assert (first[0]["n"], first[0]["temperature"], first[0]["top_p"]) == (2, 0.3, 1.0)
    assert "stop" not in first[0]
    assert (second[0]["n"], second[0]["temperature"], second[0]["top_p"]) == (1, 0.7, 0.9)
    assert (second[0]["stop"], second[0]["max_tokens"]) == (["END"], 50)
    assert (first[0], second[0]) == (first[1], second[1])
    assert first[0]["stop_token_ids"] == second[0]["stop_token_ids"] == [2]  # <|im_end|>
    assert first[0]["seed"] != first[2]["seed"]
    assert second[0]["seed"] != second[2]["seed"]


def test_both_stages_read_the_conversation_and_the_system_turn() -> None:
    turns = [
        {"role": "system", "content": "Be brief. <|im_end|>"},
        {"role": "user", "content": [{"type": "text", "text": "I have "}, {"type": "text", "text": "5."}]},
        {"role": "assistant", "content": "<think>hm</think>You have 5."},
        {"role": "user", "content": "And twice that?"},
    ]
    with served() as pair:
        assert post(pair, messages=turns).status_code == 200
        for upstream in (pair.explorer, pair.synthesizer):
            messages = upstream.seen[0].body["messages"]
            assert [turn["role"] for turn in messages] == ["system", "user", "assistant", "user"]
            assert [turn["content"] for turn in messages[1:3]] == ["I have 5.", "You have 5."]
            assert messages[0]["content"].startswith("Be brief. < |im_end|>")
            assert "And twice that?" in messages[-1]["content"]
        assert r"\boxed{4}" in messages[-1]["content"]  # the synthesizer's, with the references


@pytest.mark.parametrize("stage", ["explorer", "synthesizer"])
def test_turns_that_a_chat_template_refuses_are_the_clients_to_mend(stage: str) -> None:
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
    turns = [{"role": "system", "content": "Be brief."}, *ASK["messages"]]
    with served() as pair:
        prompter = copy(getattr(pair.endpoint.pair, stage).prompter)
        getattr(pair.endpoint.pair, stage).prompter = prompter
        prompter.tokenizer = deepcopy(prompter.tokenizer)
        prompter.tokenizer.chat_template = strict + prompter.tokenizer.chat_template
        answer = post(pair, messages=turns)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")
        assert "No system role" in answer.json()["error"]["message"]
        assert pair.explorer.seen == []
        assert post(pair).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_pair_that_is_its_own_explorer_is_refused(stream: bool) -> None:
    with served() as pair:
        pair.endpoint.pair.explorer.upstream.urls = [pair.base_url]
        pair.endpoint.pair.explorer.upstream.served_as = "a2r"
        began = time.monotonic()
        answer = post(pair, stream=stream)
        assert answer.status_code == 508
        assert answer.json()["error"]["code"] == "upstream_loop"
        assert time.monotonic() - began < 5


def test_adaptive_exploring_stops_early_and_unanimous_references_need_no_synthesis() -> None:
    with served(adaptive=True, first=2, price=0.3, k=4) as pair:
        block = post(pair).json()["a2r"]
        assert (block["references_used"], block["agreement"]) == (2, 1.0)
        assert len(pair.explorer.seen) == len(pair.synthesizer.seen) == 1
    with served(adaptive=True, first=2, price=0.0, k=4) as pair:
        assert post(pair).json()["a2r"]["references_used"] == 4
        assert [seen.body["n"] for seen in pair.explorer.seen] == [2, 1, 1]
    with served(saying(lambda body: [r"it is \boxed{9}"] * body["n"]), skip_agreement=1.0) as pair:
        for stream in (False, True):
            answer = post(pair, stream=stream)
            assert r"\boxed{9}" in answer.text
            assert '"answered_by":"agreement"' in answer.text
        assert pair.synthesizer.seen == []
        assert post(pair, stop="boxed").json()["choices"][0]["message"]["content"] == "it is \\"
        cut = post(pair, max_tokens=2).json()["choices"][0]
        assert cut["finish_reason"] == "length"
        assert "boxed" not in cut["message"]["content"]


@pytest.mark.parametrize(
    ("more", "param", "status"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", 400),
        ({"logprobs": True}, "logprobs", 400),
        ({"model": "other"}, "model", 400),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
            400,
        ),
        ({"messages": [{"role": "user", "content": "1 + 2 " * 3000}]}, "messages", 400),
        ({"max_tokens": 5000}, "max_tokens", 400),
        ({"max_tokens": 2000}, "max_tokens", 400),
        ({"a2r": {"k": 0}}, "a2r.k", 400),
    ],
)
def test_what_is_not_served_is_named(pair: Served, more: Body, param: str, status: int) -> None:
    answer = post(pair, **more)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_routes_methods_and_bodies_that_are_none(pair: Served) -> None:
    url = f"{pair.base_url}/chat/completions"
    said = [
        httpx2.get(f"{pair.base_url}/nothing"),
        httpx2.get(url),
        httpx2.post(url, content=b"{", headers={"content-type": "application/json"}),
        httpx2.post(url, content=json.dumps(ASK).encode(), headers={"content-type": "text/plain"}),
        httpx2.post(
            url, content=b'"' + b"x" * 17 * 2**20 + b'"', headers={"content-type": "application/json"}
        ),
    ]
    assert [answer.status_code for answer in said] == [404, 405, 400, 415, 413]
    assert all(set(answer.json()["error"]) == {"message", "type", "param", "code"} for answer in said)


def test_a_key_is_asked_for() -> None:
    with served(key="geheim") as pair:
        for header in ({}, {"authorization": "Bearer gehein"}, {"authorization": "geheim"}):
            for path in ("v1/models", "metrics", "v1/models/a2r"):
                assert httpx2.get(f"{pair.url}/{path}", headers=header).status_code == 401
            answer = httpx2.post(f"{pair.base_url}/chat/completions", json=ASK, headers=header)
            assert answer.status_code == 401
        with pytest.raises(openai.AuthenticationError):
            client_of(pair).chat.completions.create(**ASK)
        with openai.OpenAI(base_url=pair.base_url, api_key="geheim") as client:
            assert client.chat.completions.create(**ASK).choices
        assert httpx2.get(f"{pair.url}/health").status_code == 200
        assert "authorization" not in pair.explorer.seen[0].headers  # the endpoint's key is not passed on


def test_health_asks_both_models_and_metrics_count(pair: Served) -> None:
    assert httpx2.get(f"{pair.url}/health").json() == {
        "status": "ok", "explorer": "ok", "synthesizer": "ok"
    }  # fmt: skip
    before = httpx2.get(f"{pair.url}/metrics").text
    post(pair)
    after = httpx2.get(f"{pair.url}/metrics").text

    def value(text: str, name: str) -> float:
        return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[-1])

    for name, more in (
        ("a2r_requests_total", 1),
        ('a2r_answers_total{answered_by="synthesizer"}', 1),
        ('a2r_tokens_total{stage="references"}', 8),
        ('a2r_tokens_total{stage="synthesis"}', 8),
        ('a2r_seconds_count{stage="explore"}', 1),
        ('a2r_seconds_count{stage="first_token"}', 1),
        ("a2r_agreement_count", 1),
        ("a2r_agreement_sum", 0.75),
    ):
        assert value(after, name) - value(before, name) == pytest.approx(more), name
    with served() as other:
        other.thread.loop.call_soon_threadsafe(other.synthesizer.stop)
        until(lambda: httpx2.get(f"{other.url}/health").status_code == 503)
        assert httpx2.get(f"{other.url}/health").json()["synthesizer"] == "down"


def test_a_server_that_counts_with_every_part_is_counted_once() -> None:
    async def count(_: Body) -> Any:
        for at, word in enumerate(("so ", r"\boxed{5}"), 1):
            yield {**chunk(0, word), "usage": {"prompt_tokens": 10, "completion_tokens": at}}
        yield {**chunk(0, reason="stop"), "usage": {"prompt_tokens": 10, "completion_tokens": 3}}

    with served(count, count, k=1) as pair:
        assert post(pair).json()["a2r"]["tokens"] == {
            "explorer_prompt": 10, "references": 3, "synthesizer_prompt": 10, "synthesis": 3
        }  # fmt: skip


def test_dollars_by_a_price_table() -> None:
    with served() as pair:
        models = pair.endpoint.config
        pair.endpoint.pair.prices = {models.explorer: Price(1, 2), models.synthesizer: Price(3, 4)}
        assert post(pair).json()["a2r"]["dollars"] == pytest.approx((10 + 16 + 30 + 32) / 1e6)


def test_thinking_is_shown_apart_and_not_to_the_synthesizer() -> None:
    async def think(body: Body) -> Any:
        for index in range(body["n"]):
            yield chunk(index, reasoning_content="secret ")
            yield chunk(index, r"\boxed{5}")
            yield chunk(index, reason="stop")

    with served(think, think) as pair:
        message = post(pair).json()["choices"][0]["message"]
        assert (message["content"], message["reasoning_content"]) == (r"\boxed{5}", "secret ")
        assert "secret" not in json.dumps(pair.synthesizer.seen[0].body)
        usage = post(pair).json()["usage"]  # of servers that count no tokens
        assert usage["completion_tokens"] > usage["completion_tokens_details"]["reasoning_tokens"] > 0
        assert usage["prompt_tokens"] > 0


def test_a_thought_between_special_tokens_is_not_shown_to_the_synthesizer() -> None:
    def think(body: Body) -> Any:
        keeps = body.get("skip_special_tokens") is False
        text = r"[THINK]secret[/THINK]so \boxed{5}" if keeps else r"secretso \boxed{5}"
        return saying(lambda body: [text] * body["n"])(body)

    with served(think) as pair:
        stage = pair.endpoint.pair.explorer
        tokenizer = deepcopy(stage.prompter.tokenizer)
        tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
        stage.prompter = TurnPrompter(tokenizer, stage.prompter.config)
        block = post(pair, a2r={"references": True}).json()["a2r"]
        assert [one["text"] for one in block["references"]] == [r"<think>secret</think>so \boxed{5}"] * 4
        assert "secret" not in json.dumps(pair.synthesizer.seen[0].body)


def test_a_part_may_say_that_there_is_no_error() -> None:
    async def fine(body: Body) -> Any:
        for index in range(body["n"]):
            yield {**chunk(index, r"\boxed{5}", "stop"), "error": None}

    with served(fine, fine) as pair:
        assert post(pair).json()["a2r"]["answered_by"] == "synthesizer"


def test_a_text_may_contain_what_unicode_calls_the_end_of_a_line() -> None:
    text = "one\u2028two\u2029three\x85four \U0001f600 \\boxed{1}"
    with served(saying(lambda body: [text] * body["n"]), saying(lambda _: [text])) as pair:
        found = post(pair, a2r={"references": True}).json()
        assert found["choices"][0]["message"]["content"] == text
        assert found["a2r"]["references"][0]["text"] == text
        parts = client_of(pair).chat.completions.create(**ASK, stream=True)
        assert "".join(part.choices[0].delta.content or "" for part in parts) == text
