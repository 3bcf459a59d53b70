"""Completions of an engine, judged: what a rollout and a synthesis have in common."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from a2r_train.engines.base import Batch, Completion, Engine, Sampling, chat_key
from a2r_train.prompts import Chat, Prompter
from a2r_train.records import Bundle, Problem, Rollout, Synthesis, Verdict, row_of, seed_of
from a2r_train.verify import judge_all


@dataclass(frozen=True)
class JudgedSample:
    """One completion with its verdict; token counts are the engine's, and `model` is its name."""

    text: str
    answer: str
    verdict: Verdict
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    model: str
    seed: int

    def rollout(self, problem_id: str, sample: int) -> Rollout:
        return Rollout(problem_id, sample, **vars(self))

    def synthesis(self, bundle_id: str, sample: int) -> Synthesis:
        return Synthesis(bundle_id, sample, **vars(self))


@dataclass(frozen=True)
class Sample:
    """One completion of a problem or bundle, not judged yet."""

    item: Problem | Bundle
    sample: int
    seed: int
    completion: Completion


def judged_samples(
    engine: Engine,
    prompter: Prompter,
    items: Sequence[Problem] | Sequence[Bundle],
    chats: Mapping[str, Chat],
    sampling: Sampling,
    samples: int,
    seed: int,
) -> list[tuple[str, int, JudgedSample]]:
    """(id, sample, judged completion) for `samples` answers to the chat of each item, in the order item,
    sample.
    """
    return judged(prompter, engine.name, generated(engine, items, chats, sampling, samples, seed))


def generated(
    engine: Engine,
    items: Sequence[Problem] | Sequence[Bundle],
    chats: Mapping[str, Chat],
    sampling: Sampling,
    samples: int,
    seed: int,
) -> list[Sample]:
    """`samples` answers to the chat of each item, in the order item, sample."""
    (found,) = generated_batches(engine, [items], lambda _: chats, sampling, samples, seed)
    return found


def generated_batches(
    engine: Engine,
    batches: Iterable[Sequence[Problem] | Sequence[Bundle]],
    chats_of: Callable[[Any], Mapping[str, Chat]],
    sampling: Sampling,
    samples: int,
    seed: int,
) -> Generator[list[Sample], None, None]:
    """As `generated`, for several batches of items, each as soon as it is complete. `chats_of`: the chats of
    a batch by id, asked for when the engine draws the batch. Close it if you take no more.
    """
    drawn: deque[_Asked] = deque()

    def asked() -> Iterator[Batch]:
        for items in batches:
            drawn.append(_Asked(items, chats_of(items), sampling, samples, seed))
            yield drawn[-1].batch

    for completions in engine.generate_batches(asked(), sampling):
        yield drawn.popleft().samples(completions)


class _Asked:
    """A batch of items as the engine is asked for it. Equal chats have the same greedy completion, so it is
    made once; bundles of one problem that are shown without references have equal chats.
    """

    def __init__(
        self,
        items: Sequence[Problem] | Sequence[Bundle],
        chats: Mapping[str, Chat],
        sampling: Sampling,
        samples: int,
        seed: int,
    ) -> None:
        self.work = [(item, at, seed_of(seed, item.id, at)) for item in items for at in range(samples)]
        all_chats = [chats[item.id] for item, _, _ in self.work]
        keys = range(len(all_chats)) if sampling.temperature > 0 else [chat_key(chat) for chat in all_chats]
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        order = {i: place for place, i in enumerate(sorted(first.values()))}
        self.places = [order[first[key]] for key in keys]  # of each sample's completion among those made
        self.batch: Batch = [all_chats[i] for i in order], [self.work[i][2] for i in order]

    def samples(self, completions: Sequence[Completion]) -> list[Sample]:
        return [Sample(*one, completions[place]) for one, place in zip(self.work, self.places, strict=True)]


def judged(prompter: Prompter, model: str, samples: Sequence[Sample]) -> list[tuple[str, int, JudgedSample]]:
    """(id, sample, judged completion) of each, in order; safe from any thread."""
    texts = [prompter.complete(one.completion.text) for one in samples]
    judgements = judge_all(
        [
            (prompter.config.judged_text(text), one.item.answer, one.item.verifier)
            for text, one in zip(texts, samples, strict=True)
        ],
        [row_of(one.item) for one in samples],
    )
    return [
        (
            one.item.id,
            one.sample,
            JudgedSample(
                text,
                judgement.answer,
                judgement.verdict,
                one.completion.prompt_tokens,
                one.completion.completion_tokens,
                one.completion.finish_reason,
                model,
                one.seed,
            ),
        )
        for one, text, judgement in zip(samples, texts, judgements, strict=True)
    ]
