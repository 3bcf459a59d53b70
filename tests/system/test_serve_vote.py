"""Who answers a request where its synthesis cannot be read; the endpoint decides as the loop does."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2
import pytest
from faulty_upstream import Body, chunk, saying
from pairs import EXPLORER, SYNTHESIZER, faults, post, references, served, tiny_prompters

from a2r_train.engines import Completion, Engine
from a2r_train.inference.adaptive import Adaptive
from a2r_train.inference.price import Price
from a2r_train.inference.two_stage import TwoStage
from a2r_train.records import Problem

LOST = "so it may well be"
SAYS = "synthesizer: its answer cannot be read, so the vote answered"
PRICES = {EXPLORER: Price(1, 2), SYNTHESIZER: Price(3, 4)}
PROGRAMS = [f"```python\nprint({n})\n```" for n in range(4)]


def lost(*parts: dict[str, str], reason: str = "stop") -> Any:
    """A synthesizer that writes those parts, and counts nothing."""

    async def chunks(_: Body) -> AsyncIterator[dict[str, Any]]:
        for part in parts:
            yield chunk(0, **part)
        yield chunk(0, reason=reason)

    return chunks


def rows_of(answer: httpx2.Response) -> list[Any]:
    return [json.loads(event[6:]) for event in answer.text.split("\n\n") if event.startswith("data: {")]


class Scripted(Engine):
    """An engine with the tokenizer of one of the tiny pair, which says those texts; a word is a token."""

    def __init__(self, name: str, texts: Sequence[str]) -> None:
        self.name, self.parameters, self.texts = name, 0, texts
        self.tokenizer = tiny_prompters().explorer.tokenizer

    def generate(self, chats: Sequence[Any], *_: Any) -> list[Completion]:
        return [Completion(text, 10, len(text.split()), "stop") for text in self.texts[: len(chats)]]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("explored", "written", "verifier", "answered_by"),
    [
        (references({"n": 4}), r"no, \boxed{4} !", "math", "synthesizer"),
        (references({"n": 4}), LOST, "math", "vote"),
        (references({"n": 4}), "", "math", "vote"),
        (["who knows", "not I", "nor I", "ask him"], LOST, "math", "synthesizer"),
        ([rf"one \boxed{{{n}}}" for n in "3333"], LOST, "math", "agreement"),
        (PROGRAMS, "I cannot say", "python_tests", "synthesizer"),
        (["<answer>a</answer>", "<answer>b</answer>"] * 2, LOST, "reasoning_gym", "vote"),
    ],
)
def test_the_endpoint_answers_as_the_loop_does(
    explored: list[str], written: str, verifier: str, answered_by: str, stream: bool
) -> None:
    skips = verifier == "math"
    loop = TwoStage(
        Scripted(EXPLORER, explored),
        Scripted(SYNTHESIZER, [written]),
        prices=PRICES,
        adaptive=Adaptive(first=4, skip_agreement=1.0) if skips else None,
    )
    expected = loop.solve(Problem("p", "How many?", "", verifier))
    assert expected.answered_by == answered_by
    upstreams = saying(lambda _: explored), saying(lambda _: [written])
    with served(*upstreams, prices=PRICES, verifier=verifier, skip_agreement=float(skips)) as pair:
        answer = post(pair, stream=stream, **({"stream_options": {"include_usage": True}} if stream else {}))
    if stream:
        *rows, last = rows_of(answer)
        text = "".join(row["choices"][0]["delta"].get("content", "") for row in rows)
        before = f"{LOST}\n\n" if answered_by == "vote" and written else ""
        assert text == before + expected.text
        ends = [row for row in rows if row["choices"][0]["finish_reason"]]
        assert ends == [rows[-1]]
        assert rows[-1]["a2r"] == {key: last["a2r"][key] for key in ("answered_by", "warnings")}
    else:
        last = answer.json()
        assert last["choices"][0]["message"]["content"] == expected.text
    assert (last["a2r"]["answered_by"], last["a2r"]["tokens"]) == (answered_by, expected.tokens)
    assert last["a2r"]["dollars"] == pytest.approx(expected.cost)
    assert last["a2r"]["warnings"] == ([SAYS] if answered_by == "vote" else [])


def test_a_synthesis_that_was_cut_is_told_of_and_counted_as_answered_by_the_vote() -> None:
    with served(synthesizer=lost({"text": LOST}, reason="length")) as pair:
        found = post(pair).json()
        assert found["choices"][0]["finish_reason"] == "stop"
        assert found["a2r"]["warnings"] == [SAYS.replace("read,", "read (cut at the token limit),")]
        assert found["a2r"]["tokens"]["synthesis"] > 0
        assert 'a2r_answers_total{answered_by="vote"} 1.0' in httpx2.get(f"{pair.url}/metrics").text


def test_a_thought_that_never_ends_leaves_the_vote() -> None:
    with served(synthesizer=lost({"reasoning_content": r"hm, \boxed{4}"}, reason="length")) as pair:
        message = post(pair).json()["choices"][0]["message"]
        assert message == {"role": "assistant", "content": r"so \boxed{3}"}
        deltas = [row["choices"][0]["delta"] for row in rows_of(post(pair, stream=True))]
        assert "".join(delta.get("content", "") for delta in deltas) == r"so \boxed{3}"
        assert "".join(delta.get("reasoning_content", "") for delta in deltas) == r"hm, \boxed{4}"


@pytest.mark.parametrize("stream", [False, True])
def test_of_several_choices_the_vote_answers_only_those_that_cannot_be_read(stream: bool) -> None:
    with served(synthesizer=saying(lambda _: [r"it is \boxed{4}", LOST, r"\boxed{5}"])) as pair:
        answer = post(pair, n=3, temperature=1.0, stream=stream)
    found = rows_of(answer)[-1] if stream else answer.json()
    assert found["a2r"]["answered_by"] == "vote"
    assert found["a2r"]["warnings"] == [
        "synthesizer: the answer of choice 1 cannot be read, so the vote answered"
    ]
    texts = ["", "", ""]
    for row in rows_of(answer) if stream else [found]:
        for choice in row["choices"]:
            texts[choice["index"]] += choice.get("message", choice.get("delta", {})).get("content", "")
    assert texts == [r"it is \boxed{4}", f"{LOST}\n\n" * stream + r"so \boxed{3}", r"\boxed{5}"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_synthesis_that_has_ended_stands_whatever_comes_late_after_it(stream: bool) -> None:
    async def ended_but_open(_: Body) -> AsyncIterator[dict[str, Any]]:
        yield chunk(0, r"\boxed{4}", "stop")
        await asyncio.sleep(30)

    with served(synthesizer=ended_but_open, deadline_s=1.5) as pair:
        answer = post(pair, stream=stream)
    block = (rows_of(answer)[-1] if stream else answer.json())["a2r"]
    assert (block["answered_by"], block["warnings"]) == ("synthesizer", [])


def test_where_another_choice_fails_one_that_cannot_be_read_is_left_to_the_vote_too() -> None:
    async def two_of_three(_: Body) -> AsyncIterator[dict[str, Any]]:
        for row in (chunk(0, r"\boxed{4}", "stop"), chunk(1, LOST, "stop"), chunk(2, "half"), chunk(2, " x")):
            yield row

    with served(synthesizer=two_of_three, tries=1) as pair:
        pair.synthesizer.fault = faults("cut")
        found = post(pair, n=3, temperature=1.0).json()
    contents = [choice["message"]["content"] for choice in found["choices"]]
    assert contents == [r"\boxed{4}", r"so \boxed{3}", r"so \boxed{3}"]
    assert len(found["a2r"]["warnings"]) == 2


@pytest.mark.parametrize(
    ("verifier", "text", "alone"),
    [
        ("math", r"\boxed{3}", r"\boxed{3}"),
        ("math", r"not \boxed{2}, \boxed{3}", r"\boxed{3}"),
        ("reasoning_gym", "<answer>3</answer>", "<answer>3</answer>"),
    ],
)
def test_of_a_vote_that_would_be_cut_before_its_answer_the_answer_alone_is_given(
    verifier: str, text: str, alone: str
) -> None:
    first, _, last = text.rpartition(" ")  # an earlier answer, which a cut would leave
    long = f"{first} {'so ' * 60}END {last}".lstrip()
    with served(saying(lambda body: [long] * body["n"]), saying(lambda _: [LOST]), verifier=verifier) as pair:
        for cut in ({"max_tokens": 40}, {"stop": ["END"]}):
            (choice,) = post(pair, **cut).json()["choices"]
            assert (choice["message"]["content"], choice["finish_reason"]) == (alone, "stop")
        (choice,) = post(pair, max_tokens=2).json()["choices"]  # where nothing fits, the beginning
        assert choice["finish_reason"] == "length"
        assert long.startswith(choice["message"]["content"])
