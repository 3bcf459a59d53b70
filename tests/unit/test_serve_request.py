"""What a body asks for, and what is refused by its name; keys, queue, and the repair of a broken stream."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from a2r_train.errors import InputError
from a2r_train.inference.serve.config import ServeConfig
from a2r_train.inference.serve.errors import STATUS, ApiError, UpstreamError
from a2r_train.inference.serve.limits import Places, check_key, endpoint_key, path_through
from a2r_train.inference.serve.request import NO_MATTER, NOT_SERVED, READ, Ask, Turn, parse_ask
from a2r_train.inference.serve.sent import Sent
from a2r_train.inference.serve.upstream import Piece
from a2r_train.paths import TINY_PAIR

CONFIG = ServeConfig(temperature=0.25, k=3)
BODY: dict[str, Any] = {"model": "a2r", "messages": [{"role": "user", "content": "How many?"}]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


def ask(**more: Any) -> Ask:
    return parse_ask(json.dumps({**BODY, **more}).encode(), CONFIG)


def refused(**more: Any) -> ApiError:
    with pytest.raises(ApiError) as raised:
        ask(**more)
    return raised.value


@pytest.mark.parametrize("value", ["4", "hot", "", "true", "4" * 90])
def test_a_text_in_the_place_of_a_number_is_shown_in_quotes(value: str) -> None:
    numbers = ("n", "seed", "max_tokens", "temperature", "top_p")
    for error in (*(refused(**{key: value}) for key in numbers), refused(a2r={"k": value})):
        assert f"is '{value[:60]}'; expected a" in str(error)


def test_defaults_are_those_of_the_endpoint() -> None:
    found = ask()
    assert found == ask(**dict.fromkeys((READ | set(NOT_SERVED) | NO_MATTER) - {"model", "messages"}))
    assert (found.problem, found.system, found.earlier) == ("How many?", "", ())
    assert (found.k, found.n, found.temperature, found.explore_temperature) == (3, 1, 0.25, 1.0)
    assert (found.max_tokens, found.seed, found.stop, found.stream) == (None, None, (), False)


def test_every_setting_is_read() -> None:
    found = ask(
        n=2, max_tokens=9, max_completion_tokens=7, temperature=0, top_p=0.5, stop="x", seed=-1, stream=True,
        stream_options={"include_usage": True}, a2r={"k": 1, "explore_temperature": 2, "references": True},
        user="me", metadata={"a": "b"}, tools=[], logprobs=False, presence_penalty=0, logit_bias={},
        response_format={"type": "text"},
    )  # fmt: skip
    assert (found.n, found.max_tokens, found.temperature, found.top_p) == (2, 7, 0.0, 0.5)
    assert (found.stop, found.seed, found.k) == (("x",), -1, 1)
    assert found.stream
    assert found.include_usage
    assert found.references
    assert found.explore_temperature == 2.0


def test_a_conversation() -> None:
    found = ask(
        messages=[
            {"role": "system", "content": "A"},
            {"role": "developer", "content": [{"type": "text", "text": "B"}]},
            {"role": "user", "content": "C", "name": "me"},
            {"role": "assistant", "content": "<think>no</think> D", "refusal": None, "tool_calls": None},
            {"role": "user", "content": "E"},
        ]
    )
    assert (found.system, found.problem) == ("A\n\nB", "E")
    assert found.earlier == (Turn("user", "C"), Turn("assistant", "D"))


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{}]}, "functions"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"top_logprobs": False}, "top_logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"temprature": 1}, "temprature"),
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"n": True}, "n"),
        ({"n": 1.0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 5}, "stop"),
        ({"stop": 5}, "stop"),
        ({"stop": "\ud800"}, "stop"),
        ({"seed": 2**63}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage"),
        ({"a2r": {"k": 33}}, "a2r.k"),
        ({"a2r": {"K": 3}}, "a2r.K"),
        ({"a2r": {"explore_temperature": -1}}, "a2r.explore_temperature"),
        ({"a2r": {"references": 1}}, "a2r.references"),
        ({"a2r": 4}, "a2r"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "\udc00"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [["text"]]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content"),
        ({"messages": [*BODY["messages"], {"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [*BODY["messages"], {"role": "system", "content": "x"}]}, "messages[1].role"),
        (
            {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]},
            "messages[0].tool_calls",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(more: dict[str, Any], param: str) -> None:
    error = refused(**more)
    assert (error.status, error.param) == (400, param)
    assert error.body["error"]["message"].startswith(f"{param}: ")
    assert set(error.body["error"]) == {"message", "type", "param", "code"}


def test_another_model_is_not_found() -> None:
    assert (refused(model="gpt").status, refused(model="gpt").param) == (400, "model")
    assert (refused(model=5).status, refused(model=5).param) == (400, "model")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"5", b'{"a": NaN}', b"\xff", b"[" * 10**5, b'{"n": ' + b"9" * 5000 + b"}"]
)
def test_what_is_no_json(body: bytes) -> None:
    with pytest.raises(ApiError) as raised:
        parse_ask(body, CONFIG)
    assert (raised.value.status, raised.value.code) == (400, "invalid_json")


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(READ | set(NOT_SERVED) | {"x"})), JSON, max_size=5))
def test_whatever_is_sent_is_read_or_refused(more: dict[str, Any]) -> None:
    found = read_or_refused({**BODY, **more})
    if isinstance(found, ApiError):
        assert 400 <= found.status < 500
        json.dumps(found.body)
    else:
        assert found.problem.encode()
        assert 1 <= found.n <= CONFIG.most_n
        assert 0 <= found.temperature <= 2


def read_or_refused(body: dict[str, Any]) -> Ask | ApiError:
    try:
        return parse_ask(json.dumps(body).encode(), CONFIG)
    except ApiError as error:
        return error


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(JSON)
def test_whatever_a_message_is(message: Any) -> None:
    body = {**BODY, "messages": [message, *BODY["messages"]]}
    with pytest.raises(ApiError) as raised:
        parse_ask(json.dumps(body).encode(), CONFIG)
    assert raised.value.param
    assert raised.value.param.startswith("messages[0]")


def test_a_model_named_alone_is_both() -> None:
    assert (ServeConfig().explorer, ServeConfig().synthesizer) == TINY_PAIR
    for given_keys in ({"explorer": "m"}, {"synthesizer": "m"}):
        one = ServeConfig(**given_keys)  # type: ignore[arg-type]
        assert (one.explorer, one.synthesizer) == ("m", "m")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": 5, "most_k": 4}, "most_k is 4; expected at least 5"),
        ({"temperature": 2.1}, "temperature is 2.1"),
        ({"deadline_s": 0}, "deadline_s is 0"),
        ({"keep_alive_s": float("nan")}, "keep_alive_s is nan"),
        ({"port": 70000}, "port is 70000"),
        ({"name": "a b"}, "name is 'a b'"),
        ({"adaptive": True, "first": 9}, "first is 9"),
        ({"adaptive": True, "price": 2}, "adaptive: "),
        ({"gpu_memory_utilization": 0}, "gpu_memory_utilization is 0"),
    ],
)
def test_keys_that_make_no_sense(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=f"^{says}"):
        ServeConfig(**keys).check()


def test_how_exploring_stops_early() -> None:
    assert ServeConfig().adaptive_for(4) is None
    adaptive = ServeConfig(adaptive=True, first=3).adaptive_for(2)
    assert adaptive
    assert adaptive.sizes(2) == [2]
    skips = ServeConfig(skip_agreement=1.0).adaptive_for(4)
    assert skips
    assert skips.sizes(4) == [4]
    assert skips.skips(["1", "1"], "math")


def test_a_key_is_compared_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    check_key("", "")
    check_key("Bearer geheim", "geheim")
    check_key("bearer  geheim", "geheim")
    for header in ("", "geheim", "Bearer", "Bearer gehei", "Bearer geheim2", "Bearer \xfc", "Basic geheim"):
        with pytest.raises(ApiError) as raised:
            check_key(header, "geheim")
        assert raised.value.status == 401
        assert "geheim" not in str(raised.value)
    monkeypatch.setenv("A2R_API_KEY", "two words")
    with pytest.raises(InputError, match=r"^A2R_API_KEY: ") as wrong:
        endpoint_key()
    assert "two" not in str(wrong.value)
    monkeypatch.setenv("A2R_API_KEY", " geheim\n")
    assert endpoint_key() == "geheim"


def test_a_request_that_was_here_before_is_refused() -> None:
    assert path_through("", "me") == "me"
    assert path_through("other", "me") == "other,me"
    for header in ("me", "a,me,b", "a,b,c,d"):
        with pytest.raises(ApiError) as raised:
            path_through(header, "me")
        assert raised.value.status == 508


def test_places_are_given_in_turn_and_a_full_queue_refuses() -> None:
    async def run() -> None:
        places, order, ends = Places(2, 2), list[int](), [asyncio.Event() for _ in range(4)]

        async def one(number: int) -> None:
            async with places.place():
                order.append(number)
                await ends[number].wait()

        tasks = [asyncio.create_task(one(number)) for number in range(4)]
        await asyncio.sleep(0)
        assert (places.under_way, places.waiting, order) == (2, 2, [0, 1])
        with pytest.raises(ApiError) as raised:
            async with places.place():
                pass
        assert raised.value.status == 429
        assert raised.value.headers["retry-after"] >= "1"
        tasks[2].cancel()  # its client has left the queue
        await asyncio.gather(tasks[2], return_exceptions=True)
        assert places.waiting == 1
        for end in ends:
            end.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [0, 1, 3]
        assert places.under_way == places.waiting == 0

    asyncio.run(run())


def test_every_failure_upstream_has_a_status() -> None:
    for kind, status in STATUS.items():
        error = UpstreamError(kind, "says").as_api_error("explorer")
        assert (error.status, error.code) == (status, f"upstream_{kind}")
        assert ("retry-after" in error.headers) == (status in (429, 503))


@given(
    st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=6),
    st.integers(0, 6),
    st.lists(st.integers(1, 5), max_size=8),
)
def test_another_try_goes_on_where_the_last_one_broke(parts: list[str], broke: int, sizes: list[int]) -> None:
    """However the other try is cut into pieces."""
    sent, read = Sent(1, True), list[str]()

    def take(part: str, reason: str = "") -> None:
        if new := sent.take(Piece(0, text=part, finish_reason=reason)):
            read.append(new.text)

    whole, at = "".join(parts), 0
    for part in parts[:broke]:
        take(part)
    sent.again([0])
    for size in sizes:
        take(whole[at : at + size])
        at += size
    take(whole[at:])
    take("", "stop")
    assert "".join(read) == whole
    assert sent.open() == []


def test_another_try_that_says_something_else_is_noticed() -> None:
    for other, reason in (("ax", ""), ("b", ""), ("a", "stop")):
        sent = Sent(2, True)
        sent.take(Piece(1, text="abc"))
        sent.again([1])
        with pytest.raises(UpstreamError) as raised:
            sent.take(Piece(1, text=other, finish_reason=reason))
        assert raised.value.kind == "diverged"
