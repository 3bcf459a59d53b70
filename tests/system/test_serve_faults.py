"""The endpoint over real sockets where its models fail, its queue is full, or its clients leave."""

import asyncio
import itertools
import json
import subprocess
import time
from typing import Any

import httpx2
import openai
import psutil
import pytest
from faulty_upstream import Body, FaultyUpstream, chunk, in_thread, saying
from pairs import (
    ASK,
    SYNTHESIZER,
    Served,
    client_of,
    faults,
    forever,
    post,
    references,
    served,
    synthesis,
    until,
)

from a2r_train.inference.serve.child import end
from a2r_train.inference.serve.pair import SHORT
from a2r_train.inference.work import Work
from a2r_train.records import Reference

DEAD_S = 5.0
SOON_S = 1.0  # within which the models' servers see that a client has left


def test_the_children_of_a_server_that_has_crashed_end_too() -> None:
    """As vLLM's engine, which would keep the GPU."""
    crashed = subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; exit 1"], stdout=subprocess.PIPE, start_new_session=True
    )
    assert crashed.stdout is not None
    child = psutil.Process(int(crashed.stdout.readline()))
    crashed.wait()
    assert child.is_running()
    end(crashed)
    child.wait(DEAD_S)


def test_it_goes_on_with_the_references_that_are_there() -> None:
    async def two_and_a_wait(body: Body) -> Any:
        for index in range(min(2, body["n"])):
            yield chunk(index, r"\boxed{8}")
            yield chunk(index, reason="stop")
        await asyncio.sleep(60)

    with served(two_and_a_wait, explore_deadline_s=1.0) as pair:
        block = post(pair).json()["a2r"]
        assert block["references_used"] == 2
        assert block["warnings"] == ["explorer: 2 of 4 references (not done within 1 s)"]
    with served(tries=1) as pair:
        pair.explorer.fault = faults("cut")
        block = post(pair).json()["a2r"]
        assert 0 < block["references_used"] < 4
        assert f"explorer: {block['references_used']} of 4 references" in block["warnings"][0]
    with served() as pair:  # another call for those that are missing
        pair.explorer.fault = faults("cut")
        block = post(pair).json()["a2r"]
        assert (block["references_used"], block["warnings"]) == (4, [])
        assert pair.explorer.seen[1].body["n"] < 4
    with served(lambda body: saying(references)({**body, "n": 1}), tries=2) as pair:  # one that knows no n
        block = post(pair, a2r={"k": 7}).json()["a2r"]
        assert (block["references_used"], block["warnings"]) == (7, [])
        assert len({seen.body["seed"] for seen in pair.explorer.seen}) == 7


