"""When vLLM gets requests, and when their completions come back; vLLM is played by a list of lengths."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from a2r_train.engines import EngineArguments, Sampling, vllm, vllm_copies
from a2r_train.prompts import Prompter

TINY = str(Path(__file__).parents[2] / "data/tiny/synthesizer")
PLACES = 8
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_completion_tokens": 9}


@dataclass
class Played:
    """An `LLM` whose request i needs as many steps as its prompt's first token says."""

    running: dict[str, int] = field(default_factory=dict)
    given: list[int] = field(default_factory=list)  # requests in it, after each time it got some
    before: list[int] = field(default_factory=list)  # and before
    made: int = 0

    def __post_init__(self) -> None:
        settings = SimpleNamespace(
            scheduler_config=SimpleNamespace(max_num_seqs=PLACES),
            cache_config=SimpleNamespace(num_gpu_blocks=2, block_size=16),
        )
        self.llm_engine: Any = SimpleNamespace(
            vllm_config=settings,
            model_config=SimpleNamespace(max_model_len=5),
            step=self.step,
            abort_request=lambda ids, **_: [self.running.pop(one) for one in ids],
        )

    def enqueue(self, prompts: Sequence[Any], params: Sequence[Any], **_: Any) -> list[str]:
        assert len(prompts) == len(params)
        self.before.append(len(self.running))
        ids = [str(self.made + i) for i in range(len(prompts))]
        self.running |= {one: p["prompt_token_ids"][0] for one, p in zip(ids, prompts, strict=True)}
        self.made += len(prompts)
        self.given.append(len(self.running))
        return [f"{one}-0a1b2c3d" for one in ids]

    def step(self) -> list[Any]:
        places = list(self.running)[:PLACES]
        for one in places:
            self.running[one] -= 1
        ended = [one for one in places if not self.running[one]]
        for one in ended:
            del self.running[one]
        return [output(one) for one in ended]


def output(identity: str) -> Any:
    made = SimpleNamespace(token_ids=[int(identity)], finish_reason="stop", logprobs=[{}])
    return SimpleNamespace(request_id=identity, finished=True, outputs=[made], num_cached_tokens=0)


@pytest.fixture
def copy(monkeypatch: pytest.MonkeyPatch) -> Any:
    import vllm as library

    monkeypatch.setattr(library, "LLM", lambda *_, **__: Played())
    return vllm_copies.Copy(TINY, "auto", {})


def requests(lengths: Sequence[int], number: int = 0) -> list[Any]:
    return [((number, i), [length], i) for i, length in enumerate(lengths)]


def advance(copy: Any, lengths: Sequence[int], number: int = 0, last: bool = False) -> list[Any]:
    return [key for key, _ in copy.advance(requests(lengths, number), SAMPLING, [], "", last)]


def test_each_place_is_filled_as_it_becomes_free(copy: Any) -> None:
    found = advance(copy, [1, 2, 3, 4] * 5)
    assert copy.llm.given == [20]  # vLLM has the queue
    assert 0 < len(copy.running) < PLACES
    assert sorted(found + advance(copy, [], last=True)) == [(0, i) for i in range(20)]


def test_requests_join_a_small_model_on_a_gpu_together(copy: Any) -> None:
    copy.refill_share = 0.75
    found = advance(copy, [1, 2, 3, 4] * 5)
    assert max(copy.llm.given) == PLACES
    assert all(before <= 2 for before in copy.llm.before)
    found += advance(copy, [2] * 9, number=1)
    assert max(copy.llm.given) == PLACES
    found += advance(copy, [], last=True)
    assert sorted(found) == [*[(0, i) for i in range(20)], *[(1, i) for i in range(9)]]
    assert [*copy.running, *copy.queue, *copy.done] == []


def test_next_tokens_leave_the_completions_of_others(copy: Any) -> None:
    first = advance(copy, [3] * 5)
    assert copy.next_tokens([[1], [2], [1] * 5], "") == [{}, {}, {}]
    assert sorted(first + advance(copy, [], last=True)) == [(0, i) for i in range(5)]


def test_what_a_caller_no_longer_wants_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    import vllm as library

    monkeypatch.setattr(library, "LLM", lambda *_, **__: Played())
    engine: Any = vllm.VLLMEngine(TINY, EngineArguments(engine="vllm"))
    copy = engine._copies[0]
    chats = [Prompter(engine.tokenizer).explorer(f"{i}?") for i in range(20)]
    monkeypatch.setattr(vllm, "token_ids_of", lambda _, chats: [[2] for _ in chats])
    made = engine.generate_batches(((chats[:10], range(10)) for _ in range(3)), Sampling())
    assert len(next(made)) == 10
    assert copy.running
    with pytest.raises(RuntimeError, match="a call of this engine is under way"):
        engine.generate(chats, Sampling(), range(20))
    made.close()
    assert [*copy.running, *copy.llm.running, *copy.done] == []
    assert len(engine.generate(chats, Sampling(), range(20))) == 20