def test_a_reference_that_is_still_being_read_at_the_deadline_changes_no_vote(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would be the first in the order asked, and is as long as texts that a thread reads."""
    whole = Work.reference

    def slowly(work: Work, text: str, tokens: int = 0) -> Reference:
        time.sleep(2.0 if len(text) > SHORT else 0.0)
        return whole(work, text, tokens)

    async def the_first_comes_last(_: Body) -> Any:
        for index, text in ((1, ""), (2, ""), (0, "so " * SHORT)):
            yield chunk(index, text + rf"\boxed{{{8 if index else 9}}}")
            yield chunk(index, reason="stop")
        await asyncio.sleep(60)

    monkeypatch.setattr(Work, "reference", slowly)
    with served(the_first_comes_last, explore_deadline_s=1.0, skip_agreement=1.0) as pair:
        block = post(pair, a2r={"k": 3, "references": True}).json()["a2r"]
    assert block["answered_by"] == "agreement"
    assert block["votes"] == [{"answer": "8", "count": 2}]
    assert [one["answer"] for one in block["references"]] == ["8", "8"]
    assert block["warnings"] == ["explorer: 2 of 3 references (not done within 1 s)"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_writes_one_synthesis_whatever_n_is_is_asked_for_the_others(stream: bool) -> None:
    def write(body: Body) -> Any:
        texts = [rf"\boxed{{{body['seed']}}}", r"\boxed{0}"]
        return saying(lambda body: texts[: 2 if body["n"] == 2 else 1])(body)

    with served(synthesizer=write, tries=2) as pair:
        pair.synthesizer.fault = faults("", "503")
        answer = post(pair, n=4, temperature=1.0, stream=stream)
        asked = [seen.body for seen in pair.synthesizer.seen]
        assert [body["n"] for body in asked] == [4, 3, 3, 2]
        assert asked[1]["seed"] == asked[2]["seed"]
        texts = texts_of(answer) if stream else [c["message"]["content"] for c in answer.json()["choices"]]
        assert texts == [rf"\boxed{{{asked[i]['seed']}}}" for i in (0, 1, 3)] + [r"\boxed{0}"]
        assert len(set(texts)) == 4


@pytest.mark.parametrize("stream", [False, True])
def test_a_connection_that_is_lost_after_the_end_takes_nothing_back(stream: bool) -> None:
    three = saying(lambda body: [r"so \boxed{3} !"] * body["n"])
    with served(three, three, tries=1, k=1) as pair:
        pair.explorer.fault = pair.synthesizer.fault = lambda: "cut"  # after the third word and its end
        answer = post(pair, stream=stream)
        assert '"answered_by":"synthesizer","warnings":[]' in answer.text
        assert len(pair.explorer.seen) == len(pair.synthesizer.seen) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_synthesizer_that_fails_leaves_the_vote(stream: bool) -> None:
    with served(tries=2) as pair:
        pair.synthesizer.fault = lambda: "503"
        answer = post(pair, stream=stream)
        assert answer.status_code == 200
        assert r"so \\boxed{3}" in answer.text
        assert '"answered_by":"vote"' in answer.text
        assert "synthesizer: no answer, so the vote answered (" in answer.text
    with served(saying(lambda body: ["\U0001f600 \U0001f600 so"] * body["n"]), tries=1) as pair:
        pair.synthesizer.fault = lambda: "503"
        cut = [post(pair, max_tokens=most).json()["choices"][0] for most in range(1, 24)]
        assert {one["finish_reason"] for one in cut} == {"stop", "length"}
        assert all("\U0001f600 \U0001f600 so".startswith(one["message"]["content"]) for one in cut)
    with served() as pair:  # but a request that it does not take is the client's to remedy
        pair.synthesizer.fault = lambda: "400"
        assert post(pair, stream=stream).status_code == 400
    with served(synthesizer=forever, deadline_s=1.5) as pair:
        answer = post(pair, stream=stream)
        assert r"so \\boxed{3}" in answer.text
        assert "not done within 1.5 s" in answer.text


def test_what_a_synthesizer_wrote_before_it_failed_is_counted() -> None:
    """Three words without a count, as the call never ends; the vote costs nothing more."""

    async def never_ends(_: Body) -> Any:
        for word in ("So ", "we ", "think"):
            yield chunk(0, word)
        await asyncio.sleep(60)

    with served(synthesizer=never_ends, deadline_s=2.0) as pair:
        answer = post(pair).json()
    tokens = answer["a2r"]["tokens"]
    assert answer["a2r"]["answered_by"] == "vote"
    assert tokens["synthesizer_prompt"] > 20
    assert 3 <= tokens["synthesis"] <= 12
    assert answer["usage"]["completion_tokens"] == tokens["references"] + tokens["synthesis"]


def test_a_stream_that_breaks_goes_on_where_it_was() -> None:
    with served() as pair:
        pair.synthesizer.fault = faults("cut", "429")
        assert text_of(post(pair, stream=True)) == synthesis({"n": 1})[0]
        assert len(pair.synthesizer.seen) == 3
    turn = itertools.count()
    other = saying(lambda body: [f"{'AB'[min(1, next(turn))]} b c d e f"] * body["n"])
    with served(synthesizer=other) as pair:  # another try says something else
        pair.synthesizer.fault = faults("cut")
        text = text_of(post(pair, stream=True))
        assert text.startswith("A b c")
        assert text.endswith("\n\nso \\boxed{3}")


def test_one_of_two_servers_may_be_wrong_or_smaller() -> None:
    first, second = (FaultyUpstream(SYNTHESIZER, saying(synthesis)) for _ in range(2))
    first.context, second.context = 2000, 700
    with in_thread() as thread:
        urls = ",".join(thread.run(one.start()) for one in (first, second))
        with served(synthesizer_url=urls) as pair:
            for _ in range(2):
                assert post(pair).json()["a2r"]["answered_by"] == "synthesizer"
            asked = [one.seen[0].body["max_tokens"] for one in (first, second)]
            assert asked[0] == asked[1] < 700  # what fits both
            second.fault = lambda: "404"  # as of one that serves another model
            for _ in range(2):
                assert post(pair).json()["a2r"]["warnings"] == []
            assert [len(one.seen) for one in (first, second)] == [3, 2]


def test_who_reads_no_stream_gets_the_whole_text_of_another_try() -> None:
    turn = itertools.count()
    other = saying(lambda body: [rf"{'AB'[min(1, next(turn))]} b c d e \boxed{{6}}"] * body["n"])
    with served(synthesizer=other) as pair:
        pair.synthesizer.fault = faults("cut")
        answer = post(pair).json()
        assert answer["choices"][0]["message"]["content"] == r"B b c d e \boxed{6}"
        assert (answer["a2r"]["answered_by"], answer["a2r"]["warnings"]) == ("synthesizer", [])
    with served(tries=1) as pair:  # and of the vote
        pair.synthesizer.fault = faults("cut")
        assert post(pair).json()["choices"][0]["message"]["content"] == r"so \boxed{3}"

    async def one_of_two(_: Body) -> Any:
        if len(pair.synthesizer.seen) == 1:
            for row in (chunk(0, r"\boxed{1}", "stop"), chunk(1, "half"), chunk(1, " of it")):
                yield row
        yield chunk(0, "again", "stop")
        yield chunk(1, r"\boxed{2}", "stop")

    with served(synthesizer=one_of_two) as pair:  # what had ended before stays
        pair.synthesizer.fault = faults("cut")
        choices = post(pair, n=2, temperature=1.0).json()["choices"]
        assert [choice["message"]["content"] for choice in choices] == [r"\boxed{1}", r"\boxed{2}"]


def text_of(answer: httpx2.Response) -> str:
    """Of a stream."""
    return "".join(texts_of(answer))


def texts_of(answer: httpx2.Response) -> list[str]:
    """The syntheses of a stream."""
    rows = [json.loads(event[6:]) for event in answer.text.split("\n\n") if event.startswith("data: {")]
    texts: dict[int, str] = {}
    for choice in (row["choices"][0] for row in rows):
        texts[choice["index"]] = texts.get(choice["index"], "") + choice["delta"].get("content", "")
    return [texts[index] for index in sorted(texts)]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("429", 429, "upstream_rate_limited"),
        ("503", 503, "upstream_unavailable"),
        ("500", 502, "upstream_error"),
        ("401", 502, "upstream_denied"),
        ("400", 400, "upstream_refused"),
        ("reset", 502, "upstream_lost"),
        ("half", 502, "upstream_broken"),
        ("stall", 504, "upstream_timeout"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_where_all_fails_the_error_is_of_its_kind(fault: str, status: int, code: str, stream: bool) -> None:
    with served(tries=2, request_deadline_s=0.5) as pair:
        pair.explorer.fault = lambda: fault
        answer = post(pair, stream=stream)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert ("retry-after" in answer.headers) == (status in (429, 503))
        assert f'a2r_errors_total{{code="{code}"}} 1.0' in httpx2.get(f"{pair.url}/metrics").text
        with pytest.raises(openai.APIStatusError) as raised:
            client_of(pair).chat.completions.create(**ASK)
        assert raised.value.status_code == status


def test_an_error_after_a_keep_alive_comes_in_the_stream() -> None:
    with served(keep_alive_s=0.2, tries=1, request_deadline_s=1.0) as pair:
        pair.explorer.fault = lambda: "stall"
        answer = post(pair, stream=True)
        assert answer.text.startswith(": keep-alive\n\n: keep-alive\n\n")
        with pytest.raises(openai.APIError, match="no reply for too long"):
            list(client_of(pair).chat.completions.create(**ASK, stream=True))


def test_a_full_queue_refuses_with_a_time_to_wait() -> None:
    with served(forever, max_concurrent_requests=1, max_waiting_requests=1, keep_alive_s=0.1) as pair:

        async def ask(client: httpx2.AsyncClient) -> int:
            async with client.stream(
                "POST", f"{pair.base_url}/chat/completions", json={**ASK, "stream": True}
            ) as answer:
                assert answer.status_code == 200 or int(answer.headers["retry-after"]) >= 1
                return answer.status_code

        async def ask_all() -> list[int]:
            async with httpx2.AsyncClient(timeout=30) as client:
                return await asyncio.gather(*(ask(client) for _ in range(6)))

        assert sorted(asyncio.run(ask_all())) == [200, 200, 429, 429, 429, 429]
        assert 'a2r_errors_total{code="queue_full"} 4.0' in httpx2.get(f"{pair.url}/metrics").text


def test_a_request_may_wait_no_longer_than_its_deadline() -> None:
    with served(forever, max_concurrent_requests=1, deadline_s=1.0, keep_alive_s=30) as pair:

        async def ask_all() -> list[int]:
            async with httpx2.AsyncClient(timeout=30) as client:
                asked = [client.post(f"{pair.base_url}/chat/completions", json=ASK) for _ in range(2)]
                return sorted(answer.status_code for answer in await asyncio.gather(*asked))

        began = time.monotonic()
        assert set(asyncio.run(ask_all())) <= {503, 504}  # one waited, or both began and had nothing
        assert time.monotonic() - began < 5
        assert len(pair.synthesizer.seen) == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stage", ["explorer", "synthesizer"])
def test_a_client_that_leaves_ends_the_request_upstream(stage: str, stream: bool) -> None:
    slow: Any = {stage: forever}
    with served(**slow) as pair:
        upstream: FaultyUpstream = getattr(pair, stage)
        left = leave_when(pair, lambda: bool(upstream.seen and upstream.seen[0].first), stream)
        until(lambda: bool(upstream.seen[0].ended), SOON_S + 1)
        assert upstream.seen[0].ended == "left"
        assert upstream.seen[0].end - left < SOON_S
        until(lambda: pair.endpoint.places.under_way == 0)
        assert "a2r_disconnects_total 1.0" in httpx2.get(f"{pair.url}/metrics").text


def leave_when(pair: Served, ready: Any, stream: bool) -> float:
    """Ask, and leave once it is time; when that was."""

    async def ask() -> float:
        async with httpx2.AsyncClient(timeout=30) as client:
            body = {**ASK, "stream": stream}
            asked = asyncio.create_task(client.post(f"{pair.base_url}/chat/completions", json=body))
            while not ready():
                await asyncio.sleep(0.01)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            return time.monotonic()

    return asyncio.run(ask())


def test_a_client_that_leaves_the_queue_asks_nobody() -> None:
    with served(forever, max_concurrent_requests=1) as pair:

        async def ask() -> None:
            async with httpx2.AsyncClient(timeout=30) as client:
                # Who waits leaves first: were both to leave at once, the place might come free for it before.
                asked = []
                for one_is_there in (lambda it: it.under_way == 1, lambda it: it.waiting == 1):
                    request = client.post(f"{pair.base_url}/chat/completions", json=ASK)
                    asked.append(asyncio.create_task(request))
                    while not one_is_there(pair.endpoint.places):
                        await asyncio.sleep(0.01)
                asked[1].cancel()
                while pair.endpoint.places.waiting:
                    await asyncio.sleep(0.01)
                asked[0].cancel()
                await asyncio.gather(*asked, return_exceptions=True)

        asyncio.run(ask())
        until(lambda: pair.endpoint.places.under_way + pair.endpoint.places.waiting == 0)
        assert len(pair.explorer.seen) == 1
